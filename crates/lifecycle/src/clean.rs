//! The cleaner's rule: which disowned copies may go now.

use crate::policy::Rules;
use crate::row::{CopyRow, CopyState};
use crate::time::UnixMs;

/// Whether a copy's bytes may go: it is disowned, as surplus or with its grace over, and past its protection (I7).
pub fn may_purge(row: &CopyRow, rules: &Rules, now: UnixMs) -> bool {
    let CopyState::Disowned { at, reason } = row.state else { return false };
    let grace_over = reason.is_surplus() || at.plus(rules.grace) <= now;
    grace_over && row.created_at.runs_until(rules.protect_for, now).is_none()
}

/// When a disowned copy may go, if nothing changes. `None` while it is active.
pub fn purge_due(row: &CopyRow, rules: &Rules) -> Option<UnixMs> {
    let CopyState::Disowned { at, reason } = row.state else { return None };
    let grace_ends = if reason.is_surplus() { at } else { at.plus(rules.grace) };
    Some(row.created_at.runs_until(rules.protect_for, grace_ends).unwrap_or(grace_ends))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guards::Guards;
    use crate::ids::{CopyKey, ObjectKey};
    use crate::keep::Keep;
    use crate::order::{Basis, Order};
    use crate::row::{Origin, Reason};
    use crate::time::SpanMs;
    use proptest::prelude::{Just, prop_assert_eq, prop_oneof, proptest};

    fn rules(protect_for: u64, grace: u64) -> Rules {
        Rules {
            basis: Basis::Sequencer,
            keep: Keep::last(1),
            protect_for: SpanMs(protect_for),
            grace: SpanMs(grace),
            breaker: None,
            guards: Guards::default(),
        }
    }

    fn row(created_at: i64, state: CopyState) -> CopyRow {
        CopyRow {
            copy_key: CopyKey::of(ObjectKey::new("copy").expect("short")),
            order: Order::lowest(Basis::Sequencer),
            floating: false,
            origin: Origin::Event,
            created_at: UnixMs(created_at),
            state,
            removed_at: None,
            version_id: None,
            etag: "tag".into(),
            size: 1,
            checksum: None,
            storage_class: None,
            rev: "1".into(),
        }
    }

    fn disowned(at: i64, reason: Reason) -> CopyState {
        CopyState::Disowned { at: UnixMs(at), reason }
    }

    #[test]
    fn grace_and_protection_end_to_the_millisecond() {
        for (state, protect_for, due) in [
            (disowned(100, Reason::Removed), 0, 150),
            (disowned(100, Reason::Absent), 0, 150),
            (disowned(100, Reason::BeyondKeep), 0, 100),
            (disowned(100, Reason::Twin), 0, 100),
            (disowned(100, Reason::BytesMissing), 0, 100),
            (disowned(100, Reason::BeyondKeep), 70, 150), // created at 80
            (disowned(100, Reason::Removed), 60, 150),
            (disowned(100, Reason::Removed), 90, 170),
        ] {
            let (row, rules) = (row(80, state), rules(protect_for, 50));
            assert_eq!(purge_due(&row, &rules), Some(UnixMs(due)), "{state:?}");
            assert!(may_purge(&row, &rules, UnixMs(due)), "{state:?}");
            assert!(due == 100 || !may_purge(&row, &rules, UnixMs(due - 1)), "{state:?}");
        }
    }

    #[test]
    fn active_copies_are_never_purged() {
        for due_at in [None, Some(UnixMs(0))] {
            let row = row(0, CopyState::Active { due_at });
            assert!(!may_purge(&row, &rules(0, 0), UnixMs(i64::MAX)));
            assert_eq!(purge_due(&row, &rules(0, 0)), None);
        }
    }

    #[test]
    fn a_copy_from_ahead_of_our_clock_is_held_only_by_a_protection() {
        let row = row(1_000, disowned(100, Reason::BeyondKeep));
        assert!(may_purge(&row, &rules(0, 50), UnixMs(100)));
        assert!(!may_purge(&row, &rules(1, 50), UnixMs(1_000)));
        assert!(may_purge(&row, &rules(1, 50), UnixMs(1_001)));
    }

    proptest! {
        /// What `history` announces is what the cleaner does.
        #[test]
        fn a_copy_may_go_exactly_from_its_due_time_on(
            created in 0i64..1_000, disowned_after in 0i64..1_000, later in 0i64..3_000, grace in 0u64..500,
            protect_for in 0u64..500,
            reason in prop_oneof![Just(Reason::Removed), Just(Reason::BeyondKeep), Just(Reason::Twin)],
        ) {
            let row = row(created, disowned(created + disowned_after, reason));
            let (rules, now) = (rules(protect_for, grace), UnixMs(created + disowned_after + later));
            prop_assert_eq!(may_purge(&row, &rules, now), purge_due(&row, &rules).is_some_and(|due| due <= now));
        }
    }
}
