//! One data folder at work: its policies, stores, queue and journal, as commands and the daemon use them.
//!
//! Opened by the process that holds the folder's lock, so there is never more than one (`folder.rs`).

use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::folder::Folder;
use crate::home::{Home, Kept};
use crate::intake::Intake;
use crate::remote::Remotes;
use crate::tables::Own;
use engine::config::{Config, PolicyConfig};
use engine::driver::Policies;
use engine::policy::Policy;
use engine::ports::clock::{Clock, Nonces};
use engine::ports::events::{DeadLetters, EventQueue};
use engine::ports::journal::Journal;
use engine::ports::metrics::Counters;
use engine::wrap::owned::Ownership;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use local::credentials::Keyring;
use local::feed_file::FeedFile;
use local::journal::FileJournal;
use local::sqlite::catalog::SqliteCatalog;
use local::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use tokio::sync::OnceCell;

/// Why a lock is never poisoned: what runs under it cannot panic.
pub(crate) const UNPOISONED: &str = "no holder of this lock panics";

/// A data folder at work.
pub(crate) struct Instance {
    /// The folder, held.
    pub(crate) folder: Folder,
    /// The configuration in force.
    pub(crate) config: Config,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// Names and jitter.
    pub(crate) nonces: Arc<dyn Nonces>,
    /// Counters since the start.
    pub(crate) metrics: Arc<Counters>,
    /// The policies at work.
    pub(crate) policies: Policies,
    /// How they were configured, by name.
    pub(crate) settings: RwLock<BTreeMap<String, Setting>>,
    /// Held while a policy is set up, so that no catalog is ever opened twice.
    pub(crate) adding: tokio::sync::Mutex<()>,
    /// The policies whose schedules run.
    pub(crate) scheduled: Mutex<BTreeSet<String>>,
    /// The bucket store.
    pub(crate) store: Arc<Store>,
    /// The services that policies name.
    pub(crate) services: Remotes,
    /// The queues of services, by their names in the configuration.
    pub(crate) intakes: RwLock<BTreeMap<String, Intake>>,
    /// Tables whose deleted records are archived.
    pub(crate) archivings: RwLock<Vec<Arc<Archiving>>>,
    /// Held while a service's records are packed by schedule.
    pub(crate) packing: tokio::sync::Mutex<()>,
    /// This machine's own tables whose archive could not be opened, and why: they are tried again.
    pub(crate) not_archived: RwLock<BTreeMap<String, String>>,
    /// This machine's own tables, unless they are switched off.
    pub(crate) tables: Option<Own>,
    /// Leases that are no table's: one file, opened once.
    pub(crate) leases: OnceCell<Arc<SqliteCatalog>>,
    /// Files that are told what is archived, by their paths: each has one writer.
    pub(crate) feed_files: Mutex<BTreeMap<PathBuf, Arc<FeedFile>>>,
    /// The queue of the events of buckets here.
    pub(crate) queue: Arc<dyn EventQueue>,
    /// Events given up.
    pub(crate) letters: Arc<dyn DeadLetters>,
    /// The journal, to write.
    pub(crate) journal: Arc<dyn Journal>,
    /// The same journal, to read and to close.
    pub(crate) journal_read: Arc<FileJournal>,
    /// The keys that the endpoint accepts.
    pub(crate) keyring: Keyring,
    /// When this process opened the folder.
    pub(crate) started_at: UnixMs,
    /// Set while `serve` runs: the endpoint's address.
    pub(crate) endpoint: OnceLock<String>,
    /// The same of the DynamoDB endpoint, if there is one.
    pub(crate) tables_endpoint: OnceLock<String>,
}

/// Tables of this machine that have no stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Untold {
    /// It was switched off.
    pub(crate) switched_off: Vec<String>,
    /// They never had one: their making was cut off.
    pub(crate) unfinished: Vec<String>,
}

/// What is known of a policy besides what its flows need.
#[derive(Clone)]
pub(crate) struct Setting {
    /// As configured.
    pub(crate) config: PolicyConfig,
    /// Made for a bucket that a client created.
    pub(crate) by_default: bool,
    /// Its source.
    pub(crate) source: Home,
    /// Its destination.
    pub(crate) destination: Home,
    /// Its catalog.
    pub(crate) catalog: Kept,
    /// Its right to a destination in a service.
    pub(crate) ownership: Option<Arc<Ownership>>,
    /// When its catalog was last saved into the destination.
    pub(crate) snapshot_at: Option<UnixMs>,
}

impl Instance {
    /// Now.
    pub(crate) fn now(&self) -> UnixMs {
        self.clock.now()
    }

    /// What is known of that policy.
    pub(crate) fn setting(&self, policy: &Policy) -> Option<Setting> {
        self.setting_named(policy.name.as_str())
    }

    /// What is known of the policy of that name.
    pub(crate) fn setting_named(&self, name: &str) -> Option<Setting> {
        self.settings.read().expect(UNPOISONED).get(name).cloned()
    }

