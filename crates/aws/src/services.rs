//! The services that a configuration names, and what policies have in them: buckets and tables. Each service's settings and
//! credentials are read once, however many policies use it.

use crate::dynamodb::{DynamoDbCatalog, Table};
use crate::here::{self, AnswersHere};
use crate::s3::S3Bucket;
use crate::service::Service;
use aws_config::SdkConfig;
use engine::config::{LOCAL_SERVICE, Remote, ServiceConfig, TablePlace};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::{Clock, Nonces};
use lifecycle::keep::Keep;
use lifecycle::time::SpanMs;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The services of a configuration.
pub struct Services {
    configured: Vec<ServiceConfig>,
    /// What is behind [`LOCAL_SERVICE`].
    here: Option<Arc<dyn AnswersHere>>,
    /// By name; `None`: AWS, as the environment says.
    loaded: Mutex<BTreeMap<Option<String>, (Service, SdkConfig)>>,
}

impl Services {
    /// Asks nothing yet. `here`: the tables of this machine, which are called [`LOCAL_SERVICE`].
    pub fn new(configured: Vec<ServiceConfig>, here: Option<Arc<dyn AnswersHere>>) -> Services {
        Services { configured, here, loaded: Mutex::default() }
    }

    /// A service by its name, and what all clients of it share; `None`: AWS, as the environment says.
    pub async fn service(&self, name: Option<&str>) -> PortResult<(Service, SdkConfig)> {
        let mut loaded = self.loaded.lock().await;
        if let Some(there) = loaded.get(&name.map(str::to_owned)) {
            return Ok(there.clone());
        }
        let configured = self.configured.iter().find(|service| Some(service.name.as_str()) == name);
        let service = match (configured, name) {
            (None, Some(LOCAL_SERVICE)) if let Some(here) = &self.here => {
                return Ok((Service::default(), Service::load_here(here::client(Arc::clone(here)))));
            }
            (Some(configured), _) => service(configured),
            (None, None) => Service::default(),
            (None, Some(LOCAL_SERVICE)) => {
                let off = "the tables of this machine are switched off: remove dynamodb_endpoint = \"off\", or restore to \
                           another table with --to-table";
                return Err(PortError::new("open service", LOCAL_SERVICE, ErrorKind::NotSetUp(off.to_owned())));
            }
            (None, Some(name)) => {
                let unknown = ErrorKind::Invalid("no service of that name is configured".to_owned());
                return Err(PortError::new("open service", name, unknown));
            }
        };
        let config = service.load().await;
        loaded.insert(name.map(str::to_owned), (service.clone(), config.clone()));
        Ok((service, config))
    }

    /// A bucket. It is asked nothing yet, as nothing here is.
    pub async fn bucket(&self, bucket: &Remote) -> PortResult<S3Bucket> {
        let (service, config) = self.service(bucket.service.as_deref()).await?;
        Ok(S3Bucket::new(&service, &config, &bucket.name))
    }

    /// The catalog of a policy in its table. `copies_per_key`: see [`copies_per_key`].
    pub async fn catalog(
        &self,
        place: &TablePlace,
        copies_per_key: u64,
        clock: Arc<dyn Clock>,
        nonces: Arc<dyn Nonces>,
    ) -> PortResult<DynamoDbCatalog> {
        let (service, config) = self.service(place.table.service.as_deref()).await?;
        let table = Table {
            name: place.table.name.clone(),
            prefix: place.prefix.clone(),
            index_shards: place.index_shards,
            copies_per_key,
        };
        DynamoDbCatalog::new(service.dynamodb(&config), &table, clock, nonces)
    }
}

fn service(configured: &ServiceConfig) -> Service {
    let ServiceConfig { name: _, endpoint, region, profile, role, path_style } = configured.clone();
    Service { endpoint, region, profile, role, path_style }
}

/// The most active copies that a key can have: where there is no such number, the greatest there is, so that the estimate
/// of live keys errs on the side of too few and the breaker trips rather than not.
pub fn copies_per_key(keep: &Keep, protect_for: SpanMs) -> u64 {
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
        let bucket = Remote { service: Some("elsewhere".to_owned()), name: "docs".to_owned() };
        let refused = Services::new(Vec::new(), None).bucket(&bucket).await.unwrap_err();
        assert_eq!(refused.to_string(), "open service elsewhere: refused: no service of that name is configured");
    }
}
