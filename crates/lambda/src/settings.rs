//! The configuration of the functions: the daemon's, of which a function takes policies and services, and nothing that would
//! be on this machine. Pure.

use crate::failure::Failure;
use aws::parse::Channel;
use engine::config::{
    ArchiveConfig, CatalogPlace, Config, Destination, EventChannel, PolicyConfig, Remote, ServiceConfig, TablePlace,
};
use lifecycle::order::Basis;
use std::collections::BTreeMap;
use std::path::Path;

/// What a function works by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) services: Vec<ServiceConfig>,
    pub(crate) policies: Vec<Placed>,
    /// Tables whose deleted records are archived, and the bucket of each.
    pub(crate) archives: Vec<(ArchiveConfig, Remote)>,
    /// What the events of each bucket, by its name in events, are ordered by.
    pub(crate) orders: BTreeMap<String, Ordered>,
}

/// A policy all of whose parts are in services.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) config: PolicyConfig,
    pub(crate) source: Remote,
    pub(crate) destination: Remote,
    pub(crate) catalog: TablePlace,
}

/// What orders events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(crate) basis: Basis,
    /// Whose sequencers count.
    pub(crate) channel: Channel,
}

impl Settings {
    /// Reads the text; `from` names where it came from.
    pub(crate) fn parse(text: &str, from: &str) -> Result<Settings, Failure> {
        let config =
            Config::parse(text, Path::new(from)).map_err(|error| Failure::new("configuration", error.to_string()))?;
        let mut settings =
            Settings { services: config.services, policies: Vec::new(), archives: Vec::new(), orders: BTreeMap::new() };
        let mut problems = Vec::new();
        for config in config.policies {
            match settings.add(config) {
                Ok(()) => {}
                Err(problem) => problems.push(problem),
            }
        }
        for archive in config.archives {
            // A stream's records say their table's name, and not by which service it is reached.
            if settings.archives.iter().any(|(other, _)| other.table.name == archive.table.name) {
                let fix = "give each a function of its own";
                problems.push(format!("two tables called {} are archived by one function: {fix}", archive.table.name));
            }
            match &archive.destination {
                Destination::S3(bucket) => settings.archives.push((archive.clone(), bucket.clone())),
                Destination::Bucket(_) | Destination::Folder(_) => problems.push(format!(
                    "the archive of {}: its destination is on this machine, which a function has not: write destination = \
                     \"s3://…\"",
                    archive.table
                )),
            }
        }
        if settings.policies.is_empty() && settings.archives.is_empty() && problems.is_empty() {
            problems.push("there is no policy and no archive: add a section [[policy]] or [[archive]]".to_owned());
        }
        match problems.is_empty() {
            true => Ok(settings),
            false => Err(Failure::new("configuration", format!("{from}: {}", problems.join("; ")))),
        }
    }

    fn add(&mut self, config: PolicyConfig) -> Result<(), String> {
        let name = &config.name;
        let not_here = |what: &str, fix: &str| {
            format!("policy `{name}`: {what} is on this machine, which a function has not: {fix}")
        };
        let source = config.source.remote().ok_or_else(|| not_here("its source", "write source = \"s3://…\""))?;
        let Destination::S3(destination) = &config.destination else {
            return Err(not_here("its destination", "write destination = \"s3://…\""));
        };
        let CatalogPlace::Table(catalog) = &config.catalog else {
            return Err(not_here("its catalog", "write catalog = \"dynamodb://…\""));
        };
        let channel = config.events.as_ref().map_or(EventChannel::default(), |events| events.channel);
        let channel = match channel {
            EventChannel::Notification => Channel::Notification,
            EventChannel::EventBridge => Channel::EventBridge,
        };
        let ordered = Ordered { basis: config.order, channel };
        let there = *self.orders.entry(config.source.in_events()).or_insert(ordered);
        if there != ordered {
            let what = "another policy of the same bucket has another `channel` or `order`: write the same in both";
            return Err(format!("policy `{name}`: {what}"));
        }
        let (destination, catalog) = (destination.clone(), catalog.clone());
        self.policies.push(Placed { config, source, destination, catalog });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "default_policy = \"off\"\n[[policy]]\nname = \"docs\"\nsource = \"s3://docs\"\n\
        destination = \"s3://copies\"\ncatalog = \"dynamodb://rows\"\n";

    #[test]
    fn the_daemons_configuration_is_a_functions_too() {
        let settings = Settings::parse(&format!("{POLICY}keep = 5\n"), "AFTERIMAGE_CONFIG").unwrap();
        assert_eq!(settings.policies[0].config.terms.keep.last, 5);
        assert_eq!(settings.policies[0].catalog.table.name, "rows");
        let expected = Ordered { basis: Basis::Sequencer, channel: Channel::Notification };
        assert_eq!(settings.orders, BTreeMap::from([("s3://docs".to_owned(), expected)]));
        let bridged = format!("{POLICY}events = \"sqs://events\"\nchannel = \"eventbridge\"\n");
        let settings = Settings::parse(&bridged, "AFTERIMAGE_CONFIG").unwrap();
        assert_eq!(settings.orders["s3://docs"].channel, Channel::EventBridge);
    }

    #[test]
    fn what_would_be_on_this_machine_and_what_is_wrong_is_refused_with_the_fix() {
        let refused = |text: &str| Settings::parse(text, "config").unwrap_err().why;
        let local = POLICY.replace("s3://docs", "local://docs");
        let fix =
            "config: policy `docs`: its source is on this machine, which a function has not: write source = \"s3://…\"";
        assert_eq!(refused(&local), fix);
        assert!(refused(&POLICY.replace("s3://copies", "local:///mnt")).contains("its destination"));
        assert!(refused(&POLICY.replace("dynamodb://rows", "local")).contains("its catalog"));
        assert!(refused("default_policy = \"off\"").starts_with("config: there is no policy and no archive"));
        let archive = "[[archive]]\ntable = \"dynamodb://Orders\"\ndestination = \"local://archive\"";
        assert!(refused(archive).contains("the archive of Orders: its destination is on this machine"));
        let unknown = refused(&format!("{POLICY}kep = 3\n"));
        assert!(unknown.starts_with("config:7: unknown key `kep`") && unknown.contains("`keep`"), "{unknown}");
    }

    #[test]
    fn policies_of_one_bucket_order_its_events_alike() {
        let second = POLICY.replace("default_policy = \"off\"\n", "");
        let second = second.replace("\"docs\"", "\"other\"").replace("copies", "others").replace("rows", "more");
        assert!(Settings::parse(&format!("{POLICY}{second}"), "config").is_ok());
        let why = Settings::parse(&format!("{POLICY}{second}order = \"time\"\n"), "config").unwrap_err().why;
        assert!(why.contains("policy `other`") && why.contains("`order`"), "{why}");
    }
}
