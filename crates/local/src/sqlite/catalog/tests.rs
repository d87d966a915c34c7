//! The catalog on SQLite: the port's suite, the same answers as the catalog in memory, and what only a file can show.

use super::{Snapshot, SqliteCatalog, index};
use engine::conformance;
use engine::error::ErrorKind;
use engine::memory::catalog::MemoryCatalog;
use engine::ports::catalog::{
    Catalog, CatalogKeys, CatalogRead, Changed, IndexQuery, Indexed, RowChange, RowId, RowSet, Totals,
};
use lifecycle::ids::{Checksum, CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::order::Order;
use lifecycle::row::{CopyRow, CopyState, Origin, Partition, Reason, Tombstone};
use lifecycle::time::UnixMs;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

struct Folder {
    folder: TempDir,
    made: AtomicUsize,
}

impl Folder {
    fn new() -> Folder {
        Folder { folder: tempfile::tempdir().unwrap(), made: AtomicUsize::new(0) }
    }

    fn catalog(&self) -> Arc<SqliteCatalog> {
        let name = format!("{}.sqlite", self.made.fetch_add(1, Ordering::Relaxed));
        Arc::new(SqliteCatalog::open(&self.folder.path().join(name)).unwrap())
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn row(copy: &str) -> CopyRow {
    CopyRow {
        copy_key: CopyKey::of(key(copy)),
        order: Order::from_sequencer("5").unwrap(),
        floating: false,
        origin: Origin::Undelete { at: UnixMs(77) },
        created_at: UnixMs(1_000),
        state: CopyState::Active { due_at: None },
        removed_at: None,
        version_id: Some(VersionId::from("v1")),
        etag: ETag::from("tag"),
        size: 7,
        checksum: Some(Checksum(1)),
        storage_class: None,
        rev: Rev::from(""),
    }
}

fn id(original: &str, copy: &str) -> RowId {
    RowId { original: key(original), copy_key: CopyKey::of(key(copy)) }
}

/// What a person sees who opens the file with `sqlite3`.
fn by_hand<T: rusqlite::types::FromSql>(path: &Path, sql: &str) -> T {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The totals, counted anew from the rows.
fn recounted(path: &Path) -> Totals {
    Totals {
        live_keys: by_hand(path, "SELECT count(DISTINCT original_key) FROM copies WHERE status <> 'disowned'"),
        active: by_hand(path, "SELECT count(*) FROM copies WHERE status <> 'disowned'"),
        disowned: by_hand(path, "SELECT count(*) FROM copies WHERE status = 'disowned'"),
        bytes: by_hand(path, "SELECT coalesce(sum(size), 0) FROM copies"),
        estimated: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_on_sqlite_conforms() {
    let folder = Folder::new();
    conformance::catalog::catalog(|| async { folder.catalog() as Arc<dyn Catalog> }).await;
    conformance::catalog::catalog_keys(|| async {
        let catalog = folder.catalog();
        (Arc::clone(&catalog) as Arc<dyn Catalog>, catalog as Arc<dyn CatalogKeys>)
    })
    .await;
}

/// One call, on few keys and copies, so that calls meet.
#[derive(Clone, Debug)]
enum Op {
    Upsert(u8, CopyRow),
    Mirror(u8, CopyRow),
    Change { of: u8, copy: u8, stale: bool, set: RowSet },
    Bury(u8, u8),
    Forget(i64),
}

fn ops() -> impl Strategy<Value = Op> {
    let state = prop_oneof![
        3 => Just(CopyState::Active { due_at: None }),
        1 => (0..9_i64).prop_map(|at| CopyState::Active { due_at: Some(UnixMs(at)) }),
    ];
    let new = (0..4_u8, 0..9_i64, any::<bool>(), any::<bool>(), 0..99_u64, state).prop_map(
        |(copy, at, floating, versioned, size, state)| CopyRow {
            floating,
            created_at: UnixMs(at),
            version_id: versioned.then(|| VersionId::from("v")),
            checksum: versioned.then_some(Checksum(size)),
            removed_at: floating.then_some(UnixMs(at)),
            size,
            state,
            ..row(&format!("c{copy}"))
        },
    );
    let set = prop_oneof![
        (0..9_i64, any::<bool>()).prop_map(|(at, removed)| RowSet::Disowned {
            at: UnixMs(at),
            reason: if removed { Reason::Removed } else { Reason::BeyondKeep },
            removed_at: removed.then_some(UnixMs(at)),
        }),
        (1..9_u8).prop_map(|hex| RowSet::Raised { order: Order::from_sequencer(&hex.to_string()).unwrap() }),
        proptest::option::of(0..9_i64).prop_map(|at| RowSet::Due { at: at.map(UnixMs) }),
        Just(RowSet::Deleted),
    ];
    prop_oneof![
        4 => (0..4_u8, new.clone()).prop_map(|(of, row)| Op::Upsert(of, row)),
        1 => (0..4_u8, new).prop_map(|(of, row)| Op::Mirror(of, row)),
        6 => (0..4_u8, 0..4_u8, proptest::bool::weighted(0.1), set)
            .prop_map(|(of, copy, stale, set)| Op::Change { of, copy, stale, set }),
        2 => (0..4_u8, 0..9_u8).prop_map(|(of, order)| Op::Bury(of, order)),
        1 => (0..9_i64).prop_map(Op::Forget),
    ]
}

/// Carries the call out and tells what it answered, without revs, which differ.
async fn answer<C: Catalog>(catalog: &C, op: &Op) -> String {
    let original = |of: &u8| key(&format!("k{of}"));
    match op {
        Op::Upsert(of, row) => format!("{:?}", catalog.upsert(&original(of), row).await.is_ok()),
        Op::Mirror(of, row) => format!("{:?}", catalog.record_mirrored(&original(of), row).await.is_ok()),
        Op::Change { of, copy, stale, set } => {
            let id = id(&format!("k{of}"), &format!("c{copy}"));
            let read = catalog.rows(std::slice::from_ref(&id)).await.unwrap().remove(0);
            let if_rev = read.filter(|_| !stale).map_or(Rev::from("stale"), |row| row.rev);
            let outcome = catalog.change(&[RowChange { id, if_rev, set: set.clone() }]).await.remove(0).unwrap();
            format!("{}", matches!(outcome, Changed::Applied(_)))
        }
        Op::Bury(of, order) => {
            let order = Order::from_sequencer(&order.to_string()).unwrap();
            let tombstone = Tombstone { order, time: UnixMs(1), noted_at: UnixMs(i64::from(*of)), floating: false };
            format!("{:?}", catalog.bury(&original(of), &tombstone).await.unwrap())
        }
        Op::Forget(before) => format!("{:?}", catalog.forget_tombstones(UnixMs(*before), 100).await.unwrap()),
    }
}

/// All that a catalog answers, revs left out.
async fn contents<C: Catalog + CatalogKeys>(catalog: &C) -> String {
    let mut all = format!("{:?}\n{:?}\n", catalog.totals().await.unwrap(), catalog.keys("", None, 3).await.unwrap());
    for of in 0..4 {
        let Partition { mut rows, tombstone } = catalog.partition(&key(&format!("k{of}"))).await.unwrap();
        rows.iter_mut().for_each(|row| row.rev = Rev::from(""));
        rows.sort_by(|a, b| a.copy_key.cmp(&b.copy_key));
        all.push_str(&format!("{of}: {rows:?} {tombstone:?}\n"));
    }
    for what in [Indexed::Disowned, Indexed::Surplus, Indexed::Removed] {
        let query = IndexQuery { what, from: UnixMs(2), until: UnixMs(7), after: None, limit: 5 };
        all.push_str(&format!("{:?}\n", catalog.index(&query).await.unwrap()));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_and_memory_answer_alike(ops in proptest::collection::vec(ops(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = Folder::new();
            let (file, memory) = (folder.catalog(), MemoryCatalog::default());
            for (n, op) in ops.iter().enumerate() {
                assert_eq!(answer(&*file, op).await, answer(&memory, op).await, "call {n}: {op:?}");
            }
            assert_eq!(contents(&*file).await, contents(&memory).await);
            assert_eq!(file.totals().await.unwrap(), recounted(file.database.path()));
        });
    }
}

#[tokio::test]
async fn a_power_cut_at_any_moment_leaves_rows_and_totals_in_step() {
    let folder = Folder::new();
    let catalog = folder.catalog();
    let path = catalog.database.path().to_owned();
    let cut = folder.folder.path().join("cut.sqlite");
    for n in 0..30 {
        catalog.upsert(&key(&format!("k{}", n % 5)), &row(&format!("c{n}"))).await.unwrap();
        for end in ["", "-wal"] {
            let name = |path: &Path| format!("{}{end}", path.display());
            std::fs::copy(name(&path), name(&cut)).unwrap();
        }
        let after = SqliteCatalog::open(&cut).unwrap();
        assert_eq!(after.totals().await.unwrap().active, n + 1, "what was answered is there");
        assert_eq!(after.partition(&key(&format!("k{}", n % 5))).await.unwrap().rows.len() as u64, n / 5 + 1);
        after.close().await;
        assert_eq!(recounted(&cut).active, n + 1);
        std::fs::remove_file(&cut).unwrap();
    }
}

#[tokio::test]
async fn revs_stay_unique_over_restarts() {
    let folder = Folder::new();
    let catalog = folder.catalog();
    let path = catalog.database.path().to_owned();
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    let first = catalog.rows(&[id("k", "c")]).await.unwrap().remove(0).unwrap();
    catalog.change(&[RowChange { id: id("k", "c"), if_rev: first.rev.clone(), set: RowSet::Deleted }]).await;
    catalog.close().await;
    let catalog = SqliteCatalog::open(&path).unwrap();
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    let second = catalog.rows(&[id("k", "c")]).await.unwrap().remove(0).unwrap();
    assert_ne!(first.rev, second.rev);
}

#[tokio::test]
async fn people_can_read_the_file() {
    let folder = Folder::new();
    let catalog = folder.catalog();
    catalog.upsert(&key("notes/plan.txt"), &row("copy")).await.unwrap();
    let sql = "SELECT format('%s|%s|%s|%s|%s|%s|%s|%s', original_key, copy_key, created_at, status, \"order\", origin, \
        checksum, size) FROM copies";
    let line: String = by_hand(catalog.database.path(), sql);
    assert_eq!(line, "notes/plan.txt|copy|1000|active|s5|undelete@77|AAAAAAAAAAE=|7");
}

#[tokio::test]
async fn a_value_that_does_not_read_back_is_damage_with_its_row() {
    let folder = Folder::new();
    let catalog = folder.catalog();
    for (n, set) in ["\"order\" = 'x'", "origin = 'elsewhere'", "checksum = 'no'", "disowned_at = 5", "size = -1"]
        .into_iter()
        .enumerate()
    {
        let name = format!("k{n}");
        catalog.upsert(&key(&name), &row("c")).await.unwrap();
        let sql = format!("UPDATE copies SET {set} WHERE original_key = '{name}'");
        Connection::open(catalog.database.path()).unwrap().execute(&sql, []).unwrap();
        let error = catalog.partition(&key(&name)).await.unwrap_err();
        assert!(matches!(&error.kind, ErrorKind::Damaged(why) if why.contains("reconcile --rebuild")), "{error}");
        assert!(error.object.contains(&name), "{set}: {error}");
    }
}

#[test]
fn a_file_that_is_no_catalog_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let path = folder.folder.path().join("documents.sqlite");
    std::fs::write(&path, "not a database").unwrap();
    let error = SqliteCatalog::open(&path).err().unwrap();
    let remedy = "damaged: the file is no database; stop `serve` and run `afterimage reconcile --rebuild`, \
        which sets it aside and makes it again";
    assert_eq!(error.to_string(), format!("open database {}: {remedy}", path.display()));
}

#[tokio::test]
async fn a_snapshot_is_a_whole_catalog_and_is_skipped_when_nothing_changed() {
    let folder = Folder::new();
    let catalog = folder.catalog();
    let to = folder.folder.path().join("snapshot.sqlite");
    for n in 0..100 {
        catalog.upsert(&key(&format!("k{n}")), &row("c")).await.unwrap();
    }
    assert_eq!(catalog.snapshot_to(&to).await.unwrap(), Snapshot::Written);
    assert_eq!(catalog.snapshot_to(&to).await.unwrap(), Snapshot::Unchanged);
    catalog.lease("clean", "a", UnixMs(0), UnixMs(1)).await.unwrap();
    assert_eq!(catalog.snapshot_to(&to).await.unwrap(), Snapshot::Unchanged, "a lease is no reason");
    catalog.upsert(&key("more"), &row("c")).await.unwrap();
    assert_eq!(catalog.snapshot_to(&to).await.unwrap(), Snapshot::Written);
    let copy = SqliteCatalog::open(&to).unwrap();
    assert_eq!(copy.totals().await.unwrap().live_keys, 101);
    assert_eq!(copy.partition(&key("more")).await.unwrap(), catalog.partition(&key("more")).await.unwrap());
    copy.close().await;
    let missing = folder.folder.path().join("missing/snapshot.sqlite");
    assert!(catalog.upsert(&key("yet more"), &row("c")).await.is_ok());
    assert!(catalog.snapshot_to(&missing).await.is_err());
    assert_eq!(catalog.snapshot_to(&to).await.unwrap(), Snapshot::Written, "a failed one does not count");
}

#[tokio::test]
async fn leases_of_a_dead_process_can_be_forgotten() {
    let folder = Folder::new();
    let catalog = folder.catalog();
    assert!(catalog.lease("clean", "dead", UnixMs(0), UnixMs(1_000)).await.unwrap());
    catalog.forget_leases().await.unwrap();
    assert!(catalog.lease("clean", "alive", UnixMs(1), UnixMs(1_000)).await.unwrap());
}

#[tokio::test]
async fn every_read_is_a_search_and_nothing_is_sorted() {
    let folder = Folder::new();
    let catalog = folder.catalog();
    catalog.upsert(&key("k"), &row("c")).await.unwrap();
    let file = Connection::open(catalog.database.path()).unwrap();
    for sql in index::STATEMENTS {
        let plan = format!("EXPLAIN QUERY PLAN {sql}");
        let mut statement = file.prepare(&plan).unwrap();
        let values = vec![1; statement.parameter_count()];
        let steps = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.collect::<Result<_, _>>().unwrap();
        assert!(steps.len() == 1 && steps[0].starts_with("SEARCH"), "{sql}\n{steps:?}");
    }
}
