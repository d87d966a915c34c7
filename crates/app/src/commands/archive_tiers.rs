//! `archive tiers`: says which lifecycle rules the bucket of an archive has, and which it would have, and puts them once a
//! person has agreed.
//!
//! Like `archive enable` it needs no data folder, and no daemon does it: the rights that it takes are the person's.

use super::archive_enable::is_agreed;
use crate::answer::{Answer, RuleView, Tiered, TieredBucket};
use crate::cli::Tiering;
use crate::exit::Failure;
use crate::output::{self, Style};
use crate::remote::{MissingTable, Remotes};
use engine::config::{ArchiveConfig, Config, Destination, Remote};
use engine::flows::tier_archive::{Change, Plan, Put, plan, put};
use engine::ports::bucket_rules::{BucketRule, BucketRules, SeenRules};
use lifecycle::archive::ServiceName;
use std::sync::Arc;

/// One bucket, and what is to become of its rules.
struct Work {
    bucket: Arc<dyn BucketRules>,
    seen: SeenRules,
    plan: Plan,
}

/// Says it, asks, and does it.
pub(crate) async fn tiers(config: &Config, asked: Tiering, style: Style) -> Result<bool, Failure> {
    let service = ServiceName::new(&asked.service).map_err(Failure::usage)?;
    let remotes = Remotes::new(config.services.clone(), MissingTable::Refuse, None);
    let (mut works, mut answer) = (Vec::new(), Tiered { service: service.to_string(), buckets: Vec::new() });
    for (remote, archive) in buckets(config, &service)? {
        let bucket = remotes.bucket(remote).await?.rules();
        let seen = bucket.look().await?;
        let plan = plan(&service, &archive.tiers, archive.pack, &seen);
        answer.buckets.push(view(&archive.destination, &plan));
        works.push(Work { bucket, seen, plan });
    }
    if works.iter().any(|work| work.plan.is_open()) && works.iter().all(|work| work.plan.refused.is_empty()) {
        if !asked.yes {
            output::show(&Answer::Tiered(answer.clone()), style)?;
            if !is_agreed(style)? {
                return Err(Failure::failed("nothing was changed"));
            }
        }
        for (work, told) in works.iter().zip(&mut answer.buckets).filter(|(work, _)| work.plan.is_open()) {
            match put(work.bucket.as_ref(), &work.seen, &work.plan).await? {
                Put::Done => told.done = true,
                Put::ChangedMeanwhile => told.refused.push(
                    "somebody changed the bucket's rules after they were shown: nothing was put. Give the command again".to_owned(),
                ),
                Put::ReadsOtherwise => told.refused.push(
                    "the rules were put, and read back otherwise: somebody changed them at that moment, or the store has not \
                     taken them yet. Give the command again in a minute, and look at what it shows"
                        .to_owned(),
                ),
            }
        }
    }
    let answer = Answer::Tiered(answer);
    output::show(&answer, style)?;
    Ok(answer.is_success(false))
}

/// The buckets of a service's archives, each once.
fn buckets<'a>(config: &'a Config, service: &ServiceName) -> Result<Vec<(&'a Remote, &'a ArchiveConfig)>, Failure> {
    let archives: Vec<&ArchiveConfig> = config.archives.iter().filter(|archive| archive.service == *service).collect();
    let mut found: Vec<(&Remote, &ArchiveConfig)> = Vec::new();
    for archive in &archives {
        if let Destination::S3(bucket) = &archive.destination
            && found.iter().all(|(there, _)| *there != bucket)
        {
            found.push((bucket, archive));
        }
    }
    match (found.is_empty(), archives.first()) {
        (false, _) => Ok(found),
        (true, Some(archive)) => Err(Failure::usage(format!(
            "{} has no lifecycle: what is there stays, in one class, until somebody removes it",
            archive.destination
        ))),
        (true, None) => {
            Err(Failure::usage(format!("no [[archive]] has its records under `{service}` in a bucket of a service")))
        }
    }
}

fn view(destination: &Destination, plan: &Plan) -> TieredBucket {
    let rule = |change: &Change| {
        let (word, rule, was) = match change {
            Change::Stays(rule) => ("stays", rule, None),
            Change::Added(rule) => ("added", rule, None),
            Change::Changed(was, rule) => ("changed", rule, Some(in_words(was))),
            Change::Removed(rule) => ("removed", rule, None),
        };
        RuleView { id: rule.id.clone(), change: word.to_owned(), does: in_words(rule), was }
    };
    TieredBucket {
        bucket: destination.to_string(),
        rules: plan.changes.iter().map(rule).collect(),
        remarks: plan.remarks.clone(),
        warnings: plan.warnings.clone(),
        refused: plan.refused.clone(),
        is_open: plan.is_open(),
        done: false,
    }
}

fn in_words(rule: &BucketRule) -> String {
    let does = &rule.does;
    let mut parts: Vec<String> = Vec::new();
    parts.extend(does.moves.iter().map(|(days, class)| format!("to {class} after {days} days")));
    parts.extend(does.expire_days.map(|days| format!("DELETED after {days} days")));
    parts.extend(does.noncurrent_days.map(|days| format!("old versions deleted after {days} days more")));
    parts.extend(rule.besides.iter().cloned());
    let objects = if does.prefix.is_empty() { "all objects" } else { does.prefix.as_str() };
    let does_what = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
    format!("{objects}: {does_what}{}", if does.is_off { " (switched off)" } else { "" })
}
