//! `release`: a person has looked at what tripped a breaker, and lets purging go on. Copies that it held are found by the
//! next clean; what it held of a mirror is found by comparing the listings, so that a reconcile follows here. A crash between
//! the two leaves that to the next reconcile.

use crate::answer::{Answer, Done, ReportView};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::Instance;
use engine::flows::reconcile::Orphans;
use engine::policy::Mode;
use tokio_util::sync::CancellationToken;

/// Releases the named policy's breaker, or every tripped one.
pub(crate) async fn release(
    instance: &Instance,
    policy: Option<&str>,
    who: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut done = Done::default();
    for selected in instance.selected(policy)? {
        // Unasked, a release of what has not tripped would forgive removals that may yet grow into a mass deletion.
        let tripped = selected.catalog.state().await.map(|state| state.tripped.is_some());
        if policy.is_none() && tripped.as_ref().is_ok_and(|tripped| !tripped) {
            continue;
        }
        let released = match tripped {
            Ok(_) => engine::flows::release::release(&selected, who).await.map_err(Failure::from),
            Err(error) => Err(error.into()),
        };
        let is_released = released.is_ok();
        done.push(&selected, "release", released);
        if is_released && selected.mode == Mode::Mirror {
            let orphans = Orphans::Before(instance.started_at);
            let result = engine::flows::reconcile::reconcile(&selected, orphans, feed, cancel).await;
            done.push(&selected, "reconcile", result.map_err(Failure::from));
        }
    }
    if done.reports.is_empty() {
        let notes = vec!["no breaker has tripped".to_owned()];
        done.reports.push(ReportView { operation: "release".to_owned(), notes, ..ReportView::default() });
    }
    Ok(Answer::Done(done))
}
