//! The real binary, end to end: as a person runs it, as a client uses it, and killed in the middle.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod crash;
mod dead_letters;
#[path = "../../../aws/tests/emulator/mod.rs"]
mod emulator;
mod faults;
mod feeds;
mod own_tables;
mod ownership;
mod packs;
mod policies;
mod process;
mod proxy;
mod record_letters;
mod records;
mod retrieval;
mod s3;
mod services;
mod shards;
mod signals;
mod split_stream;
mod storms;
mod tables;
mod transcripts;
