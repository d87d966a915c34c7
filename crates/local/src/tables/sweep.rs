//! Deletes the records whose time to live is over, as DynamoDB does by itself, again and again while `serve` runs: the
//! stream tells of them with the service as who did it.
//!
//! A sweep reads every record of the tables that have a time to live. A crash half-way leaves the rest to the next one.

use super::Tables;
use super::limits::{TTL_SWEEP_EVERY, TTL_SWEEP_SHARE};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::Clock;
use lifecycle::time::SpanMs;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

impl Tables {
    /// Sweeps once; how many records went.
    pub async fn sweep(&self) -> PortResult<usize> {
        let _together = self.streams.read().await;
        let (database, path) = (self.database.clone(), self.path.clone());
        self.blocking(move || {
            let swept = database.sweep_ttl();
            swept.map_err(|error| PortError::new("sweep tables", path.display(), ErrorKind::Unavailable).because(error))
        })
        .await
    }

    /// Sweeps until `cancel`.
    pub async fn keep_sweeping(self: Arc<Self>, clock: Arc<dyn Clock>, cancel: CancellationToken) {
        let mut wait = TTL_SWEEP_EVERY;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = clock.sleep(wait) => {}
            }
            let begun = clock.now();
            if let Err(error) = self.sweep().await {
                tracing::warn!("records whose time to live is over wait: {}", engine::report::chain(&error));
            }
            let took = clock.now().since(begun);
            wait = TTL_SWEEP_EVERY.max(SpanMs(took.0.saturating_mul(TTL_SWEEP_SHARE)));
        }
    }
}
