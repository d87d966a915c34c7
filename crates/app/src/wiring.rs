//! From a configuration to a data folder at work: stores, catalogs, journal, policies. The only file that knows which
//! adapter stands behind which port.

use crate::archiving::{Archiving, LEASES_FILE};
use crate::exit::Failure;
use crate::folder::Folder;
use crate::home::{Home, Kept};
use crate::instance::{Instance, Setting, UNPOISONED};
use crate::intake::Intake;
use crate::reach::Me;
use crate::remote::{MissingTable, Remotes};
use crate::tables;
use anyhow::Context;
use engine::config::{
    ArchiveConfig, COPIES_SUFFIX, CatalogPlace, Config, Destination, LOCAL_SERVICE, Packing, PolicyConfig, Remote,
    Tiers,
};
use engine::driver::Policies;
use engine::error::{ErrorKind as PortErrorKind, PortResult};
use engine::policy::{Mode, Policy};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::metrics::Counters;
use engine::steps::purge::Purger;
use engine::wrap::owned::{Claim, Ownership};
use engine::wrap::retry::Retries;
use lifecycle::archive::ServiceName;
use local::clock::SystemNonces;
use local::credentials::{Credentials, Keyring};
use local::journal::FileJournal;
use local::sqlite::catalog::SqliteCatalog;
use local::store::{BUCKETS_FOLDER, BucketName, BucketSpec, Role, Store, StoreError, is_bucket_folder};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// Why a policy is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// The configuration names it.
    ByName(Claim),
    /// A client made a bucket that no policy names.
    ByDefault,
}

