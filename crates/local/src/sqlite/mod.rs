//! SQLite: how every database of this machine is opened, written and read.
//!
//! One writer per database commits in groups ([`writer`]), readers work beside it ([`readers`]), and every error of the
//! library becomes a port's error in one file ([`error_map`]).

pub mod catalog;
mod checkpoint;
pub mod error_map;
pub mod open;
pub mod readers;
pub mod writer;

#[cfg(test)]
mod tests;
