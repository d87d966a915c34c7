//! Settling, rule by rule: which step comes next for a partition, an ask and a look. The properties over arbitrary
//! partitions stand in `settle_properties.rs`.

#![allow(clippy::unwrap_used)] // helpers of tests, too, fail by panicking

use lifecycle::event::{Current, Look, Version};
use lifecycle::guards::Guards;
use lifecycle::ids::{Checksum, CopyKey, ObjectKey, VersionId};
use lifecycle::keep::Keep;
use lifecycle::order::{Basis, Order};
use lifecycle::policy::Rules;
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Reason, Tombstone};
use lifecycle::settle::{Ask, Step, Verdicts, next_step};
use lifecycle::time::{SpanMs, UnixMs};

const NOW: UnixMs = UnixMs(1_000);

fn rules(keep: u32) -> Rules {
    Rules {
        basis: Basis::Sequencer,
        keep: Keep::last(keep),
        protect_for: SpanMs::ZERO,
        grace: SpanMs(100),
        breaker: None,
        guards: Guards::default(),
    }
}

fn time_ordered(keep: u32) -> Rules {
    Rules { basis: Basis::Time, ..rules(keep) }
}

fn seq(n: u8) -> Order {
    Order::from_sequencer(&format!("{n:02x}")).unwrap()
}

fn time(ms: i64) -> Order {
    Order::from_time(UnixMs(ms))
}

/// An active row made by an event, of a source without versions; its tag is its name.
fn row(name: &str, order: Order) -> CopyRow {
    CopyRow {
        copy_key: CopyKey::of(ObjectKey::new(name).unwrap()),
        order,
        floating: false,
        origin: Origin::Event,
        created_at: UnixMs(10),
        state: CopyState::Active { due_at: None },
        removed_at: None,
        version_id: None,
        etag: name.into(),
        size: 1,
        checksum: None,
        storage_class: None,
        rev: format!("rev of {name}").as_str().into(),
    }
}

fn floating(name: &str, order: Order) -> CopyRow {
    CopyRow { floating: true, origin: Origin::Look, ..row(name, order) }
}

fn undeleted(name: &str, order: Order, at: i64) -> CopyRow {
    CopyRow { origin: Origin::Undelete { at: UnixMs(at) }, ..row(name, order) }
}

fn disowned(row: CopyRow, reason: Reason) -> CopyRow {
    CopyRow { state: CopyState::Disowned { at: UnixMs(20), reason }, ..row }
}

fn tagged(row: CopyRow, tag: &str) -> CopyRow {
    CopyRow { etag: tag.into(), ..row }
}

fn versioned(row: CopyRow, id: &str) -> CopyRow {
    CopyRow { version_id: Some(VersionId::from(id)), ..row }
}

fn rows(rows: Vec<CopyRow>) -> Partition {
    Partition { rows, tombstone: None }
}

fn buried(partition: Partition, order: Order, time: i64) -> Partition {
    Partition {
        tombstone: Some(Tombstone { order, time: UnixMs(time), noted_at: UnixMs(time), floating: false }),
        ..partition
    }
}

fn present(tag: &str) -> Look {
    Look::Present(Current {
        version: Version { version_id: None, etag: tag.into(), size: 1 },
        last_modified: UnixMs(500),
        checksum: None,
    })
}

fn forced_by(order: Order) -> Ask {
    Ask { event_order: Some(order), ..Ask::BY_LOOK }
}

fn by_facts(partition: &Partition, rules: &Rules) -> Step {
    next_step(partition, &Ask::BY_FACTS, None, rules, NOW)
}

fn seen(partition: &Partition, ask: Ask, look: &Look, rules: &Rules) -> Step {
    next_step(partition, &ask, Some(look), rules, NOW)
}

/// Who is disowned and why, sorted by name.
fn disowns(step: &Step) -> Vec<(&str, Reason)> {
    let Step::Apply(verdicts) = step else { panic!("no verdicts, but {step:?}") };
    let mut found: Vec<_> = verdicts.disown.iter().map(|verdict| (verdict.copy_key.as_str(), verdict.reason)).collect();
    found.sort_unstable_by_key(|(name, _)| *name);
    found
}

