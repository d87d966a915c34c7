//! What `config check` warns of: allowed, and probably not meant.

use super::{Config, Destination, Host, Terms};
use crate::policy::Mode;
use lifecycle::keep::Keep;
use lifecycle::time::SpanMs;

const DAY: SpanMs = SpanMs::days(1);

pub(super) fn of(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if !config.endpoint.listen.ip().is_loopback() {
        warnings.push(format!(
            "s3_endpoint: {} is reached from other machines over plain HTTP: put a proxy with TLS in front",
            config.endpoint.listen
        ));
    }
    if let Some(listen) = config.tables_listen().filter(|listen| !listen.ip().is_loopback()) {
        warnings.push(format!(
            "dynamodb_endpoint: {listen} is reached from other machines over plain HTTP: put a proxy with TLS in front"
        ));
    }
    if config.policies.is_empty() && config.default_policy.is_none() && config.archives.is_empty() {
        warnings.push("there is no policy and the default policy is off: nothing is protected".to_owned());
    }
    for service in &config.services {
        let name = Some(&service.name);
        let by_policy = config.policies.iter().any(|policy| policy.services().contains(&name));
        let by_archive = config.archives.iter().any(|archive| archive.services().contains(&name));
        let by_tables = config.tables.as_ref().is_some_and(
            |tables| matches!(&tables.archive, Destination::S3(bucket) if bucket.service.as_ref() == name),
        );
        if !by_policy && !by_archive && !by_tables {
            warnings.push(format!("service `{}` is named by no policy and no archive", service.name));
        }
    }
    for policy in &config.policies {
        if policy.source.host != Host::Local && policy.events.is_none() {
            warnings.push(format!(
                "policy `{}`: without `events` a change of {} is seen when everything is compared, once a day",
                policy.name, policy.source
            ));
        }
        of_terms(&format!("policy `{}`", policy.name), policy.mode, &policy.terms, &mut warnings);
    }
    if let Some(terms) = &config.default_policy {
        of_terms("default_policy", Mode::Copies, terms, &mut warnings);
    }
    warnings
}

fn of_terms(whose: &str, mode: Mode, terms: &Terms, warnings: &mut Vec<String>) {
    let Terms { keep, protect_for, grace, clean: _, breaker } = terms;
    if breaker.is_none() {
        warnings.push(match mode {
            Mode::Copies => format!("{whose}: without a breaker a mass deletion is final once the grace is over"),
            Mode::Mirror => format!("{whose}: without a breaker a mass deletion is mirrored at once"),
        });
    }
    if mode == Mode::Mirror {
        return;
    }
    if *grace < DAY {
        warnings.push(format!(
            "{whose}: a grace of {grace} is below a day: what is deleted by mistake is gone before anyone notices"
        ));
    }
    if *keep == Keep::last(1) && *protect_for == SpanMs::ZERO {
        warnings
            .push(format!("{whose}: keep = 1 without protect_for: one overwrite, and the content before it is gone"));
    }
}
