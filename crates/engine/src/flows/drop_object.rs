//! Drop: takes out of an archive what a person has seen and needs no more: a note of a gap, refused lines of a feed, or a pack
//! that is damaged while everything that it has is there as objects. A record, or a pack that may be needed, is never dropped.
//!
//! Order of writes: the journal's line, the object, and for a pack its note. A crash leaves a pack's note, which the next pack of
//! that number replaces; given again, the command ends what it began. Laws: I3 (through `steps/purge.rs`), I12.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::ports::clock::Clock;
use crate::ports::journal::Journal;
use crate::ports::objects::ObjectRead;
use crate::report::Report;
use crate::steps::originals::open_day;
use crate::steps::outbox::REFUSED_PREFIX;
use crate::steps::packs::PackPlace;
use crate::steps::purge::{Purger, purge_dropped};
use crate::steps::shard_places::GAPS_PREFIX;
use lifecycle::archive::ServiceName;
use lifecycle::ids::ObjectKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An archive, and what else dropping needs.
pub struct DropObject {
    /// The archive.
    pub archive: Arc<dyn ObjectRead>,
    /// The right to delete from it.
    pub purger: Purger,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who asks.
    pub who: String,
}

impl DropObject {
    /// Drops one object of a service's archive. Counts `dropped`; what must stay is a failure that says why.
    pub async fn run(&self, service: &ServiceName, name: &ObjectKey) -> Report {
        let mut report = Report::of("archive drop");
        report.count("dropped", 0);
        if let Err(error) = self.one(service, name, &mut report).await {
            report.fail_with(name, &error);
        }
        report
    }

    async fn one(&self, service: &ServiceName, name: &ObjectKey, report: &mut Report) -> PortResult<()> {
        let stays = |why: &str| Err(PortError::new("drop", name, ErrorKind::Invalid(why.to_owned())));
        let mut names = vec![name.clone()];
        match PackPlace::parse(name) {
            Some(place) if place.service != *service => return stays("it is a pack of another service"),
            Some(place) => {
                let day = open_day(self.archive.as_ref(), service, &place.day, &BTreeMap::new()).await?;
                let is_damaged = |(other, error): &(ObjectKey, PortError)| {
                    other == name && matches!(error.kind, ErrorKind::Damaged(_))
                };
                if !day.passed_over.iter().any(is_damaged) {
                    return stays("it is no damaged pack, and stays");
                }
                names.push(place.note());
            }
            None if [GAPS_PREFIX, REFUSED_PREFIX].iter().any(|prefix| name.as_str().starts_with(prefix)) => {}
            None => return stays("only notes of gaps, refused lines of feeds and damaged packs can be dropped"),
        }
        let about = (service, self.who.as_str(), self.clock.now());
        purge_dropped(&self.purger, self.journal.as_ref(), about, &names, report).await
    }
}
