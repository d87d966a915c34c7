//! Settling over arbitrary partitions, asks and looks: it comes to rest, stays there, and never gives up what it must not.
//! And over arbitrary histories: late, doubled and reordered events end alike.

#![allow(clippy::unwrap_used)] // helpers of tests, too, fail by panicking

use lifecycle::event::{Current, Look, Version};
use lifecycle::guards::Guards;
use lifecycle::ids::{CopyKey, ObjectKey, Rev, VersionId};
use lifecycle::keep::{Keep, Standing};
use lifecycle::order::{Basis, Order};
use lifecycle::policy::Rules;
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Reason, Tombstone};
use lifecycle::settle::{Ask, Step, Verdicts, next_step};
use lifecycle::time::{SpanMs, UnixMs};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeSet;

const NOW: UnixMs = UnixMs(60);
/// No partition of these tests takes more rounds to come to rest.
const ROUNDS: usize = 6;

fn order(basis: Basis, position: u8, sub: u32) -> Order {
    let order = match basis {
        Basis::Sequencer => Order::from_sequencer(&format!("{position:02x}")).unwrap(),
        Basis::Time => Order::from_time(UnixMs(position.into())),
    };
    (0..sub).fold(order, |order, _| order.next_sub())
}

fn copy_key(name: &str) -> CopyKey {
    CopyKey::of(ObjectKey::new(name).unwrap())
}

fn bases() -> impl Strategy<Value = Basis> {
    prop_oneof![Just(Basis::Sequencer), Just(Basis::Time)]
}

fn orders() -> impl Strategy<Value = Order> {
    // One in a while of the other basis, as after a change of the source's kind.
    (bases(), 0u8..8, 0u32..3).prop_map(|(basis, position, sub)| order(basis, position, sub))
}

fn states() -> impl Strategy<Value = CopyState> {
    let reasons = prop_oneof![Just(Reason::Removed), Just(Reason::Absent), Just(Reason::BeyondKeep)];
    prop_oneof![
        3 => option::of(0i64..100).prop_map(|at| CopyState::Active { due_at: at.map(UnixMs) }),
        1 => reasons.prop_map(|reason| CopyState::Disowned { at: UnixMs(50), reason }),
    ]
}

fn contents() -> impl Strategy<Value = Version> {
    (option::of(0u8..4), 0u8..3).prop_map(|(id, tag)| Version {
        version_id: id.map(|id| VersionId(format!("v{id}"))),
        etag: format!("tag{tag}").as_str().into(),
        size: 1,
    })
}

fn rows() -> impl Strategy<Value = CopyRow> {
    let origins = prop_oneof![
        Just(Origin::Event),
        Just(Origin::Look),
        (0i64..60).prop_map(|at| Origin::Undelete { at: UnixMs(at) })
    ];
    (orders(), any::<bool>(), origins, 0i64..70, states(), contents()).prop_map(
        |(order, floating, origin, created_at, state, content)| CopyRow {
            copy_key: copy_key("replaced"),
            order,
            floating,
            origin,
            created_at: UnixMs(created_at),
            state,
            removed_at: None,
            version_id: content.version_id,
            etag: content.etag,
            size: content.size,
            checksum: None,
            storage_class: None,
            rev: "0".into(),
        },
    )
}

fn partitions() -> impl Strategy<Value = Partition> {
    let tombstones = (orders(), 0i64..60).prop_map(|(order, at)| Tombstone {
        order,
        time: UnixMs(at),
        noted_at: UnixMs(at),
        floating: false,
    });
    (vec(rows(), 0..8), option::of(tombstones)).prop_map(|(mut rows, tombstone)| {
        for (n, row) in rows.iter_mut().enumerate() {
            row.copy_key = copy_key(&format!("copy{n}"));
        }
        Partition { rows, tombstone }
    })
}

fn asks() -> impl Strategy<Value = Ask> {
    (any::<bool>(), option::of(orders()), option::of((0i64..90).prop_map(UnixMs)), any::<bool>()).prop_map(
        |(force, event_order, event_time, unordered)| {
            let before_others = unordered;
            Ask { force, event_order, event_time, unordered, before_others }
        },
    )
}

