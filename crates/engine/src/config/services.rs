//! Services beside this machine, as the configuration names them: `[[service]]`, and what a policy keeps in one: buckets,
//! a table, a queue. No credentials stand here: they come from where every AWS tool looks. Pure.

use super::PolicyConfig;
use super::location::Wrong;
use super::raw::RawService;
use super::tables::LOCAL_SERVICE;
use super::validate::{Check, parts};
use crate::limits::{INDEX_SHARDS_MAX, TABLE_PREFIX_BYTES_MAX};
use std::fmt;
use std::ops::Range;
use toml::Spanned;

/// The region of services that have an endpoint of their own and name none: most of them do not mind.
const REGION_OF_ENDPOINTS: &str = "us-east-1";

/// One account and region of AWS, or one endpoint that speaks its protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// What policies call it: `s3://NAME@bucket`. Unique.
    pub name: String,
    /// The address of a service other than AWS's own: `https://s3.example.org`.
    pub endpoint: Option<String>,
    /// The region; `None`: what the profile or the environment says.
    pub region: Option<String>,
    /// The profile of the shared AWS configuration.
    pub profile: Option<String>,
    /// The role to assume (its ARN).
    pub role: Option<String>,
    /// Buckets in the path rather than in the host's name.
    pub path_style: bool,
}

/// Something in a service: a bucket, a table, a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// The service's name in the configuration; `None`: AWS, with account and region as the environment says.
    pub service: Option<String>,
    /// The thing's name there.
    pub name: String,
}

/// Where a policy's catalog is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogPlace {
    /// A file in the data folder.
    Local,
    /// A table of DynamoDB.
    Table(TablePlace),
}

/// A table, and how the policy lies in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlace {
    /// The table.
    pub table: Remote,
    /// Where several policies share it, this one's prefix: `dynamodb://table/PREFIX`.
    pub prefix: Option<String>,
    /// Over how many keys of the index entries are spread.
    pub index_shards: u32,
}

/// Where the events of a source come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsPlace {
    /// The queue.
    pub queue: Remote,
    /// Whose messages it carries: their sequencers differ.
    pub channel: EventChannel,
}

/// Who sends the events of a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventChannel {
    /// The bucket itself.
    #[default]
    Notification,
    /// EventBridge.
    EventBridge,
}

impl EventChannel {
    /// As the configuration writes it.
    pub fn word(self) -> &'static str {
        match self {
            EventChannel::Notification => "notification",
            EventChannel::EventBridge => "eventbridge",
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}@{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl fmt::Display for TablePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dynamodb://{}", self.table)?;
        self.prefix.as_ref().map_or(Ok(()), |prefix| write!(f, "/{prefix}"))
    }
}

/// Whose a thing is: of one service two names may stand in a configuration.
fn endpoint_of<'a>(services: &'a [ServiceConfig], remote: &Remote) -> Option<&'a str> {
    let service = services.iter().find(|service| Some(&service.name) == remote.service.as_ref())?;
    service.endpoint.as_deref()
}

/// Whether two names of buckets mean one bucket: AWS's are unique in the world, those of an endpoint in it.
pub(super) fn same_bucket(services: &[ServiceConfig], a: &Remote, b: &Remote) -> bool {
    a.name == b.name && endpoint_of(services, a) == endpoint_of(services, b)
}

/// Whether two names of tables or of queues mean one thing, as far as the configuration says: those of one account and region,
/// under whichever name its service stands there.
pub(super) fn same_thing(services: &[ServiceConfig], a: &Remote, b: &Remote) -> bool {
    let place = |remote: &Remote| {
        let service = services.iter().find(|service| Some(&service.name) == remote.service.as_ref());
        service.map(|ServiceConfig { name: _, endpoint, region, profile, role, path_style: _ }| {
            (endpoint.clone(), region.clone(), profile.clone(), role.clone())
        })
    };
    a.name == b.name && place(a).unwrap_or_default() == place(b).unwrap_or_default()
}

/// Splits `service@rest`.
pub(super) fn remote(rest: &str) -> (Option<String>, &str) {
    match rest.split_once('@') {
        Some((service, rest)) => (Some(service.to_owned()), rest),
        None => (None, rest),
    }
}

/// Reads `local`, `dynamodb://table`, `dynamodb://service@table/prefix`.
pub(super) fn parse_catalog(text: &str, index_shards: u32) -> Result<CatalogPlace, Wrong> {
    let fix = "write \"local\", \"dynamodb://table\" or, for a table that policies share, \"dynamodb://table/prefix\"";
    if text == "local" {
        return Ok(CatalogPlace::Local);
    }
    let Some(rest) = text.strip_prefix("dynamodb://") else {
        return Err((format!("`{text}` is no place for a catalog"), fix.to_owned()));
    };
    let (service, rest) = remote(rest);
    let (table, prefix) = rest.split_once('/').map_or((rest, None), |(table, prefix)| (table, Some(prefix)));
    let legal = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !(3..=255).contains(&table.len()) || !legal(table) {
        let fix = "3 to 255 letters, digits, `-`, `_` and `.`".to_owned();
        return Err((format!("`{table}` is no name of a table"), fix));
    }
    if let Some(prefix) = prefix
        && (!(1..=TABLE_PREFIX_BYTES_MAX).contains(&prefix.len()) || !legal(prefix))
    {
        let fix = format!("1 to {TABLE_PREFIX_BYTES_MAX} letters, digits, `-`, `_` and `.`, without another `/`");
        return Err((format!("`{prefix}` is no prefix of a policy in a shared table"), fix));
    }
    let table = Remote { service, name: table.to_owned() };
    Ok(CatalogPlace::Table(TablePlace { table, prefix: prefix.map(str::to_owned), index_shards }))
}

