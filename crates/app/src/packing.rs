//! Packing of archived records: by schedule while `serve` runs, and by `archive pack`.
//!
//! A service's records in one destination are packed together, whichever tables they are of. What a run leaves undone, the
//! next one does: a crash needs no repair.

use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::instance::{Instance, UNPOISONED};
use crate::schedule::wait_until;
use engine::config::{ArchiveConfig, Packing};
use engine::flows::pack::{PackRecords, PackRequest};
use engine::ports::progress::Silent;
use engine::steps::archived_names::Days;
use engine::steps::purge::Purger;
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A day's last records are archived some time after it: an hour later it is packed.
const AFTER_A_DAY: SpanMs = SpanMs::hours(1);
/// The same of an hour.
const AFTER_AN_HOUR: SpanMs = SpanMs::minutes(5);
/// Days that every run looks at: those of which records may still come, and whose originals may go.
const RECENT: SpanMs = SpanMs::days(34);
/// How often all days are looked at.
const ALL_DAYS_EVERY: SpanMs = SpanMs::days(7);

/// What packs an archive's records.
pub(crate) fn packer(instance: &Instance, archiving: &Archiving, who: &str) -> Result<PackRecords, Failure> {
    let purger = match archiving.config.removes_originals {
        true => Some(Purger::new(archiving.purger(instance)?)),
        false => None,
    };
    Ok(PackRecords {
        archive: archiving.writer(instance)?,
        purger,
        journal: instance.journal.clone(),
        clock: instance.clock.clone(),
        scratch: instance.folder.path().to_owned(),
        who: who.to_owned(),
    })
}

/// The archives of which each is packed for all that share its service and destination.
pub(crate) fn to_pack(archivings: Vec<Arc<Archiving>>) -> Vec<Arc<Archiving>> {
    let mut chosen: Vec<Arc<Archiving>> = Vec::new();
    for archiving in archivings {
        let ArchiveConfig { service, destination, .. } = &archiving.config;
        let same =
            |other: &Arc<Archiving>| other.config.service == *service && other.config.destination == *destination;
        if !chosen.iter().any(same) {
            chosen.push(archiving);
        }
    }
    chosen
}

/// Packs one archive by its schedule, and once at the start, until cancelled.
pub(crate) async fn pack_by_schedule(instance: Arc<Instance>, archiving: Arc<Archiving>, cancel: CancellationToken) {
    let service = &archiving.config.service;
    let mut all_days_at: Option<UnixMs> = None;
    loop {
        let now = instance.now();
        let (until, again) = match archiving.config.pack {
            Packing::Off => return,
            Packing::Hourly => (now, next(now, SpanMs::hours(1), AFTER_AN_HOUR)),
            Packing::Daily => (day_before(now), next(now, SpanMs::days(1), AFTER_A_DAY)),
        };
        // Days whose originals have gone have nothing to do: they are listed once in a while.
        let is_time_for_all = all_days_at.is_none_or(|at| now >= at.plus(ALL_DAYS_EVERY));
        if is_time_for_all {
            all_days_at = Some(now);
        }
        let from = (!is_time_for_all).then(|| now.minus(RECENT));
        let days = Days { from, until: Some(until) };
        let request = PackRequest { service: service.clone(), days, dry_run: false };
        match packer(&instance, &archiving, "service") {
            Ok(packer) => {
                // One service after the other: each holds a pack's rows in memory, and its file on the disk.
                let _turn = instance.packing.lock().await;
                let report = packer.run(&request, &Silent, &cancel).await;
                for failed in &report.failed {
                    tracing::error!(service = %service, object = failed.object, "packing failed: {}", failed.why);
                }
                let (packed, removed) = (report.counted("packed"), report.counted("originals-removed"));
                if packed + removed > 0 {
                    tracing::info!(service = %service, packed, removed, "archived records were packed");
                }
                let first = report.failed.first().map(|failed| format!("{}: {}", failed.object, failed.why));
                note(&archiving, first.map(|first| (instance.now(), first)));
            }
            Err(failure) => {
                tracing::error!(service = %service, "cannot pack: {}", failure.chain());
                note(&archiving, Some((instance.now(), failure.chain())));
            }
        }
        if !wait_until(&instance, again, now, &cancel).await {
            return;
        }
    }
}

/// Keeps for `status` how packing ended.
fn note(archiving: &Archiving, ended: Option<(UnixMs, String)>) {
    *archiving.not_packed.lock().expect(UNPOISONED) = ended;
}

/// The last day that is over, and had time for its last records.
fn day_before(now: UnixMs) -> UnixMs {
    UnixMs(now.0 - (SpanMs::days(1).0 + AFTER_A_DAY.0) as i64)
}

/// When the next period has begun and that time has passed.
fn next(now: UnixMs, period: SpanMs, after: SpanMs) -> UnixMs {
    let (period, after) = (period.0 as i64, after.0 as i64);
    UnixMs((now.0 - after).div_euclid(period) * period + period + after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMs {
        UnixMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn days_are_packed_an_hour_after_their_end_and_hours_five_minutes_after_theirs() {
        let day = |now| next(at(now), SpanMs::days(1), AFTER_A_DAY);
        assert_eq!(day("2026-11-21T00:59:59Z"), at("2026-11-21T01:00:00Z"));
        assert_eq!(day("2026-11-21T01:00:00Z"), at("2026-11-22T01:00:00Z"));
        let hour = |now| next(at(now), SpanMs::hours(1), AFTER_AN_HOUR);
        assert_eq!(hour("2026-11-21T10:04:00Z"), at("2026-11-21T10:05:00Z"));
        assert_eq!(hour("2026-11-21T10:06:00Z"), at("2026-11-21T11:05:00Z"));
        // What is packed then: whole days only.
        assert_eq!(day_before(at("2026-11-21T01:00:00Z")), at("2026-11-20T00:00:00Z"));
        assert_eq!(day_before(at("2026-11-21T00:30:00Z")), at("2026-11-19T23:30:00Z"));
    }
}
