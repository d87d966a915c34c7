//! What opening, writing in groups and reading promise, shown on files in a temporary folder.

use super::open::{Database, Schema};
use crate::limits::CHECKPOINT_ROWS;
use engine::error::{ErrorKind, PortError};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::task::JoinSet;

static FIRST: Schema = Schema {
    what: "trial",
    application_id: 0x0411_7e57,
    migrations: &["CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER NOT NULL) STRICT;"],
    remedy: "make a new one",
};
static SECOND: Schema = Schema {
    what: "trial",
    application_id: 0x0411_7e57,
    migrations: &[FIRST.migrations[0], "ALTER TABLE t ADD COLUMN note TEXT;"],
    remedy: "make a new one",
};
static OTHER: Schema =
    Schema { what: "other", application_id: 7, migrations: &["CREATE TABLE o (k TEXT);"], remedy: "make a new one" };

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/trial.sqlite");
    (folder, path)
}

async fn insert(db: &Database, k: &str, v: i64) -> Result<(), PortError> {
    let key = k.to_owned();
    db.write("put trial row", k, move |tx| {
        tx.prepare_cached("INSERT INTO t (k, v) VALUES (?1, ?2)")?.execute((key, v))?;
        Ok(())
    })
    .await
}

async fn sum(db: &Database) -> i64 {
    let read = |tx: &Connection| Ok(tx.query_row("SELECT coalesce(sum(v), 0) FROM t", [], |row| row.get(0))?);
    db.read("sum trial rows", "", read).await.unwrap()
}

