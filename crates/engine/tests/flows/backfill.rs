//! Back-fill: what was there before the policy gets its copies, and nothing else changes.

use crate::world::{Source, World, keep, rules};
use engine::error::ErrorKind;
use engine::flows::backfill::backfill;
use engine::flows::reconcile::{Orphans, reconcile};
use engine::limits::{LIST_PAGE, ORPHAN_AGE};
use engine::policy::{Mode, Policy};
use engine::ports::progress::Silent;
use engine::report::Report;
use engine::wrap::faults::{Death, Faults};
use engine::wrap::tap::Fate;
use lifecycle::time::SpanMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn backfilled(policy: &Policy, prefix: &str) -> Report {
    backfill(policy, prefix, &Silent, &CancellationToken::new()).await
}

#[tokio::test]
async fn every_object_without_a_copy_gets_one_and_nothing_is_removed() {
    let world = World::new(Source::Versioned, keep(2));
    let before = LIST_PAGE + 3; // more than one page of the listing
    for n in 0..before {
        world.put(&format!("p/{n:05}"), "before");
    }
    world.put("other", "before");
    world.protect("p/with", "its event came").await;
    world.protect("p/gone", "deleted, and its event is on its way").await;
    world.delete("p/gone");
    let report = backfilled(&world.policy, "p/").await;
    let counted = |what| report.counted(what);
    assert_eq!((counted("copied"), counted("there"), report.failures), (before as u64, 1, 0), "{report:?}");
    assert_eq!(world.active("p/00007"), ["before"]);
    assert_eq!((world.active("other"), world.active("p/gone").len()), (vec![], 1));
    let again = backfilled(&world.policy, "").await;
    assert_eq!((again.counted("copied"), again.counted("there")), (1, before as u64 + 1), "{again:?}");
}

/// Copies of `a` list behind those of `a+…`, which fill the page that it is on.
#[tokio::test]
async fn a_key_whose_copies_list_behind_its_page_is_known_to_have_them() {
    let world = World::new(Source::Unversioned, keep(2));
    world.protect("a", "its event came").await;
    for n in 0..LIST_PAGE + 9 {
        world.put(&format!("a+{n:05}"), "before");
    }
    for there in [1, LIST_PAGE as u64 + 10] {
        let report = backfilled(&world.policy, "").await;
        assert_eq!((report.counted("there"), report.failures), (there, 0), "{report:?}");
        assert_eq!(world.active("a"), ["its event came"]);
    }
}

#[tokio::test]
async fn a_key_that_may_not_be_looked_at_holds_no_other_one_up() {
    let world = World::new(Source::Unversioned, rules());
    for name in ["a", "b", "c"] {
        world.put(name, name);
    }
    let faults = Arc::new(Faults::default());
    for look in [1, 2] {
        faults.at("source.head", look, Fate::FailBefore(ErrorKind::AccessDenied("s3:GetObject".to_owned())));
    }
    let report = backfilled(&world.policy_through(faults), "").await;
    assert_eq!((report.counted("copied"), report.failures), (2, 1), "{report:?}");
    assert!(report.failed[0].why.contains("s3:GetObject"), "{report:?}");
}

#[tokio::test]
async fn a_mirror_gets_what_it_has_not() {
    let world = World::in_mode(Mode::Mirror, Source::Versioned, rules());
    for name in ["a", "b+c"] {
        world.put(name, name);
    }
    let report = backfilled(&world.policy, "").await;
    assert_eq!((report.counted("compared"), report.failures, world.copies()), (2, 0, 2), "{report:?}");
}

/// Made once more, they would push older versions out of `keep`.
#[tokio::test]
async fn copies_whose_rows_were_lost_are_left_to_the_comparison() {
    let lost = World::new(Source::Versioned, keep(2));
    for content in ["one", "two"] {
        lost.put("a", content);
        lost.handle(&lost.event_of_current("a")).await;
    }
    lost.put("b", "before");
    let catalog = Arc::new(engine::memory::catalog::MemoryCatalog::default());
    let policy = Policy { catalog: catalog.clone(), keys: Some(catalog), ..lost.policy.clone() };
    let report = backfilled(&policy, "").await;
    assert_eq!((report.counted("left"), report.counted("copied")), (1, 1), "{report:?}");
    lost.advance(SpanMs(ORPHAN_AGE.0 + 1));
    let compared = reconcile(&policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!((compared.counted("adopted"), lost.copies()), (2, 3), "{compared:?}");
}

#[tokio::test]
async fn given_again_after_a_death_it_goes_on() {
    for k in 1.. {
        let world = World::new(Source::Versioned, rules());
        for name in ["a", "b", "c"] {
            world.put(name, name);
        }
        let faults = Arc::new(Faults::die_at(k, Death::Before));
        let policy = world.policy_through(Arc::clone(&faults) as _);
        tokio::select! {
            biased;
            () = faults.death() => {}
            _ = backfilled(&policy, "") => return,
        }
        world.advance(SpanMs(ORPHAN_AGE.0 + 1));
        let report = backfilled(&world.policy, "").await;
        let there = ["a", "b", "c"].iter().filter(|name| world.active(name) == [**name]).count() as u64;
        // Bytes without a row are a copy already.
        let left = report.counted("left");
        assert_eq!((report.failures, there + left), (u64::from(left > 0), 3), "k = {k}: {report:?}");
        reconcile(&world.policy, Orphans::OfAge, &Silent, &CancellationToken::new()).await.unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(world.active(name), [name], "k = {k}");
        }
        world.assert_laws(&format!("k = {k}"));
    }
}

#[tokio::test]
async fn what_the_policy_does_not_watch_is_refused_and_a_cancelled_one_says_so() {
    let world = World::new(Source::Versioned, rules());
    let policy = Policy { source_prefix: "docs/".to_owned(), ..world.policy.clone() };
    assert_eq!(backfilled(&policy, "elsewhere/").await.failures, 1);
    world.put("docs/a", "a");
    assert_eq!(backfilled(&policy, "do").await.counted("copied"), 1, "the part that it watches");
    let cancel = CancellationToken::new();
    cancel.cancel();
    world.put("docs/b", "b");
    let report = backfill(&policy, "", &Silent, &cancel).await;
    assert!(report.cancelled && report.counted("copied") == 0, "{report:?}");
}
