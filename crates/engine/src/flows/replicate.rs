//! An object was created: copy its bytes to a name that the event alone determines, then put the row. Settling follows
//! (`flows/handle.rs`), also after a 404 or 412 (guard 1).
//!
//! A crash between bytes and row leaves bytes without a row: the redelivery makes the same copy again, or, when the source
//! has moved on, adopts it (guard 2). Laws: I1, I2, V1, V6.

use crate::error::PortResult;
use crate::limits::EVENT_AGE_MAX;
use crate::policy::Policy;
use crate::ports::objects::Copied;
use crate::steps::adopt::adopt;
use crate::steps::copy_rows;
use lifecycle::copy_key::{CopyName, parse};
use lifecycle::event::{ObjectEvent, Version};
use lifecycle::guards::Guard;
use lifecycle::ids::CopyKey;
use lifecycle::order::{Basis, Order};
use lifecycle::settle::Ask;

/// Notes the fact that a version was created. `None`: the event is one that must not be settled (only without guard 1).
pub async fn note(policy: &Policy, event: &ObjectEvent, version: &Version) -> PortResult<Option<Ask>> {
    let order = match usable_order(policy, event) {
        Ok(order) => order,
        Err(ask) => return Ok(Some(ask)),
    };
    let name = CopyName::of_event(version, order, event.time);
    let (copy_key, request) = copy_rows::request(&event.key, version, &name);
    match policy.copier.copy(&request).await? {
        Copied::Done(there) => {
            let (id, etag) = (version.version_id.clone(), version.etag.clone());
            copy_rows::put_row(policy, &event.key, &copy_rows::row(copy_key, &name, id, etag, &there)).await?;
        }
        Copied::SourceGone | Copied::SourceChanged | Copied::DestinationChanged => {
            if policy.rules.guards.hold(Guard::AdoptAfterGone) {
                adopt_if_there(policy, event, &copy_key).await?;
            }
            if !policy.rules.guards.hold(Guard::SettleAfterGone) {
                return Ok(None);
            }
        }
    }
    Ok(Some(Ask::BY_FACTS))
}

/// The event's order, if the event may still be judged by it; else what it asks for: old events (guard 7), and events
/// without an order in a policy that needs one, only trigger a look.
pub(crate) fn usable_order(policy: &Policy, event: &ObjectEvent) -> Result<Order, Ask> {
    let too_old = policy.clock.now().since(event.time) > EVENT_AGE_MAX;
    if too_old && policy.rules.guards.hold(Guard::OldEventsOnlyLook) {
        return Err(Ask::FOR_OLD_EVENT);
    }
    match policy.rules.basis {
        Basis::Time => Ok(Order::from_time(event.time)),
        Basis::Sequencer => {
            let order = event.order.filter(|order| order.basis() == Basis::Sequencer);
            order.ok_or(Ask::for_event(None, event.time))
        }
    }
}

async fn adopt_if_there(policy: &Policy, event: &ObjectEvent, copy_key: &CopyKey) -> PortResult<()> {
    let Some(there) = policy.destination.head(copy_key.object(), None).await? else { return Ok(()) };
    let parsed = parse(copy_key.object()).expect("built by the same module");
    adopt(policy, &event.key, copy_key, &parsed, &there).await.map(drop)
}
