//! What is said of archived records that lie in archive tiers: how much it is, and what it takes. To ask for it costs money, so
//! that nothing is asked for unless a person says so; whatever is on its way is not asked for again.

use crate::archiving::Archiving;
use crate::command::{RetrieveOf, SpeedOf};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::Instance;
use engine::flows::retrieve::Patience;
use engine::ports::objects::{Retrieval, Speed};
use engine::steps::away::AwaySum;
use engine::wrap::unpacked::Unpacked;
use indicatif::HumanBytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How long it takes, by how fast it is asked for.
const TAKES: &str = "`--retrieve standard` asks for them (3 to 5 hours, 12 from DEEP_ARCHIVE), `--retrieve bulk` for less money \
                     (5 to 12 hours, 48), `--retrieve expedited` for more (minutes, not from DEEP_ARCHIVE)";

impl RetrieveOf {
    /// The terms, if it may be asked for at all.
    pub(super) fn terms(&self) -> Option<Retrieval> {
        let speed = match self.speed? {
            SpeedOf::Standard => Speed::Standard,
            SpeedOf::Bulk => Speed::Bulk,
            SpeedOf::Expedited => Speed::Expedited,
        };
        Some(Retrieval { speed, days: self.days })
    }

    /// An archive to read on these terms.
    pub(super) fn reader(&self, instance: &Instance, archiving: &Archiving) -> Result<Arc<Unpacked>, Failure> {
        Ok(Arc::new(Unpacked::asking(archiving.objects(instance)?, self.terms())))
    }

    /// Whether and how it is awaited.
    pub(super) fn patience<'a>(
        &self,
        instance: &'a Instance,
        feed: &'a Feed,
        cancel: &'a CancellationToken,
    ) -> Patience<'a> {
        Patience { wait: self.wait, clock: instance.clock.as_ref(), progress: feed, cancel }
    }
}

/// What some archives have in archive tiers, together.
pub(super) fn sum_of(archives: &[Arc<Unpacked>]) -> AwaySum {
    archives.iter().map(|archive| archive.away().sum()).fold(AwaySum::default(), |one, other| AwaySum {
        objects: one.objects + other.objects,
        bytes: one.bytes + other.bytes,
        not_asked: one.not_asked + other.not_asked,
        asked_now: one.asked_now + other.asked_now,
        classes: one.classes.union(&other.classes).cloned().collect(),
    })
}

/// What was not read, and what to do, in words; `None`: nothing lies in archive tiers.
pub(super) fn told(sum: &AwaySum) -> Option<String> {
    let AwaySum { objects, bytes, not_asked, asked_now, classes } = sum;
    let before = objects - not_asked - asked_now;
    let classes: Vec<&str> = BTreeSet::iter(classes).map(String::as_str).collect();
    let of = if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) };
    let objects = match objects {
        0 => return None,
        1 => "1 object".to_owned(),
        n => format!("{n} objects"),
    };
    let all = format!(
        "{objects}, {} in all, that this needs cannot be read: archive tiers have them{of}",
        HumanBytes(*bytes)
    );
    let asked = match (asked_now, before) {
        (0, 0) => String::new(),
        (now, 0) => format!("; {now} asked for now"),
        (0, before) => format!("; {before} on the way already"),
        (now, before) => format!("; {now} asked for now, {before} on the way already"),
    };
    Some(match not_asked {
        0 => format!("{all}{asked}. Give the same command again when they have come, or now with --wait"),
        not_asked => format!("{all}{asked}; {not_asked} not asked for, since that costs money. {TAKES}"),
    })
}

/// The end of a command that cannot do without what lies in archive tiers.
pub(super) fn refused(sum: &AwaySum) -> Failure {
    let why = "what it needs lies in an archive tier: give the same command again";
    Failure::awaits(told(sum).unwrap_or_else(|| why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_it_is_and_what_it_takes_is_said_and_nothing_where_all_can_be_read() {
        let sum = |not_asked, asked_now| AwaySum {
            objects: 3,
            bytes: 2 << 30,
            not_asked,
            asked_now,
            classes: BTreeSet::from(["GLACIER".to_owned()]),
        };
        for (not_asked, asked_now, parts) in [
            (
                3,
                0,
                &["3 objects, 2.00 GiB in all", "(GLACIER)", "3 not asked for, since that costs", "--retrieve bulk"][..],
            ),
            (1, 1, &["; 1 asked for now, 1 on the way already; 1 not asked for"]),
            (0, 3, &["; 3 asked for now. Give the same command again when they have come, or now with --wait"]),
            (0, 0, &["; 3 on the way already. Give"]),
        ] {
            let said = told(&sum(not_asked, asked_now)).unwrap();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
        assert_eq!(told(&AwaySum::default()), None);
    }
}