fn at_rest() -> Step {
    Step::Apply(Verdicts::default())
}

#[test]
fn an_empty_partition_is_at_rest() {
    assert_eq!(by_facts(&Partition::default(), &rules(3)), at_rest());
    assert_eq!(seen(&Partition::default(), Ask::BY_LOOK, &Look::Absent, &rules(3)), at_rest());
}

#[test]
fn rows_at_or_below_the_tombstone_are_removed_since_the_event() {
    let partition = buried(rows(vec![row("a", seq(1)), row("b", seq(2)), row("c", seq(3))]), seq(2), 77);
    let step = by_facts(&partition, &rules(3));
    assert_eq!(disowns(&step), [("a", Reason::Removed), ("b", Reason::Removed)]);
    let Step::Apply(verdicts) = step else { unreachable!() };
    for verdict in &verdicts.disown {
        assert_eq!(verdict.removed_at, Some(UnixMs(77)));
        assert_eq!(verdict.rev.as_str(), format!("rev of {}", verdict.copy_key), "conditional on what was read");
    }
}

#[test]
fn keep_counts_active_rows_only_the_newest_first() {
    let partition = rows(vec![
        row("old", seq(1)),
        row("new", seq(4)),
        disowned(row("gone", seq(5)), Reason::Removed),
        row("middle", seq(2)),
    ]);
    assert_eq!(disowns(&by_facts(&partition, &rules(2))), [("old", Reason::BeyondKeep)]);
    assert_eq!(
        disowns(&by_facts(&partition, &rules(1))),
        [("middle", Reason::BeyondKeep), ("old", Reason::BeyondKeep)]
    );
    assert_eq!(by_facts(&partition, &rules(3)), at_rest());
}

#[test]
fn disowned_rows_get_no_verdict_whatever_the_facts_say() {
    let partition = buried(rows(vec![disowned(row("a", seq(1)), Reason::Removed)]), seq(9), 9);
    assert_eq!(by_facts(&partition, &rules(1)), at_rest());
    assert_eq!(seen(&partition, Ask::BY_LOOK, &Look::Absent, &rules(1)), at_rest());
}

#[test]
fn a_verdict_on_a_floating_row_asks_for_a_look_and_others_do_not() {
    let judged = rows(vec![floating("f", seq(1)), row("a", seq(2))]);
    assert_eq!(by_facts(&judged, &rules(1)), Step::Look);
    let not_judged = rows(vec![floating("f", seq(2)), row("a", seq(1))]);
    assert_eq!(disowns(&by_facts(&not_judged, &rules(1))), [("a", Reason::BeyondKeep)]);
    assert_eq!(by_facts(&buried(not_judged, seq(2), 9), &rules(9)), Step::Look);
}

#[test]
fn a_late_older_event_does_not_prune_the_content_that_a_look_copied() {
    // The look copied what the source has now at the greatest order known; an older event comes later and stands above.
    let partition = rows(vec![floating("current", seq(1).next_sub()), row("late", seq(2))]);
    let step = seen(&partition, Ask::BY_FACTS, &present("current"), &rules(1));
    assert_eq!(disowns(&step), [("late", Reason::BeyondKeep)]);
}

#[test]
fn time_ordered_policies_always_look_since_clocks_tie_and_step_back() {
    let partition = rows(vec![row("first", time(10)), row("second", time(9))]);
    assert_eq!(by_facts(&partition, &time_ordered(1)), Step::Look);
    let step = seen(&partition, Ask::BY_FACTS, &present("second"), &time_ordered(1));
    assert_eq!(disowns(&step), [("first", Reason::BeyondKeep)]);
    let tied = buried(rows(vec![row("again", time(10))]), time(10), 10);
    assert_eq!(seen(&tied, Ask::BY_FACTS, &present("again"), &time_ordered(1)), at_rest());
    let step = seen(&tied, Ask::BY_FACTS, &Look::Absent, &time_ordered(1));
    assert_eq!(disowns(&step), [("again", Reason::Removed)]);
}

