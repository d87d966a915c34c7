//! A look: HEAD of the source's current object. Made after the rows were read, never before (V2).

use crate::error::PortResult;
use crate::policy::Policy;
use crate::ports::metrics::Counter;
use crate::ports::objects::Seen;
use lifecycle::event::Look;
use lifecycle::ids::ObjectKey;

/// Looks at the source. What is unknown (403, timeout, 5xx) is an error, never "absent" (V8).
pub async fn look(policy: &Policy, key: &ObjectKey) -> PortResult<Look> {
    Ok(look_closely(policy, key).await?.0)
}

/// A look, and what it told besides of what is there.
pub async fn look_closely(policy: &Policy, key: &ObjectKey) -> PortResult<(Look, Option<Seen>)> {
    policy.metrics.add(Counter::Looks, 1);
    Ok(match policy.source.head(key, None).await? {
        Some(head) => {
            let current = head.current();
            let seen = Seen { last_modified: head.last_modified, storage_class: head.storage_class };
            (Look::Present(current), Some(seen))
        }
        None => (Look::Absent, None),
    })
}
