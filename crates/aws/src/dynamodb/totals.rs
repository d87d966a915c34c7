//! Totals, estimated: exact ones would take a scan (I9), or a second write with every one.
//!
//! The service counts the items of the table and of its index about every six hours. What stands outside the index is
//! active. The breaker divides by live keys, so the estimate errs on the side of too few of them: every key counts as if it
//! had as many copies as the rule keeps, what was removed since the count is taken off, and of a table that several
//! policies share nothing is known, so that only the breaker's number of removals decides there.

use super::DynamoDbCatalog;
use super::layout::INDEX;
use crate::limits::COUNTS_LAG;
use engine::error::PortResult;
use engine::ports::catalog::Totals;

/// Items that are neither rows nor in the index: the policy's state and leases, and one to spare.
const POLICY_ITEMS: u64 = 4;

/// Items of the table and of its index, as the service last counted them.
struct Counts {
    table: u64,
    index: u64,
}

impl DynamoDbCatalog {
    /// Totals; `bytes` is unknown and 0.
    pub(super) async fn estimate_totals(&self) -> PortResult<Totals> {
        if self.layout.is_shared() {
            return Ok(Totals { estimated: true, ..Totals::default() });
        }
        let counts = self.counts().await?;
        let active = counts.table.saturating_sub(counts.index).saturating_sub(POLICY_ITEMS);
        let keys = active / self.copies_per_key;
        let removed = self.count_removed(self.clock.now().minus(COUNTS_LAG), keys).await?;
        Ok(Totals { live_keys: keys - removed, active, disowned: counts.index, bytes: 0, estimated: true })
    }

    async fn counts(&self) -> PortResult<Counts> {
        let call = self.call("estimate totals", "dynamodb:DescribeTable", "items");
        let answer = self.client.describe_table().table_name(&self.table).send().await;
        let table = answer.map_err(|error| call.sdk(error))?.table;
        let number = |count: Option<i64>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
        let Some(table) = table else { return Ok(Counts { table: 0, index: 0 }) };
        let index = table.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX));
        Ok(Counts { table: number(table.item_count), index: number(index.and_then(|index| index.item_count)) })
    }
}
