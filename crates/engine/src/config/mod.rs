//! The configuration: a file is read as it is written (`raw`), judged in one place (`validate`), and from then on it is a
//! [`Config`], which cannot hold an impossible combination. Every refusal names the line and the fix.
//!
//! There are no secrets in it: the endpoint's credentials are generated and live in the data folder, those of services come
//! from where every AWS tool looks, and a webhook's is in a file of its own. Laws: I4 (a rule
//! that keeps nothing is refused), and the ground for I5 and I13 (sources and destinations never overlap).

mod archives;
mod effective;
mod feeds;
mod location;
mod raw;
mod remote;
pub mod schedule;
mod services;
pub mod span;
mod tables;
mod tiers;
mod validate;
mod warnings;

pub use archives::{ArchiveConfig, Packing, parse_table};
pub use feeds::{FeedConfig, FeedTo};
pub use location::{Destination, Host, Source, check_bucket_name};
pub use services::{CatalogPlace, EventChannel, EventsPlace, Remote, ServiceConfig, TablePlace};
pub use tables::{LOCAL_SERVICE, RECORDS_BUCKET, TablesConfig, is_reserved_table};
pub use tiers::{Tier, TierClass, Tiers};

use crate::policy::Mode;
use lifecycle::breaker::BreakerRule;
use lifecycle::guards::Guards;
use lifecycle::ids::PolicyName;
use lifecycle::keep::Keep;
use lifecycle::order::Basis;
use lifecycle::policy::Rules;
use lifecycle::time::SpanMs;
use schedule::Schedule;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The data folder where nothing else is said, beside the configuration file or in the working folder.
pub const DATA_DIR: &str = "./afterimage-data";
/// The source bucket of [`Config::trial`].
pub const TRIAL_SOURCE: &str = "source";
/// The destination bucket of [`Config::trial`].
pub const TRIAL_DESTINATION: &str = "copies";
/// What the copies of a bucket under the default policy are called: the bucket's name and this.
pub const COPIES_SUFFIX: &str = "-copies";

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);

/// A validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where buckets, catalogs, journal and credentials live.
    pub data_dir: PathBuf,
    /// The S3 endpoint.
    pub endpoint: Endpoint,
    /// The DynamoDB endpoint; `None`: switched off.
    pub tables: Option<TablesConfig>,
    /// Services that policies name; names are unique.
    pub services: Vec<ServiceConfig>,
    /// The policies, in the order of the file. Names and destinations are unique; no destination is a source.
    pub policies: Vec<PolicyConfig>,
    /// Tables whose deleted records are archived.
    pub archives: Vec<ArchiveConfig>,
    /// What buckets get that clients make and no policy names; `None`: switched off.
    pub default_policy: Option<Terms>,
}

/// Where the S3 endpoint listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// An address that other machines reach is meant: the endpoint speaks plain HTTP.
    pub allow_remote: bool,
}

/// One policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyConfig {
    /// Its name: 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit. Files are named after it.
    pub name: PolicyName,
    /// What it copies.
    pub source: Source,
    /// Where to.
    pub destination: Destination,
    /// Where its catalog is.
    pub catalog: CatalogPlace,
    /// Where the events of its source come from; `None`: a local bucket tells them itself, and changes of any other are
    /// seen when everything is compared.
    pub events: Option<EventsPlace>,
    /// What orders the versions of a key: a local bucket always has sequencers.
    pub order: Basis,
    /// Copies with a history, or a mirror.
    pub mode: Mode,
    /// How long what stays. A mirror uses the breaker only.
    pub terms: Terms,
}

/// What stays how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Which active copies stay.
    pub keep: Keep,
    /// The age under which nothing is purged; never longer than `grace`.
    pub protect_for: SpanMs,
    /// How long a disowned copy waits.
    pub grace: SpanMs,
    /// When the cleaner runs.
    pub clean: Schedule,
    /// When a mass deletion stops every purge; `None`: never.
    pub breaker: Option<BreakerRule>,
}

/// Why a configuration is refused: every problem that was found, at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// What is wrong, in the order of the file's lines; first what has none.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

impl Config {
    /// The configuration of `serve` without a file: a short retention to try out.
    pub fn trial(data_dir: impl Into<PathBuf>) -> Config {
        let terms = Terms::trial();
        let destination = Destination::Bucket(TRIAL_DESTINATION.to_owned());
        let policy = PolicyConfig::of_bucket(TRIAL_SOURCE, destination, terms.clone());
        Config {
            data_dir: data_dir.into(),
            endpoint: Endpoint { listen: LISTEN, allow_remote: false },
            tables: Some(TablesConfig::default()),
            services: Vec::new(),
            policies: vec![policy],
            archives: Vec::new(),
            default_policy: Some(terms),
        }
    }

