//! What the spool promises beyond its port: limited memory, a turn for everybody, and nothing lost when the disk is full.

use super::*;
use crate::clock::SystemNonces;
use crate::store::Store;
use engine::memory::clock::MemoryClock;
use lifecycle::event::Happened;
use lifecycle::ids::ObjectKey;
use lifecycle::time::SpanMs;
use tempfile::TempDir;

struct World {
    folder: TempDir,
    clock: Arc<MemoryClock>,
    store: Arc<Store>,
}

impl World {
    async fn new() -> World {
        let (folder, clock) = (TempDir::new().unwrap(), Arc::new(MemoryClock::at(UnixMs(1_795_000_000_000))));
        World::at(folder, clock).await
    }

    async fn at(folder: TempDir, clock: Arc<MemoryClock>) -> World {
        let nonces = Arc::new(SystemNonces::new().unwrap());
        let store = Store::open(folder.path(), Arc::clone(&clock) as _, nonces).await.unwrap();
        World { folder, clock, store }
    }

    async fn restarted(self) -> World {
        let World { folder, clock, store } = self;
        drop(store);
        World::at(folder, clock).await
    }

    fn spool(&self) -> &Spool {
        self.store.spool()
    }

    async fn push(&self, names: impl Iterator<Item = String>) {
        let event = |name: String| {
            let key = ObjectKey::new(name).unwrap();
            ObjectEvent { key, time: UnixMs(1), order: None, what: Happened::Removed }
        };
        self.spool().push("b", names.map(event).collect()).await.unwrap();
    }

    /// Puts all of them back, to be delivered so much later.
    async fn put_back(&self, deliveries: &[Delivery], span: SpanMs) {
        let at = self.clock.now().plus(span);
        for delivery in deliveries {
            self.spool().again(&delivery.receipt, at, "not yet").await.unwrap();
        }
    }

    /// What is delivered now; fails when the queue would rather wait for a time to come.
    async fn at_once(&self, limit: usize) -> Vec<String> {
        tokio::select! {
            biased;
            deliveries = self.spool().receive(limit) => {
                deliveries.unwrap().into_iter().map(|delivery| delivery.event.key.to_string()).collect()
            }
            () = self.clock.until_asleep(1) => panic!("there is something to deliver, and it waits"),
        }
    }

    async fn run(&self, sql: &'static str) {
        let run = move |db: &rusqlite::Connection| -> Result<(), Fault> { Ok(db.execute_batch(sql)?) };
        self.spool().db.write("test", "spool", run).await.unwrap();
    }
}

fn names(prefix: &'static str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{prefix}{number:05}"))
}

#[tokio::test]
async fn what_waits_takes_no_memory_and_comes_back_in_the_order_of_its_time() {
    let world = World::new().await;
    world.push(names("a", 300)).await;
    let out = world.spool().receive(300).await.unwrap();
    world.put_back(&out[100..], SpanMs(2_000)).await;
    world.put_back(&out[..100], SpanMs(1_000)).await;
    assert_eq!(world.spool().hand().len(), 0, "what waits stands in the table alone");
    world.clock.advance(SpanMs(2_000));
    let (early, late) = (world.at_once(100).await, world.at_once(300).await);
    assert_eq!((early.len(), late.len()), (100, 200));
    assert!(early.iter().max() < late.iter().min());
}

#[tokio::test]
async fn many_that_wait_do_not_hide_new_ones_after_a_restart() {
    let world = World::new().await;
    world.push(names("waits", 50)).await;
    let out = world.spool().receive(50).await.unwrap();
    world.put_back(&out, SpanMs(60_000)).await;
    world.push(names("new", 1)).await;
    let world = world.restarted().await;
    assert_eq!(world.at_once(10).await, ["new00000"]);
    world.push(names("newer", 1)).await;
    assert_eq!(world.at_once(10).await, ["newer00000"]);
}

#[tokio::test]
async fn retries_and_new_events_share_a_batch() {
    let world = World::new().await;
    world.push(names("retry", 40)).await;
    let out = world.spool().receive(40).await.unwrap();
    world.put_back(&out, SpanMs(1_000)).await;
    world.clock.advance(SpanMs(1_000));
    world.push(names("new", 40)).await;
    let count = |batch: &[String], prefix| batch.iter().filter(|name| name.starts_with(prefix)).count();
    let batch = world.at_once(10).await;
    assert_eq!((count(&batch, "retry"), count(&batch, "new")), (5, 5));
    let mut singles = [world.at_once(1).await, world.at_once(1).await].concat();
    singles.sort();
    assert_eq!((count(&singles, "retry"), count(&singles, "new")), (1, 1), "with one place they take turns");
    let rest = world.at_once(100).await;
    assert_eq!((count(&rest, "retry"), count(&rest, "new")), (34, 34));
}

