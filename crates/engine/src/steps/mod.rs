//! Steps that several flows share.

pub mod purge;