#[test]
fn an_absent_look_disowns_all_but_what_undelete_made() {
    let partition = rows(vec![row("a", seq(1)), floating("f", seq(2)), undeleted("u", seq(3), 50)]);
    let step = seen(&partition, Ask::BY_FACTS, &Look::Absent, &rules(1));
    assert_eq!(disowns(&step), [("a", Reason::Absent), ("f", Reason::Absent)]);
    let Step::Apply(verdicts) = step else { unreachable!() };
    assert!(verdicts.disown.iter().all(|verdict| verdict.removed_at == Some(NOW)));
}

#[test]
fn a_forced_absent_look_buries_first_at_the_greatest_order_but_undeletes() {
    let noted = |order, floating| Step::Bury(Tombstone { order, time: NOW, noted_at: NOW, floating });
    let (tomb, lower_bound) = (|order| noted(order, false), |order| noted(order, true));
    let partition = rows(vec![row("a", seq(1)), undeleted("u", seq(7), 50), disowned(row("d", seq(2)), Reason::Twin)]);
    let absent = |partition: &Partition, ask| seen(partition, ask, &Look::Absent, &rules(9));
    assert_eq!(absent(&partition, Ask::BY_LOOK), lower_bound(seq(2)));
    assert_eq!(absent(&partition, forced_by(seq(5))), tomb(seq(5)));
    assert_eq!(absent(&partition, forced_by(seq(1))), lower_bound(seq(2)));
    assert_eq!(absent(&buried(partition.clone(), seq(1), 5), Ask::BY_LOOK), lower_bound(seq(2)));

    let deep = buried(partition.clone(), seq(2), 5);
    assert_eq!(disowns(&absent(&deep, Ask::BY_LOOK)), [("a", Reason::Removed)], "the same tombstone is not put twice");
    assert_eq!(absent(&deep, forced_by(seq(3))), tomb(seq(3)));
    assert_eq!(absent(&Partition::default(), forced_by(seq(3))), tomb(seq(3)), "late copies of it must not stay");
    let at = |ms| Ask { event_time: Some(UnixMs(ms)), ..forced_by(seq(5)) };
    let since = |ms| Step::Bury(Tombstone { order: seq(5), time: UnixMs(ms), noted_at: NOW, floating: false });
    assert_eq!(absent(&partition, at(300)), since(300), "since the event, where that stands for the removal");
    assert_eq!(absent(&partition, at(9_999)), since(NOW.0), "but never later than now");
    let only_undeleted = rows(vec![undeleted("u", seq(7), 50)]);
    assert_eq!(absent(&only_undeleted, Ask::BY_LOOK), at_rest());
}

#[test]
fn what_undelete_made_is_removed_only_by_a_later_removal() {
    for (tombstone_at, removed) in [(40, false), (50, false), (51, true)] {
        let partition = buried(rows(vec![undeleted("u", seq(2).next_sub(), 50)]), seq(3), tombstone_at);
        let expected: &[_] = if removed { &[("u", Reason::Removed)] } else { &[] };
        assert_eq!(disowns(&by_facts(&partition, &rules(1))), expected, "removed at {tombstone_at}");
    }
    // The clock has stepped back since: that the removal came after the undelete shows by what else it took.
    for (put_back, removed) in [(row("put back", seq(4)), true), (row("put back", seq(6)), false)] {
        let put_back = CopyRow { created_at: UnixMs(51), ..put_back };
        let partition = buried(rows(vec![undeleted("u", seq(2).next_sub(), 50), put_back]), seq(5), 40);
        let step = by_facts(&partition, &rules(9));
        let disowned = disowns(&step);
        assert_eq!(disowned.contains(&("u", Reason::Removed)), removed, "{disowned:?}");
    }
    // A HEAD's time is cut to the second: what was put back shows by its content. A version of the same content that came to
    // light late is older than that.
    for (place, created_at, removed) in [(4, 40, true), (6, 40, false), (4, -950, false)] {
        let put_back = CopyRow { created_at: UnixMs(created_at), ..tagged(row("put back", seq(place)), "newest") };
        let batch = [("older", seq(2).next_sub()), ("newest", seq(2).next_sub().next_sub())];
        let batch = batch.into_iter().map(|(name, order)| undeleted(name, order, 50));
        let partition = buried(rows(batch.chain([put_back]).collect()), seq(5), 40);
        let step = by_facts(&partition, &rules(9));
        let disowned = disowns(&step);
        for name in ["older", "newest"] {
            assert_eq!(disowned.contains(&(name, Reason::Removed)), removed, "{name}: {disowned:?}");
        }
    }
    let below = buried(rows(vec![undeleted("u", seq(4), 50)]), seq(3), 99);
    assert_eq!(by_facts(&below, &rules(1)), at_rest(), "its order counts too");
}

