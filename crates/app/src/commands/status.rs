//! `status`: how everything stands, and what a person should look at (`--check` fails when there is any of it).

use super::clean::next_clean;
use super::feed_status::feed_status;
use crate::answer::{Answer, ArchiveStatus, BucketStatus, PolicyStatus, QueueStatus, Status};
use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::gone_tables::archivings_with_notes;
use crate::instance::{Instance, Setting, UNPOISONED, Untold};
use crate::limits::{ARCHIVE_LAG_MAX, RECONCILE_AGE_MAX};
use engine::config::LOCAL_SERVICE;
use engine::error::PortResult;
use engine::flows::follow::ShardSeen;
use engine::limits::{EVENT_WAIT_MAX, LATE_CLEANS};
use engine::policy::{Mode, Policy};
use engine::ports::catalog::{PolicyState, Totals};
use engine::ports::events::Backlog;
use engine::report::chain;
use engine::steps::aside::laid_aside;
use engine::steps::shard_places::{GAPS_PREFIX, Gap, ShardPlaces};
use lifecycle::keep::Keep;
use lifecycle::time::UnixMs;
use local::store::Role;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Reads it.
pub(crate) async fn status(instance: &Instance) -> Result<Answer, Failure> {
    let now = instance.now();
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms: now.0,
        data_dir: instance.folder.path().display().to_string(),
        endpoint: instance.endpoint.get().cloned(),
        pid: instance.endpoint.get().map(|_| std::process::id()),
        buckets: buckets(instance),
        ..Status::default()
    };
    if status.endpoint.is_none() {
        status.problems.push("`afterimage serve` is not running: nothing is copied or cleaned".to_owned());
    }
    for policy in instance.policies.all() {
        match of_policy(instance, &policy, now).await {
            Ok((of_policy, state)) => {
                status.policies.push(of_policy);
                problems_of(instance, &policy, &state, now, &mut status.problems);
            }
            // How the others stand is told all the same.
            Err(error) => {
                status.problems.push(format!("{}: its catalog cannot be asked: {}", policy.name, chain(&error)))
            }
        }
    }
    status.policies.sort_by(|a, b| a.name.cmp(&b.name));
    let (archivings, gone) = archivings_with_notes(instance).await;
    let known = instance.all_archivings();
    for archiving in archivings {
        let of_archive = archive_status(instance, &archiving, now, &mut status.problems).await;
        // A table that is gone has its problems, and nothing else to tell.
        if known.iter().any(|known| Arc::ptr_eq(known, &archiving)) {
            status.archives.push(of_archive);
        }
    }
    if let Err(failure) = gone {
        let why = failure.chain();
        status.problems.push(format!("what lies aside of this machine's tables that are gone is not known: {why}"));
    }
    untold(instance, &mut status).await;
    for (table, why) in instance.not_archived.read().expect(UNPOISONED).iter() {
        status.problems.push(format!("{LOCAL_SERVICE}@{table}: deleted records are not archived: {why}"));
    }
    let (backlog, unknown) = instance.backlog().await;
    status.problems.extend(unknown);
    problems_of_queue(&backlog, now, &mut status.problems);
    status.queue =
        QueueStatus { waiting: backlog.waiting, oldest_ms: backlog.oldest.map(|at| at.0), dead_letters: backlog.dead };
    for bucket in status.buckets.iter().filter(|bucket| bucket.role == "unprotected") {
        status.problems.push(format!("bucket {} has no policy: nothing in it is protected", bucket.name));
    }
    status.counters = instance.metrics.snapshot().into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
    Ok(Answer::Status(Box::new(status)))
}

