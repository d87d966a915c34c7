//! Handling the events of one key: note every fact, then settle once. Each handler writes before it reads, so that of two
//! racing handlers at least one sees both facts (V1).
//!
//! Several events of one key may be noted before one settling: settling reasons from the catalog alone. An error leaves
//! all of them to be delivered again; every step is idempotent (I6). Laws: V1, V6, V7.

use crate::error::FlowResult;
use crate::flows::{disown, mirror, replicate, settle};
use crate::policy::{Mode, Policy};
use lifecycle::event::{Happened, ObjectEvent};
use lifecycle::ids::ObjectKey;
use lifecycle::settle::Ask;

/// Handles events of one key, oldest first, for one policy.
pub async fn handle(policy: &Policy, key: &ObjectKey, events: &[ObjectEvent]) -> FlowResult<()> {
    if policy.mode == Mode::Mirror {
        return mirror::mirror(policy, key).await;
    }
    let mut asked: Option<Ask> = None;
    for event in events {
        let ask = match &event.what {
            Happened::Created(version) => replicate::note(policy, event, version).await?,
            Happened::Removed => Some(disown::note_removed(policy, event).await?),
            Happened::VersionRemoved(_) => disown::note_version_removed(policy, event),
        };
        asked = match (asked, ask) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.or(b),
        };
    }
    match asked {
        Some(ask) => settle::settle(policy, key, ask).await,
        None => Ok(()),
    }
}
