//! Flow tests on recorded calls, a file per flow, and the traces behind each guard of the protocol (`docs/invariants.md`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test says what is wrong")]

#[path = "../world/mod.rs"]
mod world;

mod archive;
mod backfill;
mod clean;
mod damaged_packs;
mod disown;
mod driver;
mod feed;
mod follow;
mod guards;
mod mirror;
mod pack;
mod reconcile;
mod reconcile_slice;
mod redrive_records;
mod replicate;
mod resolve;
mod restore;
mod restore_records;
mod retrieve;
mod retry;
mod self_test;
mod settle;
mod soft_delete;
mod undelete;