/// Tables of this machine that tell nobody what is deleted from them.
async fn untold(instance: &Instance, status: &mut Status) {
    let Some(tables) = &instance.tables else { return };
    let Untold { switched_off, unfinished } = match tables.untold().await {
        Ok(untold) => untold,
        Err(failure) => {
            let why = failure.chain();
            status.problems.push(format!("which tables of this machine have a stream is not known: {why}"));
            return;
        }
    };
    let told = |table: &String, why: &str| {
        format!(
            "{LOCAL_SERVICE}@{table}: {why}, so its deleted records are not archived: `aws dynamodb update-table --table-name \
             {table} --stream-specification StreamEnabled=true,StreamViewType=OLD_IMAGE` switches it on"
        )
    };
    // As somebody asked for it.
    status.notes.extend(switched_off.iter().map(|table| told(table, "its stream is switched off")));
    status.problems.extend(unfinished.iter().map(|table| told(table, "it never got a stream")));
}

async fn of_policy(instance: &Instance, policy: &Policy, now: UnixMs) -> PortResult<(PolicyStatus, PolicyState)> {
    let state = policy.catalog.state().await?;
    let totals = policy.catalog.totals().await?;
    Ok((policy_status(instance, policy, &state, totals, now), state))
}

fn policy_status(
    instance: &Instance,
    policy: &Policy,
    state: &PolicyState,
    totals: Totals,
    now: UnixMs,
) -> PolicyStatus {
    let setting = instance.setting(policy);
    let configured = setting.as_ref().map(|setting| &setting.config);
    PolicyStatus {
        name: policy.name.to_string(),
        mode: match policy.mode {
            Mode::Copies => "copies",
            Mode::Mirror => "mirror",
        }
        .to_owned(),
        source: configured.map(|config| config.source.to_string()).unwrap_or_default(),
        destination: configured.map(|config| config.destination.to_string()).unwrap_or_default(),
        by_default: setting.as_ref().is_some_and(|setting| setting.by_default),
        keep: keep_in_words(&policy.rules.keep),
        grace_ms: policy.rules.grace.0,
        protect_for_ms: policy.rules.protect_for.0,
        clean: configured.map(|config| config.terms.clean.to_string()).unwrap_or_default(),
        live_keys: totals.live_keys,
        active: totals.active,
        disowned: totals.disowned,
        bytes: totals.bytes,
        estimated: totals.estimated,
        capacity: setting.as_ref().and_then(|setting| setting.catalog.capacity()),
        tripped_at_ms: state.tripped.map(|trip| trip.at.0),
        tripped_removed: state.tripped.map(|trip| trip.removed),
        cleaned_at_ms: state.cleaned_at.map(|at| at.0),
        next_clean_ms: next_clean(instance, policy, now).map(|at| at.0),
        reconciled_at_ms: state.reconciled.map(|(at, _)| at.0),
        reconcile_gap: state.reconciled.map(|(_, gap)| gap),
        snapshot_at_ms: setting.and_then(|setting| setting.snapshot_at).map(|at| at.0),
    }
}

fn problems_of(instance: &Instance, policy: &Policy, state: &PolicyState, now: UnixMs, problems: &mut Vec<String>) {
    let name = &policy.name;
    if let Some(trip) = state.tripped {
        problems.push(format!("{name}: the breaker tripped at {}: nothing is purged until `release`", trip.at));
    } else if let Some(Setting { config, .. }) = instance.setting(policy) {
        // A policy that was never cleaned is late when this process has had the time to do it.
        let last = state.cleaned_at.unwrap_or(instance.started_at);
        if config.terms.clean.late_after(last, LATE_CLEANS).is_some_and(|late| late < now) {
            let since = state.cleaned_at.map_or("never".to_owned(), |at| format!("last at {at}"));
            problems.push(format!("{name}: it should have been cleaned {LATE_CLEANS} times since ({since})"));
        }
    }
    match state.reconciled {
        Some((at, _)) if now.since(at) > RECONCILE_AGE_MAX => {
            problems.push(format!("{name}: last reconciled at {at}: catalog and destination may differ"));
        }
        Some((_, gap)) if gap > 0 => problems.push(format!("{name}: the last reconcile left {gap} differences")),
        None if now.since(instance.started_at) > RECONCILE_AGE_MAX => {
            problems.push(format!("{name}: never reconciled: catalog and destination may differ"));
        }
        _ => {}
    }
}

