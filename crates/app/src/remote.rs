//! What policies have in services beside this machine: buckets, tables, queues. The only file of the binary that makes
//! clients of services; each service's settings and credentials are read once.
//!
//! Retries of these are the SDK's, so that they are not wrapped in the engine's as what is on this machine is.

use crate::exit::Failure;
use aws::dynamodb::{DynamoDbCatalog, Table, create_table};
use aws::parse::Channel;
use aws::{S3Bucket, SdkConfig, Service, SqsQueue, SqsSettings};
use engine::config::{EventChannel, EventsPlace, PolicyConfig, Remote, ServiceConfig, TablePlace};
use engine::error::ErrorKind;
use engine::ports::clock::{Clock, Nonces};
use lifecycle::keep::Keep;
use lifecycle::time::SpanMs;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// What to do with a table that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingTable {
    /// Refuse.
    Refuse,
    /// Make it: a person said so.
    Make,
}

/// The services of a configuration.
pub(crate) struct Services {
    configured: Vec<ServiceConfig>,
    /// By name; `None`: AWS, as the environment says.
    loaded: Mutex<BTreeMap<Option<String>, (Service, SdkConfig)>>,
    missing_table: MissingTable,
}

impl Services {
    pub(crate) fn new(configured: Vec<ServiceConfig>, missing_table: MissingTable) -> Services {
        Services { configured, loaded: Mutex::default(), missing_table }
    }

    async fn service(&self, name: Option<&String>) -> Result<(Service, SdkConfig), Failure> {
        let mut loaded = self.loaded.lock().await;
        if let Some(there) = loaded.get(&name.cloned()) {
            return Ok(there.clone());
        }
        let configured = self.configured.iter().find(|service| Some(&service.name) == name);
        let service = match (configured, name) {
            (Some(configured), _) => service(configured),
            (None, None) => Service::default(),
            (None, Some(name)) => return Err(Failure::usage(format!("there is no service `{name}`"))),
        };
        let config = service.load().await;
        loaded.insert(name.cloned(), (service.clone(), config.clone()));
        Ok((service, config))
    }

    /// A bucket. It is asked nothing yet, as nothing here is: see `reach.rs`.
    pub(crate) async fn bucket(&self, bucket: &Remote) -> Result<S3Bucket, Failure> {
        let (service, config) = self.service(bucket.service.as_ref()).await?;
        Ok(S3Bucket::new(&service, &config, &bucket.name))
    }

    /// The catalog of a policy.
    pub(crate) async fn catalog(
        &self,
        place: &TablePlace,
        policy: &PolicyConfig,
        clock: Arc<dyn Clock>,
        nonces: Arc<dyn Nonces>,
    ) -> Result<DynamoDbCatalog, Failure> {
        let (service, config) = self.service(place.table.service.as_ref()).await?;
        let client = service.dynamodb(&config);
        let table = Table {
            name: place.table.name.clone(),
            prefix: place.prefix.clone(),
            index_shards: place.index_shards,
            copies_per_key: copies_per_key(&policy.terms.keep, policy.terms.protect_for),
        };
        Ok(DynamoDbCatalog::new(client, &table, clock, nonces)?)
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
                let (service, config) = self.service(place.table.service.as_ref()).await?;
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
        let (_, config) = self.service(events.queue.service.as_ref()).await?;
        let channel = match events.channel {
            EventChannel::Notification => Channel::Notification,
            EventChannel::EventBridge => Channel::EventBridge,
        };
        let settings = SqsSettings { basis: policy.order, channel, ..SqsSettings::default() };
        Ok(SqsQueue::new(&config, &events.queue.name, settings, clock))
    }
}

fn service(configured: &ServiceConfig) -> Service {
    let ServiceConfig { name: _, endpoint, region, profile, role, path_style } = configured.clone();
    Service { endpoint, region, profile, role, path_style }
}

/// The most active copies that a key can have: where there is no such number, the greatest there is, so that the estimate
/// of live keys errs on the side of too few and the breaker trips rather than not.
fn copies_per_key(keep: &Keep, protect_for: SpanMs) -> u64 {
    let Keep { last, within, hourly, daily, weekly, monthly, yearly } = *keep;
    if within.is_some() || protect_for > SpanMs::ZERO {
        return u64::MAX;
    }
    [last, hourly, daily, weekly, monthly, yearly].into_iter().map(u64::from).sum::<u64>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_without_a_greatest_number_of_copies_give_no_live_keys_to_the_breaker() {
        let keep = Keep { daily: 7, ..Keep::last(3) };
        assert_eq!(copies_per_key(&keep, SpanMs::ZERO), 10);
        assert_eq!(copies_per_key(&keep, SpanMs::days(1)), u64::MAX);
        assert_eq!(copies_per_key(&Keep { within: Some(SpanMs::days(1)), ..keep }, SpanMs::ZERO), u64::MAX);
    }

    #[tokio::test]
    async fn a_service_that_nobody_configured_is_refused() {
        let services = Services::new(Vec::new(), MissingTable::Refuse);
        let bucket = Remote { service: Some("elsewhere".to_owned()), name: "docs".to_owned() };
        let refused = services.bucket(&bucket).await.unwrap_err();
        assert!(refused.chain().contains("there is no service `elsewhere`"), "{}", refused.chain());
    }
}
