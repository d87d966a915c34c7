//! From the file as written to a [`Config`]: by exhaustive destructuring, so that a new key cannot be forgotten here.
//!
//! All problems are collected before any is reported: a person mends the file once.

use super::archives::PlacedArchive;
use super::location::{self, Wrong};
use super::raw::{OrOff, RawBreaker, RawConfig, RawEndpoint, RawKeep, RawKeepRules, RawPolicy, RawSpan, RawTerms};
use super::schedule::{self, Schedule};
use super::services::same_bucket;
use super::span::{self, format_span, parse_span};
use super::{
    Config, ConfigError, DATA_DIR, Destination, Endpoint, LISTEN, PolicyConfig, Problem, ServiceConfig, Terms,
};
use crate::limits::TOMBSTONE_TTL;
use crate::policy::Mode;
use lifecycle::breaker::BreakerRule;
use lifecycle::ids::PolicyName;
use lifecycle::keep::Keep;
use lifecycle::time::SpanMs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;

pub(super) fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let mut check = Check { text, problems: Vec::new() };
    let config = match toml::from_str::<RawConfig>(text) {
        Ok(raw) => check.config(raw, file.parent().unwrap_or(Path::new(""))),
        Err(error) => {
            let (what, fix) = read_error(error.message());
            check.wrong(error.span(), what, fix);
            None
        }
    };
    match config {
        Some(config) if check.problems.is_empty() => Ok(config),
        _ => {
            check.problems.sort_by_key(|problem| problem.line);
            Err(ConfigError { file: file.to_owned(), problems: check.problems })
        }
    }
}

/// What the TOML reader refused, and what to write instead; for an unknown key the nearest known one.
fn read_error(message: &str) -> (String, String) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let ([unknown, known @ ..], true) = (&quoted[..], message.starts_with("unknown field")) {
        let distance = |name: &&&str| strsim::damerau_levenshtein(unknown, name);
        let nearest = known.iter().min_by_key(distance).filter(|name| distance(name) <= unknown.len().div_ceil(2));
        let fix = match nearest {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("remove it; known here: {}", known.join(", ")),
        };
        return (format!("unknown key `{unknown}`"), fix);
    }
    let fix = match message.contains("expected a sequence") {
        true => "a policy's section begins with two brackets: `[[policy]]`; a service's, too: `[[service]]`",
        false => "`afterimage init` writes a commented example",
    };
    (message.to_owned(), fix.to_owned())
}

pub(super) struct Check<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

/// A policy with the places where its parts stand.
pub(super) struct Placed {
    pub(super) policy: PolicyConfig,
    pub(super) name_at: Range<usize>,
    pub(super) source_at: Range<usize>,
    pub(super) destination_at: Range<usize>,
    pub(super) catalog_at: Range<usize>,
    pub(super) events_at: Range<usize>,
}

