//! What the tables ask the program around them: that their deleted records are archived, from the first to the last.

use async_trait::async_trait;
use engine::error::PortResult;

/// The program around the tables.
#[async_trait]
pub trait TableHooks: Send + Sync {
    /// Before a table is made: where its deleted records go must be there.
    async fn prepare(&self, table: &str) -> PortResult<()>;

    /// The table has a stream. May be told again.
    async fn begin(&self, table: &str);

    /// The stream of the table is to end, and others still write: returns when little is left to be archived, so that they will
    /// not have to wait for long. An error says why it cannot end.
    async fn near_end(&self, table: &str) -> PortResult<()>;

    /// The stream of the table is about to end, and nothing is written meanwhile: returns when everything that it tells is
    /// archived, and nobody reads it any more. An error says why it must not end yet.
    async fn finish(&self, table: &str) -> PortResult<()>;

    /// That stream has ended.
    async fn ended(&self, table: &str, stream: &str) -> PortResult<()>;
}