    /// Reads a file. A relative `data_dir` counts from the file's folder, so that every command finds the same one.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            problems: vec![Problem {
                line: None,
                what: format!("cannot read the configuration: {error}"),
                fix: "name a readable file; `afterimage init` writes one".to_owned(),
            }],
        })?;
        Config::parse(&text, file)
    }

    /// Reads a text as if it were that file's.
    pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
        validate::parse(text, file)
    }

    /// The commented configuration that `init` writes, with values to trust.
    pub fn template() -> &'static str {
        include_str!("template.toml")
    }

    /// The configuration in force, defaults included, as TOML that reads back to the same configuration.
    pub fn to_toml(&self) -> String {
        effective::to_toml(self)
    }

    /// What is allowed and probably not meant. Empty for the template.
    pub fn warnings(&self) -> Vec<String> {
        warnings::of(self)
    }

    /// The policy for a bucket that a client makes: `None` when a policy names it already, or the default is off. The
    /// error says why it cannot be protected. `is_source` tells of a name whether clients write a bucket of that name.
    pub fn policy_for_new_bucket(
        &self,
        bucket: &str,
        is_source: impl Fn(&str) -> bool,
    ) -> Result<Option<PolicyConfig>, String> {
        let Some(terms) = &self.default_policy else { return Ok(None) };
        let copies = format!("{bucket}{COPIES_SUFFIX}");
        let destination = Destination::Bucket(copies.clone());
        let own = Destination::Bucket(bucket.to_owned());
        if self.policies.iter().any(|policy| policy.is_source(bucket) || policy.destination == own) {
            return Ok(None);
        }
        check_bucket_name(&copies).map_err(|_| {
            format!("its copies would go to `{copies}`, which is no bucket name: use at most 56 characters")
        })?;
        if self.policies.iter().any(|policy| policy.name.as_str() == bucket) {
            return Err(format!("a policy is called `{bucket}` and looks after another bucket: use another name"));
        }
        let used = self.policies.iter().any(|policy| policy.is_source(&copies) || policy.destination == destination);
        if used || is_source(&copies) {
            return Err(format!("its copies would go to `{copies}`, which is in use already: use another name"));
        }
        Ok(Some(PolicyConfig::of_bucket(bucket, destination, terms.clone())))
    }
}

impl PolicyConfig {
    /// Copies of a whole local bucket, called as the bucket is.
    pub fn of_bucket(bucket: &str, destination: Destination, terms: Terms) -> PolicyConfig {
        PolicyConfig {
            name: PolicyName::from(bucket),
            source: Source { host: Host::Local, bucket: bucket.to_owned(), prefix: String::new() },
            destination,
            catalog: CatalogPlace::Local,
            events: None,
            order: Basis::Sequencer,
            mode: Mode::Copies,
            terms,
        }
    }

    /// Whether it copies from that local bucket.
    pub fn is_source(&self, bucket: &str) -> bool {
        self.source.host == Host::Local && self.source.bucket == bucket
    }

    /// The rules that the flows apply.
    pub fn rules(&self) -> Rules {
        Rules {
            basis: self.order,
            keep: self.terms.keep,
            protect_for: self.terms.protect_for,
            grace: self.terms.grace,
            breaker: self.terms.breaker,
            guards: Guards::default(),
        }
    }

    /// The services that it names; `None`: AWS, as the environment says.
    pub fn services(&self) -> Vec<Option<&String>> {
        let source = match &self.source.host {
            Host::Local => None,
            Host::Service(name) => Some(name.as_ref()),
        };
        let destination = match &self.destination {
            Destination::S3(bucket) => Some(bucket.service.as_ref()),
            Destination::Bucket(_) | Destination::Folder(_) => None,
        };
        let catalog = match &self.catalog {
            CatalogPlace::Local => None,
            CatalogPlace::Table(place) => Some(place.table.service.as_ref()),
        };
        let events = self.events.as_ref().map(|events| events.queue.service.as_ref());
        [source, destination, catalog, events].into_iter().flatten().collect()
    }

    /// Whether anything of it is in a service rather than on this machine.
    pub fn is_remote(&self) -> bool {
        self.source.host != Host::Local
            || matches!(self.destination, Destination::S3(_))
            || self.catalog != CatalogPlace::Local
    }
}

impl Terms {
    /// A short retention for trying out: keep 3, grace 10 s, clean every minute.
    pub fn trial() -> Terms {
        Terms {
            grace: SpanMs::seconds(10),
            breaker: Some(BreakerRule { deletes: 20, ..Terms::default_breaker() }),
            ..Terms::default()
        }
    }

    /// More than five removals in an hour that are more than a fifth of the keys: works for twenty objects, too.
    pub fn default_breaker() -> BreakerRule {
        BreakerRule { window: SpanMs::hours(1), deletes: 5, share: 0.2 }
    }
}

impl Default for Terms {
    /// What counts where a file says nothing: keep 3, grace 30 days, clean every minute, and a breaker.
    fn default() -> Terms {
        Terms {
            keep: Keep::last(3),
            protect_for: SpanMs::ZERO,
            grace: SpanMs::days(30),
            clean: Schedule::every_minute(),
            breaker: Some(Terms::default_breaker()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            let file = self.file.display();
            match problem.line {
                Some(line) => write!(f, "{}{file}:{line}: {problem}", if place > 0 { "\n" } else { "" })?,
                None => write!(f, "{}{file}: {problem}", if place > 0 { "\n" } else { "" })?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    fix: {}", self.what, self.fix)
    }
}
