//! The schedule: every policy is cleaned, then compared if the payload says so, or if a comparison of it is under way.
//!
//! Nothing of it needs to be done in one invocation. A clean has no checkpoint: what it purged has left the index, and the
//! next one finds the rest. A comparison has one (`checkpoints.rs`), under a lease, since two schedules may overlap. Both stop
//! between two keys (a clean between two pages) near the end of the time; what does not stop is dropped, as by a crash.
//! Laws: I7, I9, I10, and those of the flows.

use crate::checkpoints::Comparison;
use crate::failure::Failure;
use crate::limits::POLICIES_IN_FLIGHT;
use crate::time_limit::TimeLimit;
use crate::warm::{Warm, Wired};
use engine::error::{FlowError, FlowResult, PortResult};
use engine::flows::clean::clean;
use engine::flows::reconcile::{Orphans, fresh_report};
use engine::flows::reconcile_slice::reconcile_slice;
use engine::report::{Report, chain};
use futures_util::{StreamExt, stream};
use lifecycle::time::SpanMs;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// The lease under which a policy is compared.
const LEASE: &str = "reconcile";

/// Does one invocation's share, and says what is left.
pub(crate) async fn clean_and_compare(warm: &Warm, payload: &Value, limit: TimeLimit) -> Result<Value, Failure> {
    let asked = asked(warm, payload)?;
    let mut runs: Vec<Run<'_>> = warm.wired.iter().map(|wired| Run::new(warm, wired)).collect();
    // Where there are more than run side by side, none is always the last.
    let first = usize::try_from(warm.nonces.jitter(runs.len() as u64)).unwrap_or(0);
    runs.rotate_left(first);
    let cancel = CancellationToken::new();
    let work = stream::iter(runs.iter_mut()).for_each_concurrent(POLICIES_IN_FLIGHT, |run| {
        let asked = asked.iter().any(|name| *name == run.wired.policy.name.as_str());
        run.work(asked, limit, &cancel)
    });
    let in_time = limit.keep(warm.clock.as_ref(), &cancel, work).await.is_some();
    if !in_time {
        tracing::warn!("the time was over before everything had stopped: the next invocation goes on");
        save_in_the_rest(warm, &mut runs, limit).await;
    }
    runs.iter().for_each(tell);
    let reports = || runs.iter().flat_map(Run::reports);
    let counted = |what: &str| reports().map(|report| report.counted(what)).sum::<u64>();
    let failures = reports().map(|report| report.failures).sum::<u64>();
    let errors = runs.iter().map(|run| run.errors.len() as u64).sum::<u64>();
    // What all slices of a comparison together have left is known at its end.
    let gaps = runs.iter().filter_map(Run::compared_to_the_end).map(|comparison| comparison.checkpoint.gap);
    warm.tell_metrics(&[
        ("failures", failures + errors),
        ("gap", gaps.sum()),
        ("dropped", runs.iter().filter(|run| !run.ended).count() as u64),
        ("held_policies", counted("held-policies")),
    ]);
    answer(&runs)
}

/// The names of the policies that shall be compared: `{"reconcile": true}`, `{"reconcile": ["documents"]}`. What a schedule
/// sends by itself says nothing of it.
fn asked<'a>(warm: &'a Warm, payload: &'a Value) -> Result<Vec<&'a str>, Failure> {
    let wrong = |why: String| Err(Failure::new("payload", why));
    let known = || warm.wired.iter().map(|wired| wired.policy.name.as_str());
    match &payload["reconcile"] {
        Value::Null | Value::Bool(false) => Ok(Vec::new()),
        Value::Bool(true) => Ok(known().collect()),
        Value::Array(names) => {
            let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            match names {
                Some(names) => match names.iter().find(|name| !known().any(|known| known == **name)) {
                    None => Ok(names),
                    Some(unknown) => wrong(format!("`reconcile` names {unknown}, and there is no such policy")),
                },
                None => wrong("`reconcile` is a list of names of policies, or true".to_owned()),
            }
        }
        other => wrong(format!("`reconcile` is {other}: write true, or a list of names of policies")),
    }
}

/// What one invocation does for one policy. What it did stands here as soon as it is done: the rest may be dropped.
struct Run<'a> {
    warm: &'a Warm,
    wired: &'a Wired,
    cleaned: Option<Report>,
    /// Under way in this invocation.
    comparison: Option<Comparison>,
    /// What this slice of it did.
    slice: Option<Report>,
    saved: bool,
    lease: Lease,
    /// What failed as a whole: which work, and why.
    errors: Vec<(&'static str, FlowError)>,
    /// It came to its end, well or not, before the time was over.
    ended: bool,
}

/// Who may compare the policy.
enum Lease {
    /// Nobody has asked.
    Open,
    /// This invocation, under that name.
    Mine(String),
    /// Another one, which goes on with it.
    Others,
}