fn looks() -> impl Strategy<Value = Look> {
    let current =
        (contents(), 0i64..60).prop_map(|(version, at)| Current { version, last_modified: UnixMs(at), checksum: None });
    prop_oneof![1 => Just(Look::Absent), 3 => current.prop_map(Look::Present)]
}

fn keeps() -> impl Strategy<Value = Keep> {
    let within = option::of((0u64..60).prop_map(SpanMs));
    (0u32..4, within, 0u32..3).prop_map(|(last, within, daily)| Keep { last, within, daily, ..Keep::default() })
}

fn all_rules() -> impl Strategy<Value = Rules> {
    (bases(), keeps(), 0u64..40).prop_map(|(basis, keep, protect_for)| Rules {
        basis,
        keep,
        protect_for: SpanMs(protect_for),
        grace: SpanMs(40),
        breaker: None,
        guards: Guards::default(),
    })
}

/// What the flow does with a step, on a partition in memory: every condition is met, nobody else writes.
fn carry_out(partition: &mut Partition, step: &Step) {
    let find = |rows: &mut Vec<CopyRow>, name: &CopyKey, rev: &Rev| {
        let place = rows.iter().position(|row| row.copy_key == *name).expect("a step names rows that are there");
        assert_eq!(rows[place].rev, *rev, "conditional on what was read");
        place
    };
    match step {
        Step::Look => {}
        Step::Bury(tombstone) => partition.tombstone = Some(*tombstone),
        Step::CopyCurrent { order, current } => partition.rows.push(CopyRow {
            copy_key: copy_key(&format!("looked{}", partition.rows.len())),
            order: *order,
            floating: true,
            origin: Origin::Look,
            created_at: current.last_modified,
            state: CopyState::Active { due_at: None },
            removed_at: None,
            version_id: current.version.version_id.clone(),
            etag: current.version.etag.clone(),
            size: current.version.size,
            checksum: None,
            storage_class: None,
            rev: "0".into(),
        }),
        Step::Raise { copy_key, rev, order } => {
            let place = find(&mut partition.rows, copy_key, rev);
            partition.rows[place].order = *order;
            partition.rows[place].floating = true;
        }
        Step::Apply(Verdicts { disown, due }) => {
            for verdict in disown {
                let place = find(&mut partition.rows, &verdict.copy_key, &verdict.rev);
                assert!(partition.rows[place].is_active(), "a verdict is about active rows");
                partition.rows[place].state = CopyState::Disowned { at: NOW, reason: verdict.reason };
            }
            for due in due {
                let place = find(&mut partition.rows, &due.copy_key, &due.rev);
                assert!(partition.rows[place].is_active(), "no row gets two verdicts");
                partition.rows[place].state = CopyState::Active { due_at: due.due_at };
            }
        }
    }
}

/// One pass: the step, after the look that it may have asked for.
fn step(partition: &Partition, ask: &Ask, look: &Look, rules: &Rules) -> (Step, bool) {
    match next_step(partition, ask, None, rules, NOW) {
        Step::Look => (next_step(partition, ask, Some(look), rules, NOW), true),
        step => (step, false),
    }
}

/// Settles as the flow does; the partition at rest, and whether the last pass looked.
fn settle(mut partition: Partition, ask: &Ask, look: &Look, rules: &Rules) -> (Partition, bool) {
    for _ in 0..ROUNDS {
        let (step, looked) = step(&partition, ask, look, rules);
        carry_out(&mut partition, &step);
        if matches!(step, Step::Apply(_)) {
            return (partition, looked);
        }
    }
    panic!("did not come to rest in {ROUNDS} rounds: {partition:?}");
}

/// The step with its verdicts sorted by row: they are carried out together.
fn in_one_order(mut step: Step) -> Step {
    if let Step::Apply(verdicts) = &mut step {
        verdicts.disown.sort_by(|a, b| a.copy_key.cmp(&b.copy_key));
        verdicts.due.sort_by(|a, b| a.copy_key.cmp(&b.copy_key));
    }
    step
}

