//! What policies have in services beside this machine: buckets, tables, queues. The only file of the binary that opens them.
//!
//! Retries of these are the SDK's, so that they are not wrapped in the engine's as what is on this machine is.

use crate::exit::Failure;
use aws::dynamodb::{DynamoDbCatalog, DynamoDbTable, create_table, key_of_table};
use aws::parse::Channel;
use aws::parse::records::RecordedTable;
use aws::{
    AnswersHere, DynamoDbStream, QueueFeed, QueueHolds, S3Bucket, Services, SqsQueue, SqsSettings, copies_per_key,
};
use engine::config::{ArchiveConfig, EventChannel, EventsPlace, PolicyConfig, Remote, ServiceConfig, TablePlace};
use engine::error::{ErrorKind, PortResult};
use engine::ports::clock::{Clock, Nonces};
use std::sync::Arc;

/// What to do with a table that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingTable {
    /// Refuse.
    Refuse,
    /// Make it: a person said so.
    Make,
}

/// The services of a configuration.
pub(crate) struct Remotes {
    services: Services,
    missing_table: MissingTable,
}

impl Remotes {
    /// `here`: this machine's own tables.
    pub(crate) fn new(
        configured: Vec<ServiceConfig>,
        missing_table: MissingTable,
        here: Option<Arc<dyn AnswersHere>>,
    ) -> Remotes {
        Remotes { services: Services::new(configured, here), missing_table }
    }

    /// A bucket. It is asked nothing yet, as nothing here is: see `reach.rs`.
    pub(crate) async fn bucket(&self, bucket: &Remote) -> PortResult<S3Bucket> {
        self.services.bucket(bucket).await
    }

    /// The catalog of a policy.
    pub(crate) async fn catalog(
        &self,
        place: &TablePlace,
        policy: &PolicyConfig,
        clock: Arc<dyn Clock>,
        nonces: Arc<dyn Nonces>,
    ) -> PortResult<DynamoDbCatalog> {
        self.services.catalog(place, copies_per_key(&policy.terms.keep, policy.terms.protect_for), clock, nonces).await
    }

    /// Where the readers of a stream agree who reads which shard.
    pub(crate) async fn leases(
        &self,
        place: &TablePlace,
        clock: Arc<dyn Clock>,
        nonces: Arc<dyn Nonces>,
    ) -> PortResult<DynamoDbCatalog> {
        self.services.catalog(place, 1, clock, nonces).await
    }

    /// A table that records are put back into.
    pub(crate) async fn table(&self, table: &Remote) -> PortResult<DynamoDbTable> {
        let (service, config) = self.services.service(table.service.as_deref()).await?;
        Ok(DynamoDbTable::new(service.dynamodb(&config), &table.name))
    }

    /// The stream of a table, and those that it had before.
    pub(crate) async fn streams(&self, archive: &ArchiveConfig) -> PortResult<Vec<DynamoDbStream>> {
        let (service, config) = self.services.service(archive.table.service.as_deref()).await?;
        let (tables, streams) = (service.dynamodb(&config), service.streams(&config));
        let newest = DynamoDbStream::open(&tables, streams, archive.service.clone(), &archive.table.name).await?;
        let mut all = newest.older().await?;
        all.push(newest);
        Ok(all)
    }

    /// A stream by its ARN, as Lambda names it.
    pub(crate) async fn stream_named(
        &self,
        archive: &ArchiveConfig,
        arn: &str,
        table: RecordedTable,
    ) -> PortResult<DynamoDbStream> {
        let (service, config) = self.services.service(archive.table.service.as_deref()).await?;
        Ok(DynamoDbStream::named(service.streams(&config), arn, table))
    }

    /// The attributes of a table's key, in the order of its key schema.
    pub(crate) async fn key_of_table(&self, table: &Remote) -> PortResult<Vec<String>> {
        let (service, config) = self.services.service(table.service.as_deref()).await?;
        key_of_table(&service.dynamodb(&config), &table.name).await
    }

    /// A queue of what Lambda gave up.
    pub(crate) async fn failures(&self, queue: &Remote, clock: Arc<dyn Clock>) -> PortResult<SqsQueue> {
        let (_, config) = self.services.service(queue.service.as_deref()).await?;
        let settings = SqsSettings { holds: QueueHolds::Failures, ..SqsSettings::default() };
        Ok(SqsQueue::new(&config, &queue.name, settings, clock))
    }

    /// A queue that is told what is archived.
    pub(crate) async fn queue_feed(&self, queue: &Remote) -> PortResult<QueueFeed> {
        let (_, config) = self.services.service(queue.service.as_deref()).await?;
        Ok(QueueFeed::new(&config, &queue.name))
    }

    /// Checks the table of a catalog, which is made if a person said so.
    pub(crate) async fn check_table(
        &self,
        place: &TablePlace,
        catalog: &DynamoDbCatalog,
        clock: &dyn Clock,
    ) -> Result<(), Failure> {
        match (catalog.check().await, self.missing_table) {
            (Err(error), MissingTable::Make) if error.kind == ErrorKind::Missing => {
                let (service, config) = self.services.service(place.table.service.as_deref()).await?;
                create_table(&service.dynamodb(&config), &place.table.name, clock).await?;
                tracing::info!(table = place.table.name, "the table was not there, and has been made");
                Ok(catalog.check().await?)
            }
            (Err(error), MissingTable::Refuse) if error.kind == ErrorKind::Missing => Err(Failure::failed(format!(
                "the table {} of its catalog does not exist: `afterimage serve --make-tables` makes it",
                place.table
            ))),
            (checked, _) => Ok(checked?),
        }
    }

    /// A queue of events.
    pub(crate) async fn queue(
        &self,
        events: &EventsPlace,
        policy: &PolicyConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<SqsQueue, Failure> {
        let (_, config) = self.services.service(events.queue.service.as_deref()).await?;
        let channel = match events.channel {
            EventChannel::Notification => Channel::Notification,
            EventChannel::EventBridge => Channel::EventBridge,
        };
        let settings = SqsSettings { basis: policy.order, channel, ..SqsSettings::default() };
        Ok(SqsQueue::new(&config, &events.queue.name, settings, clock))
    }
}
