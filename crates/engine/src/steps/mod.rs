//! Steps that several flows share.

pub mod adopt;
pub mod archived_names;
pub mod aside;
pub mod away;
pub mod by_original;
pub mod condition;
pub mod copy_rows;
pub(crate) mod hold;
pub mod journal_lines;
pub mod json_object;
pub mod keys;
pub mod look;
pub mod met;
pub mod originals;
pub mod outbox;
pub mod packs;
pub mod purge;
pub mod put_back;
pub mod record_keys;
pub mod shard_places;
pub mod verify;
