//! `release`: a person has looked at what tripped a breaker, and lets purging go on.

use crate::answer::{Answer, Done, ReportView};
use crate::exit::Failure;
use crate::instance::Instance;

/// Releases the named policy's breaker, or every tripped one.
pub(crate) async fn release(instance: &Instance, policy: Option<&str>, who: &str) -> Result<Answer, Failure> {
    let mut done = Done::default();
    for selected in instance.selected(policy)? {
        // Unasked, a release of what has not tripped would forgive removals that may yet grow into a mass deletion.
        if policy.is_none() && selected.catalog.state().await?.tripped.is_none() {
            continue;
        }
        let report = engine::flows::release::release(&selected, who).await?;
        done.reports.push(ReportView::of(Some(selected.name.as_str()), report));
    }
    if done.reports.is_empty() {
        let notes = vec!["no breaker has tripped".to_owned()];
        done.reports.push(ReportView { operation: "release".to_owned(), notes, ..ReportView::default() });
    }
    Ok(Answer::Done(done))
}
