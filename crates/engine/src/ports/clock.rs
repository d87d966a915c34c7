//! Time and identity come from here, so that no test waits for real time to pass and every run can be replayed.

use async_trait::async_trait;
use lifecycle::time::{SpanMs, UnixMs};

/// The clock.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now. May stand still or step back.
    fn now(&self) -> UnixMs;

    /// Waits so long.
    async fn sleep(&self, span: SpanMs);
}

/// Gives names that nobody else has.
pub trait Nonces: Send + Sync {
    /// 16 lower-case hex digits, never the same twice.
    fn nonce(&self) -> String;

    /// A number in `0..below`, for jitter.
    fn jitter(&self, below: u64) -> u64;
}
