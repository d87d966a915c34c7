//! Adapters of Afterimage to AWS and to services that speak its protocols.
//!
//! Place: behind the engine's ports, beside `crates/local`. Laws kept here are named at the head of each module.

pub mod dynamodb;
mod error_map;
mod gather;
mod here;
pub mod limits;
pub mod parse;
mod s3;
mod service;
mod services;
mod sqs;
mod streams;
mod webhook;

pub use aws_config::SdkConfig;
pub use here::AnswersHere;
pub use s3::{CopySizes, S3Bucket};
pub use service::Service;
pub use services::{Services, copies_per_key};
pub use sqs::{
    DeadLetterQueue, Holds as QueueHolds, QueueFeed, QueueLetter, Reason as DeadLetterReason, Settings as SqsSettings,
    SqsQueue,
};
pub use streams::DynamoDbStream;
pub use webhook::{HttpWebhook, WebhookSecret};
