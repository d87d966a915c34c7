//! What a warm function keeps from one invocation to the next: configuration, clients, open buckets and catalogs, chains of
//! the journal. The only file of this crate that knows which adapter stands behind which port.

use crate::checkpoints::Checkpoints;
use crate::environment::{CONFIG, CONFIG_PARAMETER, Environment};
use crate::failure::Failure;
use crate::journal::ObjectJournal;
use crate::limits::OPENING_WAIT;
use crate::metrics::Embedded;
use crate::parameter;
use crate::runtime::Function;
use crate::settings::{Ordered, Placed, Settings};
use async_trait::async_trait;
use aws::dynamodb::{DynamoDbCatalog, key_of_table};
use aws::parse::records::RecordedTable;
use aws::{DeadLetterQueue, DynamoDbStream, SdkConfig, Service, Services, copies_per_key};
use engine::clock::{SystemClock, SystemNonces};
use engine::config::{ArchiveConfig, Remote};
use engine::driver::Policies;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::flows::archive::Archive;
use engine::policy::{Mode, Policy};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::metrics::Counters;
use engine::report::chain;
use engine::steps::purge::Purger;
use engine::wrap::lazy::Lazy;
use engine::wrap::owned::{Claim, Introduces, Owner, Ownership};
use engine::wrap::retry::Retries;
use engine::wrap::through::Through;
use futures_util::future::try_join_all;
use futures_util::try_join;
use lifecycle::archive::ServiceName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The one folder that a function may write.
const SCRATCH: &str = "/tmp";

/// What is kept.
pub(crate) struct Warm {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) nonces: Arc<dyn Nonces>,
    pub(crate) policies: Policies,
    pub(crate) wired: Vec<Wired>,
    /// By the table's name.
    pub(crate) archives: BTreeMap<String, ArchivedTable>,
    pub(crate) orders: BTreeMap<String, Ordered>,
    /// What the function counts that is no policy's.
    pub(crate) counters: Arc<Counters>,
    pub(crate) embedded: Embedded,
    services: Services,
    /// Of the queues that policies and archives name, the service.
    queues: BTreeMap<String, Option<String>>,
    /// By queue; `None`: it has no dead letters.
    letters: Mutex<BTreeMap<String, Option<Arc<DeadLetterQueue>>>>,
}

/// A policy at work, and what goes with it.
pub(crate) struct Wired {
    pub(crate) policy: Policy,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) counters: Arc<Counters>,
}

