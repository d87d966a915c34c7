//! What commands about a person's tables answer.

use engine::flows::self_test::Step;
use serde::{Deserialize, Serialize};

/// `archive enable`: what it will do, or did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Enabled {
    /// The table.
    pub(crate) table: String,
    /// What is switched on, in order.
    pub(crate) switches: Vec<String>,
    /// What is left as it is, and why.
    pub(crate) left: Vec<String>,
    /// What stands in the way, with the remedy: then nothing is done.
    pub(crate) refused: Vec<String>,
    /// It is done; before, it only will be.
    pub(crate) done: bool,
    /// Lines for the configuration, where the table is not in it yet.
    pub(crate) configuration: Option<String>,
}

impl Enabled {
    /// Whether there is something to be done.
    pub(crate) fn is_open(&self) -> bool {
        !self.done && self.refused.is_empty() && !self.switches.is_empty()
    }
}

/// `archive tiers`: what it will do, or did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tiered {
    /// The service.
    pub(crate) service: String,
    /// The buckets that have its records.
    pub(crate) buckets: Vec<TieredBucket>,
}

/// The lifecycle rules of one bucket.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TieredBucket {
    /// The bucket.
    pub(crate) bucket: String,
    /// Its rules, and what becomes of each.
    pub(crate) rules: Vec<RuleView>,
    /// What a person should know.
    pub(crate) remarks: Vec<String>,
    /// What rules of others do to the archive.
    pub(crate) warnings: Vec<String>,
    /// What stands in the way, with the remedy.
    pub(crate) refused: Vec<String>,
    /// Something changes.
    pub(crate) is_open: bool,
    /// It is done, and was read back; before, it only will be.
    pub(crate) done: bool,
}

/// One lifecycle rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RuleView {
    /// Its name.
    pub(crate) id: String,
    /// `stays`, `added`, `changed` or `removed`.
    pub(crate) change: String,
    /// What it does, in words.
    pub(crate) does: String,
    /// What it did, where that changes.
    pub(crate) was: Option<String>,
}

/// `archive self-test`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SelfTested {
    /// The table.
    pub(crate) table: String,
    /// The steps, in order.
    pub(crate) steps: Vec<StepView>,
}

/// One step of a self-test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StepView {
    /// What was done.
    pub(crate) step: String,
    /// How long it took, ms.
    pub(crate) took_ms: u64,
    /// It succeeded.
    pub(crate) success: bool,
    /// What came of it, or why it failed.
    pub(crate) told: String,
    /// What to do about a failure.
    pub(crate) remedy: Option<String>,
}

impl StepView {
    pub(crate) fn of(step: Step) -> StepView {
        let (success, told, remedy) = match step.ended {
            Ok(told) => (true, told, None),
            Err(wrong) => (false, wrong.why, Some(wrong.remedy)),
        };
        StepView { step: step.what.to_owned(), took_ms: step.took.0, success, told, remedy }
    }
}

impl SelfTested {
    /// Whether each step succeeded.
    pub(crate) fn is_success(&self) -> bool {
        self.steps.iter().all(|step| step.success)
    }
}
