//! What of a policy is in a service, judged: its catalog, its events, its buckets, and what policies share there. Pure.

use super::services::{parse_catalog, parse_queue, read_alike, same_bucket, same_thing};
use super::validate::{Check, Placed, parts};
use super::{CatalogPlace, Destination, EventsPlace, Host, PolicyConfig, Remote, ServiceConfig, Source};
use lifecycle::order::Basis;
use toml::Spanned;

impl Check<'_> {
    pub(super) fn catalog(
        &mut self,
        raw: Option<Spanned<String>>,
        shards: Option<Spanned<i64>>,
    ) -> Option<CatalogPlace> {
        let shards_at = shards.as_ref().map(Spanned::span);
        let shards = self.index_shards(shards)?;
        let place = match raw.map(parts) {
            None => CatalogPlace::Local,
            Some((at, text)) => self.location(at, parse_catalog(&text, shards))?,
        };
        if shards_at.is_some() && place == CatalogPlace::Local {
            let fix = "remove it, or write catalog = \"dynamodb://table\"";
            self.wrong(shards_at, "`index_shards` has no meaning for a catalog in a file", fix);
        }
        Some(place)
    }

    /// Where events come from, and what orders them.
    pub(super) fn events(
        &mut self,
        source: Option<&Source>,
        events: Option<Spanned<String>>,
        channel: Option<Spanned<String>>,
        order: Option<Spanned<String>>,
    ) -> Option<(Option<EventsPlace>, Basis)> {
        if source.is_some_and(|source| source.host == Host::Local) {
            let spans = [
                ("events", events.as_ref().map(Spanned::span)),
                ("channel", channel.as_ref().map(Spanned::span)),
                ("order", order.as_ref().map(Spanned::span)),
            ];
            for (key, at) in spans.into_iter().filter(|(_, at)| at.is_some()) {
                let what = format!("a local bucket tells its events, in order, by itself: `{key}` has no meaning");
                self.wrong(at, what, format!("remove `{key}`"));
            }
        } else if let (None, Some(channel)) = (&events, &channel) {
            self.wrong(
                Some(channel.span()),
                "`channel` has no meaning without `events`",
                "remove it, or add events = \"sqs://queue\"",
            );
        }
        let channel = self.channel(channel)?;
        let order = match order.map(parts) {
            None => Basis::Sequencer,
            Some((_, word)) if word == "sequencer" => Basis::Sequencer,
            Some((_, word)) if word == "time" => Basis::Time,
            Some((at, word)) => {
                let fix = "write \"sequencer\", or \"time\" where the source's sequencers are no order (MinIO)";
                self.wrong(Some(at), format!("order = \"{word}\" is unknown"), fix);
                return None;
            }
        };
        let events = match events.map(parts) {
            None => None,
            Some((at, text)) => Some(EventsPlace { queue: self.location(at, parse_queue(&text))?, channel }),
        };
        Some((events, order))
    }

    /// Services that nobody configured, tables and queues that policies share.
    pub(super) fn shared(&mut self, policies: &[&Placed], services: &[ServiceConfig]) {
        for (place, placed) in policies.iter().enumerate() {
            let policy = &placed.policy;
            self.known_service(placed.source_at.clone(), policy.source.remote().as_ref(), services);
            if let Destination::S3(bucket) = &policy.destination {
                self.known_service(placed.destination_at.clone(), Some(bucket), services);
            }
            let earlier = policies[..place].iter().map(|earlier| &earlier.policy);
            if let CatalogPlace::Table(table) = &policy.catalog {
                self.known_service(placed.catalog_at.clone(), Some(&table.table), services);
                let meets = |other: &&PolicyConfig| match &other.catalog {
                    CatalogPlace::Table(there) => {
                        let apart = there.prefix.is_some() && table.prefix.is_some() && there.prefix != table.prefix;
                        same_thing(services, &there.table, &table.table) && !apart
                    }
                    CatalogPlace::Local => false,
                };
                if let Some(other) = earlier.clone().find(meets) {
                    let what = format!("{table} is the catalog of policy `{}`, too", other.name);
                    let fix = format!("write a prefix for each: \"dynamodb://{}/{}\"", table.table, policy.name);
                    self.wrong(Some(placed.catalog_at.clone()), what, fix);
                }
            }
            if let Some(events) = &policy.events {
                self.known_service(placed.events_at.clone(), Some(&events.queue), services);
                let shares = |other: &&PolicyConfig| {
                    other.events.as_ref().is_some_and(|there| same_thing(services, &there.queue, &events.queue))
                };
                // An event reaches the policies that read its queue under the same name, and is over when they have had it.
                let renamed = |other: &&PolicyConfig| {
                    other.events.as_ref().is_some_and(|there| there.queue != events.queue) && shares(other)
                };
                if let Some(other) = earlier.clone().find(renamed) {
                    let what = format!(
                        "sqs://{} is the queue of policy `{}`, too, under the name of another service",
                        events.queue, other.name
                    );
                    self.wrong(Some(placed.events_at.clone()), what, "write the same in both");
                }
                let differs = |other: &&PolicyConfig| shares(other) && !read_alike(other, policy);
                if let Some(other) = earlier.clone().find(differs) {
                    let what = format!(
                        "policy `{}` reads sqs://{} with another `channel` or `order`",
                        other.name, events.queue
                    );
                    self.wrong(
                        Some(placed.events_at.clone()),
                        what,
                        "write the same in both, or give each its own queue",
                    );
                }
            }
        }
    }

    /// A copy in a bucket that a policy watches would be an event, and another copy, without end.
    pub(super) fn remote_destination(
        &mut self,
        placed: &Placed,
        bucket: &Remote,
        policies: &[&Placed],
        services: &[ServiceConfig],
    ) {
        let reads = |other: &&&Placed| {
            other.policy.source.remote().is_some_and(|source| same_bucket(services, &source, bucket))
        };
        let Some(other) = policies.iter().find(reads) else { return };
        let (name, at) = (&placed.policy.name, Some(placed.destination_at.clone()));
        match other.policy.name == *name {
            true => {
                let what = format!("policy `{name}` copies s3://{bucket} into itself: every copy would make another");
                self.wrong(at, what, "write another bucket");
            }
            false => {
                let what = format!("s3://{bucket} is the source of policy `{}`", other.policy.name);
                self.wrong(at, what, "every policy needs a destination of its own, which no client writes");
            }
        }
    }
}
