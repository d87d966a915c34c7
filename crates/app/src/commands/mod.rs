//! The commands, one file per verb.

pub(crate) mod archive;
mod archive_drop;
pub(crate) mod archive_enable;
mod archive_query;
pub(crate) mod archive_self_test;
pub(crate) mod archive_tiers;
pub(crate) mod audit;
pub(crate) mod backfill;
pub(crate) mod clean;
pub(crate) mod config_check;
pub(crate) mod credentials;
pub(crate) mod dead_letters;
mod feed_status;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod ls;
mod queue_letters;
pub(crate) mod reconcile;
pub(crate) mod record;
mod record_letters;
pub(crate) mod release;
pub(crate) mod restore;
mod retrieval;
pub(crate) mod status;
mod table_named;
pub(crate) mod undelete;
