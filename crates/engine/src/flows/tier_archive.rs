//! Tiers: the lifecycle rules that a bucket should have for a service's archived records, beside whatever rules of others it
//! has, said first, then put and read back.
//!
//! Ours are two, known by their names: one for objects, one for packs. All others stay as they are, those for other services
//! among them. Nothing of ours reaches `.afterimage/`. All rules are put at once: a crash leaves those before or those after.
//! Laws: I5 (on command), and retention without end unless the configuration says otherwise.

use crate::config::{Packing, Tiers};
use crate::error::PortResult;
use crate::ports::bucket_rules::{BucketRule, BucketRules, RuleDoes, SeenRules};
use crate::steps::packs::PACKED;
use lifecycle::archive::ServiceName;

/// The most rules that a bucket may have.
const RULES_MAX: usize = 1_000;
/// For how many days versions stay that are not current any more, where records go at all: time to take a mistake back.
const NONCURRENT_DAYS: u32 = 30;
/// Where places, gaps and notes are.
const OURS: &str = ".afterimage/";
/// Places there that nobody needs once they are old.
const STREAMS: &str = ".afterimage/streams/";

/// What becomes of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is.
    Stays(BucketRule),
    /// It is ours, and is put.
    Added(BucketRule),
    /// It is ours: what it was, and what it will be.
    Changed(BucketRule, BucketRule),
    /// It is ours, and goes.
    Removed(BucketRule),
}

/// What the rules of a bucket will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rule by rule: others' first.
    pub changes: Vec<Change>,
    /// What a person should know.
    pub remarks: Vec<String>,
    /// What rules of others do to the archive.
    pub warnings: Vec<String>,
    /// What stands in the way, with the remedy.
    pub refused: Vec<String>,
}

impl Plan {
    /// Whether anything changes.
    pub fn is_open(&self) -> bool {
        self.refused.is_empty() && self.changes.iter().any(|change| !matches!(change, Change::Stays(_)))
    }

    /// The rules of ours that shall be there.
    fn ours(&self) -> Vec<BucketRule> {
        let ours = self.changes.iter().filter_map(|change| match change {
            Change::Added(rule) | Change::Changed(_, rule) => Some(rule.clone()),
            Change::Stays(_) | Change::Removed(_) => None,
        });
        ours.collect()
    }
}

/// The names of the two rules for a service.
fn names(service: &ServiceName) -> [String; 2] {
    [format!("afterimage-records-of-{service}"), format!("afterimage-packs-of-{service}")]
}

/// The rules that a service's archive should have.
fn wanted(service: &ServiceName, tiers: &Tiers) -> Vec<BucketRule> {
    if tiers.is_none() {
        return Vec::new();
    }
    let prefixes = [format!("{service}/"), format!("{PACKED}service={service}/")];
    let rule = |(id, prefix): (String, String)| {
        assert!(
            !OURS.starts_with(&prefix) && !prefix.starts_with('.'),
            "a service's name begins with a letter or digit"
        );
        let moves = tiers.moves.iter().map(|tier| (tier.after_days, tier.class.as_str().to_owned())).collect();
        let noncurrent_days = tiers.expire_days.map(|_| NONCURRENT_DAYS);
        let does = RuleDoes { prefix, is_off: false, moves, expire_days: tiers.expire_days, noncurrent_days };
        BucketRule { id, does, besides: Vec::new() }
    };
    names(service).into_iter().zip(prefixes).map(rule).collect()
}

/// What is to be done with a bucket that has these rules. Pure.
pub fn plan(service: &ServiceName, tiers: &Tiers, packing: Packing, seen: &SeenRules) -> Plan {
    let mut plan = Plan::default();
    let (names, wanted) = (names(service), wanted(service, tiers));
    for rule in &seen.rules {
        let new = wanted.iter().find(|wanted| wanted.id == rule.id);
        plan.changes.push(match new {
            Some(new) if new != rule => Change::Changed(rule.clone(), new.clone()),
            None if names.contains(&rule.id) => Change::Removed(rule.clone()),
            _ => Change::Stays(rule.clone()),
        });
        if !names.contains(&rule.id) {
            plan.warnings.extend(warning(service, rule));
        }
    }
    let is_new = |rule: &&BucketRule| seen.rules.iter().all(|there| there.id != rule.id);
    plan.changes.extend(wanted.iter().filter(is_new).cloned().map(Change::Added));
    let left = plan.changes.iter().filter(|change| !matches!(change, Change::Removed(_))).count();
    if left > RULES_MAX {
        plan.refused
            .push(format!("a bucket has at most {RULES_MAX} rules, and these would be {left}: remove some of others"));
    }
    if !tiers.is_none() {
        plan.remarks.extend(remarks(tiers, packing, seen.is_versioned));
    }
    plan
}

