//! How a catalog lies in its table: the names of attributes, what stands in the two keys, and the shards of the index.
//!
//! Rows stand at (`original_key`, `copy_key`). What is no row has a reserved sort key: a key's tombstone in the key's own
//! partition, state and leases of the policy in the partition `afterimage`. Policies that share a table each have a prefix,
//! which stands before every partition key *and* every status: `<prefix>:<original key>`, `<prefix>:disowned#3`. So neither
//! the keys nor the index of one policy hold anything of another's. Pure.

use engine::limits::{INDEX_SHARDS_MAX, TABLE_PREFIX_BYTES_MAX};
use engine::ports::catalog::Indexed;
use lifecycle::ids::{CopyKey, ObjectKey};

/// Version of the layout of rows, tombstones and state.
pub(super) const FORMAT: u32 = 1;

/// The index of what is due.
pub(super) const INDEX: &str = "status-disowned_at-index";
/// Partition key (S).
pub(super) const ORIGINAL_KEY: &str = "original_key";
/// Sort key (S).
pub(super) const COPY_KEY: &str = "copy_key";
/// Partition key of the index (S).
pub(super) const STATUS: &str = "status";
/// Sort key of the index (N, Unix ms). Absent in active rows, so that the index is sparse.
pub(super) const DISOWNED_AT: &str = "disowned_at";
/// Unix seconds: when the service itself may delete a tombstone.
pub(super) const EXPIRES_AT: &str = "expires_at";
pub(super) const CREATED_AT: &str = "created_at";
pub(super) const REMOVED_AT: &str = "removed_at";
pub(super) const REASON: &str = "reason";
pub(super) const ORDER: &str = "order";
pub(super) const FLOATING: &str = "floating";
pub(super) const ORIGIN: &str = "origin";
pub(super) const REV: &str = "rev";
pub(super) const VERSION_ID: &str = "version_id";
pub(super) const ETAG: &str = "etag";
pub(super) const SIZE: &str = "size";
pub(super) const CHECKSUM: &str = "checksum";
pub(super) const STORAGE_CLASS: &str = "storage_class";
pub(super) const FORMAT_OF: &str = "format";

/// Sort key of a key's tombstone.
pub(super) const TOMBSTONE: &str = "\u{1}tombstone";
/// Sort key of the policy's state.
pub(super) const STATE: &str = "\u{1}state";
/// Sort keys of leases begin so.
pub(super) const LEASE: &str = "\u{1}lease:";
/// The partition of state and leases.
const POLICY: &str = "afterimage";

/// What a status says, without prefix and shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// An active row that no time makes due; it does not stand in the index.
    Active,
    /// An active row with the time at which it becomes surplus.
    Surplus,
    /// A disowned row.
    Disowned,
    /// A tombstone, by the time it was noted.
    Removed,
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Word::Active => "active",
            Word::Surplus => "surplus",
            Word::Disowned => "disowned",
            Word::Removed => "removed",
        }
    }

    /// The word of that part of the index.
    pub(super) fn indexed(what: Indexed) -> Word {
        match what {
            Indexed::Disowned => Word::Disowned,
            Indexed::Surplus => Word::Surplus,
            Indexed::Removed => Word::Removed,
        }
    }
}

/// What is wrong with the settings of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLayout {
    #[error("`index_shards` is {0}: write 1 to {INDEX_SHARDS_MAX}")]
    Shards(u32),
    #[error(
        "the key prefix `{0}` has other characters than letters, digits, `-`, `_` and `.`, or not 1 to {TABLE_PREFIX_BYTES_MAX}"
    )]
    Prefix(String),
}

/// The layout of one policy's catalog.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `<prefix>:`, or nothing.
    prefix: String,
    shards: u32,
}

