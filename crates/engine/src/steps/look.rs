//! A look: HEAD of the source's current object. Made after the rows were read, never before (V2).

use crate::error::PortResult;
use crate::policy::Policy;
use crate::ports::metrics::Counter;
use lifecycle::event::Look;
use lifecycle::ids::ObjectKey;

/// Looks at the source. What is unknown (403, timeout, 5xx) is an error, never "absent" (V8).
pub async fn look(policy: &Policy, key: &ObjectKey) -> PortResult<Look> {
    policy.metrics.add(Counter::Looks, 1);
    Ok(match policy.source.head(key, None).await? {
        Some(head) => Look::Present(head.current()),
        None => Look::Absent,
    })
}
