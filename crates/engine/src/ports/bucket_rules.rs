//! The lifecycle rules of a bucket: which objects move to another storage class, and which go, by their age alone. They are
//! all put at once, whosever they are, and no store says whether they changed meanwhile.

use crate::error::PortResult;
use async_trait::async_trait;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRule {
    /// Its name.
    pub id: String,
    /// What it does to which objects, as far as rules of ours do it.
    pub does: RuleDoes,
    /// What else it does or depends on, in words; empty for rules of ours.
    pub besides: Vec<String>,
}

/// What a rule does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleDoes {
    /// To objects under this prefix; empty: to all.
    pub prefix: String,
    /// It is switched off.
    pub is_off: bool,
    /// Days, and the class that objects move to then.
    pub moves: Vec<(u32, String)>,
    /// After how many days objects go.
    pub expire_days: Option<u32>,
    /// After how many days more versions go that are not current any more.
    pub noncurrent_days: Option<u32>,
}

/// The rules of a bucket, as they were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRules {
    /// In their order.
    pub rules: Vec<BucketRule>,
    /// The bucket keeps versions.
    pub is_versioned: bool,
    /// Changes with everything that was seen.
    pub mark: String,
}

/// Looks at a bucket's rules, and changes some.
#[async_trait]
pub trait BucketRules: Send + Sync {
    /// All of them.
    async fn look(&self) -> PortResult<SeenRules>;

    /// Replaces those with these names by `by`, if nothing has changed since they were seen; `false`: it has, and nothing was
    /// done. Between this look and the change nobody can be kept out: look again afterwards.
    async fn replace(&self, seen: &SeenRules, names: &[String], by: &[BucketRule]) -> PortResult<bool>;
}
