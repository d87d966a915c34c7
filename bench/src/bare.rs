//! The bare cost of the durable steps between a PUT and its copy: write, fsync, rename, fsync of the folder, twice, and two
//! commits to SQLite (WAL, FULL). No HTTP, no hashes, no rules: what the disk alone asks for.

use anyhow::{Context, Result};
use rusqlite::Connection;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A folder with two buckets and a database.
pub(crate) struct Bare {
    source: PathBuf,
    copies: PathBuf,
    database: Mutex<Connection>,
}

impl Bare {
    pub(crate) fn open(folder: &Path) -> Result<Bare> {
        let (source, copies) = (folder.join("source"), folder.join("copies"));
        std::fs::create_dir_all(&source)?;
        std::fs::create_dir_all(&copies)?;
        let database = Connection::open(folder.join("bare.sqlite"))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.execute("CREATE TABLE steps (step TEXT, name TEXT, PRIMARY KEY (step, name)) WITHOUT ROWID", [])?;
        Ok(Bare { source, copies, database: Mutex::new(database) })
    }

    /// All durable steps of one put and its copy.
    pub(crate) fn put_and_copy(&self, name: &str, body: &[u8]) -> Result<()> {
        durable_file(&self.source, name, body)?;
        self.commit("put", name)?;
        durable_file(&self.copies, name, body)?;
        self.commit("copy", name)
    }

    fn commit(&self, step: &str, name: &str) -> Result<()> {
        let database = self.database.lock().expect("no holder of this lock panics");
        database.execute("INSERT INTO steps VALUES (?1, ?2)", [step, name])?;
        Ok(())
    }
}

fn durable_file(folder: &Path, name: &str, body: &[u8]) -> Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary).with_context(|| format!("create {}", temporary.display()))?;
    file.write_all(body)?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
