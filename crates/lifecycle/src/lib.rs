//! The rules of Afterimage, and nothing else: which copy an event makes, which copies are kept, disowned and purged,
//! what a mirror needs to be equal, when a breaker trips, which copy a restore takes.
//!
//! Everything here is a pure function of its arguments. There is no I/O, no clock, no randomness, no async runtime, no
//! serialization and no logging, and CI asserts that by the manifest. The effects live in `engine`, one flow per rule,
//! under the same names.

pub mod archive;
pub mod breaker;
pub mod clean;
pub mod copy_key;
pub mod event;
pub mod guards;
pub mod ids;
pub mod keep;
pub mod mirror;
pub mod order;
pub mod policy;
pub mod restore;
pub mod row;
pub mod settle;
pub mod time;
