//! The lifecycle rules of a bucket, for who has the right to change them. Rules of others are put back as they were read: this
//! file neither models nor judges them.

use super::S3Bucket;
use crate::error_map::Call;
use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    NoncurrentVersionExpiration, Transition, TransitionDefaultMinimumObjectSize, TransitionStorageClass,
};
use engine::error::{ErrorKind, PortResult};
use engine::ports::bucket_rules::{BucketRule, BucketRules, RuleDoes, SeenRules};

/// A bucket's rules.
pub(super) struct Rules(pub(super) S3Bucket);

/// As the service tells them, and from which size on it moves objects where a rule does not say.
struct Told {
    rules: Vec<LifecycleRule>,
    least_size: Option<TransitionDefaultMinimumObjectSize>,
}

impl Rules {
    fn call(&self, attempted: &'static str, action: &'static str) -> Call {
        Call::new(attempted, action, format!("s3://{}", self.0.name))
    }

    async fn told(&self) -> PortResult<Told> {
        let call = self.call("look at lifecycle rules of", "s3:GetLifecycleConfiguration");
        match self.0.client.get_bucket_lifecycle_configuration().bucket(&self.0.name).send().await {
            Ok(answer) => Ok(Told {
                least_size: answer.transition_default_minimum_object_size().cloned(),
                rules: answer.rules.unwrap_or_default(),
            }),
            Err(error) => match error.as_service_error().and_then(ProvideErrorMetadata::code) {
                Some("NoSuchLifecycleConfiguration") => Ok(Told { rules: Vec::new(), least_size: None }),
                _ => Err(call.sdk(error)),
            },
        }
    }
}

#[async_trait]
impl BucketRules for Rules {
    async fn look(&self) -> PortResult<SeenRules> {
        let told = self.told().await?;
        let rules = told.rules.iter().map(seen).collect();
        Ok(SeenRules { rules, is_versioned: self.0.is_versioned().await?, mark: mark(&told) })
    }

    async fn replace(&self, then: &SeenRules, names: &[String], by: &[BucketRule]) -> PortResult<bool> {
        let told = self.told().await?;
        if mark(&told) != then.mark {
            return Ok(false);
        }
        let call = self.call("put lifecycle rules of", "s3:PutLifecycleConfiguration");
        let is_replaced = |rule: &LifecycleRule| rule.id().is_some_and(|id| names.iter().any(|name| name == id));
        let mut rules: Vec<LifecycleRule> = told.rules.into_iter().filter(|rule| !is_replaced(rule)).collect();
        if rules.iter().any(|rule| rule.filter().is_none()) && !by.is_empty() {
            let why = "a rule of somebody else has the old form, a Prefix without a Filter, beside which S3 takes no newer one: \
                       put it with a Filter";
            return Err(call.failed(ErrorKind::Invalid(why.to_owned())));
        }
        for rule in by {
            rules.push(
                ours(rule).map_err(|error| call.failed(ErrorKind::Internal("a rule".to_owned())).because(error))?,
            );
        }
        if rules.is_empty() {
            let deleted = self.0.client.delete_bucket_lifecycle().bucket(&self.0.name).send().await;
            return deleted.map(|_| true).map_err(|error| call.sdk(error));
        }
        let all = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
        let all = all.map_err(|error| call.failed(ErrorKind::Internal("the rules".to_owned())).because(error))?;
        let put = self.0.client.put_bucket_lifecycle_configuration().bucket(&self.0.name).lifecycle_configuration(all);
        // Left out, it would be the usual one again.
        let put = put.set_transition_default_minimum_object_size(told.least_size).send().await;
        put.map(|_| true).map_err(|error| call.sdk(error))
    }
}

fn mark(told: &Told) -> String {
    format!("{:?} {:?}", told.rules, told.least_size)
}

