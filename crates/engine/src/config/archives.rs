//! Tables whose deleted records are archived, as the configuration names them: `[[archive]]`. Pure.

use super::feeds::{FeedConfig, FeedTo, RawFeed};
use super::location;
use super::raw::RawArchive;
use super::services::{CatalogPlace, Remote, ServiceConfig, TablePlace, parse_catalog, parse_queue, same_thing};
use super::tables::{LOCAL_SERVICE, PlacedTables, is_reserved_table};
use super::tiers::Tiers;
use super::validate::{Check, Placed, overlap, parts};
use super::{Destination, PolicyConfig};
use lifecycle::archive::ServiceName;
use std::ops::Range;
use toml::Spanned;

/// A table whose deleted records are archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// The table.
    pub table: Remote,
    /// What its records lie under: the application that the table belongs to. Tables may share one.
    pub service: ServiceName,
    /// Where to. Archives may share it; policies never do.
    pub destination: Destination,
    /// Where those who read the stream agree who reads which shard: a file here, for one process; a table, for several.
    pub leases: CatalogPlace,
    /// The queue that hears of batches which Lambda gave up: the destination for failures of the function's event source
    /// mapping. Several tables may share it.
    pub failures: Option<Remote>,
    /// Whether and when its records are packed.
    pub pack: Packing,
    /// The objects of packed records go, 30 days after.
    pub removes_originals: bool,
    /// Where its objects move to as they grow old, and when they go: what `archive tiers` has the bucket do.
    pub tiers: Tiers,
    /// Who is told what is archived, if anybody is.
    pub feed: Option<FeedConfig>,
}

/// When archived records are packed into Parquet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Never.
    #[default]
    Off,
    /// Every hour, what came in it.
    Hourly,
    /// Every day, the days that are over.
    Daily,
}

impl Packing {
    /// All of them, with their words.
    pub const ALL: [(Packing, &str); 3] =
        [(Packing::Off, "off"), (Packing::Hourly, "hourly"), (Packing::Daily, "daily")];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        Packing::ALL.iter().find(|(packing, _)| *packing == self).map_or("off", |(_, word)| word)
    }
}

impl ArchiveConfig {
    /// The services that it names.
    pub(super) fn services(&self) -> Vec<Option<&String>> {
        let destination = match &self.destination {
            Destination::S3(bucket) => Some(bucket),
            Destination::Bucket(_) | Destination::Folder(_) => None,
        };
        let leases = match &self.leases {
            CatalogPlace::Table(place) => Some(&place.table),
            CatalogPlace::Local => None,
        };
        [Some(&self.table), destination, leases, self.failures.as_ref(), self.feed_queue()]
            .into_iter()
            .flatten()
            .map(|remote| remote.service.as_ref())
            .collect()
    }

    /// The queue that is told what is archived, if it is a queue.
    fn feed_queue(&self) -> Option<&Remote> {
        match self.feed.as_ref().map(|feed| &feed.to) {
            Some(FeedTo::Queue(queue)) => Some(queue),
            _ => None,
        }
    }
}

const TABLE: &str = "table = \"dynamodb://Orders\"";

/// An archive with the places where its parts stand.
pub(super) struct PlacedArchive {
    pub(super) archive: ArchiveConfig,
    table_at: Range<usize>,
    pub(super) destination_at: Range<usize>,
    leases_at: Range<usize>,
    failures_at: Range<usize>,
    pub(super) feed_at: Range<usize>,
}

