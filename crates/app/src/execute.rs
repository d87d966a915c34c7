//! The one function that executes commands: in the daemon, fed by the control socket, and in a command's own process while
//! no daemon runs. Which command reaches which flow is written here and nowhere else.

use crate::answer::Answer;
use crate::command::Command;
use crate::commands::{
    archive, audit, backfill, clean, credentials, dead_letters, history, ls, reconcile, record, release, restore,
    status, undelete,
};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::Instance;
use tokio_util::sync::CancellationToken;

/// Executes a command for a user and ends the feed with its answer.
pub(crate) async fn execute(instance: &Instance, command: Command, who: &str, feed: &Feed, cancel: &CancellationToken) {
    let check = matches!(command, Command::Status { check: true });
    let result = dispatch(instance, command, who, feed, cancel).await;
    let ended = result.map(|answer| {
        let code = answer.exit_code(check);
        (answer, code)
    });
    if !feed.end(ended).await {
        tracing::debug!("nobody waited for the command's answer");
    }
}

async fn dispatch(
    instance: &Instance,
    command: Command,
    who: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    match command {
        Command::Status { check: _ } => status::status(instance).await,
        Command::Ls { policy, prefix } => ls::ls(instance, policy.as_deref(), &prefix, feed, cancel).await,
        Command::History { policy, key } => history::history(instance, policy.as_deref(), &key).await,
        Command::Restore(asked) => restore::restore(instance, &asked, who, feed, cancel).await,
        Command::Undelete(asked) => undelete::undelete(instance, &asked, who, feed, cancel).await,
        Command::Clean { policy, now: true } => clean::clean_now(instance, policy.as_deref(), cancel).await,
        Command::Clean { policy, now: false } => clean::due(instance, policy.as_deref()).await,
        Command::Release { policy } => release::release(instance, policy.as_deref(), who, feed, cancel).await,
        Command::Reconcile { policy } => reconcile::reconcile(instance, policy.as_deref(), feed, cancel).await,
        Command::Backfill { policy, prefix } => {
            backfill::backfill(instance, policy.as_deref(), &prefix, feed, cancel).await
        }
        Command::Audit { lines } => audit::audit(instance, lines).await,
        Command::Archive(act) => archive::act(instance, &act, who, feed, cancel).await,
        Command::Record(act) => record::act(instance, &act, who).await,
        Command::DeadLetters(act) => dead_letters::act(instance, act, who, cancel).await,
        Command::Credentials { rotate } => credentials::credentials(instance, rotate),
    }
}
