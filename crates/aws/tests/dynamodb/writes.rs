//! Writes that race, or whose answer is lost: of two claims one wins, nothing revives (V3, V4), and a write that counted is
//! known again when it is tried again.

use super::server::Engine;
use super::{id, key, order, removal, row};
use engine::error::ErrorKind;
use engine::ports::catalog::{Catalog, CatalogRead, Changed, RowChange, RowSet};
use futures_util::future::join_all;
use lifecycle::ids::{ETag, Rev};
use lifecycle::row::{CopyRow, CopyState, Reason, Tombstone};
use lifecycle::time::UnixMs;

const LOST: &str = "{\"__type\":\"com.amazonaws.dynamodb.v20120810#InternalServerError\",\"message\":\"put in\"}";

fn claim(copy: &str, rev: &Rev, at: i64) -> RowChange {
    let set = RowSet::Disowned { at: UnixMs(at), reason: Reason::Removed, removed_at: None };
    RowChange { id: id("k", copy), if_rev: rev.clone(), set }
}

async fn read(catalog: &dyn Catalog, copy: &str) -> Option<CopyRow> {
    catalog.rows(&[id("k", copy)]).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_claims_on_one_rev_one_wins_alone_and_in_batches() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    for copy in ["a", "b", "c"] {
        catalog.upsert(&key("k"), &row(copy)).await.unwrap();
    }
    let rev = read(&*catalog, "a").await.unwrap().rev;
    let (other_b, other_c) = (read(&*catalog, "b").await.unwrap().rev, read(&*catalog, "c").await.unwrap().rev);
    let alone = [claim("a", &rev, 1)];
    let one = [claim("a", &rev, 2), claim("b", &other_b, 2)];
    let two = [claim("a", &rev, 3), claim("c", &other_c, 3)];
    let all = join_all([catalog.change(&alone), catalog.change(&one), catalog.change(&two)]).await;
    let won: Vec<usize> = (0..3).filter(|n| matches!(all[*n][0], Ok(Changed::Applied(_)))).collect();
    assert_eq!(won.len(), 1, "{all:?}");
    assert!(matches!(all[1][1], Ok(Changed::Applied(_))) && matches!(all[2][1], Ok(Changed::Applied(_))));
    let state = CopyState::Disowned { at: UnixMs(won[0] as i64 + 1), reason: Reason::Removed };
    assert_eq!(read(&*catalog, "a").await.unwrap().state, state);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_was_lost_is_known_again_by_its_rev() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    let rev = read(&*catalog, "c").await.unwrap().rev;
    engine.between.answer("UpdateItem", true, 500, LOST);
    let outcome = catalog.change(&[claim("c", &rev, 9)]).await.remove(0).unwrap();
    engine.between.nothing_is_left();
    let after = read(&*catalog, "c").await.unwrap();
    assert_eq!(outcome, Changed::Applied(after.rev));
    assert!(!CopyRow::is_active(&CopyRow { rev: Rev::from(""), ..read(&*catalog, "c").await.unwrap() }));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_whose_answer_was_lost_count_once() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    let due = CopyRow { state: CopyState::Active { due_at: Some(UnixMs(7)) }, ..row("due") };
    engine.between.answer("PutItem", true, 500, LOST);
    catalog.upsert(&key("k"), &due).await.unwrap();
    assert_eq!(read(&*catalog, "due").await.unwrap().state, due.state);
    engine.between.answer("UpdateItem", true, 500, LOST);
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    engine.between.answer("PutItem", true, 500, LOST);
    assert!(catalog.bury(&key("k"), &removal("5", 1)).await.unwrap(), "it did put it");
    engine.between.nothing_is_left();
    let partition = catalog.partition(&key("k")).await.unwrap();
    assert_eq!((partition.rows.len(), partition.tombstone), (2, Some(removal("5", 1))));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upsert_neither_revives_nor_lowers_whatever_it_brings() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    let first = CopyRow { order: order("8"), version_id: None, ..row("c") };
    catalog.upsert(&key("k"), &first).await.unwrap();
    let rev = read(&*catalog, "c").await.unwrap().rev;
    catalog.change(&[claim("c", &rev, 9)]).await.remove(0).unwrap();
    for state in [None, Some(UnixMs(3))].map(|due_at| CopyState::Active { due_at }) {
        let again = CopyRow { order: order("1"), etag: ETag::from("x"), size: 1, floating: true, state, ..row("c") };
        let before = read(&*catalog, "c").await.unwrap();
        catalog.upsert(&key("k"), &again).await.unwrap();
        let after = read(&*catalog, "c").await.unwrap();
        assert_ne!(before.rev, after.rev);
        let state = CopyState::Disowned { at: UnixMs(9), reason: Reason::Removed };
        assert_eq!(after, CopyRow { state, version_id: again.version_id, rev: after.rev.clone(), ..first.clone() });
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_removals_at_once_the_newest_stands_with_every_mark() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    for round in 0..8_i64 {
        let original = key(&format!("k{round}"));
        let removal = |n: i64| Tombstone { floating: n == round, ..removal(&format!("{}", n + 1), n) };
        let removals: Vec<Tombstone> = (0..8).map(removal).collect();
        let buried = join_all(removals.iter().map(|removal| catalog.bury(&original, removal))).await;
        assert!(buried.iter().all(Result::is_ok), "{buried:?}");
        let stands = catalog.partition(&original).await.unwrap().tombstone.unwrap();
        assert_eq!((stands.order, stands.noted_at), (order("8"), UnixMs(7)));
        // A mark that was written outlasts; one that came after a newer removal says nothing new.
        assert_eq!(stands.floating, *buried[usize::try_from(round).unwrap()].as_ref().unwrap());
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_that_others_always_write_first_ends_in_an_error() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    engine.between.fail("PutItem", "ConditionalCheckFailedException", 16);
    let error = catalog.bury(&key("k"), &removal("5", 1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    engine.between.nothing_is_left();
    engine.stop().await;
}

/// A mirrored object may have any key, but not one under which the catalog keeps something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_can_take_a_reserved_place() {
    let engine = Engine::start().await;
    let catalog = engine.catalog().await;
    catalog.bury(&key("\u{1}tombstone"), &removal("5", 1)).await.unwrap();
    let odd = key("\u{1}tombstone");
    let error = catalog.record_mirrored(&odd, &row("\u{1}tombstone")).await.unwrap_err();
    assert!(matches!(&error.kind, ErrorKind::Invalid(why) if why.contains("cannot be mirrored")), "{error}");
    catalog.upsert(&key("afterimage"), &row("\u{1}state")).await.unwrap_err();
    let there = id("\u{1}tombstone", "\u{1}tombstone");
    assert_eq!(catalog.rows(std::slice::from_ref(&there)).await.unwrap(), [None]);
    let delete = RowChange { id: there, if_rev: Rev::from("?"), set: RowSet::Deleted };
    assert_eq!(
        catalog.change(&[delete.clone(), claim("c", &Rev::from("?"), 1)]).await.remove(0).unwrap(),
        Changed::Refused
    );
    assert!(catalog.partition(&odd).await.unwrap().tombstone.is_some());
    engine.stop().await;
}