/// Opens everything. Buckets that policies name are made if they are not there.
pub(crate) async fn open(
    folder: Folder,
    config: Config,
    claim: Claim,
    missing_table: MissingTable,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Instance>, Failure> {
    let data = folder.path().to_owned();
    let nonces: Arc<dyn Nonces> = Arc::new(SystemNonces::new().context("the operating system gave no random numbers")?);
    let (credentials, _) = Credentials::load_or_create(&data)?;
    let store = Store::open(&data, clock.clone(), nonces.clone()).await?;
    let tables = tables::open(&data, &config).await?;
    let has_tables = match &tables {
        Some(tables) => !tables.all().await?.is_empty(),
        None => false,
    };
    find_lost_buckets(&data, &config, has_tables, &store).await?;
    let journal = Arc::new(FileJournal::open(&data.join("journal"))?);
    let spool = store.spool().clone();
    let instance = Arc::new(Instance {
        started_at: clock.now(),
        services: Remotes::new(config.services.clone(), missing_table, tables.as_ref().map(|tables| tables.answers())),
        intakes: RwLock::new(BTreeMap::new()),
        archivings: RwLock::default(),
        packing: tokio::sync::Mutex::new(()),
        not_archived: RwLock::default(),
        feed_files: Mutex::default(),
        tables,
        leases: tokio::sync::OnceCell::new(),
        config,
        metrics: Arc::new(Counters::default()),
        policies: Policies::default(),
        settings: RwLock::new(BTreeMap::new()),
        adding: tokio::sync::Mutex::new(()),
        scheduled: Mutex::new(BTreeSet::new()),
        queue: spool.clone(),
        letters: spool,
        journal: journal.clone(),
        journal_read: journal,
        keyring: Keyring::new(credentials),
        endpoint: OnceLock::new(),
        tables_endpoint: OnceLock::new(),
        store,
        clock,
        nonces,
        folder,
    });
    for policy in instance.config.policies.clone() {
        claim_folder(&instance.store, &policy, claim)
            .await
            .map_err(|failure| failure.while_doing(format!("cannot set up the policy {}", policy.name)))?;
        add(&instance, policy, Asked::ByName(claim)).await?;
    }
    open_archives(&instance).await?;
    for bucket in buckets_by_default(&instance) {
        // Not a bucket that a client made, or one whose copies would collide: `status` shows it without a policy.
        match default_policy(&instance, &bucket) {
            Ok(Some(policy)) => add(&instance, policy, Asked::ByDefault).await?,
            Ok(None) => {}
            Err(why) => tracing::warn!(%bucket, "not protected: {why}"),
        }
    }
    Ok(instance)
}

/// The archives that are configured, and those of this machine's tables.
async fn open_archives(instance: &Instance) -> Result<(), Failure> {
    for archive in instance.config.archives.clone() {
        let table = archive.table.clone();
        let archiving = open_archiving(instance, archive).await;
        let archiving =
            archiving.map_err(|failure| failure.while_doing(format!("cannot archive dynamodb://{table}")))?;
        instance.archivings.write().expect(UNPOISONED).push(Arc::new(archiving));
    }
    let own = match &instance.tables {
        Some(tables) => tables.with_streams().await?,
        None => Vec::new(),
    };
    for table in own {
        let opened = archiving_of_own_table(instance, &table).await;
        opened.map_err(|failure| failure.while_doing(format!("cannot archive dynamodb://{LOCAL_SERVICE}@{table}")))?;
    }
    Ok(())
}

/// Folders of buckets that the index does not know, because `state.sqlite` was lost: their buckets are made again, with
/// the objects that the files are.
async fn find_lost_buckets(data: &Path, config: &Config, has_tables: bool, store: &Arc<Store>) -> Result<(), Failure> {
    let folders = data.join(BUCKETS_FOLDER);
    let entries = match fs::read_dir(&folders) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Failure::Failed(
                anyhow::Error::new(error).context(format!("cannot read {}", folders.display())),
            ));
        }
    };
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", folders.display()))?.file_name();
        let Some(name) = name.to_str().and_then(|name| BucketName::new(name).ok()) else { continue };
        if store.reader(&name).is_ok() {
            continue;
        }
        let named = Destination::Bucket(name.to_string());
        let copies = name.as_str().ends_with(COPIES_SUFFIX)
            || config.policies.iter().any(|policy| policy.destination == named)
            || config.archives.iter().any(|archive| archive.destination == named)
            || (has_tables && config.tables.as_ref().is_some_and(|tables| tables.archive == named));
        let role = if copies { Role::Destination } else { Role::Source };
        tracing::warn!(bucket = %name, "the index of buckets did not know it: made again from its files");
        make(store, name, role, None).await?;
    }
    Ok(())
}

