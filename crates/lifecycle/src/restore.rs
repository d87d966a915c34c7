//! Which copy a restore takes.

use crate::ids::CopyKey;
use crate::row::{self, CopyRow, CopyState};
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
/// "As of T" takes the copy with the greatest order among those created by T, unless the key stood removed at T. Where
/// retention has thinned out the version that was current at T, that is the next older one: the nearest that is left.
pub fn select<'a>(rows: &'a [CopyRow], wanted: &Wanted) -> Selection<'a> {
    let mut newest_first: Vec<&CopyRow> = rows.iter().collect();
    newest_first.sort_by(|a, b| row::newest_first(a, b));
    match wanted {
        Wanted::Newest => {}
        Wanted::Copy(copy_key) => newest_first.retain(|row| row.copy_key == *copy_key),
        Wanted::At(t) => {
            newest_first.retain(|row| row.created_at <= *t);
            if let Some(removed_at) = newest_first.first().and_then(|row| absent_at(row, *t)) {
                return Selection::NotThere { removed_at };
            }
        }
    }
    if newest_first.is_empty() { Selection::NoCopy } else { Selection::Take(newest_first) }
}

/// When the removal was that still held at `t`, if one did. An undeleted copy keeps the time of the removal that it
/// undid, so that the gap between the two is known.
fn absent_at(row: &CopyRow, t: UnixMs) -> Option<UnixMs> {
    let removed_at = row.removed_at.filter(|removed_at| *removed_at <= t)?;
    match (row.state, row.undeleted_at()) {
        (CopyState::Disowned { .. }, _) => Some(removed_at),
        (CopyState::Active { .. }, Some(undeleted_at)) if t < undeleted_at => Some(removed_at),
        (CopyState::Active { .. }, _) => None,
    }
}
