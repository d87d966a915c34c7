//! Catalog rows, tombstones, and what a handler reads before it decides: the partition of one key.

use crate::event::Version;
use crate::ids::{Checksum, CopyKey, ETag, Rev, VersionId};
use crate::order::{Basis, Order};
use crate::time::UnixMs;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// One copy of one version of an original: the catalog's row, without its partition key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRow {
    /// The copy's name in the destination.
    pub copy_key: CopyKey,
    /// Where the version stands among the versions of its key.
    pub order: Order,
    /// The order is only a lower bound: never judged without a look (V5).
    pub floating: bool,
    /// What made this copy.
    pub origin: Origin,
    /// When the version was created at the source (event time).
    pub created_at: UnixMs,
    /// How the copy stands. Only ever moves forward.
    pub state: CopyState,
    /// When the original was removed, by the event's time: answers "as of T".
    pub removed_at: Option<UnixMs>,
    /// The version id at the source, where it has versions. `None` for copies made by `undelete`.
    pub version_id: Option<VersionId>,
    /// The entity tag of the content at the source.
    pub etag: ETag,
    /// Size in bytes.
    pub size: u64,
    /// CRC-64/NVME over the whole object, where known.
    pub checksum: Option<Checksum>,
    /// The destination's storage class, where it has any.
    pub storage_class: Option<String>,
    /// Changed by every write of the row.
    pub rev: Rev,
}

/// What made a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An event of the source.
    Event,
    /// A look: the source's current content had no copy.
    Look,
    /// `undelete`, at that moment.
    Undelete {
        /// When the copy was brought back.
        at: UnixMs,
    },
}

/// How a copy stands: `active` → `disowned` → gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Counts against the retention rule. Stored as `active`, or as `surplus` with the time in `disowned_at` when a rule
    /// that depends on time makes it due without any event.
    Active {
        /// When it becomes surplus, if time alone does that.
        due_at: Option<UnixMs>,
    },
    /// Given up; bytes go when the reason is surplus, or when the grace has passed.
    Disowned {
        /// Time of handling, not of the event: a backlog must not eat the grace.
        at: UnixMs,
        /// Why.
        reason: Reason,
    },
}

/// Why a copy was disowned. Shown to people, stored in the row and in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The source said that the object was removed.
    Removed,
    /// A look found no current object.
    Absent,
    /// The retention rule has no place for it.
    BeyondKeep,
    /// A newer row is a copy of the same content.
    Twin,
    /// The row has no bytes (found by `reconcile`).
    BytesMissing,
}

impl Reason {
    /// Surplus copies are purged at once; the others wait for the grace.
    pub fn is_surplus(self) -> bool {
        match self {
            Reason::BeyondKeep | Reason::Twin | Reason::BytesMissing => true,
            Reason::Removed | Reason::Absent => false,
        }
    }

    /// The word in rows, journal and `--json`.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Removed => "removed",
            Reason::Absent => "absent",
            Reason::BeyondKeep => "surplus:beyond-keep",
            Reason::Twin => "surplus:twin",
            Reason::BytesMissing => "surplus:bytes-missing",
        }
    }
}

impl fmt::Display for Reason {
    /// A sentence for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Removed => "the original was deleted",
            Reason::Absent => "the original is not in the source any more",
            Reason::BeyondKeep => "more copies than the policy keeps",
            Reason::Twin => "a newer copy has the same content",
            Reason::BytesMissing => "the copy's bytes were not in the destination",
        })
    }
}

/// The text is no reason's code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no reason that this version knows")]
pub struct BadReason(pub String);

impl FromStr for Reason {
    type Err = BadReason;

    fn from_str(code: &str) -> Result<Reason, BadReason> {
        [Reason::Removed, Reason::Absent, Reason::BeyondKeep, Reason::Twin, Reason::BytesMissing]
            .into_iter()
            .find(|reason| reason.code() == code)
            .ok_or_else(|| BadReason(code.to_owned()))
    }
}

impl CopyRow {
    /// Still counts as a copy of the policy.
    pub fn is_active(&self) -> bool {
        matches!(self.state, CopyState::Active { .. })
    }

    /// When it was brought back, if `undelete` made it.
    pub fn undeleted_at(&self) -> Option<UnixMs> {
        match self.origin {
            Origin::Undelete { at } => Some(at),
            Origin::Event | Origin::Look => None,
        }
    }

