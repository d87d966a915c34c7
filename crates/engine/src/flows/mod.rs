//! The flows, one file per verb. Each loads what it needs, calls one rule of `lifecycle`, and applies what it says.

pub mod archive;
pub mod backfill;
pub mod breaker;
pub mod clean;
pub mod disown;
pub mod enable_archive;
pub mod find_record;
pub mod follow;
pub mod handle;
pub mod mirror;
pub mod pack;
pub mod reconcile;
pub mod reconcile_slice;
pub mod redrive_records;
pub mod release;
pub mod replicate;
pub mod resolve;
pub mod restore;
pub mod restore_records;
pub mod retrieve;
pub mod scan;
pub mod self_test;
pub mod settle;
pub mod soft_delete;
pub mod tier_archive;
pub mod undelete;
