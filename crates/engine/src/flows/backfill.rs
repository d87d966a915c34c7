//! Back-fill: the objects that were there before the policy, and so made no event, get their copies; of a mirror, their
//! equals. Keys side by side, in the order of the source's listing.
//!
//! The listing only says where to look: a key that has no copy of what is listed is settled by a look, as everywhere (V1,
//! V8). Nothing is removed because it is not listed: that is `reconcile`'s; so is a key whose copies have no rows yet, since
//! the catalog was lost: they are adopted there, and not made once more. A crash leaves some keys done; given again, it passes
//! over what has its copy and goes on. Laws: I2, I10, I11.

use crate::error::{FlowResult, PortResult};
use crate::flows::mirror::mirror;
use crate::flows::settle::settle;
use crate::limits::{KEYS_IN_FLIGHT, LIST_PAGE};
use crate::policy::{Mode, Policy};
use crate::ports::objects::Listed;
use crate::ports::progress::Progress;
use crate::report::{Report, chain};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lifecycle::ids::ObjectKey;
use lifecycle::settle::Ask;
use tokio_util::sync::CancellationToken;

/// Back-fills what one policy watches under `prefix`; empty: all. Counts `keys`, `copied` (of a mirror, `compared`),
/// `there` (what had its copy already), and `left` (for `reconcile`).
pub async fn backfill(policy: &Policy, prefix: &str, progress: &dyn Progress, cancel: &CancellationToken) -> Report {
    let mut report = Report::of("backfill");
    report.count("keys", 0);
    let watched = &policy.source_prefix;
    let prefix = match (prefix.starts_with(watched.as_str()), watched.starts_with(prefix)) {
        (true, _) => prefix,
        (false, true) => watched,
        (false, false) => {
            report.fail(prefix, format!("the policy watches {watched} only"));
            return report;
        }
    };
    let compared = match policy.catalog.state().await {
        Ok(state) => state.reconciled.is_some(),
        Err(error) => {
            report.fail(prefix, chain(&error));
            return report;
        }
    };
    let mut running = FuturesUnordered::new();
    let mut after = None;
    loop {
        // What is under way rests meanwhile: a page takes as long as one call, and has a thousand keys.
        let page = match policy.source.list(prefix, after.as_ref(), LIST_PAGE).await {
            Ok(page) => page,
            Err(error) => {
                report.fail(prefix, chain(&error));
                break;
            }
        };
        // Cancelled, it begins nothing more and finishes what is under way: the report names all that was done.
        for listed in page.items.into_iter().take_while(|_| !cancel.is_cancelled()) {
            if running.len() == KEYS_IN_FLIGHT
                && let Some(of_key) = running.next().await
            {
                report.absorb(of_key);
                progress.at(report.counted("keys"), None, "keys");
            }
            running.push(one(policy, compared, listed));
        }
        after = page.next;
        if after.is_none() || cancel.is_cancelled() {
            break;
        }
    }
    while let Some(of_key) = running.next().await {
        report.absorb(of_key);
    }
    if cancel.is_cancelled() {
        report.cancelled = true;
        report.notes.push("stopped: given again, it passes over what has its copy and goes on".to_owned());
    }
    report
}

async fn one(policy: &Policy, compared: bool, listed: Listed) -> Report {
    let mut report = Report::of("backfill");
    report.count("keys", 1);
    match try_one(policy, compared, &listed).await {
        Ok(what) => report.count(what, 1),
        Err(error) => report.fail(&listed.key, chain(&error)),
    }
    report
}

/// `compared`: every copy in the destination has had its row since the catalog was made.
async fn try_one(policy: &Policy, compared: bool, listed: &Listed) -> FlowResult<&'static str> {
    let key = &listed.key;
    if policy.mode == Mode::Mirror {
        mirror(policy, key).await?;
        return Ok("compared");
    }
    let partition = policy.catalog.partition(key).await?;
    if partition.rows.iter().any(|row| row.is_active() && row.matches(&listed.version)) {
        return Ok("there");
    }
    if !compared && partition.rows.is_empty() && has_copies(policy, key).await? {
        return Ok("left");
    }
    settle(policy, key, Ask::BY_LOOK).await?;
    Ok("copied")
}

/// Whether something in the destination is named like a copy of that key.
async fn has_copies(policy: &Policy, key: &ObjectKey) -> PortResult<bool> {
    Ok(!policy.destination.list(&format!("{key}."), None, 1).await?.items.is_empty())
}