    /// `undelete` made it from that copy, or from one of the same version: it keeps its time of creation and its content.
    pub fn is_brought_back_from(&self, other: &CopyRow) -> bool {
        self.undeleted_at().is_some() && self.created_at == other.created_at && self.has_content_of(other)
    }

    /// The two rows' versions have the same content: by size and checksum where both have one, since the tag of what was
    /// uploaded in parts changes when it is put back; else by size and tag.
    pub fn has_content_of(&self, other: &CopyRow) -> bool {
        match (self.checksum, other.checksum) {
            (Some(mine), Some(theirs)) => mine == theirs && self.size == other.size,
            _ => self.has_tag_of(other),
        }
    }

    /// The two rows' versions have the same tag and size, as have two copies of one version.
    pub fn has_tag_of(&self, other: &CopyRow) -> bool {
        self.etag == other.etag && self.size == other.size
    }

    /// Is a copy of this content: by version id where both have one, else by tag and size.
    pub fn matches(&self, version: &Version) -> bool {
        match (&self.version_id, &version.version_id) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.etag == version.etag && self.size == version.size,
        }
    }
}

/// The newest removal known of a key. Kept 14 days, longer than any redelivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The removal's order: rows at or below it are removed.
    pub order: Order,
    /// The removal's time, by its event.
    pub time: UnixMs,
    /// When it was noted here: what the breaker counts.
    pub noted_at: UnixMs,
    /// Only a look has seen the removal: its order is a lower bound. Versions above it may have been removed with it, so
    /// that none of them counts as there without a look (V5).
    pub floating: bool,
}

impl Tombstone {
    /// What remains of two that were noted of one key, `None`: the one that is there. The newer removal stands; that only
    /// a look has seen one of them is never forgotten with the older one. One removal keeps the time at which it was noted
    /// first, or an old one would count as news for the breaker and for "undelete since".
    pub fn replaces(&self, there: Option<&Tombstone>) -> Option<Tombstone> {
        let Some(there) = there else { return Some(*self) };
        let floating = self.floating || there.floating;
        match self.order.partial_cmp(&there.order) {
            Some(Ordering::Less) => None,
            Some(Ordering::Equal) => (self.floating && !there.floating).then_some(Tombstone { floating, ..*there }),
            Some(Ordering::Greater) => Some(Tombstone { floating, ..*self }),
            None => Some(*self),
        }
    }
}

/// All that the catalog holds of one key, read with strong consistency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// The rows, in no promised order.
    pub rows: Vec<CopyRow>,
    /// The newest removal, if any is remembered.
    pub tombstone: Option<Tombstone>,
}

impl Partition {
    /// The same partition with every order in the policy's basis. A row of another basis (the source's kind was changed)
    /// has no order that can be trusted: it floats, at the bottom. A tombstone of another basis says nothing.
    pub fn in_basis(mut self, basis: Basis) -> Partition {
        for row in &mut self.rows {
            if row.order.basis() != basis {
                row.order = Order::lowest(basis);
                row.floating = true;
            }
        }
        self.tombstone = self.tombstone.filter(|tombstone| tombstone.order.basis() == basis);
        self
    }

    /// [`Partition::in_basis`] without a copy where nothing differs, which is the rule.
    pub(crate) fn seen_in(&self, basis: Basis) -> Cow<'_, Partition> {
        let mut orders = self.rows.iter().map(|row| row.order).chain(self.tombstone.map(|tombstone| tombstone.order));
        match orders.all(|order| order.basis() == basis) {
            true => Cow::Borrowed(self),
            false => Cow::Owned(self.clone().in_basis(basis)),
        }
    }

    /// The greatest order of all rows and the tombstone. `None` for an empty partition; in no basis in particular where
    /// they differ.
    pub fn greatest_order(&self) -> Option<Order> {
        let rows = self.rows.iter().map(|row| row.order);
        rows.chain(self.tombstone.map(|tombstone| tombstone.order)).reduce(newer)
    }
}