#[test]
fn a_removal_from_before_an_undelete_does_not_take_back_what_it_brought() {
    // Undelete has put its row, and not the object yet, when a late event makes somebody look: nothing is there.
    let back = undeleted("u", seq(2).next_sub(), 50);
    let late_delete = Ask { event_time: Some(UnixMs(40)), ..forced_by(seq(3)) };
    let late_put =
        |created_at| rows(vec![back.clone(), CopyRow { created_at: UnixMs(created_at), ..row("late", seq(3)) }]);
    let put_back = late_put(30).rows.into_iter().map(|row| tagged(row, "u")).collect();
    let put_back = rows(put_back);
    for (partition, ask, stays, why) in [
        (rows(vec![back.clone()]), late_delete, true, "a version that was deleted for good before the undelete"),
        (rows(vec![back.clone()]), Ask { event_time: Some(UnixMs(60)), ..late_delete }, false, "after it"),
        (late_put(30), Ask::BY_LOOK, true, "a version from before the undelete that is gone"),
        (late_put(60), Ask::BY_LOOK, false, "a version from after it that is gone: so is what was put back"),
        (put_back, Ask::BY_LOOK, false, "what was put back, its time cut to the second"),
    ] {
        let Step::Bury(tombstone) = seen(&partition, ask, &Look::Absent, &rules(9)) else { panic!("{why}") };
        assert_eq!((tombstone.order, tombstone.noted_at), (seq(3), NOW), "{why}");
        let step = by_facts(&Partition { tombstone: Some(tombstone), ..partition }, &rules(9));
        assert_eq!(!disowns(&step).iter().any(|(name, _)| *name == "u"), stays, "{why}");
    }
}

#[test]
fn a_current_content_without_an_active_copy_is_copied_above_all_orders_known() {
    let order_of = |partition: &Partition, ask, rules: &Rules| match seen(partition, ask, &present("new"), rules) {
        Step::CopyCurrent { order, current } => {
            assert_eq!(current.version.etag.as_str(), "new");
            order
        }
        other => panic!("{other:?}"),
    };
    let known = buried(rows(vec![row("a", seq(1)), disowned(row("b", seq(4)), Reason::Removed)]), seq(3), 9);
    assert_eq!(order_of(&known, Ask::BY_LOOK, &rules(3)), seq(4).next_sub());
    assert_eq!(order_of(&known, forced_by(seq(5)), &rules(3)), seq(5), "the event's own order, where it is above all");
    assert_eq!(order_of(&known, forced_by(seq(4)), &rules(3)), seq(4).next_sub());
    assert_eq!(order_of(&buried(Partition::default(), seq(6), 9), Ask::BY_LOOK, &rules(3)), seq(6).next_sub());

    let nothing = Partition::default();
    assert_eq!(order_of(&nothing, forced_by(seq(5)), &rules(3)), seq(5));
    assert_eq!(order_of(&nothing, Ask::BY_LOOK, &rules(3)), Order::lowest(Basis::Sequencer).next_sub());
    assert_eq!(order_of(&nothing, Ask::BY_LOOK, &time_ordered(3)), time(500), "when the source says it was written");
    assert_eq!(
        order_of(&nothing, forced_by(time(9)), &rules(3)),
        Order::lowest(Basis::Sequencer).next_sub(),
        "an order of another basis says nothing (V9)"
    );
}

#[test]
fn a_disowned_copy_of_the_current_content_is_not_revived_but_copied_again() {
    let partition = rows(vec![disowned(row("same", seq(1)), Reason::Removed)]);
    assert!(matches!(seen(&partition, Ask::BY_LOOK, &present("same"), &rules(3)), Step::CopyCurrent { .. }));
}

