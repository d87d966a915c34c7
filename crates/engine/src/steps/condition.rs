//! A person's condition on deletions: what a bulk restore of records asks of the newest deletion of each record.
//!
//! The language is the application's (SQL); the flow knows only these two questions. Nothing of it outlives the command.

use crate::error::PortResult;
use crate::flows::find_record::Found;
use async_trait::async_trait;

/// Judges deletions for one command.
#[async_trait]
pub trait Condition: Send + Sync {
    /// Leaves those of some days (`service/yyyy/mm/dd/`, in their order) on which it can hold at all: the others are not
    /// read.
    async fn days_left(&self, days: Vec<String>) -> PortResult<Vec<String>>;

    /// Whether it holds for a deletion.
    async fn holds(&self, found: &Found) -> PortResult<bool>;
}
