//! The breaker: counts removed keys (their tombstones, by the time they were noted) in the rule's window, before
//! anything is purged, and trips when they are too many (I7). Tripped, it holds every purge until `release`.
//!
//! A crash before the trip is written leaves the tombstones: the next check counts them again.

use crate::error::PortResult;
use crate::policy::Policy;
use crate::ports::catalog::{IndexQuery, Indexed, StateChange, Trip};
use crate::ports::journal::Action;
use crate::steps::journal_lines::{SERVICE, about_key};
use lifecycle::time::UnixMs;

/// How the breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Purges may go on.
    Closed,
    /// Nothing is purged.
    Tripped,
}

/// Entries of the index read at once.
const COUNT_PAGE: usize = 1_000;

/// Counts, and trips it where the rule says so.
pub async fn check(policy: &Policy) -> PortResult<Breaker> {
    let state = policy.catalog.state().await?;
    if state.tripped.is_some() {
        return Ok(Breaker::Tripped);
    }
    let Some(rule) = policy.rules.breaker else { return Ok(Breaker::Closed) };
    let now = policy.clock.now();
    let window = now.minus(rule.window);
    let from = state.released_at.map_or(window, |released_at| window.max(UnixMs(released_at.0 + 1)));
    if count_removed(policy, from, rule.deletes + 1).await? <= rule.deletes {
        return Ok(Breaker::Closed);
    }
    let live = policy.catalog.totals().await?.live_keys;
    let removed = count_removed(policy, from, rule.trips_at(live)).await?;
    if !rule.trips(removed, live) {
        return Ok(Breaker::Closed);
    }
    let rule_text =
        format!("more than {} removed keys and {} of all, within {}", rule.deletes, rule.share, rule.window);
    policy.journal.append(&[about_key(policy, Action::Trip, SERVICE, None, &rule_text)]).await?;
    policy.catalog.set_state(StateChange::Trip(Trip { at: now, removed, live })).await?;
    tracing::error!(
        policy = %policy.name, removed, live,
        "the breaker tripped: nothing is purged until `afterimage release`; to bring the objects back: `afterimage undelete --since`"
    );
    Ok(Breaker::Tripped)
}

/// Removed keys noted since then, counted up to `enough`. The window has no end: a clock that stepped back must not hide
/// removals.
async fn count_removed(policy: &Policy, from: UnixMs, enough: u64) -> PortResult<u64> {
    let mut counted = 0;
    let mut after = None;
    loop {
        let limit = usize::try_from(enough - counted).unwrap_or(COUNT_PAGE).min(COUNT_PAGE);
        let query = IndexQuery { what: Indexed::Removed, from, until: UnixMs(i64::MAX), after, limit };
        let page = policy.catalog.index(&query).await?;
        counted += page.items.len() as u64;
        after = page.next;
        if after.is_none() || counted >= enough {
            return Ok(counted);
        }
    }
}
