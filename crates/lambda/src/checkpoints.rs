//! Where the comparison of a policy goes on: an object in its own destination, `.afterimage/reconcile-POLICY.json`, which no
//! comparison takes for a copy. One small object for each policy, written at the end of each slice and replaced by the next.
//!
//! A crash before it is written goes back to the one before: keys are compared once more, which changes nothing. One that
//! cannot be read is begun anew.

use crate::limits::CHECKPOINT_BYTES_MAX;
use engine::error::{ErrorKind, PortResult};
use engine::flows::reconcile::RESERVED_PREFIX;
use engine::flows::reconcile_slice::Checkpoint;
use engine::ports::objects::{ObjectWrite, Onto};
use engine::steps::json_object;
use lifecycle::ids::{ObjectKey, PolicyName};
use lifecycle::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Version of the object's layout.
const VERSION: u32 = 1;

/// A comparison under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// When its first slice began.
    pub(crate) began_at: UnixMs,
    /// How many slices it had.
    pub(crate) slices: u64,
    /// How far it is.
    pub(crate) checkpoint: Checkpoint,
}

impl Comparison {
    /// Nothing is compared yet.
    pub(crate) fn beginning(at: UnixMs) -> Comparison {
        Comparison { began_at: at, slices: 0, checkpoint: Checkpoint::default() }
    }
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    policy: String,
    began_at: i64,
    slices: u64,
    /// The last key that was compared.
    after: Option<String>,
    gap: u64,
    /// The key at which the last slice was dropped, and how often in a row.
    #[serde(default)]
    under_way: Option<(String, u32)>,
    /// When it came to its end; before, it goes on.
    done_at: Option<i64>,
}

/// The checkpoint of one policy.
pub(crate) struct Checkpoints {
    bucket: Arc<dyn ObjectWrite>,
    policy: PolicyName,
    key: ObjectKey,
}

impl Checkpoints {
    pub(crate) fn new(bucket: Arc<dyn ObjectWrite>, policy: &PolicyName) -> Checkpoints {
        let name = format!("{RESERVED_PREFIX}reconcile-{policy}.json");
        let key = ObjectKey::new(name).expect("a policy's name has at most 63 bytes");
        Checkpoints { bucket, policy: policy.clone(), key }
    }

    /// The comparison that is under way.
    pub(crate) async fn read(&self) -> PortResult<Option<Comparison>> {
        let stored = match json_object::read::<Stored>(self.bucket.as_ref(), &self.key, CHECKPOINT_BYTES_MAX).await {
            Ok(None) => return Ok(None),
            Ok(Some(stored)) if stored.v == VERSION && stored.policy == self.policy.as_str() => stored,
            Err(error) if !matches!(error.kind, ErrorKind::Damaged(_)) => return Err(error),
            Ok(Some(_)) | Err(_) => {
                let why = "the checkpoint does not read back: compared anew";
                tracing::warn!(policy = %self.policy, object = %self.key, "{why}");
                return Ok(None);
            }
        };
        Ok(stored.done_at.is_none().then(|| Comparison {
            began_at: UnixMs(stored.began_at),
            slices: stored.slices,
            checkpoint: Checkpoint {
                after: stored.after.and_then(|key| ObjectKey::new(key).ok()),
                gap: stored.gap,
                under_way: stored.under_way.and_then(|(key, tries)| Some((ObjectKey::new(key).ok()?, tries))),
            },
        }))
    }

    /// Keeps how far it is; `done_at`: it came to its end then.
    pub(crate) async fn write(&self, comparison: &Comparison, done_at: Option<UnixMs>) -> PortResult<()> {
        let Comparison { began_at, slices, checkpoint } = comparison;
        let stored = Stored {
            v: VERSION,
            policy: self.policy.to_string(),
            began_at: began_at.0,
            slices: *slices,
            after: checkpoint.after.as_ref().map(ToString::to_string),
            gap: checkpoint.gap,
            under_way: checkpoint.under_way.as_ref().map(|(key, tries)| (key.to_string(), *tries)),
            done_at: done_at.map(|at| at.0),
        };
        json_object::write(self.bucket.as_ref(), &self.key, &stored, Onto::Anything).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::memory::bucket::Versioning;
    use engine::memory::wiring::Memory;
    use engine::ports::objects::Attributes;

    #[tokio::test]
    async fn a_comparison_reads_back_until_it_is_done_and_a_damaged_one_begins_anew() {
        let memory = Memory::new(Versioning::Off);
        let checkpoints = Checkpoints::new(Arc::clone(&memory.destination) as _, &PolicyName::from("docs"));
        assert_eq!(checkpoints.read().await.unwrap(), None);
        let after = ObjectKey::new("\u{1}\"ß".repeat(200)).unwrap();
        let comparison = Comparison {
            began_at: UnixMs(7),
            slices: 3,
            checkpoint: Checkpoint { after: Some(after.clone()), gap: 2, under_way: Some((after, 1)) },
        };
        checkpoints.write(&comparison, None).await.unwrap();
        assert_eq!(checkpoints.read().await.unwrap(), Some(comparison.clone()));
        checkpoints.write(&comparison, Some(UnixMs(9))).await.unwrap();
        assert_eq!(checkpoints.read().await.unwrap(), None);
        let keys: Vec<String> = memory.destination.contents().keys().map(ToString::to_string).collect();
        assert_eq!(keys, [".afterimage/reconcile-docs.json"]);
        for damaged in ["", "{\"v\":2}", r#"{"v":1,"policy":"other","began_at":0,"slices":0,"after":null,"gap":0}"#] {
            memory.destination.store(&checkpoints.key, damaged.into(), Attributes::default(), &Onto::Anything);
            assert_eq!(checkpoints.read().await.unwrap(), None);
        }
    }
}
