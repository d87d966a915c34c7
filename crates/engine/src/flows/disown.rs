//! An object was removed: put the key's tombstone. Settling (`flows/handle.rs`) then disowns every copy at or below it;
//! nothing is deleted here.
//!
//! A crash after the tombstone leaves it there: whoever settles the key next carries it out. Laws: I6, V1.

use crate::error::PortResult;
use crate::flows::replicate::usable_order;
use crate::policy::Policy;
use lifecycle::event::ObjectEvent;
use lifecycle::guards::Guard;
use lifecycle::row::Tombstone;
use lifecycle::settle::Ask;

/// Notes the fact that the key has no current content any more.
pub async fn note_removed(policy: &Policy, event: &ObjectEvent) -> PortResult<Ask> {
    let order = match usable_order(policy, event) {
        Ok(order) => order,
        Err(ask) => return Ok(ask),
    };
    let tombstone = Tombstone { order, time: event.time, noted_at: policy.clock.now(), floating: false };
    policy.catalog.bury(&event.key, &tombstone).await?;
    Ok(Ask::BY_FACTS)
}

/// One version, or one delete marker, was deleted for good: no tombstone by itself, only a look tells what that means
/// (guard 5). The event's order is what the look may raise.
pub fn note_version_removed(policy: &Policy, event: &ObjectEvent) -> Option<Ask> {
    let noticed = policy.rules.guards.hold(Guard::VersionRemovedLooks);
    noticed.then(|| match usable_order(policy, event) {
        Ok(order) => Ask::for_event(Some(order), event.time),
        Err(ask) => ask,
    })
}