/// Sorts rows of one partition by order, the newest first. Rows of different bases, which only a partition that was not
/// brought in one ([`Partition::in_basis`]) can hold, stand apart: their orders say nothing about each other (V9).
pub fn newest_first(a: &CopyRow, b: &CopyRow) -> Ordering {
    let apart = |row: &CopyRow| row.order.basis() == Basis::Time;
    let by_order = b.order.partial_cmp(&a.order).unwrap_or_else(|| apart(a).cmp(&apart(b)));
    by_order.then_with(|| b.copy_key.cmp(&a.copy_key))
}

/// The greater of two orders of one basis.
pub(crate) fn newer(a: Order, b: Order) -> Order {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ObjectKey;

    fn row(name: &str, order: Order) -> CopyRow {
        CopyRow {
            copy_key: CopyKey::of(ObjectKey::new(name).expect("short")),
            order,
            floating: false,
            origin: Origin::Event,
            created_at: UnixMs(1),
            state: CopyState::Active { due_at: None },
            removed_at: None,
            version_id: Some("v1".into()),
            etag: "tag".into(),
            size: 3,
            checksum: None,
            storage_class: None,
            rev: "1".into(),
        }
    }

    #[test]
    fn reasons_read_back_from_their_codes_and_only_surplus_needs_no_grace() {
        let all = [Reason::Removed, Reason::Absent, Reason::BeyondKeep, Reason::Twin, Reason::BytesMissing];
        for reason in all {
            assert_eq!(reason.code().parse(), Ok(reason));
            assert_eq!(reason.code().starts_with("surplus:"), reason.is_surplus());
        }
        assert_eq!("surplus".parse::<Reason>(), Err(BadReason("surplus".to_owned())));
    }

    #[test]
    fn rows_of_another_basis_float_at_the_bottom_and_their_tombstone_says_nothing() {
        let order = |hex| Order::from_sequencer(hex).expect("hex");
        let time = Order::from_time(UnixMs(9));
        let removed = |order| Tombstone { order, time: UnixMs(9), noted_at: UnixMs(9), floating: false };
        let mixed = Partition { rows: vec![row("a", order("5")), row("b", time)], tombstone: Some(removed(time)) };

        let seen = mixed.clone().in_basis(Basis::Sequencer);
        assert_eq!(seen.rows[0], mixed.rows[0]);
        assert_eq!((seen.rows[1].order, seen.rows[1].floating), (Order::lowest(Basis::Sequencer), true));
        assert_eq!(seen.tombstone, None);
        assert_eq!(*mixed.seen_in(Basis::Sequencer), seen);
        assert_eq!(seen.greatest_order(), Some(order("5")));

        let pure = Partition { tombstone: Some(removed(order("7"))), ..seen };
        assert!(matches!(pure.seen_in(Basis::Sequencer), Cow::Borrowed(_)));
        assert_eq!(pure.greatest_order(), Some(order("7")), "a tombstone counts too");
        assert_eq!(Partition::default().greatest_order(), None);
    }

    #[test]
    fn content_is_compared_by_version_id_where_both_have_one_else_by_tag_and_size() {
        let row = row("a", Order::lowest(Basis::Sequencer));
        let version =
            |id: Option<&str>, tag: &str, size| Version { version_id: id.map(VersionId::from), etag: tag.into(), size };
        assert!(row.matches(&version(Some("v1"), "other", 9)));
        assert!(!row.matches(&version(Some("v2"), "tag", 3)), "the same bytes put again are another version");
        assert!(row.matches(&version(None, "tag", 3)));
        assert!(!row.matches(&version(None, "tag", 4)));
        assert!(!row.matches(&version(None, "other", 3)));
    }

    #[test]
    fn contents_are_compared_by_checksum_where_both_rows_have_one_else_by_tag_and_always_by_size() {
        let of = |tag: &str, size, checksum: Option<u64>| CopyRow {
            etag: tag.into(),
            size,
            checksum: checksum.map(Checksum),
            ..row("a", Order::lowest(Basis::Sequencer))
        };
        let mine = of("of parts-2", 3, Some(7));
        for (theirs, same) in [
            (of("whole", 3, Some(7)), true),
            (of("of parts-2", 3, Some(8)), false),
            (of("whole", 4, Some(7)), false),
            (of("of parts-2", 3, None), true),
            (of("whole", 3, None), false),
            (of("of parts-2", 4, None), false),
        ] {
            assert_eq!((mine.has_content_of(&theirs), theirs.has_content_of(&mine)), (same, same), "{theirs:?}");
        }
    }
}
