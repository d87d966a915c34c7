//! The configuration file as it is written: every key optional where it has a default, unknown keys refused, and for each
//! value the place where it stands, so that a message can name the line. Nothing is judged here.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de};
use std::fmt;
use std::marker::PhantomData;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) data_dir: Option<Spanned<String>>,
    pub(super) s3_endpoint: Option<Spanned<RawEndpoint>>,
    pub(super) dynamodb_endpoint: Option<Spanned<OrOff<RawTables>>>,
    pub(super) default_policy: Option<Spanned<OrOff<RawTerms>>>,
    #[serde(default)]
    pub(super) service: Vec<Spanned<RawService>>,
    #[serde(default)]
    pub(super) policy: Vec<Spanned<RawPolicy>>,
    #[serde(default)]
    pub(super) archive: Vec<Spanned<RawArchive>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawArchive {
    pub(super) table: Option<Spanned<String>>,
    pub(super) service: Option<Spanned<String>>,
    pub(super) destination: Option<Spanned<String>>,
    pub(super) leases: Option<Spanned<String>>,
    pub(super) failures: Option<Spanned<String>>,
    pub(super) pack: Option<Spanned<String>>,
    pub(super) originals: Option<Spanned<String>>,
    pub(super) tiers: Option<Spanned<Vec<RawTier>>>,
    pub(super) expire: Option<Spanned<String>>,
    pub(super) feed: Option<Spanned<String>>,
    pub(super) feed_image: Option<Spanned<bool>>,
    pub(super) feed_secret_file: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTier {
    pub(super) after: String,
    pub(super) class: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoint {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) allow_remote: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTables {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) allow_remote: Option<bool>,
    pub(super) archive: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    pub(super) name: Option<Spanned<String>>,
    pub(super) endpoint: Option<Spanned<String>>,
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) role: Option<String>,
    pub(super) path_style: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) name: Option<Spanned<String>>,
    pub(super) source: Option<Spanned<String>>,
    pub(super) destination: Option<Spanned<String>>,
    pub(super) catalog: Option<Spanned<String>>,
    pub(super) index_shards: Option<Spanned<i64>>,
    pub(super) events: Option<Spanned<String>>,
    pub(super) channel: Option<Spanned<String>>,
    pub(super) order: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) keep: Option<Spanned<RawKeep>>,
    pub(super) protect_for: Option<Spanned<RawSpan>>,
    pub(super) grace: Option<Spanned<RawSpan>>,
    pub(super) clean: Option<Spanned<String>>,
    pub(super) breaker: Option<Spanned<OrOff<RawBreaker>>>,
}

/// What `[default_policy]` has in common with a policy.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTerms {
    pub(super) keep: Option<Spanned<RawKeep>>,
    pub(super) protect_for: Option<Spanned<RawSpan>>,
    pub(super) grace: Option<Spanned<RawSpan>>,
    pub(super) clean: Option<Spanned<String>>,
    pub(super) breaker: Option<Spanned<OrOff<RawBreaker>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBreaker {
    pub(super) window: Option<Spanned<RawSpan>>,
    pub(super) deletes: Option<Spanned<i64>>,
    pub(super) share: Option<Spanned<f64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeepRules {
    pub(super) last: Option<Spanned<i64>>,
    pub(super) within: Option<Spanned<RawSpan>>,
    pub(super) hourly: Option<Spanned<i64>>,
    pub(super) daily: Option<Spanned<i64>>,
    pub(super) weekly: Option<Spanned<i64>>,
    pub(super) monthly: Option<Spanned<i64>>,
    pub(super) yearly: Option<Spanned<i64>>,
}

/// `keep = 3` or `keep = { … }`.
pub(super) enum RawKeep {
    Last(i64),
    Rules(Box<RawKeepRules>),
}

/// A table, or the word `"off"`, or another word that is refused.
pub(super) enum OrOff<T> {
    Table(T),
    Off,
    Word(String),
}

/// A span as text; numbers are taken as well, to say that they lack a unit.
pub(super) struct RawSpan(pub(super) String);

impl<'de> Deserialize<'de> for RawKeep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RawKeep, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = RawKeep;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of copies, or a table such as { last = 10, daily = 7 }")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<RawKeep, E> {
                Ok(RawKeep::Last(number))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawKeep, A::Error> {
                RawKeepRules::deserialize(MapAccessDeserializer::new(map)).map(|rules| RawKeep::Rules(Box::new(rules)))
            }
        }
        from.deserialize_any(Read)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<OrOff<T>, D::Error> {
        struct Read<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = OrOff<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, or \"off\"")
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<OrOff<T>, E> {
                Ok(if word == "off" { OrOff::Off } else { OrOff::Word(word.to_owned()) })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OrOff<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OrOff::Table)
            }
        }
        from.deserialize_any(Read(PhantomData))
    }
}

impl<'de> Deserialize<'de> for RawSpan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RawSpan, D::Error> {
        struct Read;
        impl de::Visitor<'_> for Read {
            type Value = RawSpan;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span of time such as \"30d\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<RawSpan, E> {
                Ok(RawSpan(text.to_owned()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<RawSpan, E> {
                Ok(RawSpan(number.to_string()))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<RawSpan, E> {
                Ok(RawSpan(number.to_string()))
            }
        }
        from.deserialize_any(Read)
    }
}
