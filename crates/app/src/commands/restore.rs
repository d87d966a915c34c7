//! `restore`: chooses policy and target, and leaves the rest to the flow. The source is written here, on command (I5).

use crate::answer::{Answer, Done, ReportView};
use crate::command::{Restore, To, What, Which};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::{Instance, object_key, one_of};
use engine::flows::restore::{Archived, Newer, RestoreRequest, Selected};
use engine::policy::Policy;
use engine::ports::objects::ObjectWrite;
use lifecycle::ids::CopyKey;
use lifecycle::restore::Wanted;
use lifecycle::time::UnixMs;
use local::store::{FolderTarget, Role};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Restores.
pub(crate) async fn restore(
    instance: &Instance,
    asked: &Restore,
    who: &str,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let (policy, keys) = match &asked.what {
        What::Key(key) => {
            let key = object_key(key)?;
            let knowing = instance.knowing(asked.policy.as_deref(), &key).await?;
            if knowing.is_empty() {
                return Err(Failure::failed(format!("no policy has a copy of {key}: `afterimage history` says why")));
            }
            (one_of(knowing, "choose one with --policy")?, Selected::One(key))
        }
        What::Prefix(prefix) => (instance.the_one(asked.policy.as_deref())?, Selected::Prefix(prefix.clone())),
        What::Everything => (instance.the_one(asked.policy.as_deref())?, Selected::Prefix(String::new())),
        What::Since(_) => return Err(Failure::usage("restore takes a key, --prefix or --everything")),
    };
    let wanted = match &asked.which {
        Which::Newest => Wanted::Newest,
        Which::At(at) => Wanted::At(UnixMs(*at)),
        Which::Copy(copy) => Wanted::Copy(CopyKey::of(object_key(copy)?)),
    };
    let newer = if asked.overwrite { Newer::Overwrite } else { Newer::Keep };
    let archived = if asked.wait { Archived::Await } else { Archived::Tell };
    let request = RestoreRequest { keys, wanted, newer, dry_run: asked.dry_run, archived };
    let target = target(instance, &policy, &asked.to)?;
    let report = engine::flows::restore::restore(&policy, &request, &target, who, feed, cancel).await;
    Ok(Answer::Done(Done { reports: vec![ReportView::of(Some(policy.name.as_str()), report)] }))
}

fn target(instance: &Instance, policy: &Policy, to: &To) -> Result<Arc<dyn ObjectWrite>, Failure> {
    match to {
        To::Source => source(instance, policy),
        To::Bucket(name) => {
            let bucket = instance.store.bucket(name)?;
            if bucket.info().role == Role::Destination {
                return Err(Failure::failed(format!(
                    "{name} holds copies and is written by its policy only: restore to another bucket, or to a folder"
                )));
            }
            Ok(instance.store.writer(&bucket.info().name)?)
        }
        To::Folder(folder) => {
            Ok(Arc::new(FolderTarget::open(Path::new(folder), instance.clock.clone(), instance.nonces.clone())?))
        }
    }
}

/// The right to write a policy's source: held by `restore` and `undelete` only (I5).
pub(super) fn source(instance: &Instance, policy: &Policy) -> Result<Arc<dyn ObjectWrite>, Failure> {
    let setting = instance.setting(policy).ok_or_else(|| Failure::failed(format!("{} has just gone", policy.name)))?;
    setting.source.writer(&instance.store)
}
