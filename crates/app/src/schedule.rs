//! What the daemon does by itself: cleans each policy by its schedule, reconciles it at the start and daily, and saves
//! its catalog into the destination every hour.
//!
//! A comparison that failed is tried again soon, then less and less often. Two tasks a policy, so that a long comparison
//! never holds the cleaner up. All of it may be killed at any point: a clean finds what is left by the index, a reconcile
//! starts over, a snapshot replaces the older one of two.

use crate::commands::reconcile::compare_files;
use crate::instance::Instance;
use crate::limits::{CLOCK_LOOK_EVERY, RECONCILE_AGAIN, RECONCILE_EVERY, SNAPSHOT_EVERY};
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
    // When the last comparison ended, and for how long that is good.
    let mut compared: Option<(UnixMs, SpanMs)> = None;
    let mut after_failure = RECONCILE_AGAIN;
    loop {
        let now = instance.now();
        let Some(policy) = instance.policy_named(name) else { return };
        if compared.is_none_or(|(at, good_for)| now.since(at) >= good_for) {
            let good_for = match compare(instance, &policy, cancel).await {
                true => {
                    after_failure = RECONCILE_AGAIN;
                    RECONCILE_EVERY
                }
                // What a crash left is repaired by this alone: it must not wait for tomorrow. But what fails for good
                // must not have everything compared for ever.
                false => {
                    let good_for = after_failure;
                    after_failure = SpanMs(good_for.0.saturating_mul(2)).min(RECONCILE_EVERY);
                    good_for
                }
            };
            compared = Some((instance.now(), good_for));
        }
        if !cancel.is_cancelled()
            && let Err(error) = snapshot::save_if_old(instance, &policy).await
        {
            tracing::error!(policy = name, "cannot save the catalog into the destination: {}", error.chain());
        }
        let again = compared.map_or(now, |(at, good_for)| at.plus(good_for)).min(now.plus(SNAPSHOT_EVERY));
        if !wait_until(instance, again, now, cancel).await {
            return;
        }
    }
}

/// Compares files, index, listings and catalog of a policy; `false`: not all of it could be done.
async fn compare(instance: &Instance, policy: &Policy, cancel: &CancellationToken) -> bool {
    let name = policy.name.as_str();
    let files = match compare_files(instance, policy).await {
        Ok(notes) => {
            notes.iter().for_each(|note| tracing::info!(policy = name, "{note}"));
            true
        }
        Err(error) => {
            tracing::error!(policy = name, "cannot compare files: {}", error.chain());
            false
        }
    };
    match reconcile(policy, Orphans::Before(instance.started_at), &Silent, cancel).await {
        Ok(report) => {
            told(policy, &report);
            files && report.failures == 0 && !report.cancelled
        }
        Err(error) => {
            tracing::error!(policy = name, "cannot reconcile: {}", chain(&error));
            false
        }
    }
}

/// Waits until the clock says `due`; `false`: cancelled. Looks at the clock now and then, since it may be set: when it
/// was set back to before `since`, the wait is over.
pub(crate) async fn wait_until(instance: &Instance, due: UnixMs, since: UnixMs, cancel: &CancellationToken) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::opened;
    use engine::error::ErrorKind;
    use engine::memory::clock::MemoryClock;
    use engine::ports::clock::Clock;
    use engine::wrap::faults::Faults;
    use engine::wrap::tap::{Call, Fate, Probe, Tap};
    use std::sync::Mutex;

    #[tokio::test]
    async fn a_comparison_that_failed_is_tried_again_soon_and_not_only_tomorrow() {
        let clock = Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)));
        let (_root, instance) = opened(clock.clone()).await;
        let policy = instance.policy_named("source").unwrap();
        let faults = Arc::new(Faults::default());
        faults.at("destination.list", 1, Fate::FailBefore(ErrorKind::Unavailable));
        let destination = Tap::new(faults).read("destination", policy.destination.clone());
        instance.policies.put(Policy { destination, ..(*policy).clone() });
        let reconciled = async || policy.catalog.state().await.unwrap().reconciled;

        let cancel = CancellationToken::new();
        let (shared, token) = (instance.clone(), cancel.clone());
        let running = tokio::spawn(async move { upkeep(&shared, "source", &token).await });
        clock.until_asleep(1).await;
        assert_eq!(reconciled().await, None);
        clock.advance(RECONCILE_AGAIN);
        let mut looks = 0;
        while reconciled().await.is_none() {
            looks += 1;
            assert!(looks < 100_000 && !running.is_finished(), "it was not tried again");
        }
        assert_eq!(reconciled().await, Some((clock.now(), 0)));
        cancel.cancel();
        running.await.unwrap();
    }
    /// Comparisons by the time of their listing: all fail but one.
    struct Failing {
        clock: Arc<MemoryClock>,
        at: Mutex<Vec<UnixMs>>,
        passes: usize,
        last: usize,
        cancel: CancellationToken,
    }

    impl Probe for Failing {
        fn fate(&self, call: &Call) -> Fate {
            if call.name() != "destination.list" {
                return Fate::Pass;
            }
            let mut at = self.at.lock().unwrap();
            if at.last() != Some(&self.clock.now()) {
                at.push(self.clock.now());
            }
            if at.len() == self.last {
                self.cancel.cancel();
            }
            if at.len() == self.passes { Fate::Pass } else { Fate::FailBefore(ErrorKind::Unavailable) }
        }
    }

    #[tokio::test]
    async fn a_comparison_that_keeps_failing_is_tried_less_and_less_often_until_one_is_whole() {
        let clock = Arc::new(MemoryClock::skipping(UnixMs(1_795_245_972_000)));
        let (_root, instance) = opened(clock.clone()).await;
        let policy = instance.policy_named("source").unwrap();
        let cancel = CancellationToken::new();
        let failing = Failing { clock, at: Mutex::default(), passes: 10, last: 13, cancel: cancel.clone() };
        let failing = Arc::new(failing);
        let destination = Tap::new(failing.clone()).read("destination", policy.destination.clone());
        instance.policies.put(Policy { destination, ..(*policy).clone() });
        upkeep(&instance, "source", &cancel).await;
        let at = failing.at.lock().unwrap().clone();
        let minutes: Vec<u64> = at.windows(2).map(|pair| pair[1].since(pair[0]).0 / 60_000).collect();
        assert_eq!(minutes, [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440, 10, 20]);
    }
}