/// Buckets that clients made: those that are there, and deleted ones whose copies wait out their grace.
fn buckets_by_default(instance: &Instance) -> Vec<BucketName> {
    let mut names = Vec::new();
    for info in instance.store.buckets() {
        match info.role {
            Role::Source => names.push(info.name),
            Role::Destination => {
                let original = info.name.as_str().strip_suffix(COPIES_SUFFIX);
                let original = original.and_then(|name| BucketName::new(name).ok());
                names.extend(original.filter(|name| instance.store.reader(name).is_ok()));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Gives a bucket that no configured policy names the default policy; its name, if it got one. Safe to repeat.
pub(crate) async fn protect(instance: &Arc<Instance>, bucket: &BucketName) -> Result<Option<String>, Failure> {
    let Some(policy) = default_policy(instance, bucket).map_err(Failure::failed)? else { return Ok(None) };
    let name = policy.name.to_string();
    add(instance, policy, Asked::ByDefault).await?;
    Ok(Some(name))
}

fn default_policy(instance: &Instance, bucket: &BucketName) -> Result<Option<PolicyConfig>, String> {
    let is_source = |name: &str| instance.store.bucket(name).is_ok_and(|bucket| bucket.info().role == Role::Source);
    instance.config.policy_for_new_bucket(bucket.as_str(), is_source)
}

async fn add(instance: &Arc<Instance>, config: PolicyConfig, asked: Asked) -> Result<(), Failure> {
    let name = config.name.clone();
    let added = add_alone(instance, config, asked).await;
    added.map_err(|failure| failure.while_doing(format!("cannot set up the policy {name}")))
}

async fn add_alone(instance: &Arc<Instance>, config: PolicyConfig, asked: Asked) -> Result<(), Failure> {
    let _alone = instance.adding.lock().await;
    let source = source_of(instance, &config, asked).await?;
    let destination = destination_of(instance, &config.destination).await?;
    let catalog = match instance.setting_named(config.name.as_str()) {
        // The bucket was deleted and made again: one file is opened once.
        Some(setting) => setting.catalog,
        None => catalog_of(instance, &config).await?,
    };
    let claim = match asked {
        Asked::ByName(claim) => claim,
        Asked::ByDefault => Claim::Own,
    };
    let store = &instance.store;
    let retries = Retries::new(instance.clock.clone(), instance.nonces.clone(), instance.metrics.clone());
    let ownership = destination.there().map(|bucket| {
        let me = Me {
            policy: config.name.to_string(),
            mode: config.mode,
            catalog: catalog.clone(),
            source_here: source.here().is_some(),
            store: store.clone(),
        };
        let name = config.destination.to_string();
        let (reader, prefix) = (source.reader(store, &retries), config.source.prefix.clone());
        reader.map(|reader| {
            Arc::new(Ownership::new(name, retries.write(bucket.writer()), reader, prefix, Box::new(me), claim))
        })
    });
    let ownership = ownership.transpose()?;
    let (mut copier, mut recopier, mut purger) = (
        destination.copier(&source, store, &retries)?,
        destination.copier(&destination, store, &retries)?,
        destination.purger(store, &retries)?,
    );
    if let Some(ownership) = &ownership {
        (copier, recopier, purger) = (ownership.copier(copier), ownership.copier(recopier), ownership.purger(purger));
    }
    let policy = Policy {
        name: config.name.clone(),
        mode: config.mode,
        rules: config.rules(),
        source_bucket: config.source.in_events(),
        source_prefix: config.source.prefix.clone(),
        source: source.reader(store, &retries)?,
        destination: destination.reader(store, &retries)?,
        copier,
        recopier,
        purger: Purger::new(purger),
        catalog: catalog.catalog(&retries),
        keys: catalog.keys(&retries),
        scratch: instance.folder.path().to_owned(),
        journal: instance.journal.clone(),
        clock: instance.clock.clone(),
        nonces: instance.nonces.clone(),
        metrics: instance.metrics.clone(),
    };
    take_in(instance, &config, &policy).await?;
    let by_default = asked == Asked::ByDefault;
    instance.settings.write().expect(UNPOISONED).insert(
        config.name.to_string(),
        Setting { config, by_default, source, destination, catalog, ownership, snapshot_at: None },
    );
    instance.policies.put(policy);
    Ok(())
}

async fn source_of(instance: &Instance, config: &PolicyConfig, asked: Asked) -> Result<Home, Failure> {
    if let Some(bucket) = config.source.remote() {
        return Ok(Home::There(instance.services.bucket(&bucket).await?));
    }
    let name = BucketName::new(config.source.bucket.clone())?;
    if asked != Asked::ByDefault {
        make(&instance.store, name.clone(), Role::Source, None).await?;
    }
    Ok(Home::Here(name))
}

pub(crate) async fn open_archiving(instance: &Instance, config: ArchiveConfig) -> Result<Archiving, Failure> {
    let destination = destination_of(instance, &config.destination).await?;
    let leases = match &config.leases {
        // Leases of several tables have different names.
        CatalogPlace::Local => {
            let file = instance.folder.path().join(LEASES_FILE);
            let open = || async { PortResult::Ok(Arc::new(SqliteCatalog::open(&file)?)) };
            Kept::File(instance.leases.get_or_try_init(open).await?.clone())
        }
        CatalogPlace::Table(place) => {
            let (clock, nonces) = (instance.clock.clone(), instance.nonces.clone());
            Kept::Table(Arc::new(instance.services.leases(place, clock, nonces).await?))
        }
    };
    let failures = match &config.failures {
        Some(queue) => Some(Arc::new(instance.services.failures(queue, instance.clock.clone()).await?)),
        None => None,
    };
    Ok(Archiving::new(config, destination, leases, failures))
}

/// The archive of a table of this machine: as configured, else as all of them are.
pub(crate) async fn archiving_of_own_table(instance: &Instance, table: &str) -> Result<Arc<Archiving>, Failure> {
    if let Some(there) = instance.all_archivings().into_iter().find(|archiving| archiving.is_of_own(table)) {
        return Ok(there);
    }
    let archiving = Arc::new(open_archiving(instance, own_archive(instance, table)?).await?);
    instance.archivings.write().expect(UNPOISONED).push(archiving.clone());
    Ok(archiving)
}

/// Before a table of this machine is made: makes the place where its deleted records go, and refuses what cannot have one.
#[cfg(feature = "dynamodb")]
pub(crate) async fn prepare_own_table(instance: &Instance, table: &str) -> Result<(), Failure> {
    if instance.all_archivings().into_iter().any(|archiving| archiving.is_of_own(table)) {
        return Ok(());
    }
    open_archiving(instance, own_archive(instance, table)?).await.map(drop)
}

/// Where the deleted records of a table of this machine go that no `[[archive]]` names.
pub(crate) fn own_archive(instance: &Instance, table: &str) -> Result<ArchiveConfig, Failure> {
    // Where they are switched off, what they left is where it was.
    let tables = instance.config.tables.clone().unwrap_or_default();
    let service = ServiceName::new(table).map_err(|error| {
        Failure::usage(format!("{error}; or name the table and a service in an [[archive]] of the configuration"))
    })?;
    let table = Remote { service: Some(LOCAL_SERVICE.to_owned()), name: table.to_owned() };
    Ok(ArchiveConfig {
        table,
        service,
        destination: tables.archive,
        leases: CatalogPlace::Local,
        failures: None,
        pack: Packing::Off,
        removes_originals: false,
        tiers: Tiers::default(),
        feed: None,
    })
}

async fn destination_of(instance: &Instance, destination: &Destination) -> Result<Home, Failure> {
    let (name, root) = match destination {
        Destination::S3(bucket) => return Ok(Home::There(instance.services.bucket(bucket).await?)),
        Destination::Bucket(bucket) => (BucketName::new(bucket.clone())?, None),
        Destination::Folder(folder) => (folder_bucket(folder)?, Some(folder.clone())),
    };
    make(&instance.store, name.clone(), Role::Destination, root).await?;
    Ok(Home::Here(name))
}

async fn catalog_of(instance: &Instance, config: &PolicyConfig) -> Result<Kept, Failure> {
    Ok(match &config.catalog {
        CatalogPlace::Local => Kept::File(catalog_in_file(instance.folder.path(), config).await?),
        CatalogPlace::Table(place) => {
            let (clock, nonces) = (instance.clock.clone(), instance.nonces.clone());
            Kept::Table(Arc::new(instance.services.catalog(place, config, clock, nonces).await?))
        }
    })
}

/// Lets the policy have the events of its queue, which is opened once, however many policies it feeds.
async fn take_in(instance: &Instance, config: &PolicyConfig, policy: &Policy) -> Result<(), Failure> {
    let Some(events) = &config.events else { return Ok(()) };
    let name = format!("sqs://{}", events.queue);
    let there = instance.intakes.read().expect(UNPOISONED).get(&name).cloned();
    let intake = match there {
        Some(intake) => intake,
        None => {
            let queue = Arc::new(instance.services.queue(events, config, instance.clock.clone()).await?);
            Intake { name: name.clone(), queue, policies: Policies::default() }
        }
    };
    intake.policies.put(policy.clone());
    instance.intakes.write().expect(UNPOISONED).insert(name, intake);
    Ok(())
}

/// Before a policy may purge in a folder outside of the data folder, the folder must be its own: not another data folder's,
/// and, for a mirror, which deletes what its source has not, made by Afterimage to begin with.
async fn claim_folder(store: &Arc<Store>, policy: &PolicyConfig, claim: Claim) -> Result<(), Failure> {
    let Destination::Folder(folder) = &policy.destination else { return Ok(()) };
    let marked = is_bucket_folder(folder);
    if policy.mode == Mode::Mirror && !marked && holds_files(folder)? {
        return Err(Failure::failed(format!(
            "{} holds files that Afterimage did not make, and a mirror deletes what its source has not: name an empty or a \
             new folder",
            folder.display()
        )));
    }
    if claim == Claim::Own || !marked {
        return Ok(());
    }
    // What is in a service was not lost with the data folder.
    let here = policy.source.remote().is_none();
    let source = BucketName::new(policy.source.bucket.clone())?;
    if policy.mode == Mode::Mirror && here && !matches!(store.has_objects(&source).await, Ok(true)) {
        return Err(Failure::failed(format!(
            "the source {source} has no objects, so the mirror would delete everything in {}: put its files into the source \
             first (serve without this policy, and copy them with any S3 client), then take the folder over",
            folder.display()
        )));
    }
    Ok(store.take_over(&folder_bucket(folder)?, folder).await?)
}

fn holds_files(folder: &Path) -> Result<bool, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            let context = format!("cannot read {}", folder.display());
            return Err(Failure::Failed(anyhow::Error::new(error).context(context)));
        }
    };
    for entry in entries {
        // A fresh file system has the first; what a killed first start leaves is in the second.
        let name = entry.with_context(|| format!("cannot read {}", folder.display()))?.file_name();
        if name != "lost+found" && name != ".afterimage" {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn catalog_in_file(data: &Path, config: &PolicyConfig) -> Result<Arc<SqliteCatalog>, Failure> {
    let file = catalog_file(data, config.name.as_str());
    let opened = tokio::task::spawn_blocking(move || SqliteCatalog::open(&file)).await?;
    let catalog = opened.with_context(|| {
        format!(
            "if its catalog is damaged: stop `serve`, then `afterimage reconcile --rebuild --policy {}` makes it again from \
             the destination",
            config.name
        )
    })?;
    catalog.forget_leases().await?;
    Ok(Arc::new(catalog))
}

/// Where a policy's catalog is.
pub(crate) fn catalog_file(data: &Path, policy: &str) -> PathBuf {
    data.join("catalog").join(format!("{policy}.sqlite"))
}

async fn make(store: &Arc<Store>, name: BucketName, role: Role, root: Option<PathBuf>) -> Result<(), Failure> {
    match store.create_bucket(BucketSpec { name: name.clone(), role, root: root.clone() }).await {
        Ok(_) => Ok(()),
        Err(StoreError::BucketExists(_)) => {
            let bucket = store.bucket(name.as_str())?;
            match bucket.open().await {
                // Its disk is not mounted: events wait for it, and nothing else does.
                Err(StoreError::Port(error)) if error.kind == PortErrorKind::Missing => {}
                opened => opened?,
            }
            let there = bucket.info().clone();
            if there.role != role {
                return Err(Failure::failed(match role {
                    Role::Destination => format!(
                        "bucket {name} is a source that clients write, so it cannot hold copies: name another \
                         destination"
                    ),
                    Role::Source => {
                        format!("bucket {name} holds copies, so clients cannot write it: name another source")
                    }
                }));
            }
            match root {
                Some(root) if there.root != root => Err(Failure::failed(format!(
                    "bucket {name} has its files in {}, not in {}",
                    there.root.display(),
                    root.display()
                ))),
                _ => Ok(()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// The bucket of a destination that is a folder somewhere: the same folder always gives the same name.
fn folder_bucket(folder: &Path) -> Result<BucketName, Failure> {
    let hash = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(BucketName::new(format!("folder-{hex}"))?)
}