fn remarks(tiers: &Tiers, packing: Packing, is_versioned: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    if !tiers.moves.is_empty() {
        let packs = match packing {
            Packing::Off => "most records are smaller; set `pack`, since packs are what moves",
            Packing::Hourly | Packing::Daily => "packs are what moves",
        };
        remarks.push(format!("objects under 128 KB do not move, unless the bucket says otherwise: {packs}"));
    }
    let ends = tiers.moves.iter().skip(1).map(|tier| Some(tier.after_days)).chain([tiers.expire_days]);
    for (tier, end) in tiers.moves.iter().zip(ends) {
        let (word, charged) = (tier.class.as_str(), tier.class.charged_days());
        if end.is_some_and(|end| end < tier.after_days + charged) {
            remarks
                .push(format!("{word} is charged for {charged} days at least, and what moves there leaves it sooner"));
        }
    }
    if let Some(days) = tiers.expire_days {
        remarks.push(format!("what is older than {days} days is DELETED, whatever it is: nothing brings it back"));
        if is_versioned {
            remarks.push(format!(
                "the bucket keeps versions: what goes stays {NONCURRENT_DAYS} days more as an old version"
            ));
        }
    }
    remarks.push(
        "ages count from when an object was written; S3 does it once a day, some time after midnight (UTC)".to_owned(),
    );
    remarks
}

/// What a rule of others does to what Afterimage keeps there.
fn warning(service: &ServiceName, rule: &BucketRule) -> Option<String> {
    let RuleDoes { prefix, is_off, expire_days, .. } = &rule.does;
    let days = expire_days.filter(|_| !is_off)?;
    let meets = |place: &str| prefix.starts_with(place) || place.starts_with(prefix.as_str());
    let of_service = [format!("{service}/"), format!("{PACKED}service={service}/")];
    let records = of_service.iter().any(|place| meets(place)).then(|| format!("archived records of {service}"));
    let ours = (meets(OURS) && !prefix.starts_with(STREAMS)).then(|| {
        format!("what Afterimage keeps for itself ({OURS}): notes of gaps and of packs, and records that lie aside")
    });
    let what: Vec<String> = records.into_iter().chain(ours).collect();
    (!what.is_empty()).then(|| {
        let what = what.join(", and ");
        format!(
            "rule `{}` of somebody else deletes after {days} days {what}. Give it a prefix, or a bucket of its own",
            rule.id
        )
    })
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The bucket has the rules.
    Done,
    /// Somebody changed them after they were shown: nothing was done.
    ChangedMeanwhile,
    /// They were put, and read back otherwise.
    ReadsOtherwise,
}