/// What is noted of records that were lost, and how many lie aside.
async fn lost(instance: &Instance, archiving: &Archiving) -> Result<(Vec<Gap>, usize), Failure> {
    let (reader, table) = (archiving.objects(instance)?, archiving.config.table.name.as_str());
    let gaps = ShardPlaces::gaps(reader.as_ref(), table).await?;
    Ok((gaps, laid_aside(reader.as_ref(), table, None).await?.items.len()))
}

async fn archive_status(
    instance: &Instance,
    archiving: &Archiving,
    now: UnixMs,
    problems: &mut Vec<String>,
) -> ArchiveStatus {
    let table = archiving.config.table.to_string();
    let followed = archiving.followed();
    let troubles = followed.values().filter_map(|seen| seen.trouble()).chain(archiving.trouble());
    problems.extend(troubles.map(|trouble| format!("{table}: deleted records are not archived: {trouble}")));
    let shards: Vec<ShardSeen> = followed.values().flat_map(|seen| seen.shards().into_values()).collect();
    let troubles: BTreeSet<&String> = shards.iter().filter_map(|seen| seen.trouble.as_ref()).collect();
    let held_up = !troubles.is_empty();
    problems.extend(troubles.into_iter().map(|trouble| format!("{table}: archiving is held up: {trouble}")));
    let behind = shards.iter().filter_map(|seen| seen.caught_up_at.max(seen.last)).map(|at| now.since(at)).max();
    if let Some(behind) = behind.filter(|behind| *behind > ARCHIVE_LAG_MAX) {
        problems.push(format!("{table}: its stream is read {behind} late, and keeps records for a day"));
    }
    let gaps = lost(instance, archiving).await.map_err(|failure| failure.chain());
    let (gaps, aside) = gaps.unwrap_or_else(|why| {
        problems.push(format!("{table}: whether deletions were lost is not known: {why}"));
        (Vec::new(), 0)
    });
    if aside > 0 {
        let aside = counted(aside as u64, "deleted record lies", "deleted records lie");
        problems.push(format!("{table}: {aside} aside, not archived: `afterimage dlq list` says why"));
    }
    for gap in &gaps {
        let edge = |at: Option<i64>, none: &str| at.map_or(none.to_owned(), |at| UnixMs(at).to_string());
        let (from, until) = (edge(gap.after_at, "its beginning"), edge(gap.before_at, "its end"));
        problems.push(format!(
            "{table}: the stream forgot what happened between {from} and {until} before it was read (shard {}): deletions \
             may be lost; `afterimage archive drop {} {}` takes this note away once you know",
            gap.shard,
            archiving.config.service,
            gap.object.as_ref().map_or(GAPS_PREFIX, |object| object.as_str())
        ));
    }
    if let Some((at, why)) = archiving.not_packed.lock().expect(UNPOISONED).as_ref() {
        problems.push(format!("{table}: not all of its records could be packed at {at}: {why}"));
    }
    let feed = feed_status(instance, archiving, now, problems).await;
    ArchiveStatus {
        held_up,
        feed,
        table,
        service: archiving.config.service.to_string(),
        destination: archiving.config.destination.to_string(),
        shards: shards.len() as u64,
        behind_ms: behind.map(|behind| behind.0),
        gaps: gaps.len() as u64,
        aside: aside as u64,
    }
}

fn problems_of_queue(backlog: &Backlog, now: UnixMs, problems: &mut Vec<String>) {
    if let Some(oldest) = backlog.oldest.filter(|oldest| now.since(*oldest) > EVENT_WAIT_MAX) {
        let waiting = counted(backlog.waiting, "event waits", "events wait");
        problems.push(format!("{waiting}, the oldest since {oldest}"));
    }
    if backlog.dead > 0 {
        let dead = counted(backlog.dead, "dead letter", "dead letters");
        problems.push(format!("{dead}: `afterimage dlq list` says why"));
    }
}

