//! `undelete`: brings removed objects back into the source, and their copies back into the history (I5: on command).

use super::restore::source;
use crate::answer::{Answer, Done, ReportView};
use crate::command::{Undelete, What};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::{Instance, object_key};
use engine::flows::undelete::{self as flow, Depth, Removed};
use engine::policy::Mode;
use lifecycle::time::UnixMs;
use tokio_util::sync::CancellationToken;

/// Undeletes, in every policy that is meant.
pub(crate) async fn undelete(
    instance: &Instance,
    asked: &Undelete,
    who: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let name = asked.policy.as_deref();
    let (mut policies, removed) = match &asked.what {
        What::Key(key) => {
            let key = object_key(key)?;
            let knowing = instance.knowing(name, &key).await?;
            if knowing.is_empty() {
                return Err(Failure::failed(format!("no policy has a copy of {key}: nothing can be brought back")));
            }
            (knowing, Removed::Key(key))
        }
        What::Prefix(prefix) => (instance.selected(name)?, Removed::Prefix(prefix.clone())),
        What::Since(since) => (instance.selected(name)?, Removed::Since(UnixMs(*since))),
        What::Everything => return Err(Failure::usage("undelete takes a key, --prefix or --since")),
    };
    if name.is_none() {
        // A mirror keeps no history; asked by name, the flow says so.
        policies.retain(|policy| policy.mode == Mode::Copies);
    }
    let depth = if asked.newest_only { Depth::Newest } else { Depth::All };
    let mut done = Done::default();
    for policy in policies {
        if cancel.is_cancelled() {
            done.reports.push(ReportView::not_begun("undelete", &policy));
            continue;
        }
        let result = match source(instance, &policy) {
            Ok(source) => Ok(flow::undelete(&policy, &removed, depth, &source, who, feed, cancel).await),
            Err(failure) => Err(failure),
        };
        done.push(&policy, "undelete", result);
    }
    Ok(Answer::Done(done))
}