impl Warm {
    /// Reads the configuration and opens everything that it names.
    pub(crate) async fn open(environment: &Environment, function: Function) -> Result<Warm, Failure> {
        let settings = match (&environment.config, &environment.parameter) {
            (Some(text), None) => Settings::parse(text, CONFIG)?,
            (None, Some(name)) => Settings::parse(&parameter::read(name).await?, name)?,
            (None, None) | (Some(_), Some(_)) => {
                let why = format!("set one of {CONFIG} (TOML) and {CONFIG_PARAMETER} (the name of an SSM parameter)");
                return Err(Failure::new("configuration", why));
            }
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let random = |error| Failure::new("failed", format!("the operating system gave no random numbers: {error}"));
        let nonces: Arc<dyn Nonces> = Arc::new(SystemNonces::new().map_err(random)?);
        let services = Services::new(settings.services, None);
        let queues = settings.policies.iter().filter_map(|placed| placed.config.events.as_ref());
        let queues = queues.map(|events| &events.queue);
        let queues = queues.chain(settings.archives.iter().filter_map(|(archive, _)| archive.failures.as_ref()));
        let queues = queues.map(|queue| (queue.name.clone(), queue.service.clone())).collect();
        // All at once: however many do not answer, they take no longer than one.
        let counters = Arc::new(Counters::default());
        let (policies_of_it, archives_of_it) = match function {
            Function::Replicator | Function::Cleaner => (&settings.policies[..], &[][..]),
            Function::Records => (&[][..], &settings.archives[..]),
        };
        let wired = policies_of_it.iter().map(|placed| wire(&services, placed, &clock, &nonces));
        let wired = try_join_all(wired).await?;
        let mut archives = BTreeMap::new();
        for (config, bucket) in archives_of_it {
            let archived = archived_table(&services, config, bucket, &counters).await;
            let archived = archived.map_err(|error| {
                Failure::new(
                    "configuration",
                    format!("cannot set up the archive of {}: {}", config.table, chain(&error)),
                )
            })?;
            archives.insert(config.table.name.clone(), archived);
        }
        if wired.is_empty() && archives.is_empty() {
            let what = if function == Function::Records { "archive" } else { "policy" };
            return Err(Failure::new("configuration", format!("there is no {what} for this function: add one")));
        }
        let policies = Policies::default();
        wired.iter().for_each(|wired| policies.put(wired.policy.clone()));
        Ok(Warm {
            clock,
            nonces,
            policies,
            wired,
            orders: settings.orders,
            archives,
            counters,
            embedded: Embedded::new(&environment.namespace, &environment.function),
            services,
            queues,
            letters: Mutex::default(),
        })
    }

    /// The dead letters of the queue of that ARN, if it has any.
    pub(crate) async fn dead_letters(&self, arn: &str) -> PortResult<Option<Arc<DeadLetterQueue>>> {
        let name = arn.rsplit(':').next().unwrap_or_default();
        let mut letters = self.letters.lock().await;
        if let Some(there) = letters.get(name) {
            return Ok(there.clone());
        }
        let service = self.queues.get(name).cloned().flatten();
        let (_, config) = self.services.service(service.as_deref()).await?;
        let found = DeadLetterQueue::of_queue(&config, name).await?.map(Arc::new);
        letters.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    /// Tells what was counted since the last invocation.
    pub(crate) fn tell_metrics(&self, more: &[(&'static str, u64)]) {
        let now = self.clock.now();
        for wired in &self.wired {
            self.embedded.tell(now, Some(wired.policy.name.as_str()), &wired.counters, &[]);
        }
        self.embedded.tell(now, None, &self.counters, more);
    }
}

/// A table whose deleted records are archived.
pub(crate) struct ArchivedTable {
    pub(crate) archive: Archive,
    service: ServiceName,
    table: String,
    /// In which service the table is.
    at: (Service, SdkConfig),
    /// Known once it was asked for.
    recorded: Lazy<RecordedTable>,
}

impl ArchivedTable {
    /// What its records are read by.
    pub(crate) async fn recorded(&self) -> PortResult<RecordedTable> {
        let ask = || async {
            let (service, config) = &self.at;
            let key_names = key_of_table(&service.dynamodb(config), &self.table).await?;
            Ok(RecordedTable { service: self.service.clone(), table: self.table.clone(), key_names })
        };
        self.recorded.get(ask).await
    }

    /// A stream of the table's, by its ARN.
    pub(crate) fn stream_named(&self, arn: &str, recorded: RecordedTable) -> DynamoDbStream {
        let (service, config) = &self.at;
        DynamoDbStream::named(service.streams(config), arn, recorded)
    }
}

async fn archived_table(
    services: &Services,
    config: &ArchiveConfig,
    bucket: &Remote,
    counters: &Arc<Counters>,
) -> PortResult<ArchivedTable> {
    if let Some(feed) = &config.feed {
        tracing::warn!(table = config.table.name, "functions have no feed: nothing is told to {}", feed.to);
    }
    let at = services.service(config.table.service.as_deref()).await?;
    let destination = services.bucket(bucket).await?.writer();
    let table = config.table.name.clone();
    Ok(ArchivedTable {
        archive: Archive::new(&table, destination, counters.clone()),
        service: config.service.clone(),
        table,
        at,
        recorded: Lazy::new(),
    })
}

async fn wire(
    services: &Services,
    placed: &Placed,
    clock: &Arc<dyn Clock>,
    nonces: &Arc<dyn Nonces>,
) -> Result<Wired, Failure> {
    let name = &placed.config.name;
    let opened = open(services, placed, clock, nonces).await;
    opened.map_err(|error| Failure::new("configuration", format!("cannot set up the policy {name}: {}", chain(&error))))
}

/// A policy, as the owner of its destination: whoever works with the same table is the same owner.
struct Me {
    policy: String,
    mode: Mode,
    catalog: Arc<DynamoDbCatalog>,
}

#[async_trait]
impl Introduces for Me {
    async fn owner(&self) -> PortResult<Owner> {
        let (catalog, at) = (self.catalog.identity().await?, "functions".to_owned());
        Ok(Owner { policy: self.policy.clone(), mode: self.mode, catalog, at })
    }
}

async fn open(
    services: &Services,
    placed: &Placed,
    clock: &Arc<dyn Clock>,
    nonces: &Arc<dyn Nonces>,
) -> PortResult<Wired> {
    let config = &placed.config;
    let copies = copies_per_key(&config.terms.keep, config.terms.protect_for);
    let catalog = services.catalog(&placed.catalog, copies, clock.clone(), nonces.clone());
    let (source, destination, catalog) =
        try_join!(services.bucket(&placed.source), services.bucket(&placed.destination), catalog)?;
    let catalog = Arc::new(catalog);
    let counters = Arc::new(Counters::default());
    let retries = Retries::new(clock.clone(), nonces.clone(), counters.clone());
    let me = Me { policy: config.name.to_string(), mode: config.mode, catalog: catalog.clone() };
    let (name, prefix) = (config.destination.to_string(), config.source.prefix.clone());
    let (writer, reader) = (retries.write(destination.writer()), retries.read(source.reader()));
    let ownership = Ownership::new(name, writer, reader, prefix, Box::new(me), Claim::Own);
    // What is wrong shows now, and not in the middle of a batch. What does not answer keeps no other policy from its work:
    // every handle asks again when it is used, and events come again until it answers.
    let asked = async { try_join!(source.is_versioned(), destination.is_versioned(), ownership.hold()).map(drop) };
    let asked = tokio::select! {
        asked = asked => asked,
        () = clock.sleep(OPENING_WAIT) => Err(PortError::new("open policy", &config.name, ErrorKind::Unavailable)),
    };
    match asked {
        Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Throttled) => {
            tracing::warn!(policy = %config.name, "it does not answer, and its events come again: {}", chain(&error));
        }
        asked => asked?,
    }
    let ownership = Arc::new(ownership);
    let through = || retries.copy(Arc::new(Through::new(source.reader(), destination.writer())));
    let inside = || retries.copy(Arc::new(Through::new(destination.reader(), destination.writer())));
    let policy = Policy {
        name: config.name.clone(),
        mode: config.mode,
        rules: config.rules(),
        source_bucket: config.source.in_events(),
        source_prefix: config.source.prefix.clone(),
        source: source.reader(),
        destination: destination.reader(),
        copier: ownership.copier(destination.copier(&source).unwrap_or_else(through)),
        recopier: ownership.copier(destination.copier(&destination).unwrap_or_else(inside)),
        purger: Purger::new(ownership.purger(destination.purger())),
        catalog,
        keys: None,
        scratch: PathBuf::from(SCRATCH),
        journal: Arc::new(ObjectJournal::new(ownership.writer(), clock.clone(), nonces.clone())),
        clock: clock.clone(),
        nonces: nonces.clone(),
        metrics: counters.clone(),
    };
    Ok(Wired { checkpoints: Checkpoints::new(ownership.writer(), &config.name), policy, counters })
}