fn matches_look(row: &CopyRow, look: &Look) -> bool {
    matches!(look, Look::Present(current) if row.matches(&current.version))
}

proptest! {
    #[test]
    fn it_comes_to_rest_and_a_second_settling_writes_nothing(
        partition in partitions(), ask in asks(), look in looks(), rules in all_rules(),
    ) {
        let (settled, looked) = settle(partition, &ask, &look, &rules);
        let (again, _) = step(&settled, &ask, &look, &rules);
        prop_assert_eq!(again, Step::Apply(Verdicts::default()));
        if looked && look != Look::Absent {
            let (by_facts, _) = step(&settled, &Ask::BY_FACTS, &look, &rules);
            prop_assert_eq!(by_facts, Step::Apply(Verdicts::default()), "what a look decided holds without one");
        }
    }

    #[test]
    fn the_current_content_of_a_live_key_keeps_an_active_copy(
        partition in partitions(), ask in asks(), look in looks(), rules in all_rules(),
    ) {
        let had_one = partition.rows.iter().any(|row| row.is_active() && matches_look(row, &look));
        let (settled, looked) = settle(partition, &ask, &look, &rules);
        let has_one = settled.rows.iter().any(|row| row.is_active() && matches_look(row, &look));
        prop_assert!(has_one || !looked || look == Look::Absent);
        prop_assert!(!ask.force || looked);
        prop_assert!(had_one || has_one || !ask.force || look == Look::Absent);
    }

    #[test]
    fn no_verdict_without_a_look_touches_a_floating_row_or_says_absent(
        partition in partitions(), ask in asks(), rules in all_rules(),
    ) {
        if let Step::Apply(verdicts) = next_step(&partition, &ask, None, &rules, NOW) {
            prop_assert_eq!(rules.basis, Basis::Sequencer);
            for verdict in verdicts.disown {
                let row = partition.rows.iter().find(|row| row.copy_key == verdict.copy_key).unwrap();
                prop_assert!(!row.floating && row.order.basis() == rules.basis);
                prop_assert!(verdict.reason != Reason::Absent);
            }
        }
    }

    #[test]
    fn rows_may_come_in_any_order(
        partition in partitions(), ask in asks(), look in option::of(looks()), rules in all_rules(), turn in 0usize..8,
    ) {
        let mut turned = partition.clone();
        if !turned.rows.is_empty() {
            let by = turn % turned.rows.len();
            turned.rows.rotate_left(by);
            turned.rows.reverse();
        }
        let step = |partition| in_one_order(next_step(partition, &ask, look.as_ref(), &rules, NOW));
        prop_assert_eq!(step(&partition), step(&turned));
    }

    #[test]
    fn an_unprotected_count_is_met_and_a_protected_copy_stays(
        partition in partitions(), look in looks(), rules in all_rules(),
    ) {
        let before = partition.clone();
        let (settled, _) = settle(partition, &Ask::BY_LOOK, &look, &rules);
        for row in &settled.rows {
            let was_active = before.rows.iter().any(|old| old.copy_key == row.copy_key && old.is_active());
            let now_surplus = matches!(row.state, CopyState::Disowned { reason, .. } if reason.is_surplus());
            let protected = row.created_at.runs_until(rules.protect_for, NOW).is_some();
            prop_assert!(!(was_active && now_surplus && protected));
        }
        let count_only = Rules { keep: Keep::last(rules.keep.last), protect_for: SpanMs::ZERO, ..rules };
        let (settled, _) = settle(before, &Ask::BY_LOOK, &look, &count_only);
        let active: Vec<&CopyRow> = settled.rows.iter().filter(|row| row.is_active()).collect();
        let same = |a: &CopyRow, b: &CopyRow| (&a.etag, a.size) == (&b.etag, b.size);
        let put_back = |row: &CopyRow| {
            row.undeleted_at().is_some() && active.iter().any(|other| other.undeleted_at().is_none() && same(row, other))
        };
        let places = active.iter().filter(|row| !put_back(row)).count();
        prop_assert!(places <= count_only.keep.last.max(1) as usize);
    }

    #[test]
    fn an_absent_key_ends_with_nothing_active_but_what_undelete_made(partition in partitions(), rules in all_rules()) {
        let (settled, _) = settle(partition, &Ask::BY_LOOK, &Look::Absent, &rules);
        prop_assert!(settled.rows.iter().all(|row| !row.is_active() || row.undeleted_at().is_some()));
    }
}

