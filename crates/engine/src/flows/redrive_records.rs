//! Redrive of records: what could not be archived is archived after all, once its cause is gone.
//!
//! The note goes only after the record is durable in the archive, or is found there: a crash in between leaves both, and
//! the command is given again. What still cannot be archived stays where it lies, and is named with the reason. Laws: I8, I12.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::flows::archive::Archive;
use crate::format::laid_aside::Note;
use crate::ports::objects::ObjectRead;
use crate::ports::streams::{Change, StreamRecord};
use crate::report::Report;
use crate::steps::aside::{AsidePurger, Laid, read_aside};
use crate::steps::outbox::{Outbox, REDRIVEN};

/// Reads a note's record as the table's stream would tell it; an error in words: it says not even where it stood.
pub type ReadNote<'a> = &'a (dyn Fn(&Note) -> Result<StreamRecord, String> + Sync);

/// What a redrive works with.
pub struct RedriveRecords<'a> {
    /// The archive of the table, to write.
    pub archive: &'a Archive,
    /// The same, to read.
    pub reader: &'a dyn ObjectRead,
    /// What is to be told, where somebody is.
    pub outbox: Option<&'a Outbox>,
    /// The right to remove notes.
    pub aside: &'a AsidePurger,
    /// How records are read.
    pub read: ReadNote<'a>,
}

impl RedriveRecords<'_> {
    /// Archives one record that lies aside. Counts `redriven`; what still cannot be archived is a failure with its name.
    pub async fn run(&self, laid: &Laid, report: &mut Report) {
        match self.one(laid).await {
            Ok(true) => report.count("redriven", 1),
            // Somebody else was faster.
            Ok(false) => {}
            Err(error) => report.fail_with(&laid.name, &error),
        }
    }

    async fn one(&self, laid: &Laid) -> PortResult<bool> {
        let Some(note) = read_aside(self.reader, &laid.name).await? else { return Ok(false) };
        let refused = |why: String| PortError::new("archive record", &laid.name, ErrorKind::Invalid(why));
        let record = (self.read)(&note).map_err(refused)?;
        let stored = self.archive.archive_again(&record).await?.map_err(|why| refused(format!("still not: {why}")))?;
        if let (Some(outbox), Some(stored), Change::Deleted(deleted)) = (self.outbox, &stored, &record.change) {
            outbox.put(REDRIVEN, REDRIVEN, &[(deleted.as_ref(), stored)]).await?;
        }
        self.aside.remove(&laid.name).await?;
        Ok(true)
    }
}
