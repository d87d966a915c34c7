//! The real binary, end to end: as a person runs it, as a client uses it, and killed in the middle.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod crash;
mod dead_letters;
mod faults;
mod policies;
mod process;
mod s3;
mod signals;
mod transcripts;
