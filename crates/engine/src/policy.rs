//! One policy at work: its rules and the handles that its flows may use.

use crate::ports::catalog::{Catalog, CatalogKeys};
use crate::ports::clock::{Clock, Nonces};
use crate::ports::journal::Journal;
use crate::ports::metrics::Metrics;
use crate::ports::objects::{ObjectCopy, ObjectRead};
use crate::steps::purge::Purger;
use lifecycle::ids::{ObjectKey, PolicyName};
use lifecycle::policy::Rules;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Timestamped copies with a history.
    Copies,
    /// The destination equals the source.
    Mirror,
}

/// One policy, wired.
#[derive(Clone)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// What it does.
    pub mode: Mode,
    /// Its rules.
    pub rules: Rules,
    /// The bucket that its events name.
    pub source_bucket: String,
    /// It covers the keys under this prefix; empty: all.
    pub source_prefix: String,
    /// The source: read only, by type (I5).
    pub source: Arc<dyn ObjectRead>,
    /// The destination.
    pub destination: Arc<dyn ObjectRead>,
    /// From the source to the destination.
    pub copier: Arc<dyn ObjectCopy>,
    /// Inside the destination (`undelete` gives a copy a new name).
    pub recopier: Arc<dyn ObjectCopy>,
    /// The only way to delete from the destination (I3).
    pub purger: Purger,
    /// The catalog.
    pub catalog: Arc<dyn Catalog>,
    /// The catalog's keys in order, where it can list them.
    pub keys: Option<Arc<dyn CatalogKeys>>,
    /// A folder for what is sorted on disk: files without names, gone with the process. Not the system's folder for temporary
    /// files, which often is memory.
    pub scratch: PathBuf,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Names and jitter.
    pub nonces: Arc<dyn Nonces>,
    /// Counters.
    pub metrics: Arc<dyn Metrics>,
}

impl Policy {
    /// Whether the policy looks after that key of that bucket.
    pub fn covers(&self, bucket: &str, key: &ObjectKey) -> bool {
        self.source_bucket == bucket && key.as_str().starts_with(&self.source_prefix)
    }
}