#[test]
fn a_permanent_delete_that_the_content_outlived_leaves_a_raised_order() {
    let partition = rows(vec![row("current", seq(1)), row("newer", seq(3))]);
    let raise = |order| Step::Raise {
        copy_key: CopyKey::of(ObjectKey::new("current").unwrap()),
        rev: "rev of current".into(),
        order,
    };
    let step = seen(&partition, forced_by(seq(5)), &present("current"), &rules(1));
    assert_eq!(step, raise(seq(5)));
    let step = seen(&partition, forced_by(seq(1)), &present("current"), &rules(2));
    assert_eq!(step, at_rest(), "not above it, and no rule is against it: nothing to raise");
    let step = seen(&partition, Ask::BY_LOOK, &present("current"), &rules(1));
    assert_eq!(step, raise(seq(1)), "by the rows alone it would be surplus: from now on it floats");
    let floats = rows(vec![floating("current", seq(1)), row("newer", seq(3))]);
    let step = seen(&floats, Ask::BY_LOOK, &present("current"), &rules(1));
    assert_eq!(disowns(&step), [("newer", Reason::BeyondKeep)]);

    // A delete marker was removed, its event is not here yet, and the tombstone of the marker stands already.
    let marked = buried(rows(vec![row("current", seq(1))]), seq(2), 9);
    assert_eq!(seen(&marked, Ask::BY_LOOK, &present("current"), &rules(1)), raise(seq(2).next_sub()));
    assert_eq!(seen(&marked, forced_by(seq(4)), &present("current"), &rules(1)), raise(seq(4)));
    let raised = buried(rows(vec![floating("current", seq(2).next_sub())]), seq(2), 9);
    assert_eq!(by_facts(&raised, &rules(1)), at_rest());
}

#[test]
fn what_an_event_without_an_order_found_alive_floats_from_then_on() {
    // Put, delete, put the same again; the last event has no order and comes first: the first copy matches the look. Then
    // the event of the delete comes, and by orders alone would take the current content's only copy.
    let first = rows(vec![row("same", seq(1))]);
    let asks = Ask::for_event(None, UnixMs(9));
    let Step::Raise { order, .. } = seen(&first, asks, &present("same"), &rules(3)) else { panic!() };
    assert_eq!(order, seq(1), "in its place");
    let floats = rows(vec![CopyRow { floating: true, ..row("same", seq(1)) }]);
    assert_eq!(seen(&floats, asks, &present("same"), &rules(3)), at_rest());
    assert_eq!(by_facts(&buried(floats.clone(), seq(2), 8), &rules(3)), Step::Look);

    let both = asks.and(forced_by(seq(1)));
    assert!(both.unordered && both.event_order == Some(seq(1)));
    assert_eq!(seen(&first, Ask::BY_LOOK, &present("same"), &rules(3)), at_rest(), "nobody's event: nothing to keep");
    let by_time = rows(vec![row("same", time(1))]);
    assert_eq!(seen(&by_time, asks, &present("same"), &time_ordered(3)), at_rest(), "these look every time");
}

