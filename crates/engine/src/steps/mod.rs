//! Steps that several flows share.

pub mod adopt;
pub mod copy_rows;
pub mod journal_lines;
pub mod look;
pub mod purge;
