//! The cleaner: under a lease, counts removals against the breaker, then settles what time alone made surplus, purges
//! disowned copies whose grace has passed, page by page in batches, and forgets old tombstones.
//!
//! The index is a hint; `steps/purge.rs` reads every row once more before its bytes go. A crash leaves disowned rows with
//! or without bytes, which the next clean finds again, and a lease that runs out. Work is proportional to what is due (I9).
//! Laws: I3, I7, I9, V4.

use crate::error::{FlowResult, PortResult};
use crate::flows::breaker::{Breaker, check};
use crate::flows::settle::settle;
use crate::limits::{CLEAN_PAGE, LEASE_FOR, TOMBSTONE_TTL};
use crate::policy::{Mode, Policy};
use crate::ports::catalog::{IndexEntry, IndexQuery, Indexed, RowId, StateChange};
use crate::report::Report;
use crate::steps::purge::purge;
use lifecycle::settle::Ask;
use lifecycle::time::UnixMs;
use tokio_util::sync::CancellationToken;

const LEASE: &str = "clean";

/// Cleans one policy. Counts `purged`, `bytes`, `held` (by a tripped breaker), `settled`, `tombstones-forgotten`.
pub async fn clean(policy: &Policy, cancel: &CancellationToken) -> FlowResult<Report> {
    let mut report = Report::of("clean");
    let holder = policy.nonces.nonce();
    if !renew(policy, &holder).await? {
        report.notes.push(format!("{}: another cleaner is at work", policy.name));
        return Ok(report);
    }
    let result = clean_leased(policy, &holder, cancel, &mut report).await;
    policy.catalog.unlease(LEASE, &holder).await?;
    result?;
    if report.is_success() {
        policy.catalog.set_state(StateChange::Cleaned(policy.clock.now())).await?;
    }
    Ok(report)
}

async fn renew(policy: &Policy, holder: &str) -> PortResult<bool> {
    let now = policy.clock.now();
    policy.catalog.lease(LEASE, holder, now, now.plus(LEASE_FOR)).await
}

async fn clean_leased(
    policy: &Policy,
    holder: &str,
    cancel: &CancellationToken,
    report: &mut Report,
) -> FlowResult<()> {
    if check(policy).await? == Breaker::Tripped {
        report.count("held-policies", 1);
        report.notes.push(format!(
            "{}: the breaker has tripped after a mass deletion; nothing is purged until `afterimage release`",
            policy.name
        ));
        return Ok(());
    }
    if policy.mode == Mode::Copies {
        settle_due(policy, holder, cancel, report).await?;
        purge_due(policy, holder, cancel, report).await?;
    }
    let old = policy.clock.now().minus(TOMBSTONE_TTL);
    let forgotten = policy.catalog.forget_tombstones(old, CLEAN_PAGE).await?;
    report.count("tombstones-forgotten", forgotten);
    Ok(())
}

/// Active copies that time alone made surplus: settling their keys disowns and purges them.
async fn settle_due(policy: &Policy, holder: &str, cancel: &CancellationToken, report: &mut Report) -> FlowResult<()> {
    let mut pages = Pages::new(Indexed::Surplus, policy.clock.now());
    while let Some(entries) = pages.next(policy, holder, cancel, report).await? {
        let mut keys: Vec<_> = entries.into_iter().map(|entry| entry.original).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            if cancel.is_cancelled() {
                report.cancelled = true;
                return Ok(());
            }
            match settle(policy, &key, Ask::BY_FACTS).await {
                Ok(()) => report.count("settled", 1),
                Err(error) => report.fail(&key, crate::report::chain(&error)),
            }
        }
    }
    Ok(())
}

/// Disowned copies: those whose grace has passed, and surplus ones that a crash or a breaker left.
async fn purge_due(policy: &Policy, holder: &str, cancel: &CancellationToken, report: &mut Report) -> FlowResult<()> {
    let mut pages = Pages::new(Indexed::Disowned, policy.clock.now().minus(policy.rules.grace));
    while let Some(entries) = pages.next(policy, holder, cancel, report).await? {
        let ids: Vec<RowId> = entries
            .into_iter()
            .filter_map(|entry| Some(RowId { original: entry.original, copy_key: entry.copy_key? }))
            .collect();
        purge(policy, &ids, report).await?;
    }
    Ok(())
}

/// Walks over a range of the index, renewing the lease before every page.
struct Pages {
    query: IndexQuery,
    done: bool,
}

impl Pages {
    fn new(what: Indexed, until: UnixMs) -> Pages {
        let from = UnixMs(0);
        Pages { query: IndexQuery { what, from, until, after: None, limit: CLEAN_PAGE }, done: false }
    }

    async fn next(
        &mut self,
        policy: &Policy,
        holder: &str,
        cancel: &CancellationToken,
        report: &mut Report,
    ) -> PortResult<Option<Vec<IndexEntry>>> {
        if self.done {
            return Ok(None);
        }
        if cancel.is_cancelled() {
            report.cancelled = true;
            return Ok(None);
        }
        if !renew(policy, holder).await? {
            report.notes.push(format!("{}: another cleaner has taken over", policy.name));
            return Ok(None);
        }
        let page = policy.catalog.index(&self.query).await?;
        self.done = page.next.is_none();
        self.query.after = page.next;
        Ok(Some(page.items))
    }
}