fn ours(rule: &BucketRule) -> Result<LifecycleRule, aws_sdk_s3::error::BuildError> {
    let RuleDoes { prefix, is_off, moves, expire_days, noncurrent_days } = &rule.does;
    let days = |days: u32| i32::try_from(days).unwrap_or(i32::MAX);
    let moves = moves.iter().map(|(after, class)| {
        Transition::builder().days(days(*after)).storage_class(TransitionStorageClass::from(class.as_str())).build()
    });
    let moves: Vec<Transition> = moves.collect();
    let noncurrent =
        noncurrent_days.map(|after| NoncurrentVersionExpiration::builder().noncurrent_days(days(after)).build());
    LifecycleRule::builder()
        .id(&rule.id)
        .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
        .status(if *is_off { ExpirationStatus::Disabled } else { ExpirationStatus::Enabled })
        .set_transitions((!moves.is_empty()).then_some(moves))
        .set_expiration(expire_days.map(|after| LifecycleExpiration::builder().days(days(after)).build()))
        .set_noncurrent_version_expiration(noncurrent)
        .build()
}

#[expect(deprecated, reason = "rules of the old form are there, and have their prefix here")]
fn old_prefix(rule: &LifecycleRule) -> Option<&str> {
    rule.prefix()
}

fn seen(rule: &LifecycleRule) -> BucketRule {
    let mut besides = Vec::new();
    let (filter, both) = (rule.filter(), rule.filter().and_then(LifecycleRuleFilter::and));
    let prefix = filter.and_then(LifecycleRuleFilter::prefix).or(both.and_then(|both| both.prefix()));
    let has_tags =
        filter.is_some_and(|filter| filter.tag().is_some()) || both.is_some_and(|both| !both.tags().is_empty());
    if has_tags {
        besides.push("only objects with certain tags".to_owned());
    }
    let sizes = [
        filter
            .and_then(LifecycleRuleFilter::object_size_greater_than)
            .or(both.and_then(|both| both.object_size_greater_than())),
        filter
            .and_then(LifecycleRuleFilter::object_size_less_than)
            .or(both.and_then(|both| both.object_size_less_than())),
    ];
    if sizes.iter().flatten().any(|size| *size > 0) {
        besides.push("only objects of certain sizes".to_owned());
    }
    let days = |days: Option<i32>| days.and_then(|days| u32::try_from(days).ok());
    let mut moves = Vec::new();
    for step in rule.transitions() {
        let class = step.storage_class().map_or("", TransitionStorageClass::as_str).to_owned();
        match (days(step.days()), step.date()) {
            (Some(after), _) => moves.push((after, class)),
            (None, date) => besides.push(format!("to {class} on {date:?}")),
        }
    }
    moves.sort();
    let expiration = rule.expiration();
    if let Some(date) = expiration.and_then(LifecycleExpiration::date) {
        besides.push(format!("deletes on {date:?}"));
    }
    if expiration.and_then(LifecycleExpiration::expired_object_delete_marker) == Some(true) {
        besides.push("removes delete markers that stand alone".to_owned());
    }
    if !rule.noncurrent_version_transitions().is_empty() {
        besides.push("moves old versions".to_owned());
    }
    let noncurrent = rule.noncurrent_version_expiration();
    if noncurrent.is_some_and(|noncurrent| noncurrent.newer_noncurrent_versions().is_some()) {
        besides.push("keeps some old versions".to_owned());
    }
    if rule.abort_incomplete_multipart_upload().is_some() {
        besides.push("ends uploads that were left".to_owned());
    }
    BucketRule {
        id: rule.id().unwrap_or_default().to_owned(),
        does: RuleDoes {
            prefix: prefix.or(old_prefix(rule)).unwrap_or_default().to_owned(),
            is_off: *rule.status() != ExpirationStatus::Enabled,
            moves,
            expire_days: days(expiration.and_then(LifecycleExpiration::days)).filter(|days| *days > 0),
            noncurrent_days: days(noncurrent.and_then(NoncurrentVersionExpiration::noncurrent_days)),
        },
        besides,
    }
}
