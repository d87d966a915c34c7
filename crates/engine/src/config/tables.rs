//! Tables of this machine, as the configuration says it: the DynamoDB endpoint, `[dynamodb_endpoint]`, and where the deleted
//! records of its tables go. Pure.

use super::archives::PlacedArchive;
use super::location;
use super::raw::{OrOff, RawTables};
use super::validate::{Check, Placed, overlap, parts};
use super::{Config, Destination, PolicyConfig, ServiceConfig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// What the tables of this machine's endpoint are called by: `dynamodb://local@Orders`. No `[[service]]` has this name.
pub const LOCAL_SERVICE: &str = "local";
/// The bucket of [`TablesConfig::default`].
pub const RECORDS_BUCKET: &str = "records";

/// What the tables' file has besides the tables, where the name of a table would be a table: SQLite does not tell names apart
/// by case.
const RESERVED: [&str; 4] = ["_config", "_tables", "_stream_records", "afterimage_stream_records"];
/// Begins the names of SQLite itself.
const RESERVED_PREFIX: &str = "sqlite_";

/// Whether no table of this machine can have that name.
pub fn is_reserved_table(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with(RESERVED_PREFIX) || RESERVED.contains(&name.as_str())
}

/// The DynamoDB endpoint, and the archive of its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablesConfig {
    /// Address and port; `None`: see [`Config::tables_listen`].
    pub listen: Option<SocketAddr>,
    /// An address that other machines reach is meant: the endpoint speaks plain HTTP.
    pub allow_remote: bool,
    /// Where the deleted records of every table go that no `[[archive]]` names, under the table's name.
    pub archive: Destination,
}

impl Default for TablesConfig {
    fn default() -> TablesConfig {
        TablesConfig { listen: None, allow_remote: false, archive: Destination::Bucket(RECORDS_BUCKET.to_owned()) }
    }
}

impl Config {
    /// Where the DynamoDB endpoint listens, if there is one. Where nothing is said: on loopback, on the port behind the S3
    /// endpoint's; on a free one if that takes a free one.
    pub fn tables_listen(&self) -> Option<SocketAddr> {
        let tables = self.tables.as_ref()?;
        let beside = || {
            let s3 = self.endpoint.listen;
            let ip = if s3.ip().is_loopback() { s3.ip() } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
            let port = if s3.port() == 0 { 0 } else { s3.port().checked_add(1).unwrap_or(0) };
            SocketAddr::new(ip, port)
        };
        Some(tables.listen.unwrap_or_else(beside))
    }
}

/// The endpoint with the place where its archive stands, if it stands anywhere.
pub(super) struct PlacedTables {
    pub(super) tables: TablesConfig,
    archive_at: Option<Range<usize>>,
}

impl Check<'_> {
    /// `Some(None)`: off.
    pub(super) fn tables(&mut self, raw: Option<Spanned<OrOff<RawTables>>>) -> Option<Option<PlacedTables>> {
        let RawTables { listen, allow_remote, archive } = match raw.map(parts) {
            None => RawTables::default(),
            Some((_, OrOff::Off)) => return Some(None),
            Some((_, OrOff::Table(raw))) => raw,
            Some((at, OrOff::Word(word))) => {
                let what = format!("dynamodb_endpoint = \"{word}\" has no meaning");
                self.wrong(Some(at), what, "write a section, or \"off\"");
                return None;
            }
        };
        let allow_remote = allow_remote.unwrap_or(false);
        let listen = match listen {
            None => Some(None),
            Some(listen) => self.listen(listen, allow_remote, 9001).map(Some),
        };
        let archive_at = archive.as_ref().map(Spanned::span);
        let archive = match archive.map(parts) {
            None => Some(TablesConfig::default().archive),
            Some((at, text)) => self.location(at, location::parse_destination(&text)),
        };
        Some(Some(PlacedTables {
            tables: TablesConfig { listen: listen?, allow_remote, archive: archive? },
            archive_at,
        }))
    }

    /// The archive of the tables is nobody else's: which tables there will be is not known yet.
    pub(super) fn tables_apart(
        &mut self,
        placed: &PlacedTables,
        policies: &[&Placed],
        archives: &[PlacedArchive],
        services: &[ServiceConfig],
        data_dir: Option<&Path>,
    ) {
        let archive = &placed.tables.archive;
        let at = placed.archive_at.clone();
        let fix = "write archive = \"local://…\" with another bucket under [dynamodb_endpoint], or dynamodb_endpoint = \
                   \"off\" above the first section";
        let meets = |policy: &PolicyConfig| {
            let source = &policy.source;
            let source = source.remote().map_or_else(|| Destination::Bucket(source.bucket.clone()), Destination::S3);
            overlap(&policy.destination, archive, services) || overlap(&source, archive, services)
        };
        if let Some(other) = policies.iter().find(|other| meets(&other.policy)) {
            let what = format!(
                "the records of the DynamoDB endpoint's tables go to {archive}, which belongs to policy `{}`",
                other.policy.name
            );
            self.wrong(at.clone(), what, fix);
        }
        if let Some(other) = archives.iter().find(|other| overlap(&other.archive.destination, archive, services)) {
            let what = format!(
                "the records of the DynamoDB endpoint's tables go to {archive}, and so do those of dynamodb://{}",
                other.archive.table
            );
            self.wrong(at.clone(), what, fix);
        }
        if let Destination::S3(bucket) = archive {
            self.known_service(at.clone().unwrap_or_default(), Some(bucket), services);
        }
        if let Some(at) = at {
            self.outside_the_data(&at, archive, data_dir);
        }
    }
}