#[test]
fn a_removal_without_an_order_leaves_a_mark_and_what_comes_above_it_is_looked_at() {
    // Put, delete; the event of the deletion has no order and comes first, the event of the put after it.
    let (nothing, asks) = (Partition::default(), Ask::for_event(None, UnixMs(9)));
    let Step::Bury(mark) = seen(&nothing, asks, &Look::Absent, &rules(3)) else { panic!() };
    assert_eq!((mark.order, mark.floating), (Order::lowest(Basis::Sequencer), true));
    let marked = |rows: Vec<CopyRow>| Partition { rows, tombstone: Some(mark) };
    assert_eq!(seen(&marked(Vec::new()), asks, &Look::Absent, &rules(3)), at_rest(), "once");

    let late = marked(vec![row("late", seq(1))]);
    assert_eq!(by_facts(&late, &rules(3)), Step::Look, "who knows whether that removal was its own");
    assert_eq!(disowns(&seen(&late, Ask::BY_FACTS, &Look::Absent, &rules(3))), [("late", Reason::Absent)]);
    assert_eq!(seen(&late, Ask::BY_FACTS, &present("late"), &rules(3)), at_rest(), "it came after it");
    let undone = marked(vec![undeleted("u", seq(1), 50)]);
    assert_eq!(by_facts(&undone, &rules(3)), at_rest(), "a person has said that it is to be there");

    // A removal whose order is known stands there already: it keeps its place and its times, and gets the mark. It is none
    // the younger for it: neither the breaker nor "undelete since" takes it for news.
    let known = buried(Partition::default(), seq(2), 7);
    let marked = Tombstone { floating: true, ..known.tombstone.expect("buried") };
    assert_eq!(seen(&known, asks, &Look::Absent, &rules(3)), Step::Bury(marked));
    for ask in [Ask::BY_LOOK, Ask::FOR_OLD_EVENT, forced_by(seq(1))] {
        assert_eq!(seen(&known, ask, &Look::Absent, &rules(3)), at_rest(), "no older event is to come: {ask:?}");
    }
    assert_eq!(seen(&nothing, Ask::FOR_OLD_EVENT, &Look::Absent, &rules(3)), at_rest());
    assert!(asks.and(forced_by(seq(1))).before_others && forced_by(seq(1)).and(asks).before_others);
}

#[test]
fn copies_of_one_version_are_twins_and_the_older_goes() {
    let of_version = |name: &str, order, id: &str| versioned(row(name, order), id);
    let partition =
        rows(vec![of_version("a", seq(1), "v1"), of_version("b", seq(2), "v2"), of_version("c", seq(3), "v1")]);
    assert_eq!(disowns(&by_facts(&partition, &rules(9))), [("a", Reason::Twin)]);
}

#[test]
fn equal_tags_are_twins_only_side_by_side_and_where_a_place_is_not_an_events_own() {
    let same = |row: CopyRow| tagged(row, "same");
    let looked = || present("same");
    for (older, newer, between, twins, why) in [
        (row("o", seq(1)), row("p", seq(3)), false, false, "the same bytes put twice are two versions"),
        (row("o", seq(1)), floating("p", seq(3)), false, true, "the look copied what the event did"),
        (floating("o", seq(1)), row("p", seq(3)), false, true, "the event copied what the look did"),
        (row("o", seq(1)), floating("p", seq(3)), true, false, "another content lies between"),
        (undeleted("o", seq(1), 5), row("p", seq(3)), false, false, "it says what was there before the undelete"),
        (undeleted("o", seq(1), 5), floating("p", seq(3)), false, false, "the same, copied by a look"),
        (undeleted("o", seq(1), 5), undeleted("p", seq(3), 5), false, false, "both came back from the history"),
        (undeleted("o", seq(3), 5), undeleted("p", seq(3), 9), false, true, "the same came back twice: one place"),
    ] {
        let mut partition = rows(vec![same(older), same(newer)]);
        if between {
            partition.rows.push(row("between", seq(2)));
        }
        let expected: &[_] = if twins { &[("o", Reason::Twin)] } else { &[] };
        assert_eq!(disowns(&seen(&partition, Ask::BY_FACTS, &looked(), &rules(9))), expected, "{why}");
    }
    let sizes = rows(vec![same(row("o", seq(1))), CopyRow { size: 2, ..same(floating("p", seq(3))) }]);
    assert_eq!(disowns(&seen(&sizes, Ask::BY_FACTS, &looked(), &rules(9))), [], "another size is another content");
    let versions = rows(vec![versioned(same(row("o", seq(1))), "v1"), versioned(same(floating("p", seq(3))), "v2")]);
    assert_eq!(by_facts(&versions, &rules(9)), at_rest(), "version ids tell them apart");
}

