//! The configuration in force, written so that a person can read it and [`super::Config::parse`] reads it back.

use super::span::format_span;
use super::{
    ArchiveConfig, CatalogPlace, Config, FeedConfig, FeedTo, Host, PolicyConfig, ServiceConfig, TablesConfig, Terms,
    Tier, TierClass,
};
use crate::policy::Mode;
use lifecycle::breaker::BreakerRule;
use lifecycle::keep::Keep;
use lifecycle::order::Basis;
use std::net::SocketAddr;
use toml::Value;

pub(super) fn to_toml(config: &Config) -> String {
    let Config { data_dir, endpoint, tables, services, policies, archives, default_policy } = config;
    let mut lines = vec![format!("data_dir = {}", text(&data_dir.to_string_lossy()))];
    if default_policy.is_none() {
        lines.push("default_policy = \"off\"".to_owned());
    }
    if tables.is_none() {
        lines.push("dynamodb_endpoint = \"off\"".to_owned());
    }
    lines.push("\n[s3_endpoint]".to_owned());
    lines.push(format!("listen = {}", text(&endpoint.listen.to_string())));
    lines.push(format!("allow_remote = {}", endpoint.allow_remote));
    if let Some(tables) = tables {
        lines.push("\n[dynamodb_endpoint]".to_owned());
        lines.extend(of_tables(tables, config.tables_listen()));
    }
    if let Some(terms) = default_policy {
        lines.push("\n[default_policy]".to_owned());
        lines.extend(of_terms(terms));
    }
    for service in services {
        lines.push("\n[[service]]".to_owned());
        lines.extend(of_service(service));
    }
    for policy in policies {
        lines.push("\n[[policy]]".to_owned());
        lines.extend(of_policy(policy));
    }
    for archive in archives {
        lines.push("\n[[archive]]".to_owned());
        lines.extend(of_archive(archive));
    }
    lines.join("\n") + "\n"
}

fn of_service(service: &ServiceConfig) -> Vec<String> {
    let ServiceConfig { name, endpoint, region, profile, role, path_style } = service;
    let words = [("endpoint", endpoint), ("region", region), ("profile", profile), ("role", role)];
    let mut lines = vec![format!("name = {}", text(name))];
    lines.extend(words.into_iter().filter_map(|(key, word)| Some(format!("{key} = {}", text(word.as_ref()?)))));
    lines.push(format!("path_style = {path_style}"));
    lines
}

fn of_tables(tables: &TablesConfig, beside: Option<SocketAddr>) -> Vec<String> {
    let TablesConfig { listen, allow_remote, archive } = tables;
    let listen = match (listen, beside) {
        (Some(listen), _) => format!("listen = {}", text(&listen.to_string())),
        (None, beside) => format!("# listens on {}", beside.map(|at| at.to_string()).unwrap_or_default()),
    };
    vec![listen, format!("allow_remote = {allow_remote}"), format!("archive = {}", text(&archive.to_string()))]
}

fn of_archive(archive: &ArchiveConfig) -> Vec<String> {
    let ArchiveConfig { table, service, destination, leases, failures, pack, removes_originals, tiers, feed } = archive;
    let leases = match leases {
        CatalogPlace::Local => "local".to_owned(),
        CatalogPlace::Table(table) => table.to_string(),
    };
    let mut lines = vec![
        format!("table = {}", text(&format!("dynamodb://{table}"))),
        format!("service = {}", text(service.as_str())),
        format!("destination = {}", text(&destination.to_string())),
        format!("leases = {}", text(&leases)),
        format!("pack = {}", text(pack.as_str())),
        format!("originals = {}", text(if *removes_originals { "remove" } else { "keep" })),
    ];
    if !tiers.moves.is_empty() {
        let word = |class: &TierClass| text(class.as_str());
        let tier = |tier: &Tier| format!("{{ after = \"{}d\", class = {} }}", tier.after_days, word(&tier.class));
        lines.push(format!("tiers = [{}]", tiers.moves.iter().map(tier).collect::<Vec<_>>().join(", ")));
    }
    lines.extend(tiers.expire_days.map(|days| format!("expire = \"{days}d\"")));
    lines.extend(failures.as_ref().map(|queue| format!("failures = {}", text(&format!("sqs://{queue}")))));
    if let Some(FeedConfig { to, with_image }) = feed {
        lines.push(format!("feed = {}", text(&to.as_written())));
        lines.push(format!("feed_image = {with_image}"));
        if let FeedTo::Webhook { secret_file, .. } = to {
            lines.push(format!("feed_secret_file = {}", text(&secret_file.display().to_string())));
        }
    }
    lines
}

fn of_policy(policy: &PolicyConfig) -> Vec<String> {
    let PolicyConfig { name, source, destination, catalog, events, order, mode, terms } = policy;
    let mut lines = vec![
        format!("name = {}", text(name.as_str())),
        format!("source = {}", text(&source.to_string())),
        format!("destination = {}", text(&destination.to_string())),
    ];
    match catalog {
        CatalogPlace::Table(table) => {
            lines.push(format!("catalog = {}", text(&table.to_string())));
            lines.push(format!("index_shards = {}", table.index_shards));
        }
        CatalogPlace::Local if policy.is_remote() => lines.push("catalog = \"local\"".to_owned()),
        CatalogPlace::Local => {}
    }
    if let Some(events) = events {
        lines.push(format!("events = {}", text(&format!("sqs://{}", events.queue))));
        lines.push(format!("channel = \"{}\"", events.channel.word()));
    }
    if source.host != Host::Local {
        lines.push(format!("order = \"{}\"", order_word(*order)));
    }
    match mode {
        Mode::Copies => {
            lines.push("mode = \"copies\"".to_owned());
            lines.extend(of_terms(terms));
        }
        Mode::Mirror => {
            lines.push("mode = \"mirror\"".to_owned());
            lines.push(of_breaker(terms.breaker.as_ref()));
        }
    }
    lines
}

fn of_terms(terms: &Terms) -> Vec<String> {
    let Terms { keep, protect_for, grace, clean, breaker } = terms;
    vec![
        of_keep(keep),
        format!("protect_for = \"{}\"", format_span(*protect_for)),
        format!("grace = \"{}\"", format_span(*grace)),
        format!("clean = {}", text(&clean.to_string())),
        of_breaker(breaker.as_ref()),
    ]
}

fn of_keep(keep: &Keep) -> String {
    let Keep { last, within, hourly, daily, weekly, monthly, yearly } = *keep;
    if *keep == Keep::last(last) {
        return format!("keep = {last}");
    }
    let counts = [
        ("last", last),
        ("hourly", hourly),
        ("daily", daily),
        ("weekly", weekly),
        ("monthly", monthly),
        ("yearly", yearly),
    ];
    let mut parts: Vec<String> =
        counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} = {n}")).collect();
    parts.extend(within.map(|span| format!("within = \"{}\"", format_span(span))));
    format!("keep = {{ {} }}", parts.join(", "))
}

fn of_breaker(breaker: Option<&BreakerRule>) -> String {
    match breaker {
        None => "breaker = \"off\"".to_owned(),
        Some(BreakerRule { window, deletes, share }) => format!(
            "breaker = {{ window = \"{}\", deletes = {deletes}, share = {} }}",
            format_span(*window),
            Value::Float(*share)
        ),
    }
}

fn order_word(order: Basis) -> &'static str {
    match order {
        Basis::Sequencer => "sequencer",
        Basis::Time => "time",
    }
}

/// A string in TOML's quotes.
fn text(plain: &str) -> Value {
    Value::String(plain.to_owned())
}
