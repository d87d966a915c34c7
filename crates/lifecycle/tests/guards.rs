//! The guards that the rules themselves hold: each trace ends well with its guard, and badly without it. (The guards that
//! flows hold are taken out in the engine's simulation.) Runs with the feature `sabotage` only.

#![cfg(feature = "sabotage")]
#![allow(clippy::unwrap_used)] // helpers of tests, too, fail by panicking

use lifecycle::event::{Current, Look, Version};
use lifecycle::guards::{Guard, Guards};
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::keep::Keep;
use lifecycle::order::{Basis, Order};
use lifecycle::policy::Rules;
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Tombstone};
use lifecycle::settle::{Ask, Step, next_step};
use lifecycle::time::{SpanMs, UnixMs};

fn row(name: &str, order: Order) -> CopyRow {
    CopyRow {
        copy_key: CopyKey::of(ObjectKey::new(name).unwrap()),
        order,
        floating: false,
        origin: Origin::Event,
        created_at: UnixMs(1),
        state: CopyState::Active { due_at: None },
        removed_at: None,
        version_id: None,
        etag: name.into(),
        size: 1,
        checksum: None,
        storage_class: None,
        rev: "1".into(),
    }
}

/// Whether settling, with all guards or without one, gives up the copy of what the source has now.
fn gives_up_current(partition: &Partition, basis: Basis, without: Option<Guard>) -> bool {
    let guards = without.map_or_else(Guards::default, Guards::without);
    let (keep, protect_for, grace) = (Keep::last(1), SpanMs::ZERO, SpanMs(10));
    let rules = Rules { basis, keep, protect_for, grace, breaker: None, guards };
    let version = Version { version_id: None, etag: "current".into(), size: 1 };
    let look = Look::Present(Current { version, last_modified: UnixMs(1), checksum: None });
    let step = match next_step(partition, &Ask::BY_FACTS, None, &rules, UnixMs(100)) {
        Step::Look => next_step(partition, &Ask::BY_FACTS, Some(&look), &rules, UnixMs(100)),
        step => step,
    };
    let Step::Apply(verdicts) = step else { panic!("{step:?}") };
    verdicts.disown.iter().any(|verdict| verdict.copy_key.as_str() == "current")
}

fn seq(hex: &str) -> Order {
    Order::from_sequencer(hex).unwrap()
}

#[test]
fn sabotage_of_guard_4_a_clock_that_stepped_back_does_not_prune_the_current_content() {
    let put_at = |name, ms| row(name, Order::from_time(UnixMs(ms)));
    let partition = Partition { rows: vec![put_at("older", 10), put_at("current", 9)], tombstone: None };
    assert!(!gives_up_current(&partition, Basis::Time, None));
    assert!(gives_up_current(&partition, Basis::Time, Some(Guard::LookWhenTimeOrdered)));
}

#[test]
fn sabotage_of_guard_6_a_late_older_event_does_not_prune_what_a_look_copied() {
    // Put 1; put 2 and put 3, whose events are late; a look copies 3 above 1; then the event of put 2 arrives.
    let looked = CopyRow { floating: true, origin: Origin::Look, ..row("current", seq("1").next_sub()) };
    let partition = Partition { rows: vec![looked, row("older", seq("2"))], tombstone: None };
    assert!(!gives_up_current(&partition, Basis::Sequencer, None));
    assert!(gives_up_current(&partition, Basis::Sequencer, Some(Guard::FloatingLooks)));
}

#[test]
fn sabotage_of_guard_9_the_late_event_of_the_removal_does_not_take_back_what_undelete_brought() {
    // Undelete took its order above what was known; the removal that it undid was still on its way, with a higher one.
    let back = CopyRow { origin: Origin::Undelete { at: UnixMs(50) }, ..row("current", seq("1").next_sub()) };
    let tombstone = Some(Tombstone { order: seq("2"), time: UnixMs(40), noted_at: UnixMs(60), floating: false });
    let partition = Partition { rows: vec![back], tombstone };
    assert!(!gives_up_current(&partition, Basis::Sequencer, None));
    assert!(gives_up_current(&partition, Basis::Sequencer, Some(Guard::UndeleteOutlivesOldRemovals)));
}