/// Reads `sqs://queue`, `sqs://service@queue`.
pub(super) fn parse_queue(text: &str) -> Result<Remote, Wrong> {
    let fix = "write the queue's name: \"sqs://documents-events\"";
    let Some(rest) = text.strip_prefix("sqs://") else {
        return Err((format!("`{text}` is no queue"), fix.to_owned()));
    };
    let (service, name) = remote(rest);
    if name.ends_with(".fifo") {
        return Err((
            format!("`{name}` is a queue in FIFO order, and S3 and Lambda send to standard queues only"),
            fix.to_owned(),
        ));
    }
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    match legal && (1..=80).contains(&name.len()) {
        true => Ok(Remote { service, name: name.to_owned() }),
        false => Err((format!("`{name}` is no name of a queue"), fix.to_owned())),
    }
}

impl Check<'_> {
    /// The services, each with a name of its own.
    pub(super) fn services(&mut self, raw: Vec<Spanned<RawService>>) -> Option<Vec<ServiceConfig>> {
        let mut services: Vec<ServiceConfig> = Vec::with_capacity(raw.len());
        let mut sound = true;
        for raw in raw {
            match self.service(raw, &services) {
                Some(service) => services.push(service),
                None => sound = false,
            }
        }
        sound.then_some(services)
    }

    fn service(&mut self, raw: Spanned<RawService>, others: &[ServiceConfig]) -> Option<ServiceConfig> {
        let (section, raw) = parts(raw);
        let RawService { name, endpoint, region, profile, role, path_style } = raw;
        let Some((name_at, name)) = name.map(parts) else {
            self.wrong(
                Some(section),
                "a service lacks its `name`",
                "add name = \"minio\"; policies say s3://minio@bucket",
            );
            return None;
        };
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if !(1..=63).contains(&name.len()) || !name.chars().all(legal) {
            self.wrong(
                Some(name_at),
                format!("`{name}` is no name for a service"),
                "1 to 63 of a-z, 0-9, `-`, `_` and `.`",
            );
            return None;
        }
        if name == LOCAL_SERVICE {
            let what = format!("`{name}` means this machine, and is no name for a service");
            self.wrong(Some(name_at), what, "give it another name");
            return None;
        }
        if others.iter().any(|other| other.name == name) {
            self.wrong(Some(name_at), format!("two services are called `{name}`"), "give each its own name");
            return None;
        }
        if let Some((at, text)) = endpoint.clone().map(parts)
            && !is_address(&text)
        {
            let fix = "write an address without a path: \"https://s3.example.org\" or \"http://127.0.0.1:9000\"";
            self.wrong(Some(at), format!("endpoint = \"{text}\" is no address of a service"), fix);
            return None;
        }
        let endpoint = endpoint.map(|text| text.into_inner().trim_end_matches('/').to_owned());
        Some(ServiceConfig {
            name,
            path_style: path_style.unwrap_or(endpoint.is_some()),
            region: region.or_else(|| endpoint.as_ref().map(|_| REGION_OF_ENDPOINTS.to_owned())),
            endpoint,
            profile,
            role,
        })
    }

    /// Refuses a service that is not configured, with the nearest name that is.
    pub(super) fn known_service(&mut self, at: Range<usize>, remote: Option<&Remote>, known: &[ServiceConfig]) {
        let Some(name) = remote.and_then(|remote| remote.service.as_ref()) else { return };
        if known.iter().any(|service| service.name == *name) {
            return;
        }
        let nearest = known.iter().min_by_key(|service| strsim::damerau_levenshtein(name, &service.name));
        let fix = match nearest {
            Some(service) => format!("did you mean `{}`?", service.name),
            None => format!("add a section: [[service]] with name = \"{name}\""),
        };
        self.wrong(Some(at), format!("there is no service `{name}`"), fix);
    }

    pub(super) fn index_shards(&mut self, raw: Option<Spanned<i64>>) -> Option<u32> {
        let Some((at, n)) = raw.map(parts) else { return Some(1) };
        let shards = u32::try_from(n).ok().filter(|shards| (1..=INDEX_SHARDS_MAX).contains(shards));
        if shards.is_none() {
            self.wrong(Some(at), format!("index_shards = {n} cannot be"), format!("write 1 to {INDEX_SHARDS_MAX}"));
        }
        shards
    }

    pub(super) fn channel(&mut self, raw: Option<Spanned<String>>) -> Option<EventChannel> {
        match raw.map(parts) {
            None => Some(EventChannel::default()),
            Some((_, word)) if word == EventChannel::Notification.word() => Some(EventChannel::Notification),
            Some((_, word)) if word == EventChannel::EventBridge.word() => Some(EventChannel::EventBridge),
            Some((at, word)) => {
                let fix = "write \"notification\" or \"eventbridge\"";
                self.wrong(Some(at), format!("channel = \"{word}\" is unknown"), fix);
                None
            }
        }
    }
}

/// Whether policies that read one queue agree on what its messages mean.
pub(super) fn read_alike(a: &PolicyConfig, b: &PolicyConfig) -> bool {
    a.order == b.order && a.events.as_ref().map(|e| e.channel) == b.events.as_ref().map(|e| e.channel)
}

fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.map(|rest| rest.trim_end_matches('/'));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '@', '?', '#', ' ']))
}