#[test]
fn what_undelete_put_back_and_the_copy_it_came_from_take_one_place_and_go_together() {
    let back = || tagged(undeleted("back", seq(2), 50), "same");
    let put_back = || tagged(row("put back", seq(4)), "same");
    let history = rows(vec![undeleted("older", seq(1), 50), back(), put_back()]);
    assert_eq!(by_facts(&history, &rules(2)), at_rest(), "no older copy has to go for it");
    assert_eq!(disowns(&by_facts(&history, &rules(1))), [("older", Reason::BeyondKeep)]);
    let put_since = rows(vec![back(), put_back(), row("since", seq(5))]);
    assert_eq!(by_facts(&put_since, &rules(2)), at_rest());
    let gone = [("back", Reason::BeyondKeep), ("put back", Reason::BeyondKeep)];
    assert_eq!(disowns(&by_facts(&put_since, &rules(1))), gone);
    let removed = buried(history, seq(5), 90);
    assert_eq!(disowns(&by_facts(&removed, &rules(9))).len(), 3, "a later removal takes all of them");
    let summed = |row: CopyRow, tag| CopyRow { checksum: Some(Checksum(7)), ..tagged(row, tag) };
    let in_parts = [summed(back(), "of parts-2"), summed(put_back(), "whole")];
    let history = rows([undeleted("older", seq(1), 50)].into_iter().chain(in_parts).collect());
    assert_eq!(by_facts(&history, &rules(2)), at_rest(), "put back, what was uploaded in parts has another tag");
}

#[test]
fn a_twin_takes_no_place_of_the_retention_rule() {
    let twins = vec![tagged(row("a", seq(2)), "same"), tagged(floating("b", seq(3)), "same"), row("old", seq(1))];
    assert_eq!(disowns(&seen(&rows(twins), Ask::BY_FACTS, &present("same"), &rules(2))), [("a", Reason::Twin)]);
}

#[test]
fn what_time_will_make_surplus_carries_that_time() {
    let protected = Rules { protect_for: SpanMs(1_000), ..rules(1) }; // created at 10: due at 1,010
    let partition = rows(vec![row("new", seq(3)), row("old", seq(2)), tagged(floating("twin", seq(1)), "old")]);
    let Step::Apply(verdicts) = seen(&partition, Ask::BY_FACTS, &present("new"), &protected) else { panic!() };
    assert_eq!(verdicts.disown, []);
    let due: Vec<_> = verdicts.due.iter().map(|due| (due.copy_key.as_str(), due.due_at)).collect();
    assert_eq!(due, [("old", Some(UnixMs(1_010))), ("twin", Some(UnixMs(1_010)))]);

    let waiting =
        |due_at| rows(vec![row("new", seq(3)), CopyRow { state: CopyState::Active { due_at }, ..row("old", seq(2)) }]);
    let marked = waiting(Some(UnixMs(1_010)));
    assert_eq!(by_facts(&marked, &protected), at_rest(), "written once");
    let later = next_step(&marked, &Ask::BY_FACTS, None, &protected, UnixMs(1_010));
    assert_eq!(disowns(&later), [("old", Reason::BeyondKeep)], "to the millisecond");

    let roomy = Rules { keep: Keep::last(2), ..protected };
    let Step::Apply(verdicts) = by_facts(&marked, &roomy) else { panic!() };
    assert_eq!(verdicts.due.iter().map(|due| due.due_at).collect::<Vec<_>>(), [None], "and taken back");
}

#[test]
fn rows_of_another_basis_float_at_the_bottom() {
    let mixed = buried(rows(vec![row("then", time(99)), row("now", seq(1))]), time(100), 100);
    assert_eq!(by_facts(&mixed, &rules(1)), Step::Look);
    let step = seen(&mixed, Ask::BY_FACTS, &present("now"), &rules(1));
    assert_eq!(disowns(&step), [("then", Reason::BeyondKeep)]);
    assert_eq!(by_facts(&mixed, &rules(2)), at_rest(), "a tombstone of another basis removes nothing");
}

#[test]
fn asks_add_up() {
    let both = Ask::BY_FACTS.and(forced_by(seq(2))).and(forced_by(seq(1)));
    assert_eq!(both, forced_by(seq(2)));
    assert_eq!(Ask::BY_FACTS.and(Ask::BY_FACTS), Ask::BY_FACTS);
    let at = |order, ms| Ask { event_time: Some(UnixMs(ms)), ..forced_by(order) };
    assert_eq!(at(seq(1), 5).and(at(seq(2), 3)), at(seq(2), 3), "the time of the event whose order counts");
    assert_eq!(at(seq(2), 3).and(Ask::BY_LOOK), at(seq(2), 3));
}