    /// The policy of that name.
    pub(crate) fn policy_named(&self, name: &str) -> Option<Arc<Policy>> {
        self.policies.all().into_iter().find(|policy| policy.name.as_str() == name)
    }

    /// Notes when a policy's catalog was saved.
    pub(crate) fn saved(&self, policy: &Policy, at: UnixMs) {
        if let Some(setting) = self.settings.write().expect(UNPOISONED).get_mut(policy.name.as_str()) {
            setting.snapshot_at = Some(at);
        }
    }

    /// Notes that a policy's schedules run; `false`: they ran already.
    pub(crate) fn begin_schedules(&self, name: &str) -> bool {
        self.scheduled.lock().expect(UNPOISONED).insert(name.to_owned())
    }

    /// Ends in good order: what was asked before is answered, then the files are closed.
    pub(crate) async fn close(&self) {
        let settings: Vec<Setting> = self.settings.read().expect(UNPOISONED).values().cloned().collect();
        for setting in settings {
            setting.catalog.close().await;
        }
        if let Some(leases) = self.leases.get() {
            leases.close().await;
        }
        if let Some(tables) = &self.tables {
            tables.close().await;
        }
        self.journal_read.close().await;
        self.store.close().await;
    }

    /// The tables whose deleted records are archived.
    pub(crate) fn all_archivings(&self) -> Vec<Arc<Archiving>> {
        self.archivings.read().expect(UNPOISONED).clone()
    }

    /// That policy, or all of them.
    pub(crate) fn selected(&self, name: Option<&str>) -> Result<Vec<Arc<Policy>>, Failure> {
        let all = self.policies.all();
        let Some(name) = name else { return Ok(all) };
        let known: Vec<String> = all.iter().map(|policy| policy.name.to_string()).collect();
        match all.into_iter().find(|policy| policy.name.as_str() == name) {
            Some(policy) => Ok(vec![policy]),
            None if known.is_empty() => Err(Failure::usage("there is no policy at all in this data folder")),
            None => Err(Failure::usage(format!("there is no policy `{name}`; there are: {}", known.join(", ")))),
        }
    }

    /// Those of the selected policies that have copies of a key.
    pub(crate) async fn knowing(&self, name: Option<&str>, key: &ObjectKey) -> Result<Vec<Arc<Policy>>, Failure> {
        let mut knowing = Vec::new();
        for policy in self.selected(name)? {
            let partition = policy.catalog.partition(key).await.map_err(|error| not_asked(&policy, name, error))?;
            if !partition.rows.is_empty() {
                knowing.push(policy);
            }
        }
        Ok(knowing)
    }

    /// The one policy that a command over many keys means.
    pub(crate) fn the_one(&self, name: Option<&str>) -> Result<Arc<Policy>, Failure> {
        one_of(self.selected(name)?, "choose one with --policy")
    }
}

/// What a command over several policies says when one of them does not answer: the others need not wait for it.
pub(crate) fn not_asked(policy: &Policy, name: Option<&str>, error: impl Into<Failure>) -> Failure {
    let failed = error.into().while_doing(format!("the policy {} could not be asked", policy.name));
    match name {
        Some(_) => failed,
        None => failed.while_doing("name the policy that you mean with --policy"),
    }
}

/// The only one of them.
pub(crate) fn one_of(mut policies: Vec<Arc<Policy>>, remedy: &str) -> Result<Arc<Policy>, Failure> {
    match (policies.pop(), policies.is_empty()) {
        (Some(policy), true) => Ok(policy),
        (Some(last), false) => {
            let names: Vec<&str> = policies.iter().chain([&last]).map(|policy| policy.name.as_str()).collect();
            Err(Failure::usage(format!("several policies are meant ({}): {remedy}", names.join(", "))))
        }
        (None, _) => Err(Failure::usage("there is no policy at all in this data folder")),
    }
}

/// A key as a person typed it.
pub(crate) fn object_key(text: &str) -> Result<ObjectKey, Failure> {
    ObjectKey::new(text).map_err(|error| Failure::usage(format!("`{text}`: {error}")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Instance;
    use crate::folder::{Folder, IfMissing};
    use crate::remote::MissingTable;
    use crate::wiring;
    use engine::config::Config;
    use engine::ports::clock::Clock;
    use engine::wrap::owned::Claim;
    use std::sync::Arc;

    /// A fresh folder at work as for trying out, as a daemon has it but for its loops.
    pub(crate) async fn opened(clock: Arc<dyn Clock>) -> (tempfile::TempDir, Arc<Instance>) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let folder = Folder::open(&path, IfMissing::Create).unwrap();
        let config = Config::trial(path);
        let instance = wiring::open(folder, config, Claim::Own, MissingTable::Refuse, clock).await.unwrap();
        instance.endpoint.set("http://127.0.0.1:9000".to_owned()).unwrap();
        (root, instance)
    }
}