impl Check<'_> {
    pub(super) fn wrong(&mut self, at: Option<Range<usize>>, what: impl Into<String>, fix: impl Into<String>) {
        let line = at.map(|span| 1 + self.text.as_bytes().iter().take(span.start).filter(|b| **b == b'\n').count());
        self.problems.push(Problem { line, what: what.into(), fix: fix.into() });
    }

    fn config(&mut self, raw: RawConfig, folder: &Path) -> Option<Config> {
        let RawConfig { data_dir, s3_endpoint, dynamodb_endpoint, default_policy, service, policy, archive } = raw;
        let services = self.services(service);
        let data_dir = self.data_dir(data_dir, folder);
        let endpoint = self.endpoint(s3_endpoint.map(Spanned::into_inner).unwrap_or_default());
        let tables = self.tables(dynamodb_endpoint);
        let default_policy = match default_policy.map(parts) {
            None => Some(Some(Terms::default())),
            Some((_, OrOff::Off)) => Some(None),
            Some((_, OrOff::Table(terms))) => self.terms(terms).map(Some),
            Some((at, OrOff::Word(word))) => {
                self.wrong(
                    Some(at),
                    format!("default_policy = \"{word}\" has no meaning"),
                    "write a section, or \"off\"",
                );
                None
            }
        };
        let policies: Vec<Option<Placed>> = policy.into_iter().map(|raw| self.policy(raw)).collect();
        let known: Vec<&Placed> = policies.iter().flatten().collect();
        self.names(&known);
        self.destinations(&known, data_dir.as_deref(), services.as_deref().unwrap_or_default());
        if let Some(services) = &services {
            self.shared(&known, services);
        }
        let services_known = services.as_deref().unwrap_or_default();
        let archives = self.archives(archive, &known, services_known, tables.as_ref().and_then(Option::as_ref));
        if let Some(Some(tables)) = &tables {
            let archives = archives.as_deref().unwrap_or_default();
            self.tables_apart(tables, &known, archives, services_known, data_dir.as_deref());
        }
        for (at, destination) in
            archives.iter().flatten().map(|placed| (&placed.destination_at, &placed.archive.destination))
        {
            self.outside_the_data(at, destination, data_dir.as_deref());
        }
        let placed = archives.as_deref().unwrap_or_default();
        let of_tables = tables.iter().flatten().map(|placed| &placed.tables.archive);
        let of_policies = known.iter().map(|placed| &placed.policy.destination);
        let used: Vec<&Destination> =
            placed.iter().map(|placed| &placed.archive.destination).chain(of_tables).chain(of_policies).collect();
        for PlacedArchive { archive, feed_at, .. } in placed {
            if let Some(feed) = &archive.feed {
                self.feed_apart(feed_at, feed, data_dir.as_deref(), &used);
            }
        }
        let archives = archives.map(|all| all.into_iter().map(|placed| placed.archive).collect());
        let policies = policies.into_iter().map(|placed| placed.map(|placed| placed.policy)).collect::<Option<_>>()?;
        Some(Config {
            data_dir: data_dir?,
            endpoint: endpoint?,
            tables: tables?.map(|placed| placed.tables),
            services: services?,
            policies,
            archives: archives?,
            default_policy: default_policy?,
        })
    }

    fn data_dir(&mut self, raw: Option<Spanned<String>>, folder: &Path) -> Option<PathBuf> {
        let Some((at, text)) = raw.map(parts) else { return Some(folder.join(DATA_DIR)) };
        if text.is_empty() || text.starts_with('~') {
            self.wrong(
                Some(at),
                format!("data_dir = \"{text}\" is no folder"),
                "write a path; `~` is not expanded here",
            );
            return None;
        }
        Some(folder.join(text))
    }

    fn endpoint(&mut self, raw: RawEndpoint) -> Option<Endpoint> {
        let RawEndpoint { listen, allow_remote } = raw;
        let allow_remote = allow_remote.unwrap_or(false);
        let listen = listen.map_or(Some(LISTEN), |listen| self.listen(listen, allow_remote, LISTEN.port()))?;
        Some(Endpoint { listen, allow_remote })
    }

    /// An address to listen on; `port` is for the example.
    pub(super) fn listen(&mut self, raw: Spanned<String>, allow_remote: bool, port: u16) -> Option<SocketAddr> {
        let (at, text) = parts(raw);
        let Ok(listen) = text.parse::<SocketAddr>() else {
            self.wrong(
                Some(at),
                format!("listen = \"{text}\" is no address with a port"),
                format!("write numbers: \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
            );
            return None;
        };
        if !listen.ip().is_loopback() && !allow_remote {
            self.wrong(
                Some(at),
                format!("listen = \"{text}\" can be reached from other machines, and the endpoint speaks plain HTTP"),
                format!("write \"127.0.0.1:{port}\"; or, if it is meant, add `allow_remote = true`"),
            );
        }
        Some(listen)
    }

    fn policy(&mut self, raw: Spanned<RawPolicy>) -> Option<Placed> {
        let (section, raw) = parts(raw);
        let RawPolicy {
            name,
            source,
            destination,
            catalog,
            index_shards,
            events,
            channel,
            order,
            mode,
            keep,
            protect_for,
            grace,
            clean,
            breaker,
        } = raw;
        let name = self.needed("a policy", &section, "name", "name = \"documents\"", name);
        let source = self.needed("a policy", &section, "source", "source = \"local://documents\"", source);
        let destination =
            self.needed("a policy", &section, "destination", "destination = \"local://documents-copies\"", destination);
        let mode = self.mode(mode);
        if mode == Some(Mode::Mirror) {
            let spans = [
                ("keep", keep.as_ref().map(Spanned::span)),
                ("protect_for", protect_for.as_ref().map(Spanned::span)),
                ("grace", grace.as_ref().map(Spanned::span)),
                ("clean", clean.as_ref().map(Spanned::span)),
            ];
            for (key, at) in spans.into_iter().filter(|(_, at)| at.is_some()) {
                let what = format!("a mirror has no history, so `{key}` has no meaning");
                self.wrong(at, what, format!("remove `{key}`, or write mode = \"copies\""));
            }
        }
        let terms = match mode {
            Some(Mode::Mirror) => self.breaker(breaker).map(Terms::mirror),
            Some(Mode::Copies) | None => self.terms(RawTerms { keep, protect_for, grace, clean, breaker }),
        };
        let name = name.and_then(|(at, text)| Some((at.clone(), self.name(at, text)?)));
        let source =
            source.and_then(|(at, text)| Some((at.clone(), self.location(at, location::parse_source(&text))?)));
        let destination = destination
            .and_then(|(at, text)| Some((at.clone(), self.location(at, location::parse_destination(&text))?)));
        let catalog_at = catalog.as_ref().map_or(section.clone(), Spanned::span);
        let catalog = self.catalog(catalog, index_shards);
        let events_at = events.as_ref().map_or(section, Spanned::span);
        let events = self.events(source.as_ref().map(|(_, source)| source), events, channel, order);
        let ((name_at, name), (destination_at, destination)) = (name?, destination?);
        let ((source_at, source), (events, order)) = (source?, events?);
        let policy =
            PolicyConfig { name, source, destination, catalog: catalog?, events, order, mode: mode?, terms: terms? };
        Some(Placed { policy, name_at, source_at, destination_at, catalog_at, events_at })
    }

    pub(super) fn needed<T>(
        &mut self,
        whose: &str,
        section: &Range<usize>,
        key: &str,
        example: &str,
        raw: Option<Spanned<T>>,
    ) -> Option<(Range<usize>, T)> {
        if raw.is_none() {
            self.wrong(Some(section.clone()), format!("{whose} lacks its `{key}`"), format!("add {example}"));
        }
        raw.map(parts)
    }

    fn name(&mut self, at: Range<usize>, name: String) -> Option<PolicyName> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !begins || name.len() > 63 || !name.chars().all(legal) {
            self.wrong(
                Some(at),
                format!("`{name}` is no name for a policy: files are named after it"),
                "1 to 63 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit",
            );
            return None;
        }
        Some(PolicyName(name))
    }

    fn mode(&mut self, raw: Option<Spanned<String>>) -> Option<Mode> {
        match raw.map(parts) {
            None => Some(Mode::Copies),
            Some((_, word)) if word == "copies" => Some(Mode::Copies),
            Some((_, word)) if word == "mirror" => Some(Mode::Mirror),
            Some((at, word)) => {
                self.wrong(Some(at), format!("mode = \"{word}\" is unknown"), "write \"copies\" or \"mirror\"");
                None
            }
        }
    }

    pub(super) fn location<T>(&mut self, at: Range<usize>, read: Result<T, Wrong>) -> Option<T> {
        read.map_err(|(what, fix)| self.wrong(Some(at), what, fix)).ok()
    }

    fn terms(&mut self, raw: RawTerms) -> Option<Terms> {
        let RawTerms { keep, protect_for, grace, clean, breaker } = raw;
        let default = Terms::default();
        let protect_at = protect_for.as_ref().or(grace.as_ref()).map(Spanned::span);
        let keep = keep.map_or(Some(default.keep), |raw| self.keep(raw));
        let protect_for = protect_for.map_or(Some(default.protect_for), |raw| self.span("protect_for", raw));
        let grace = grace.map_or(Some(default.grace), |raw| self.span("grace", raw));
        let clean = clean.map_or(Some(default.clean), |raw| self.schedule(raw));
        let breaker = self.breaker(breaker);
        let (protect_for, grace) = (protect_for?, grace?);
        if protect_for > grace {
            let (long, short) = (format_span(protect_for), format_span(grace));
            self.wrong(
                protect_at,
                format!(
                    "protect_for (\"{long}\") is longer than grace (\"{short}\"): the copies of a deleted object would be \
                     due and protected at once, and `grace` would not say when they go"
                ),
                format!("make grace at least \"{long}\", or protect_for at most \"{short}\""),
            );
        }
        Some(Terms { keep: keep?, protect_for, grace, clean: clean?, breaker: breaker? })
    }

    fn keep(&mut self, raw: Spanned<RawKeep>) -> Option<Keep> {
        let (at, raw) = parts(raw);
        let keep = match raw {
            RawKeep::Last(n) => Keep::last(self.count("keep", at.clone(), n)?),
            RawKeep::Rules(rules) => {
                let RawKeepRules { last, within, hourly, daily, weekly, monthly, yearly } = *rules;
                let counts = [
                    ("last", last),
                    ("hourly", hourly),
                    ("daily", daily),
                    ("weekly", weekly),
                    ("monthly", monthly),
                    ("yearly", yearly),
                ];
                let [last, hourly, daily, weekly, monthly, yearly] =
                    counts.map(|(name, raw)| raw.map_or(Some(0), |raw| self.count(name, raw.span(), raw.into_inner())));
                let within = within.map_or(Some(None), |raw| self.span("within", raw).map(Some));
                Keep {
                    last: last?,
                    within: within?,
                    hourly: hourly?,
                    daily: daily?,
                    weekly: weekly?,
                    monthly: monthly?,
                    yearly: yearly?,
                }
            }
        };
        if keep.is_empty() {
            self.wrong(Some(at), "this `keep` keeps nothing", "write keep = 1 or more, such as keep = 3");
            return None;
        }
        Some(Keep { within: keep.within.filter(|span| *span > SpanMs::ZERO), ..keep })
    }

    fn count(&mut self, name: &str, at: Range<usize>, n: i64) -> Option<u32> {
        u32::try_from(n)
            .map_err(|_| self.wrong(Some(at), format!("{name} = {n} is no number of copies"), "write 1 to 4294967295"))
            .ok()
    }

    fn span(&mut self, name: &str, raw: Spanned<RawSpan>) -> Option<SpanMs> {
        let (at, RawSpan(text)) = parts(raw);
        let parsed = parse_span(&text);
        if parsed.is_none() {
            let what = match text.parse::<f64>() {
                Ok(_) => format!("{name} = {text} has no unit"),
                Err(_) => format!("{name} = \"{text}\" is no span of time"),
            };
            self.wrong(Some(at), what, format!("a whole number and a unit, in quotes: {}", span::EXAMPLES));
        }
        parsed
    }

    fn schedule(&mut self, raw: Spanned<String>) -> Option<Schedule> {
        let (at, text) = parts(raw);
        Schedule::parse(&text)
            .map_err(|why| {
                let what = format!("clean = \"{text}\" is no schedule: {why}");
                self.wrong(Some(at), what, format!("such as {}", schedule::EXAMPLES));
            })
            .ok()
    }

    /// `Some(None)`: off.
    fn breaker(&mut self, raw: Option<Spanned<OrOff<RawBreaker>>>) -> Option<Option<BreakerRule>> {
        let default = Terms::default_breaker();
        let (at, raw) = match raw.map(parts) {
            None => return Some(Some(default)),
            Some((_, OrOff::Off)) => return Some(None),
            Some((at, OrOff::Table(raw))) => (at, raw),
            Some((at, OrOff::Word(word))) => {
                let fix = "write \"off\", or { window = \"1h\", deletes = 5, share = 0.2 }";
                self.wrong(Some(at), format!("breaker = \"{word}\" has no meaning"), fix);
                return None;
            }
        };
        let RawBreaker { window, deletes, share } = raw;
        let window_at = window.as_ref().map_or(at.clone(), Spanned::span);
        let window = window.map_or(Some(default.window), |raw| self.span("window", raw));
        if let Some(window) = window.filter(|window| *window == SpanMs::ZERO || *window > TOMBSTONE_TTL) {
            let what = format!("a window of \"{}\" cannot be watched", format_span(window));
            let fix = format!("write more than \"0s\" and at most \"{}\"", format_span(TOMBSTONE_TTL));
            self.wrong(Some(window_at), what, fix);
        }
        let deletes = match deletes.map(parts) {
            None => Some(default.deletes),
            Some((at, n)) => u64::try_from(n)
                .map_err(|_| self.wrong(Some(at), format!("deletes = {n} is no number of removals"), "write 0 or more"))
                .ok(),
        };
        let (share_at, share) = share.map_or((at, default.share), parts);
        if !(0.0..1.0).contains(&share) {
            let fix = "write a part of all objects, from 0.0 to below 1.0, such as 0.2; or breaker = \"off\"";
            self.wrong(Some(share_at), format!("share = {share} is no part of all objects that can be exceeded"), fix);
        }
        Some(Some(BreakerRule { window: window?, deletes: deletes?, share }))
    }

    fn names(&mut self, policies: &[&Placed]) {
        for (place, later) in policies.iter().enumerate() {
            if policies[..place].iter().any(|earlier| earlier.policy.name == later.policy.name) {
                let what = format!("two policies are called `{}`", later.policy.name);
                self.wrong(Some(later.name_at.clone()), what, "give each its own name");
            }
        }
    }

    fn destinations(&mut self, policies: &[&Placed], data_dir: Option<&Path>, services: &[ServiceConfig]) {
        for (place, placed) in policies.iter().enumerate() {
            let PolicyConfig { name, source, destination, .. } = &placed.policy;
            let at = Some(placed.destination_at.clone());
            let own = "every policy needs a destination of its own";
            if let Some(earlier) =
                policies[..place].iter().find(|p| overlap(&p.policy.destination, destination, services))
            {
                let (other, theirs) = (&earlier.policy.name, &earlier.policy.destination);
                self.wrong(
                    at.clone(),
                    format!("{destination} overlaps {theirs}, where policy `{other}` copies to"),
                    own,
                );
            }
            match destination {
                Destination::S3(bucket) => self.remote_destination(placed, bucket, policies, services),
                Destination::Bucket(bucket) if placed.policy.is_source(bucket) => {
                    let what = format!("policy `{name}` copies {source} into itself: every copy would make another");
                    self.wrong(at, what, format!("write another bucket: \"local://{bucket}-copies\""));
                }
                Destination::Bucket(bucket) => {
                    if let Some(other) = policies.iter().find(|other| other.policy.is_source(bucket)) {
                        let what = format!("{destination} is the source of policy `{}`", other.policy.name);
                        self.wrong(at, what, format!("{own}, which no client writes"));
                    }
                }
                Destination::Folder(_) => self.outside_the_data(&placed.destination_at, destination, data_dir),
            }
        }
    }

    pub(super) fn outside_the_data(&mut self, at: &Range<usize>, destination: &Destination, data_dir: Option<&Path>) {
        let data_dir = data_dir.and_then(|path| std::path::absolute(path).ok());
        if let (Destination::Folder(folder), Some(data)) = (destination, data_dir)
            && nested(&data, folder)
        {
            let what = format!("{destination} and data_dir lie inside each other");
            self.wrong(Some(at.clone()), what, "write a folder elsewhere, better on another disk");
        }
    }
}

impl Terms {
    /// A mirror has no history: only the breaker counts.
    fn mirror(breaker: Option<BreakerRule>) -> Terms {
        Terms { keep: Keep::last(1), grace: SpanMs::ZERO, breaker, ..Terms::default() }
    }
}

pub(super) fn overlap(a: &Destination, b: &Destination, services: &[ServiceConfig]) -> bool {
    match (a, b) {
        (Destination::S3(a), Destination::S3(b)) => same_bucket(services, a, b),
        (Destination::Folder(a), Destination::Folder(b)) => nested(a, b),
        _ => a == b,
    }
}

fn nested(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

pub(super) fn parts<T>(spanned: Spanned<T>) -> (Range<usize>, T) {
    (spanned.span(), spanned.into_inner())
}