impl Layout {
    /// Checks the settings.
    pub(super) fn new(prefix: Option<&str>, shards: u32) -> Result<Layout, BadLayout> {
        if !(1..=INDEX_SHARDS_MAX).contains(&shards) {
            return Err(BadLayout::Shards(shards));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match prefix {
            None => Ok(Layout { prefix: String::new(), shards }),
            // No prefix holds the colon that ends it, so that no two policies can ever meet in one key.
            Some(text) if (1..=TABLE_PREFIX_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) => {
                Ok(Layout { prefix: format!("{text}:"), shards })
            }
            Some(text) => Err(BadLayout::Prefix(text.to_owned())),
        }
    }

    /// Whether other policies may stand in the same table.
    pub(super) fn is_shared(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// How many shards new entries of the index are spread over.
    pub(super) fn shards(&self) -> u32 {
        self.shards
    }

    /// A key's partition.
    pub(super) fn partition(&self, original: &ObjectKey) -> String {
        format!("{}{original}", self.prefix)
    }

    /// The key of a partition; `None`: it is none of this policy's.
    pub(super) fn original(&self, partition: &str) -> Option<ObjectKey> {
        ObjectKey::new(partition.strip_prefix(&self.prefix)?).ok()
    }

    /// The partition of the policy's state and leases.
    pub(super) fn policy(&self) -> String {
        format!("{}{POLICY}", self.prefix)
    }

    /// The status that a row or tombstone of that key gets.
    pub(super) fn status(&self, word: Word, original: &ObjectKey) -> String {
        if word == Word::Active || self.shards == 1 {
            return self.plain(word);
        }
        let mut hash = crc64fast_nvme::Digest::new();
        hash.write(original.as_str().as_bytes());
        self.sharded(word, (hash.sum64() % u64::from(self.shards)) as u32)
    }

    /// Every status under which such entries may stand, when so many shards were ever used: those of a table that began
    /// with one shard, or with fewer, are found, too.
    pub(super) fn statuses(&self, word: Word, ever: u32) -> Vec<String> {
        let shards = if ever > 1 { 0..ever } else { 0..0 };
        std::iter::once(self.plain(word)).chain(shards.map(|shard| self.sharded(word, shard))).collect()
    }

    /// A status without a shard: `active`, and what every sharded status of that word begins with.
    pub(super) fn plain(&self, word: Word) -> String {
        format!("{}{}", self.prefix, word.text())
    }

    fn sharded(&self, word: Word, shard: u32) -> String {
        format!("{}{}#{shard}", self.prefix, word.text())
    }

    /// What a status says; `None`: it is none of this policy's.
    pub(super) fn word(&self, status: &str) -> Option<Word> {
        let own = status.strip_prefix(&self.prefix)?;
        let (word, shard) = own.split_once('#').map_or((own, None), |(word, shard)| (word, Some(shard)));
        if shard.is_some_and(|shard| shard.parse::<u32>().is_err()) {
            return None;
        }
        [Word::Active, Word::Surplus, Word::Disowned, Word::Removed].into_iter().find(|known| known.text() == word)
    }

    /// Whether an item of that key's partition is something of the policy rather than a copy's row.
    pub(super) fn is_of_policy(&self, original: &ObjectKey, sort: &str) -> bool {
        original.as_str() == POLICY && (sort == STATE || sort.starts_with(LEASE))
    }

    /// Whether a row may not have this copy key, because something else has its place. Copy keys end in their time, so
    /// only a mirror of an object with such an odd key can meet this.
    pub(super) fn is_reserved(&self, original: &ObjectKey, copy_key: &CopyKey) -> bool {
        copy_key.as_str() == TOMBSTONE || self.is_of_policy(original, copy_key.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        for shards in [0, INDEX_SHARDS_MAX + 1] {
            assert_eq!(Layout::new(None, shards).unwrap_err(), BadLayout::Shards(shards));
        }
        for prefix in ["", "a:b", "a b", "é", &"x".repeat(TABLE_PREFIX_BYTES_MAX + 1)] {
            assert_eq!(Layout::new(Some(prefix), 1).unwrap_err(), BadLayout::Prefix(prefix.to_owned()));
        }
    }

    #[test]
    fn a_shard_is_stable_and_every_shard_is_used_and_read() {
        let layout = Layout::new(Some("p"), 4).unwrap();
        let status = layout.status(Word::Disowned, &key("photos/1.jpg"));
        assert_eq!(status, "p:disowned#1", "a table's rows are found by this: it must never change");
        let used: std::collections::BTreeSet<String> =
            (0..100).map(|n| layout.status(Word::Removed, &key(&format!("k{n}")))).collect();
        assert_eq!(used.len(), 4);
        let read = layout.statuses(Word::Removed, 4);
        assert!(used.iter().all(|status| read.contains(status)));
        assert!(read.contains(&"p:removed".to_owned()), "what stood there before it was sharded");
        assert_eq!(layout.status(Word::Active, &key("k")), "p:active");
        assert_eq!(Layout::new(None, 1).unwrap().statuses(Word::Surplus, 1), ["surplus"]);
    }

    #[test]
    fn words_read_back_and_those_of_others_do_not() {
        let layout = Layout::new(Some("p"), 9).unwrap();
        for word in [Word::Active, Word::Surplus, Word::Disowned, Word::Removed] {
            assert_eq!(layout.word(&layout.status(word, &key("k"))), Some(word));
        }
        for other in ["disowned", "q:disowned", "p:disowned#x", "p:gone", "p:", ""] {
            assert_eq!(layout.word(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_has_a_place_of_its_own_is_reserved() {
        let layout = Layout::new(None, 1).unwrap();
        let reserved = |original: &str, copy: &str| layout.is_reserved(&key(original), &CopyKey::of(key(copy)));
        assert!(
            reserved("any", TOMBSTONE) && reserved("afterimage", STATE) && reserved("afterimage", "\u{1}lease:clean")
        );
        assert!(!reserved("any", STATE) && !reserved("afterimage", "afterimage") && !reserved("any", "\u{1}"));
    }

    proptest! {
        #[test]
        fn policies_of_one_table_never_meet(a in "[a-z.]{1,3}", b in "[a-z.]{1,3}", k in ".{1,5}", l in ".{1,5}") {
            let (of_a, of_b) = (Layout::new(Some(&a), 1).unwrap(), Layout::new(Some(&b), 1).unwrap());
            let stored = of_a.partition(&key(&k));
            prop_assert_eq!(of_a.original(&stored), Some(key(&k)));
            if a != b {
                prop_assert!(stored != of_b.partition(&key(&l)));
                prop_assert_eq!(of_b.original(&stored), None);
            }
        }
    }
}
