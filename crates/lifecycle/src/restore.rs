//! Which copy a restore takes.

use crate::ids::CopyKey;
use crate::row::{self, CopyRow, CopyState, Reason};
use crate::time::UnixMs;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest copy there is, whatever became of the original.
    Newest,
    /// What was current at that moment.
    At(UnixMs),
    /// This copy.
    Copy(CopyKey),
}

/// The answer for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection<'a> {
    /// Take the first; the others, next older first, are what to offer if its bytes are damaged.
    Take(Vec<&'a CopyRow>),
    /// The key had no content at that moment: it had been removed by then.
    NotThere {
        /// When it had been removed.
        removed_at: UnixMs,
    },
    /// No copy is that old (or the named copy is not there).
    NoCopy,
}

/// Selects among all copies of one key that the catalog still has, disowned ones included.
///
/// "As of T" takes the copy with the greatest order among those created by T, unless the key stood removed at T: a version
/// was current from its creation until the next one's, or until its removal. Where retention has thinned out the version
/// that was current at T, that is the next older one: the nearest that is left. Copies that are known to have no bytes are
/// never taken.
pub fn select<'a>(rows: &'a [CopyRow], wanted: &Wanted) -> Selection<'a> {
    let mut found = newest_first(rows);
    match wanted {
        Wanted::Newest => found.retain(|row| has_bytes(row)),
        Wanted::Copy(copy_key) => found.retain(|row| row.copy_key == *copy_key),
        Wanted::At(t) => {
            found.retain(|row| has_bytes(row) && row.created_at <= *t);
            // A stable sort: witnesses of that time first, the others, newest first, only where nothing better is left.
            found.sort_by_key(|row| is_later_witness(row, *t));
            if let Some(removed_at) = found.first().and_then(|row| absent_at(row, *t)) {
                return Selection::NotThere { removed_at };
            }
        }
    }
    if found.is_empty() { Selection::NoCopy } else { Selection::Take(found) }
}

/// By order; by creation where the rows' orders have no common basis (the source's kind was changed).
fn newest_first(rows: &[CopyRow]) -> Vec<&CopyRow> {
    let mut found: Vec<&CopyRow> = rows.iter().collect();
    if rows.windows(2).all(|pair| pair[0].order.basis() == pair[1].order.basis()) {
        found.sort_by(|a, b| row::newest_first(a, b));
    } else {
        found.sort_by(|a, b| (b.created_at, &b.copy_key).cmp(&(a.created_at, &a.copy_key)));
    }
    found
}

fn has_bytes(row: &CopyRow) -> bool {
    !matches!(row.state, CopyState::Disowned { reason: Reason::BytesMissing, .. })
}

/// A copy that `undelete` made after `t` and that was disowned again: the second removal has taken the place of the first,
/// so that it cannot tell any more whether the key stood removed at `t`. The copies from before that can.
fn is_later_witness(row: &CopyRow, t: UnixMs) -> bool {
    !row.is_active() && row.undeleted_at().is_some_and(|undeleted_at| t < undeleted_at)
}

/// When the removal was that still held at `t`, if one did. An active undeleted copy keeps the time of the removal that it
/// undid, so that the gap between the two is known.
fn absent_at(row: &CopyRow, t: UnixMs) -> Option<UnixMs> {
    let removed_at = row.removed_at.filter(|removed_at| *removed_at <= t)?;
    match (row.state, row.undeleted_at()) {
        (CopyState::Disowned { .. }, _) => Some(removed_at),
        (CopyState::Active { .. }, Some(undeleted_at)) if t < undeleted_at => Some(removed_at),
        (CopyState::Active { .. }, _) => None,
    }
}
