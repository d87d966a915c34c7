//! `record …`: a record is marked so that its table deletes it later, and the mark is taken back.

use super::table_named::own_or_named;
use crate::answer::{Answer, Done};
use crate::command::RecordAct;
use crate::exit::Failure;
use crate::instance::Instance;
use engine::flows::soft_delete::SoftDelete;
use engine::ports::tables::TableLook;
use engine::steps::record_keys::read_key;
use lifecycle::time::SpanMs;
use std::sync::Arc;

/// Does it.
pub(crate) async fn act(instance: &Instance, act: &RecordAct, who: &str) -> Result<Answer, Failure> {
    let (RecordAct::SoftDelete { table, .. } | RecordAct::Undelete { table, .. }) = act;
    let (table, archiving) = own_or_named(instance, table).await?;
    let (RecordAct::SoftDelete { key, .. } | RecordAct::Undelete { key, .. }) = act;
    let of_table = Arc::new(instance.services.table(&table).await?);
    // Wrong usage, which only the table can tell.
    read_key(key, &of_table.setup().await?.key).map_err(Failure::usage)?;
    let flow = SoftDelete {
        table: of_table,
        name: table.to_string(),
        journal: instance.journal.clone(),
        clock: instance.clock.clone(),
        who: who.to_owned(),
    };
    let mut report = match act {
        RecordAct::SoftDelete { after_ms, .. } => flow.soft_delete(key, SpanMs(*after_ms)).await?,
        RecordAct::Undelete { .. } => {
            let service = archiving.as_ref().map(|archiving| archiving.config.service.as_str());
            flow.undelete(key, service).await?
        }
    };
    if archiving.is_none() && report.counted("soft-deleted") > 0 {
        let note = "nobody here archives the table: once the record is deleted, nothing brings it back";
        report.notes.push(note.to_owned());
    }
    let mut done = Done::default();
    done.of_table(&table.to_string(), report);
    Ok(Answer::Done(done))
}
