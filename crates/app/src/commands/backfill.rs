//! `backfill`: the objects that were there before a policy get their copies. The daemon's first comparison of a policy does the
//! same, key by key.

use crate::answer::{Answer, Done, ReportView};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::Instance;
use tokio_util::sync::CancellationToken;

/// Back-fills, in every policy that is meant.
pub(crate) async fn backfill(
    instance: &Instance,
    policy: Option<&str>,
    prefix: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut done = Done::default();
    for policy in instance.selected(policy)? {
        if cancel.is_cancelled() {
            done.reports.push(ReportView::not_begun("backfill", &policy));
            continue;
        }
        let report = engine::flows::backfill::backfill(&policy, prefix, feed, cancel).await;
        done.push(&policy, "backfill", Ok(report));
    }
    Ok(Answer::Done(done))
}
