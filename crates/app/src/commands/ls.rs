//! `ls [PREFIX]`: the keys that have copies, page by page, so that a catalog of any size streams through (I11).

use crate::answer::{Answer, Listed, ListedKey};
use crate::exit::Failure;
use crate::feed::{Feed, Frame};
use crate::instance::Instance;
use engine::policy::Policy;
use engine::steps::keys::Keys;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use tokio_util::sync::CancellationToken;

/// Lists.
pub(crate) async fn ls(
    instance: &Instance,
    policy: Option<&str>,
    prefix: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut listed = Listed::default();
    for policy in instance.selected(policy)? {
        list(&policy, prefix, feed, cancel, &mut listed).await?;
    }
    Ok(Answer::Listed(listed))
}

async fn list(
    policy: &Policy,
    prefix: &str,
    feed: &Feed,
    cancel: &CancellationToken,
    listed: &mut Listed,
) -> Result<(), Failure> {
    let mut keys = Keys::under(policy, prefix);
    while let Some(page) = keys.next().await? {
        for key in &page {
            if cancel.is_cancelled() {
                listed.cancelled = true;
                return Ok(());
            }
            listed.keys += 1;
            if !feed.send(Frame::Key(describe(policy, key).await?)).await {
                listed.cancelled = true;
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn describe(policy: &Policy, key: &ObjectKey) -> Result<ListedKey, Failure> {
    let rows = policy.catalog.partition(key).await?.rows;
    let active = rows.iter().filter(|row| row.is_active()).count() as u64;
    Ok(ListedKey {
        policy: policy.name.to_string(),
        key: key.to_string(),
        active,
        disowned: rows.len() as u64 - active,
        bytes: rows.iter().map(|row| row.size).sum(),
        newest_ms: rows.iter().map(|row| row.created_at).max().unwrap_or(UnixMs(0)).0,
    })
}