/// One key's history at a source with versions and sequencers: `true` puts a version, `false` removes the object.
fn deliver(partition: &mut Partition, history: &[bool], place: usize, rules: &Rules) {
    let at = order(Basis::Sequencer, u8::try_from(place).unwrap() + 1, 0);
    let time = happened(place);
    if history[place] {
        let name = copy_key(&format!("copy{place:02}"));
        if !partition.rows.iter().any(|row| row.copy_key == name) {
            partition.rows.push(CopyRow {
                copy_key: name,
                order: at,
                floating: false,
                origin: Origin::Event,
                created_at: time,
                state: CopyState::Active { due_at: None },
                removed_at: None,
                version_id: Some(VersionId(format!("v{place}"))),
                etag: "tag".into(),
                size: 1,
                checksum: None,
                storage_class: None,
                rev: "0".into(),
            });
        }
    } else if partition.tombstone.is_none_or(|known| at > known.order) {
        partition.tombstone = Some(Tombstone { order: at, time, noted_at: NOW, floating: false });
    }
    let verdicts = next_step(partition, &Ask::BY_FACTS, None, rules, LATER);
    assert!(matches!(verdicts, Step::Apply(_)), "exact orders need no look");
    carry_out(partition, &verdicts);
    // Surplus goes at once, and its row with it: a redelivery makes both again.
    partition.rows.retain(|row| !matches!(row.state, CopyState::Disowned { reason, .. } if reason.is_surplus()));
}

/// When the history's steps are over.
const LATER: UnixMs = UnixMs(1_000 * 86_400_000);

/// Every step a third of a day after the one before.
fn happened(place: usize) -> UnixMs {
    UnixMs(i64::try_from(place).unwrap() * 28_800_000)
}

fn active(partition: &Partition) -> BTreeSet<&str> {
    partition.rows.iter().filter(|row| row.is_active()).map(|row| row.copy_key.as_str()).collect()
}

proptest! {
    /// I6, and what the retention rule means: the copies that end up active are those that it keeps of all versions put
    /// since the last removal.
    #[test]
    fn late_doubled_and_reordered_events_end_alike(
        history in vec(any::<bool>(), 1..14), order_of_arrival in vec(any::<usize>(), 40), last in 0u32..4, daily in 0u32..4,
    ) {
        let rules = Rules {
            basis: Basis::Sequencer,
            keep: Keep { last, daily, ..Keep::default() },
            protect_for: SpanMs::ZERO,
            grace: SpanMs::days(1),
            breaker: None,
            guards: Guards::default(),
        };
        let mut partition = Partition::default();
        let mut missing: BTreeSet<usize> = (0..history.len()).collect();
        for at in order_of_arrival {
            deliver(&mut partition, &history, at % history.len(), &rules);
            missing.remove(&(at % history.len()));
        }
        for at in missing.into_iter().rev() {
            deliver(&mut partition, &history, at, &rules);
        }

        let since = history.iter().rposition(|put| !put).map_or(0, |removed| removed + 1);
        let newest_first: Vec<usize> = (since..history.len()).rev().collect();
        let created: Vec<UnixMs> = newest_first.iter().map(|place| happened(*place)).collect();
        let standings = rules.keep.standings(SpanMs::ZERO, &created, LATER);
        let kept = newest_first.iter().zip(standings).filter(|(_, standing)| *standing == Standing::Kept);
        let kept: BTreeSet<String> = kept.map(|(place, _)| format!("copy{place:02}")).collect();
        prop_assert_eq!(active(&partition), kept.iter().map(String::as_str).collect::<BTreeSet<_>>());
    }
}
