//! A lease that is held for as long as something is worked on, shard by shard or for a feed: renewed when that is due, given
//! back in the end; and how long who failed waits before it tries again.
//!
//! A crash leaves a lease that ends by itself, or that the same holder takes up again at once.

use crate::error::PortResult;
use crate::limits::{SHARD_LEASE_FOR, SHARD_LEASE_RENEW_EVERY, STREAM_WAIT_MAX, STREAM_WAIT_MIN};
use crate::ports::catalog::Catalog;
use crate::ports::clock::{Clock, Nonces};
use crate::report::chain;
use lifecycle::time::{SpanMs, UnixMs};

/// A lease.
pub(crate) struct Hold<'a> {
    leases: &'a dyn Catalog,
    clock: &'a dyn Clock,
    holder: &'a str,
    lease: String,
    /// When it was last renewed; `None`: it is not held.
    held: Option<UnixMs>,
}

impl<'a> Hold<'a> {
    /// Of that name, and not held yet.
    pub(crate) fn new(leases: &'a dyn Catalog, clock: &'a dyn Clock, holder: &'a str, lease: String) -> Hold<'a> {
        Hold { leases, clock, holder, lease, held: None }
    }

    /// Takes or renews it when that is due; `false`: another one has it.
    pub(crate) async fn keep(&mut self) -> PortResult<bool> {
        let now = self.clock.now();
        if self.held.is_some_and(|held| now.since(held) < SHARD_LEASE_RENEW_EVERY) {
            return Ok(true);
        }
        let has = self.leases.lease(&self.lease, self.holder, now, now.plus(SHARD_LEASE_FOR)).await?;
        self.held = has.then_some(now);
        Ok(has)
    }

    /// Gives it back, if it is held.
    pub(crate) async fn give_back(self) {
        if self.held.is_some()
            && let Err(error) = self.leases.unlease(&self.lease, self.holder).await
        {
            tracing::warn!(lease = self.lease, "not given back, it ends by itself: {}", chain(&error));
        }
    }
}

/// How long to wait after so many tries that failed: longer with each.
pub(crate) fn pause_after(tries: u32, nonces: &dyn Nonces) -> SpanMs {
    let whole = STREAM_WAIT_MIN.0.saturating_mul(1 << tries.min(16)).min(STREAM_WAIT_MAX.0);
    SpanMs(whole / 2 + nonces.jitter(whole / 2 + 1))
}
