//! The real functions, each in a process of its own behind a small Runtime API, with the S3, DynamoDB, SQS and SSM of an
//! emulator. `cargo xtask ci aws` installs it; ignored otherwise.

#![expect(clippy::unwrap_used, reason = "a panic is a test's message")]

mod cleaner;
mod cloud;
#[path = "../../../aws/tests/emulator/mod.rs"]
mod emulator;
mod harness;
mod records;
mod replicator;