#[tokio::test]
async fn what_could_not_be_noted_down_comes_again_a_little_later() {
    let world = World::new().await;
    world.push(names("a", 3)).await;
    let out = world.spool().receive(3).await.unwrap();
    world.run("CREATE TRIGGER full_1 BEFORE UPDATE ON spool BEGIN SELECT RAISE(ABORT, 'full'); END;").await;
    world.run("CREATE TRIGGER full_2 BEFORE DELETE ON spool BEGIN SELECT RAISE(ABORT, 'full'); END;").await;
    let far = world.clock.now().plus(SpanMs(86_400_000));
    world.spool().again(&out[0].receipt, far, "no").await.unwrap_err();
    world.spool().done(&[out[1].receipt.clone()]).await.unwrap_err();
    world.spool().give_up(&out[2].receipt, "no").await.unwrap_err();
    assert_eq!(world.spool().take(9).await.unwrap().unwrap_err(), Some(world.clock.now().plus(UNANSWERED_WAIT).0));
    world.run("DROP TRIGGER full_1; DROP TRIGGER full_2;").await;
    world.clock.advance(UNANSWERED_WAIT);
    let again = world.spool().receive(9).await.unwrap();
    assert_eq!(again.len(), 3);
    let receipts: Vec<_> = again.into_iter().map(|delivery| delivery.receipt).collect();
    world.spool().done(&receipts).await.unwrap();
    assert_eq!((world.spool().backlog().await.unwrap().waiting, world.spool().hand().len()), (0, 0));
}

#[tokio::test]
async fn what_was_noted_down_by_a_transaction_that_reported_failure_is_waited_for_no_more() {
    let world = World::new().await;
    world.push(names("a", HAND_MAX + 1)).await;
    let out = world.spool().receive(HAND_MAX).await.unwrap();
    let receipts: Vec<_> = out.into_iter().map(|delivery| delivery.receipt).collect();
    world.run("CREATE TRIGGER full BEFORE DELETE ON spool BEGIN SELECT RAISE(ABORT, 'full'); END;").await;
    world.spool().done(&receipts).await.unwrap_err();
    // As if the transaction had been durable nevertheless.
    world.run("DROP TRIGGER full; DELETE FROM spool WHERE id <= (SELECT max(id) - 1 FROM spool)").await;
    world.clock.advance(UNANSWERED_WAIT);
    assert_eq!(world.spool().take(HAND_MAX).await.unwrap().unwrap_err(), None, "nothing is left to wait for");
    assert_eq!((world.spool().backlog().await.unwrap().waiting, world.spool().hand().len()), (1, 0));
    assert_eq!(world.at_once(9).await.len(), 1, "and there is room for what is new");
}

#[tokio::test]
async fn no_more_are_handed_out_than_memory_is_meant_for_until_there_is_room() {
    let world = World::new().await;
    world.push(names("a", HAND_MAX + 1)).await;
    let out = world.spool().receive(HAND_MAX).await.unwrap();
    assert_eq!(out.len(), HAND_MAX);
    assert_eq!(world.spool().take(1).await.unwrap().unwrap_err(), None, "it waits for news");
    let first = [out[0].receipt.clone()];
    let (last, done) = tokio::join!(world.spool().receive(1), world.spool().done(&first));
    done.unwrap();
    assert_eq!(last.unwrap().len(), 1);
}

#[tokio::test]
async fn one_put_back_to_a_time_before_all_times_is_delivered_at_once() {
    let world = World::new().await;
    world.push(names("a", 1)).await;
    let out = world.spool().receive(1).await.unwrap();
    world.spool().again(&out[0].receipt, UnixMs(0), "again").await.unwrap();
    assert_eq!(world.at_once(1).await, ["a00000"]);
}

#[tokio::test]
async fn whether_events_of_a_bucket_wait_is_told_of_that_bucket_alone_and_after_a_bounded_look() {
    let world = World::new().await;
    world.push(names("a", 3)).await;
    assert_eq!(world.spool().waits_for("b").await.unwrap(), Some(true));
    assert_eq!(world.spool().waits_for("another").await.unwrap(), Some(false));
    let look = async |bucket: &'static str, limit| {
        let look = move |db: &rusqlite::Connection| rows::waits_for(db, bucket, limit);
        world.spool().db.read("test", "spool", look).await.unwrap()
    };
    assert_eq!((look("another", 3).await, look("b", 3).await), (None, Some(true)), "there may be more");
}