pub(super) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn buckets(instance: &Instance) -> Vec<BucketStatus> {
    let policies = instance.policies.all();
    let describe = |info: local::store::BucketInfo| {
        let named = |chosen: &dyn Fn(&Policy) -> bool| -> Vec<String> {
            policies.iter().filter(|policy| chosen(policy)).map(|policy| policy.name.to_string()).collect()
        };
        let (role, policies) = match info.role {
            Role::Source => {
                let watching = named(&|policy| policy.source_bucket == info.name.as_str());
                (if watching.is_empty() { "unprotected" } else { "source" }, watching)
            }
            Role::Destination => {
                let writing = named(&|policy| {
                    instance.setting(policy).is_some_and(|setting| setting.destination.here() == Some(&info.name))
                });
                ("destination", writing)
            }
        };
        BucketStatus { name: info.name.to_string(), role: role.to_owned(), policies }
    };
    instance.store.buckets().into_iter().map(describe).collect()
}

/// The retention rule as one would say it.
fn keep_in_words(keep: &Keep) -> String {
    let Keep { last, within, hourly, daily, weekly, monthly, yearly } = *keep;
    let counts = [
        ("", last),
        ("hourly ", hourly),
        ("daily ", daily),
        ("weekly ", weekly),
        ("monthly ", monthly),
        ("yearly ", yearly),
    ];
    let mut parts: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what}{n}")).collect();
    parts.extend(within.map(|span| format!("all within {span}")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::object_key;
    use crate::instance::tests::opened;
    use engine::flows::clean::clean;
    use engine::memory::clock::MemoryClock;
    use engine::ports::objects::{Attributes, Onto};
    use futures_util::StreamExt;
    use lifecycle::time::SpanMs;
    use local::store::BucketName;
    use tokio_util::sync::CancellationToken;

    /// What `--check` complains of; it fails exactly when there is any.
    async fn problems(instance: &Instance) -> Vec<String> {
        let answer = status(instance).await.unwrap();
        let Answer::Status(status) = &answer else { panic!("{answer:?}") };
        assert_eq!(answer.is_success(true), status.problems.is_empty());
        assert!(answer.is_success(false), "without --check it only says so");
        status.problems.clone()
    }

    #[tokio::test]
    async fn what_is_late_or_waits_too_long_is_a_problem() {
        let clock = Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)));
        let (_root, instance) = opened(clock.clone()).await;
        assert_eq!(problems(&instance).await, [""; 0], "a fresh daemon has had no time to be late");

        clock.advance(SpanMs::minutes(5));
        let [late] = &problems(&instance).await[..] else { panic!("only the clean is late") };
        assert!(late.contains("source: it should have been cleaned 3 times since (never)"), "{late}");
        let policy = instance.policy_named("source").unwrap();
        clean(&policy, &CancellationToken::new()).await.unwrap();
        assert_eq!(problems(&instance).await, [""; 0]);

        // Nothing drives the queue here: the event waits.
        let writer = instance.store.writer(&BucketName::new("source").unwrap()).unwrap();
        let key = object_key("a.txt").unwrap();
        let body = futures_util::stream::empty().boxed();
        writer.put(&key, body, &Attributes::default(), Onto::Anything).await.unwrap();
        clock.advance(EVENT_WAIT_MAX);
        clean(&policy, &CancellationToken::new()).await.unwrap();
        assert_eq!(problems(&instance).await, [""; 0]);
        clock.advance(SpanMs(1));
        let [waiting] = &problems(&instance).await[..] else { panic!("only the event waits") };
        assert!(waiting.contains("1 event waits, the oldest since"), "{waiting}");

        clock.advance(RECONCILE_AGE_MAX);
        let found = problems(&instance).await;
        assert!(found.iter().any(|problem| problem.contains("source: never reconciled")), "{found:?}");
    }
}
