//! `clean`: what is due, and with `--now` the cleaner itself, at once instead of at the policy's schedule. Graces and
//! breakers hold all the same (I7).

use crate::answer::{Answer, Done, Due, PolicyDue};
use crate::exit::Failure;
use crate::instance::Instance;
use engine::limits::CLEAN_PAGE;
use engine::policy::Policy;
use engine::ports::catalog::{IndexQuery, Indexed};
use lifecycle::time::UnixMs;
use tokio_util::sync::CancellationToken;

/// Cleans now.
pub(crate) async fn clean_now(
    instance: &Instance,
    policy: Option<&str>,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut done = Done::default();
    for policy in instance.selected(policy)? {
        let result = engine::flows::clean::clean(&policy, cancel).await;
        done.push(&policy, "clean", result.map_err(Failure::from));
    }
    Ok(Answer::Done(done))
}

/// Says what is due.
pub(crate) async fn due(instance: &Instance, policy: Option<&str>) -> Result<Answer, Failure> {
    let now = instance.now();
    let mut policies = Vec::new();
    for policy in instance.selected(policy)? {
        policies.push(due_in(instance, &policy, now).await?);
    }
    Ok(Answer::Due(Due { now_ms: now.0, policies }))
}

async fn due_in(instance: &Instance, policy: &Policy, now: UnixMs) -> Result<PolicyDue, Failure> {
    let grace_over = now.minus(policy.rules.grace);
    let (disowned, more_disowned) = counted(policy, Indexed::Disowned, UnixMs(0), grace_over).await?;
    let (surplus, more_surplus) = counted(policy, Indexed::Surplus, UnixMs(0), now).await?;
    let next_disowned = first_after(policy, Indexed::Disowned, grace_over).await?.map(|at| at.plus(policy.rules.grace));
    let next_surplus = first_after(policy, Indexed::Surplus, now).await?;
    Ok(PolicyDue {
        policy: policy.name.to_string(),
        due: disowned + surplus,
        more: more_disowned || more_surplus,
        next_due_ms: next_disowned.into_iter().chain(next_surplus).min().map(|at| at.0),
        next_clean_ms: next_clean(instance, policy, now).map(|at| at.0),
        tripped: policy.catalog.state().await?.tripped.is_some(),
    })
}

/// When the daemon cleans that policy next; `None` while no daemon runs.
pub(crate) fn next_clean(instance: &Instance, policy: &Policy, after: UnixMs) -> Option<UnixMs> {
    instance.endpoint.get()?;
    instance.setting(policy)?.config.terms.clean.next_after(after)
}

async fn counted(policy: &Policy, what: Indexed, from: UnixMs, until: UnixMs) -> Result<(u64, bool), Failure> {
    let query = IndexQuery { what, from, until, after: None, limit: CLEAN_PAGE };
    let page = policy.catalog.index(&query).await?;
    Ok((page.items.len() as u64, page.next.is_some()))
}

async fn first_after(policy: &Policy, what: Indexed, after: UnixMs) -> Result<Option<UnixMs>, Failure> {
    let query =
        IndexQuery { what, from: UnixMs(after.0.saturating_add(1)), until: UnixMs(i64::MAX), after: None, limit: 1 };
    Ok(policy.catalog.index(&query).await?.items.first().map(|entry| entry.at))
}