fn copy_of_running(path: &Path, to: &Path) {
    // What a power cut leaves: the file and its write-ahead log as they are now, without any closing.
    for end in ["", "-wal"] {
        let name = |path: &Path| format!("{}{end}", path.display());
        std::fs::copy(name(path), name(to)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_job_takes_back_its_own_changes_only() {
    let (_folder, path) = folder();
    let db = Arc::new(Database::open(&path, &FIRST).unwrap());
    let mut tasks = JoinSet::new();
    for n in 0..200_i64 {
        let db = Arc::clone(&db);
        tasks.spawn(async move {
            let fails = n % 5 == 0;
            let outcome = db.write("put trial row", n.to_string(), move |tx| {
                tx.execute("INSERT INTO t (k, v) VALUES (?1, 1)", [n.to_string()])?;
                match n % 10 {
                    0 => Err(PortError::new("refuse", n, ErrorKind::Unsupported).into()),
                    5 => panic!("on purpose"),
                    _ => Ok(n),
                }
            });
            let outcome = outcome.await;
            assert_eq!(outcome.is_err(), fails, "{n}: {outcome:?}");
        });
    }
    tasks.join_all().await;
    assert_eq!(sum(&db).await, 160);
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut_and_the_next_opening_checks_it() {
    let (folder, path) = folder();
    let db = Database::open(&path, &FIRST).unwrap();
    for n in 0..10 {
        insert(&db, &n.to_string(), 1).await.unwrap();
    }
    let after = folder.path().join("after.sqlite");
    copy_of_running(&path, &after);
    let again = Database::open(&after, &FIRST).unwrap();
    assert_eq!(sum(&again).await, 10);
}

#[tokio::test]
async fn a_clean_close_folds_the_log_in_and_refuses_later_calls() {
    let (_folder, path) = folder();
    let db = Database::open(&path, &FIRST).unwrap();
    insert(&db, "a", 1).await.unwrap();
    assert_eq!(sum(&db).await, 1);
    db.close().await;
    assert!(!path.with_extension("sqlite-wal").exists());
    assert_eq!(insert(&db, "b", 1).await.unwrap_err().kind, ErrorKind::Unavailable);
    let read = db.read("read", "", |_| Ok(())).await;
    assert_eq!(read.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(sum(&Database::open(&path, &FIRST).unwrap()).await, 1);
}

#[tokio::test]
async fn a_write_without_a_waiting_caller_still_happens() {
    let (_folder, path) = folder();
    let db = Database::open(&path, &FIRST).unwrap();
    let mut write = Box::pin(insert(&db, "a", 1));
    let polled = futures_util::poll!(&mut write);
    assert!(polled.is_pending());
    drop(write);
    insert(&db, "b", 1).await.unwrap();
    assert_eq!(sum(&db).await, 2);
}

#[tokio::test]
async fn layouts_migrate_forward_and_a_newer_one_is_refused() {
    let (_folder, path) = folder();
    let db = Database::open(&path, &FIRST).unwrap();
    insert(&db, "a", 3).await.unwrap();
    db.close().await;
    let db = Database::open(&path, &SECOND).unwrap();
    let read = |tx: &Connection| Ok(tx.query_row("SELECT v, note FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)))?);
    let row: (i64, Option<String>) = db.read("read", "", read).await.unwrap();
    assert_eq!(row, (3, None));
    db.close().await;
    let refused = Database::open(&path, &FIRST).err().unwrap();
    assert!(
        refused.to_string().contains("written by a newer Afterimage (layout 2; this one knows up to 1)"),
        "{refused}"
    );
}

#[test]
fn a_database_of_another_kind_is_refused() {
    let (_folder, path) = folder();
    drop(Database::open(&path, &OTHER).unwrap());
    let refused = Database::open(&path, &FIRST).err().unwrap();
    assert!(matches!(&refused.kind, ErrorKind::Invalid(why) if why.contains("something else")), "{refused}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_the_remedy() {
    let (_folder, path) = folder();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    for text in
        ["x", "this is a text, and rather a long one; it has more bytes than the header of any database has.\n\n\n"]
    {
        std::fs::write(&path, text).unwrap();
        let refused = Database::open(&path, &FIRST).err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Damaged("the file is no database; make a new one".to_owned()));
    }

    std::fs::remove_file(&path).unwrap();
    let db = Database::open(&path, &FIRST).unwrap();
    let many = |tx: &Connection| {
        for n in 0..2_000 {
            tx.execute("INSERT INTO t VALUES (?1, 1)", [format!("{n:090}")])?;
        }
        Ok(())
    };
    db.write("put", "", many).await.unwrap();
    db.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    let refused = Database::open(&path, &FIRST).err().unwrap();
    assert!(matches!(&refused.kind, ErrorKind::Damaged(why) if why.ends_with("make a new one")), "{refused}");
}

#[tokio::test]
async fn readers_cannot_write_and_see_what_was_answered() {
    let (_folder, path) = folder();
    let db = Database::open(&path, &FIRST).unwrap();
    for n in 0..50 {
        insert(&db, &n.to_string(), 1).await.unwrap();
        assert_eq!(sum(&db).await, n + 1);
    }
    let refused = db.read("write through a reader", "", |tx| Ok(tx.execute("DELETE FROM t", [])?)).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::AccessDenied(_)), "{refused}");
    let panicked = db.read("read", "", |_| -> Result<(), _> { panic!("on purpose") }).await.unwrap_err();
    assert!(matches!(panicked.kind, ErrorKind::Internal(_)), "{panicked}");
    assert_eq!(sum(&db).await, 50);
}

#[tokio::test]
async fn a_full_disk_is_no_space_for_everybody_in_the_group() {
    let (_folder, path) = folder();
    let db = Database::open(&path, &FIRST).unwrap();
    insert(&db, "kept", 1).await.unwrap();
    // SQLite's own page limit stands for the disk's.
    db.write("limit", "", |tx| Ok(tx.query_row("PRAGMA max_page_count = 4", [], |_| Ok(()))?)).await.unwrap();
    let big = |tx: &Connection| Ok(tx.execute("INSERT INTO t VALUES (hex(zeroblob(200000)), 1)", [])?);
    let refused = db.write("put row", "big", big).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NoSpace);
    assert_eq!(refused.to_string(), "put row big: no space left");
    assert_eq!(sum(&db).await, 1);
    db.write("limit", "", |tx| Ok(tx.query_row("PRAGMA max_page_count = 4000000", [], |_| Ok(()))?)).await.unwrap();
    insert(&db, "more", 1).await.unwrap();
    assert_eq!(sum(&db).await, 2);
}

#[tokio::test]
async fn the_log_is_folded_in_while_the_database_is_open() {
    let (_folder, path) = folder();
    let db = Database::open(&path, &FIRST).unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    let mut written = 0_i64;
    while std::fs::metadata(&path).unwrap().len() == before {
        let many = move |tx: &Connection| {
            for n in written..written + 100 {
                tx.execute("INSERT INTO t VALUES (?1, 1)", [format!("{n:090}")])?;
            }
            Ok(())
        };
        db.write("put", "", many).await.unwrap();
        written += 100;
        assert!(written < 200_000, "nothing was folded in after {written} rows");
    }
    assert!(written as u64 >= CHECKPOINT_ROWS, "not before it is worth it: {written}");
    assert_eq!(sum(&db).await, written);
    db.close().await;
    assert!(!path.with_extension("sqlite-wal").exists());
}