impl<'a> Run<'a> {
    fn new(warm: &'a Warm, wired: &'a Wired) -> Run<'a> {
        Run {
            warm,
            wired,
            cleaned: None,
            comparison: None,
            slice: None,
            saved: true,
            lease: Lease::Open,
            errors: Vec::new(),
            ended: false,
        }
    }

    fn reports(&self) -> impl Iterator<Item = &Report> {
        [&self.cleaned, &self.slice].into_iter().flatten()
    }

    /// There is nothing left to do, as far as it knows.
    fn is_complete(&self) -> bool {
        self.ended && !matches!(self.lease, Lease::Others) && self.reports().all(|report| !report.cancelled)
    }

    fn compared_to_the_end(&self) -> Option<&Comparison> {
        let to_the_end = self.saved && self.slice.as_ref().is_some_and(|slice| !slice.cancelled);
        self.comparison.as_ref().filter(|_| to_the_end)
    }

    async fn work(&mut self, asked: bool, limit: TimeLimit, cancel: &CancellationToken) {
        match clean(&self.wired.policy, cancel).await {
            Ok(report) => self.cleaned = Some(report),
            Err(error) => self.errors.push(("clean", error)),
        }
        if let Err(error) = self.compare(asked, limit, cancel).await {
            self.errors.push(("reconcile", error));
        }
        self.ended = true;
    }

    async fn compare(&mut self, asked: bool, limit: TimeLimit, cancel: &CancellationToken) -> FlowResult<()> {
        let policy = &self.wired.policy;
        if !asked && self.wired.checkpoints.read().await?.is_none() {
            return Ok(());
        }
        let holder = policy.nonces.nonce();
        // It ends with the function, whatever becomes of this.
        if !policy.catalog.lease(LEASE, &holder, policy.clock.now(), limit.deadline).await? {
            self.lease = Lease::Others;
            return Ok(());
        }
        self.lease = Lease::Mine(holder);
        let compared = self.compare_leased(asked, cancel).await;
        let given_back = self.give_lease_back().await;
        compared?;
        given_back.map_err(FlowError::from)
    }

    /// A slice, now that nobody else writes the checkpoint.
    async fn compare_leased(&mut self, asked: bool, cancel: &CancellationToken) -> FlowResult<()> {
        let policy = &self.wired.policy;
        let begun = match self.wired.checkpoints.read().await? {
            Some(under_way) => under_way,
            None if asked => Comparison::beginning(self.warm.clock.now()),
            None => return Ok(()),
        };
        let comparison = self.comparison.insert(begun);
        comparison.slices += 1;
        self.saved = false;
        let slice = self.slice.insert(fresh_report());
        let compared = reconcile_slice(policy, Orphans::OfAge, &mut comparison.checkpoint, slice, cancel).await;
        let done_at = (!slice.cancelled).then(|| policy.clock.now());
        // Kept after a failure, too: what was compared before it need not be compared again.
        let saved = self.wired.checkpoints.write(comparison, done_at).await;
        self.saved = saved.is_ok();
        compared?;
        saved.map_err(FlowError::from)
    }

    async fn give_lease_back(&mut self) -> PortResult<()> {
        if let Lease::Mine(holder) = &self.lease {
            self.wired.policy.catalog.unlease(LEASE, holder).await?;
            self.lease = Lease::Open;
        }
        Ok(())
    }
}

/// Keeps the checkpoints of comparisons that were dropped, as far as the rest of the time goes.
async fn save_in_the_rest(warm: &Warm, runs: &mut [Run<'_>], limit: TimeLimit) {
    let half = SpanMs(limit.deadline.since(limit.end_at).0 / 2);
    let rest = TimeLimit { stop_at: limit.end_at, end_at: limit.end_at.plus(half), ..limit };
    let unfinished = runs.iter_mut().filter(|run| !run.saved || matches!(run.lease, Lease::Mine(_)));
    let saving = stream::iter(unfinished).for_each_concurrent(POLICIES_IN_FLIGHT, |run| async {
        let saved = match &run.comparison {
            Some(comparison) if !run.saved => run.wired.checkpoints.write(comparison, None).await,
            _ => Ok(()),
        };
        run.saved = saved.is_ok();
        // With it the next one need not wait until the lease is over.
        for error in [saved.err(), run.give_lease_back().await.err()].into_iter().flatten() {
            tracing::warn!(policy = %run.wired.policy.name, "{}", chain(&error));
        }
    });
    if rest.keep(warm.clock.as_ref(), &CancellationToken::new(), saving).await.is_none() {
        tracing::warn!("a checkpoint was not kept: the next invocation goes on from the one before");
    }
}

/// Failures are somebody's to act on; work that was done is worth a line.
fn tell(run: &Run<'_>) {
    let policy = &run.wired.policy.name;
    for (what, error) in &run.errors {
        tracing::error!(%policy, "{what}: {}", chain(error));
    }
    for report in run.reports() {
        for failed in &report.failed {
            tracing::error!(%policy, object = failed.object, "{} failed: {}", report.operation, failed.why);
        }
        let counts: BTreeMap<_, _> = report.counts.iter().filter(|(_, n)| **n > 0).collect();
        let (complete, counts) = (!report.cancelled, json!(counts));
        tracing::info!(%policy, complete, %counts, notes = ?report.notes, "{}", report.operation);
    }
}

fn answer(runs: &[Run<'_>]) -> Result<Value, Failure> {
    let named = |run: &Run<'_>| run.wired.policy.name.to_string();
    let errors = runs.iter().flat_map(|run| run.errors.iter().map(move |error| (run, error)));
    let errors: Vec<String> =
        errors.map(|(run, (what, error))| format!("{what} of {}: {}", named(run), chain(error))).collect();
    if !errors.is_empty() {
        return Err(Failure::new("failed", errors.join("; ")));
    }
    let policies: Map<String, Value> = runs.iter().map(|run| (named(run), in_json(run))).collect();
    Ok(json!({ "complete": runs.iter().all(Run::is_complete), "policies": policies }))
}

fn in_json(run: &Run<'_>) -> Value {
    let mut said = Map::new();
    for report in run.reports() {
        let told = json!({
            "counts": report.counts,
            "failures": report.failures,
            "complete": !report.cancelled,
            "notes": report.notes,
        });
        said.insert(report.operation.clone(), told);
    }
    if let Some(comparison) = &run.comparison {
        let after = comparison.checkpoint.after.as_ref().map(ToString::to_string);
        said.insert("comparison".to_owned(), json!({ "slices": comparison.slices, "after": after }));
    }
    if !run.ended {
        said.insert("dropped".to_owned(), Value::Bool(true));
    }
    Value::Object(said)
}
