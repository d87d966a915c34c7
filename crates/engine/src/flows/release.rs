//! A person releases a tripped breaker: removals noted up to now are forgiven, and purging goes on.

use crate::error::FlowResult;
use crate::policy::Policy;
use crate::ports::catalog::StateChange;
use crate::ports::journal::Action;
use crate::report::Report;
use crate::steps::journal_lines::about_key;

/// Releases the breaker. Counts `released` when it was tripped.
pub async fn release(policy: &Policy, who: &str) -> FlowResult<Report> {
    let mut report = Report::of("release");
    let tripped = policy.catalog.state().await?.tripped;
    let rule = match tripped {
        Some(trip) => format!("tripped at {} by {} removed keys, {} left", trip.at, trip.removed, trip.live),
        None => "not tripped".to_owned(),
    };
    policy.journal.append(&[about_key(policy, Action::Release, who, None, &rule)]).await?;
    policy.catalog.set_state(StateChange::Release(policy.clock.now())).await?;
    report.count("released", u64::from(tripped.is_some()));
    if tripped.is_none() {
        report.notes.push(format!("{}: the breaker had not tripped; removals up to now are forgiven", policy.name));
    }
    Ok(report)
}
