//! What the daemon does by itself: cleans each policy by its schedule, reconciles it at the start and daily, and saves
//! its catalog into the destination every hour.
//!
//! Two tasks a policy, so that a long comparison never holds the cleaner up. All of it may be killed at any point: a
//! clean finds what is left by the index, a reconcile starts over, a snapshot replaces the older one of two.

use crate::commands::reconcile::compare_files;
use crate::instance::Instance;
use crate::limits::{CLOCK_LOOK_EVERY, RECONCILE_EVERY, SNAPSHOT_EVERY};
use crate::snapshot;
use engine::flows::{
    clean::clean,
    reconcile::{Orphans, reconcile},
};
use engine::policy::Policy;
use engine::ports::progress::Silent;
use engine::report::{Report, chain};
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts the schedules of one policy, if they do not run already.
pub(crate) fn start(instance: &Arc<Instance>, policy: &str, tasks: &TaskTracker, cancel: &CancellationToken) {
    if !instance.begin_schedules(policy) {
        return;
    }
    let (shared, name, token) = (instance.clone(), policy.to_owned(), cancel.clone());
    tasks.spawn(async move { clean_by_schedule(&shared, &name, &token).await });
    let (shared, name, token) = (instance.clone(), policy.to_owned(), cancel.clone());
    tasks.spawn(async move { upkeep(&shared, &name, &token).await });
}

async fn clean_by_schedule(instance: &Instance, name: &str, cancel: &CancellationToken) {
    let schedule = |instance: &Instance| Some(instance.setting_named(name)?.config.terms.clean);
    let mut last = instance.now();
    while let Some(due) = schedule(instance).and_then(|schedule| schedule.next_after(last)) {
        if !wait_until(instance, due, last, cancel).await {
            return;
        }
        last = instance.now();
        let Some(policy) = instance.policy_named(name) else { return };
        match clean(&policy, cancel).await {
            Ok(report) => told(&policy, &report),
            Err(error) => tracing::error!(policy = name, "cannot clean: {}", chain(&error)),
        }
    }
}

async fn upkeep(instance: &Instance, name: &str, cancel: &CancellationToken) {
    let mut reconciled: Option<UnixMs> = None;
    loop {
        let now = instance.now();
        let Some(policy) = instance.policy_named(name) else { return };
        if reconciled.is_none_or(|at| now.since(at) >= RECONCILE_EVERY) {
            reconciled = Some(now);
            match compare_files(instance, &policy).await {
                Ok(notes) => notes.iter().for_each(|note| tracing::info!(policy = name, "{note}")),
                Err(error) => tracing::error!(policy = name, "cannot compare files: {}", error.chain()),
            }
            match reconcile(&policy, Orphans::Before(instance.started_at), &Silent, cancel).await {
                Ok(report) => told(&policy, &report),
                Err(error) => tracing::error!(policy = name, "cannot reconcile: {}", chain(&error)),
            }
        }
        if !cancel.is_cancelled()
            && let Err(error) = snapshot::save_if_old(instance, &policy).await
        {
            tracing::error!(policy = name, "cannot save the catalog into the destination: {}", error.chain());
        }
        if !wait_until(instance, now.plus(SNAPSHOT_EVERY), now, cancel).await {
            return;
        }
    }
}

/// Waits until the clock says `due`; `false`: cancelled. Looks at the clock now and then, since it may be set: when it
/// was set back to before `since`, the wait is over.
async fn wait_until(instance: &Instance, due: UnixMs, since: UnixMs, cancel: &CancellationToken) -> bool {
    loop {
        let now = instance.now();
        if now >= due || now < since {
            return !cancel.is_cancelled();
        }
        let nap = SpanMs(due.since(now).0.min(CLOCK_LOOK_EVERY.0));
        tokio::select! {
            () = cancel.cancelled() => return false,
            () = instance.clock.sleep(nap) => {}
        }
    }
}

/// Failures are somebody's to act on; work that was done is worth a line.
fn told(policy: &Policy, report: &Report) {
    for failed in &report.failed {
        tracing::error!(policy = %policy.name, object = failed.object, "{} failed: {}", report.operation, failed.why);
    }
    let counts: Vec<String> =
        report.counts.iter().filter(|(_, n)| **n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    if !counts.is_empty() {
        tracing::info!(policy = %policy.name, "{}: {}", report.operation, counts.join(", "));
    }
}
