//! `audit`: reads the whole journal, verifies every link of its chain, and shows the newest lines.

use crate::answer::{Answer, Audit, JournalLine};
use crate::exit::Failure;
use crate::instance::Instance;
use engine::ports::journal::{JournalRead, Line};

/// Reads and verifies.
pub(crate) async fn audit(instance: &Instance, lines: usize) -> Result<Answer, Failure> {
    let found = instance.journal_read.audit().await?;
    let newest = match lines {
        0 => Vec::new(),
        lines => instance.journal_read.about(None, lines).await?,
    };
    let newest = newest.into_iter().map(line).collect();
    Ok(Answer::Audit(Audit { lines: found.lines, head: found.head, faults: found.faults, newest }))
}

/// A line of the journal as commands show it.
pub(crate) fn line(line: Line) -> JournalLine {
    JournalLine {
        number: line.number,
        at_ms: line.at.0,
        who: line.who,
        policy: line.policy.0,
        action: line.action,
        key: line.key,
        copy_key: line.copy_key,
        size: line.size,
        rule: line.rule,
    }
}
