//! One suite per port: what every adapter of it must do, whatever it stands on.
//!
//! Each suite takes a way to make a fresh adapter and panics with what is wrong. Memory runs them in this crate, the other
//! adapters in theirs. [`at_rest`] is the oracle over all of them together. Only built for tests (feature `testing`).

pub mod at_rest;
pub mod catalog;
pub mod events;
pub mod journal;
pub mod objects;

#[cfg(test)]
mod tests;