/// Puts what a plan says, if the bucket still has what was seen, and reads it back.
pub async fn put(bucket: &dyn BucketRules, seen: &SeenRules, plan: &Plan) -> PortResult<Put> {
    let touched = |change: &Change| match change {
        Change::Stays(_) => None,
        Change::Added(rule) | Change::Changed(_, rule) | Change::Removed(rule) => Some(rule.id.clone()),
    };
    let names: Vec<String> = plan.changes.iter().filter_map(touched).collect();
    if !bucket.replace(seen, &names, &plan.ours()).await? {
        return Ok(Put::ChangedMeanwhile);
    }
    let stays =
        plan.changes.iter().filter_map(|change| if let Change::Stays(rule) = change { Some(rule) } else { None });
    let mut expected: Vec<BucketRule> = stays.cloned().chain(plan.ours()).collect();
    let mut found = bucket.look().await?.rules;
    expected.sort_by(|one, other| one.id.cmp(&other.id));
    found.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(if found == expected { Put::Done } else { Put::ReadsOtherwise })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Tier, TierClass};
    use async_trait::async_trait;
    use std::sync::Mutex;

    fn service() -> ServiceName {
        ServiceName::new("orders").unwrap()
    }

    fn rule(id: &str, prefix: &str, expire_days: Option<u32>) -> BucketRule {
        let does = RuleDoes { prefix: prefix.to_owned(), expire_days, ..RuleDoes::default() };
        BucketRule { id: id.to_owned(), does, besides: Vec::new() }
    }

    fn tiers(expire_days: Option<u32>) -> Tiers {
        Tiers { moves: vec![Tier { after_days: 90, class: TierClass::Glacier }], expire_days }
    }

    fn planned(tiers: &Tiers, rules: Vec<BucketRule>) -> Plan {
        plan(&service(), tiers, Packing::Daily, &SeenRules { rules, is_versioned: true, mark: String::new() })
    }

    #[test]
    fn rules_of_others_stay_and_ours_are_added_changed_and_removed_by_their_names() {
        let others = vec![rule("theirs", "logs/", None), rule("afterimage-records-of-orders-2", "orders-2/", None)];
        let first = planned(&tiers(None), others.clone());
        let [Change::Stays(one), Change::Stays(two), Change::Added(objects), Change::Added(packs)] = &first.changes[..]
        else {
            panic!("{first:?}")
        };
        assert_eq!([one, two], [&others[0], &others[1]]);
        assert_eq!(objects.does.prefix, "orders/");
        assert_eq!(packs.does.prefix, "packed/service=orders/");
        assert_eq!((packs.does.moves.len(), packs.does.expire_days, packs.does.noncurrent_days), (1, None, None));
        // Put, they are what is wanted; then another age, and then none.
        let there: Vec<BucketRule> = others.iter().chain([objects, packs]).cloned().collect();
        assert!(!planned(&tiers(None), there.clone()).is_open());
        let other = planned(&tiers(Some(2_557)), there.clone());
        assert!(
            matches!(&other.changes[2..], [Change::Changed(..), Change::Changed(_, new)] if new.does.noncurrent_days == Some(30))
        );
        let none = planned(&Tiers::default(), there);
        assert!(matches!(
            &none.changes[..],
            [Change::Stays(_), Change::Stays(_), Change::Removed(_), Change::Removed(_)]
        ));
        assert!(none.is_open() && none.ours().is_empty());
    }

    #[test]
    fn what_others_delete_of_ours_is_warned_of_and_what_is_meant_is_not() {
        for (prefix, warns) in [
            ("", true),
            (".afterimage/gaps/", true),
            ("orders/2026/", true),
            ("pack", true),
            (".afterimage/streams/", false),
            ("orders-2/", false),
            ("logs/", false),
        ] {
            let plan = planned(&tiers(None), vec![rule("theirs", prefix, Some(30))]);
            assert_eq!(!plan.warnings.is_empty(), warns, "{prefix}: {:?}", plan.warnings);
        }
        let mut off = rule("theirs", "", Some(30));
        off.does.is_off = true;
        assert!(planned(&tiers(None), vec![off]).warnings.is_empty());
    }

    #[test]
    fn a_bucket_has_no_more_rules_than_it_may() {
        let rules: Vec<BucketRule> = (0..999).map(|n| rule(&n.to_string(), "logs/", None)).collect();
        assert!(planned(&tiers(None), rules.clone()).refused[0].contains("at most 1000"));
        assert!(planned(&tiers(None), rules[..998].to_vec()).is_open());
    }

    #[test]
    fn what_goes_and_what_is_charged_longer_than_it_stays_is_said() {
        let all = planned(&tiers(Some(100)), Vec::new()).remarks.join("\n");
        for part in ["under 128 KB", "GLACIER is charged for 90 days", "older than 100 days is DELETED", "30 days more"]
        {
            assert!(all.contains(part), "{part}: {all}");
        }
    }

    /// A bucket whose rules somebody else changes: before they are put, or right after.
    struct Shared {
        rules: Mutex<Vec<BucketRule>>,
        before: bool,
        after: bool,
    }

    #[async_trait]
    impl BucketRules for Shared {
        async fn look(&self) -> PortResult<SeenRules> {
            let rules = self.rules.lock().unwrap().clone();
            Ok(SeenRules { mark: format!("{rules:?}"), rules, is_versioned: false })
        }

        async fn replace(&self, seen: &SeenRules, names: &[String], by: &[BucketRule]) -> PortResult<bool> {
            let mut rules = self.rules.lock().unwrap();
            if self.before || format!("{rules:?}") != seen.mark {
                return Ok(false);
            }
            rules.retain(|rule| !names.contains(&rule.id));
            rules.extend(by.iter().cloned());
            if self.after {
                rules.remove(0);
            }
            Ok(true)
        }
    }

    #[tokio::test]
    async fn rules_that_somebody_changes_meanwhile_are_not_put_and_what_reads_back_otherwise_is_told() {
        for (before, after, ended) in
            [(false, false, Put::Done), (true, false, Put::ChangedMeanwhile), (false, true, Put::ReadsOtherwise)]
        {
            let theirs = rule("theirs", "logs/", None);
            let bucket = Shared { rules: Mutex::new(vec![theirs.clone()]), before, after };
            let seen = bucket.look().await.unwrap();
            let plan = plan(&service(), &tiers(None), Packing::Daily, &seen);
            assert_eq!(put(&bucket, &seen, &plan).await.unwrap(), ended);
            let there = bucket.rules.lock().unwrap().clone();
            assert_eq!(
                there.len(),
                if before {
                    1
                } else if after {
                    2
                } else {
                    3
                }
            );
            assert_eq!(there.contains(&theirs), !after);
        }
    }
}