impl Check<'_> {
    /// The archives, judged beside the policies.
    pub(super) fn archives(
        &mut self,
        raw: Vec<Spanned<RawArchive>>,
        policies: &[&Placed],
        services: &[ServiceConfig],
        tables: Option<&PlacedTables>,
    ) -> Option<Vec<PlacedArchive>> {
        let archives: Vec<Option<PlacedArchive>> = raw.into_iter().map(|raw| self.archive(raw)).collect();
        let known: Vec<&PlacedArchive> = archives.iter().flatten().collect();
        for (place, placed) in known.iter().enumerate() {
            let ArchiveConfig { table, destination, leases, failures, .. } = &placed.archive;
            self.known_table(placed.table_at.clone(), table, services, tables);
            if let Destination::S3(bucket) = destination {
                self.known_service(placed.destination_at.clone(), Some(bucket), services);
            }
            if let CatalogPlace::Table(place) = leases {
                self.known_service(placed.leases_at.clone(), Some(&place.table), services);
            }
            self.known_service(placed.failures_at.clone(), failures.as_ref(), services);
            let told = placed.archive.feed_queue();
            self.known_service(placed.feed_at.clone(), told, services);
            if told.zip(failures.as_ref()).is_some_and(|(told, failures)| same_thing(services, told, failures)) {
                let fix = "name another queue: what is read from that one is what Lambda gave up";
                self.wrong(Some(placed.feed_at.clone()), "`feed` and `failures` are one queue", fix);
            }
            let meets = |policy: &PolicyConfig| {
                let source = policy
                    .source
                    .remote()
                    .map_or_else(|| Destination::Bucket(policy.source.bucket.clone()), Destination::S3);
                overlap(&policy.destination, destination, services) || overlap(&source, destination, services)
            };
            if let Some(other) = policies.iter().find(|other| meets(&other.policy)) {
                let what = format!("{destination} belongs to policy `{}`", other.policy.name);
                self.wrong(Some(placed.destination_at.clone()), what, "an archive needs a bucket without a policy");
            }
            let of_one_pack = |earlier: &&&PlacedArchive| {
                let there = &earlier.archive;
                there.service == placed.archive.service && overlap(&there.destination, destination, services)
            };
            let how = |archive: &ArchiveConfig| (archive.pack, archive.removes_originals);
            if let Some(other) = known[..place].iter().find(of_one_pack)
                && other.archive.tiers != placed.archive.tiers
            {
                let what = format!("records of `{}` move to other tiers, or go, in two ways", placed.archive.service);
                let fix = format!(
                    "give dynamodb://{table} the same `tiers` and `expire` as dynamodb://{}",
                    other.archive.table
                );
                self.wrong(Some(placed.destination_at.clone()), what, fix);
            }
            if let Some(other) = known[..place].iter().find(of_one_pack)
                && how(&other.archive) != how(&placed.archive)
            {
                let what = format!("records of `{}` are packed in two ways", placed.archive.service);
                let fix = format!(
                    "give dynamodb://{table} the same `pack` and `originals` as dynamodb://{}",
                    other.archive.table
                );
                self.wrong(Some(placed.destination_at.clone()), what, fix);
            }
            let again = |earlier: &&&PlacedArchive| same_thing(services, &earlier.archive.table, table);
            let alike = |earlier: &&&PlacedArchive| {
                let there = &earlier.archive;
                there.table.name == table.name && overlap(&there.destination, destination, services)
            };
            if known[..place].iter().any(|earlier| again(&earlier)) {
                let what = format!("dynamodb://{table} is archived twice");
                self.wrong(Some(placed.table_at.clone()), what, "remove one of the two");
            } else if known[..place].iter().any(|earlier| alike(&earlier)) {
                let what = format!("two tables called {} are archived to {destination}", table.name);
                self.wrong(Some(placed.destination_at.clone()), what, "give each a bucket of its own");
            }
        }
        archives.into_iter().collect()
    }

    /// A table in a service that is configured, or in this machine's own.
    fn known_table(
        &mut self,
        at: Range<usize>,
        table: &Remote,
        services: &[ServiceConfig],
        tables: Option<&PlacedTables>,
    ) {
        match (table.service.as_deref(), tables) {
            (Some(LOCAL_SERVICE), Some(_)) if is_reserved_table(&table.name) => {
                let what =
                    format!("no table of this machine can be called `{}`: the endpoint itself uses it", table.name);
                self.wrong(Some(at), what, "remove this [[archive]], or name another table");
            }
            (Some(LOCAL_SERVICE), Some(_)) => {}
            (Some(LOCAL_SERVICE), None) => {
                let fix = "remove dynamodb_endpoint = \"off\"";
                self.wrong(Some(at), "the DynamoDB endpoint of this machine is switched off", fix);
            }
            _ => self.known_service(at, Some(table), services),
        }
    }

    /// The meaning of one of a few words; the first is the default.
    fn one_of<T: Copy>(&mut self, name: &str, given: Option<Spanned<String>>, all: &[(T, &str)]) -> Option<T> {
        let Some((at, word)) = given.map(parts) else { return all.first().map(|(meaning, _)| *meaning) };
        let found = all.iter().find(|(_, known)| *known == word).map(|(meaning, _)| *meaning);
        if found.is_none() {
            let words: Vec<String> = all.iter().map(|(_, word)| format!("\"{word}\"")).collect();
            self.wrong(
                Some(at),
                format!("`{word}` has no meaning for {name}"),
                format!("write {}", words.join(" or ")),
            );
        }
        found
    }

    fn archive(&mut self, raw: Spanned<RawArchive>) -> Option<PlacedArchive> {
        let (section, raw) = parts(raw);
        let RawArchive { table, service, destination, leases, failures, pack, originals, tiers, expire, .. } = raw;
        let RawArchive { feed, feed_image: image, feed_secret_file: secret_file, .. } = raw;
        let feed = self.feed(&section, RawFeed { to: feed, image, secret_file });
        let table = self.needed("an archive", &section, "table", TABLE, table);
        let bucket = "destination = \"s3://orders-archive\"";
        let destination = self.needed("an archive", &section, "destination", bucket, destination);
        let table = table.and_then(|(at, text)| Some((at.clone(), self.location(at, parse_table(&text))?)));
        let destination = destination
            .and_then(|(at, text)| Some((at.clone(), self.location(at, location::parse_destination(&text))?)));
        let leases_at = leases.as_ref().map_or(section.clone(), Spanned::span);
        let leases = match leases.map(parts) {
            None => Some(CatalogPlace::Local),
            Some((at, text)) => self.location(at, parse_catalog(&text, 1)),
        };
        let failures_at = failures.as_ref().map_or(section.clone(), Spanned::span);
        let failures = match failures.map(parts) {
            None => Some(None),
            Some((at, text)) => self.location(at, parse_queue(&text)).map(Some),
        };
        let pack = self.one_of("pack", pack, &Packing::ALL);
        let keep = [(false, "keep"), (true, "remove")];
        let removes_originals = self.one_of("originals", originals, &keep);
        let (table_at, table) = table?;
        let (at, service) = service.map_or((section, table.name.clone()), parts);
        let service = match ServiceName::new(&service) {
            Ok(service) => Some(service),
            Err(error) => {
                let fix = "write service = \"orders\", or another name".to_owned();
                self.wrong(Some(at), error.to_string(), fix);
                None
            }
        };
        let place = (service.as_ref(), destination.as_ref().map(|(_, destination)| destination));
        let tiers = self.tiers(tiers, expire, place);
        let (destination_at, destination) = destination?;
        let (pack, removes_originals) = (pack?, removes_originals?);
        let (service, leases, failures, tiers) = (service?, leases?, failures?, tiers?);
        let (feed_at, feed) = feed?.map_or((table_at.clone(), None), |(at, feed)| (at, Some(feed)));
        let archive =
            ArchiveConfig { table, service, destination, leases, failures, pack, removes_originals, tiers, feed };
        Some(PlacedArchive { archive, table_at, destination_at, leases_at, failures_at, feed_at })
    }
}

/// Reads `dynamodb://table`, `dynamodb://service@table`.
pub fn parse_table(text: &str) -> Result<Remote, (String, String)> {
    match parse_catalog(text, 1) {
        Ok(CatalogPlace::Table(TablePlace { table, prefix: None, .. })) => Ok(table),
        Err((what, fix)) if text.starts_with("dynamodb://") => Err((what, fix)),
        Ok(_) | Err(_) => Err((format!("`{text}` is no table"), format!("write {TABLE}"))),
    }
}
