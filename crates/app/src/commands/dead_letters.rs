//! `dlq`: events that could not be handled, and deleted records that could not be archived: named, shown, put back into the
//! queue or archived after all, or dropped (which the journal notes, since nobody will handle them then: I12).

use super::queue_letters::{self, Looked};
use super::record_letters;
use crate::answer::{Answer, DeadLetterView, DeadLetters, Done, ReportView};
use crate::command::DeadLetterAct;
use crate::exit::Failure;
use crate::instance::Instance;
use crate::limits::{DEAD_LETTER_ROUNDS, DEAD_LETTERS_LISTED};
use engine::ports::events::DeadLetter;
use engine::ports::journal::{Action, Entry};
use engine::report::Report;
use lifecycle::event::{Happened, ObjectEvent};
use lifecycle::ids::PolicyName;
use tokio_util::sync::CancellationToken;

/// What lies elsewhere than in the spool.
struct Elsewhere {
    /// In queues of events.
    queues: Vec<Looked>,
    /// Records, in archives and in queues of what Lambda gave up.
    records: record_letters::Letters,
}

/// Does it. What lies in queues of services is let go afterwards, whatever came of it.
pub(crate) async fn act(
    instance: &Instance,
    act: DeadLetterAct,
    who: &str,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let queues = queue_letters::look(instance).await?;
    let mut elsewhere = Elsewhere { queues, records: record_letters::look(instance).await };
    let answer = act_on(instance, &mut elsewhere, act, who, cancel).await;
    let let_go = queue_letters::let_go(&elsewhere.queues).await;
    let records_let_go = elsewhere.records.let_go().await;
    let answer = answer?;
    let_go.and(records_let_go).map(|()| answer)
}

async fn act_on(
    instance: &Instance,
    elsewhere: &mut Elsewhere,
    act: DeadLetterAct,
    who: &str,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    match act {
        DeadLetterAct::List => {
            let here = instance.letters.list(None, DEAD_LETTERS_LISTED).await?;
            shown(instance, here, elsewhere, None).await
        }
        DeadLetterAct::Show { id } => match letter(instance, id).await? {
            Some(letter) => shown(instance, vec![letter], elsewhere, Some(id)).await,
            None if elsewhere.numbers().contains(&id) => shown(instance, Vec::new(), elsewhere, Some(id)).await,
            None => Err(Failure::failed(no_letter(id))),
        },
        DeadLetterAct::Redrive { ids } => redrive_all(instance, elsewhere, ids, cancel).await,
        DeadLetterAct::Drop { ids } => forget_all(instance, elsewhere, ids, who, cancel).await,
    }
}

impl Elsewhere {
    fn numbers(&self) -> Vec<u64> {
        let mut numbers = queue_letters::numbers(&self.queues);
        numbers.extend(self.records.numbers());
        numbers
    }

    /// A command for all of them has not done all where it does not know what there is.
    fn tell_unknown(&self, report: &mut Report) {
        for (what, why) in &self.records.unknown {
            report.fail(what, why);
        }
    }
}

async fn redrive_all(
    instance: &Instance,
    elsewhere: &mut Elsewhere,
    ids: Option<Vec<u64>>,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let numbers = elsewhere.numbers();
    let mut report = match &ids {
        None => Report::of("redrive"),
        Some(ids) => {
            let here: Vec<u64> = ids.iter().filter(|id| !numbers.contains(id)).copied().collect();
            redrive(instance, &named(instance, &here).await?).await?
        }
    };
    let there = ids.as_ref().unwrap_or(&numbers);
    report.count("redriven", queue_letters::redrive(&mut elsewhere.queues, there).await?);
    elsewhere.records.redrive(instance, there, &mut report, cancel).await?;
    if ids.is_some() {
        return done(report);
    }
    elsewhere.tell_unknown(&mut report);
    for _ in 0..DEAD_LETTER_ROUNDS {
        let letters = next(instance, cancel, &mut report).await?;
        if letters.is_empty() {
            break;
        }
        report.absorb(redrive(instance, &letters).await?);
    }
    done(report)
}

async fn forget_all(
    instance: &Instance,
    elsewhere: &mut Elsewhere,
    ids: Option<Vec<u64>>,
    who: &str,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let numbers = elsewhere.numbers();
    let mut report = match &ids {
        None => Report::of("drop"),
        Some(ids) => {
            let here: Vec<u64> = ids.iter().filter(|id| !numbers.contains(id)).copied().collect();
            forget(instance, &named(instance, &here).await?, who).await?
        }
    };
    let there = ids.as_ref().unwrap_or(&numbers);
    report.count("dropped", queue_letters::forget(instance, &mut elsewhere.queues, there, who).await?);
    report.count("dropped", elsewhere.records.forget(instance, there, who).await?);
    if ids.is_some() {
        return done(report);
    }
    elsewhere.tell_unknown(&mut report);
    for _ in 0..DEAD_LETTER_ROUNDS {
        let letters = next(instance, cancel, &mut report).await?;
        if letters.is_empty() {
            break;
        }
        report.absorb(forget(instance, &letters, who).await?);
    }
    done(report)
}

fn done(report: Report) -> Result<Answer, Failure> {
    Ok(Answer::Done(Done { reports: vec![ReportView::of(None, report)] }))
}

fn no_letter(id: u64) -> String {
    format!("there is no dead letter {id}; `afterimage dlq list` names them")
}

async fn letter(instance: &Instance, id: u64) -> Result<Option<DeadLetter>, Failure> {
    let found = instance.letters.list(id.checked_sub(1), 1).await?;
    Ok(found.into_iter().find(|letter| letter.id == id))
}

/// All of those numbers, or a refusal before anything is done.
async fn named(instance: &Instance, ids: &[u64]) -> Result<Vec<DeadLetter>, Failure> {
    let mut letters = Vec::with_capacity(ids.len());
    for id in ids {
        letters.push(letter(instance, *id).await?.ok_or_else(|| Failure::failed(no_letter(*id)))?);
    }
    Ok(letters)
}

/// The oldest that are left. What is handled leaves the list, so its beginning is always what comes next.
async fn next(
    instance: &Instance,
    cancel: &CancellationToken,
    report: &mut Report,
) -> Result<Vec<DeadLetter>, Failure> {
    if cancel.is_cancelled() {
        report.cancelled = true;
        return Ok(Vec::new());
    }
    Ok(instance.letters.list(None, DEAD_LETTERS_LISTED).await?)
}

async fn redrive(instance: &Instance, letters: &[DeadLetter]) -> Result<Report, Failure> {
    let mut report = Report::of("redrive");
    let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
    report.count("redriven", instance.letters.redrive(&ids).await?);
    Ok(report)
}

async fn forget(instance: &Instance, letters: &[DeadLetter], who: &str) -> Result<Report, Failure> {
    let mut report = Report::of("drop");
    let lines: Vec<Entry> = letters.iter().flat_map(|letter| lines_about(instance, letter, who)).collect();
    instance.journal.append(&lines).await?;
    let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
    report.count("dropped", instance.letters.drop_letters(&ids).await?);
    Ok(report)
}

/// One line for every policy that would have handled the event; one in the bucket's name when there is none.
fn lines_about(instance: &Instance, letter: &DeadLetter, who: &str) -> Vec<Entry> {
    let covering = instance.policies.covering(&letter.bucket, &letter.event.key);
    let mut names: Vec<PolicyName> = covering.iter().map(|policy| policy.name.clone()).collect();
    if names.is_empty() {
        names.push(PolicyName(letter.bucket.clone()));
    }
    let line = |policy| Entry {
        at: instance.now(),
        who: who.to_owned(),
        policy,
        action: Action::DropEvent,
        key: Some(letter.event.key.clone()),
        copy_key: None,
        size: None,
        checksum: None,
        rule: format!("{} at {}: {}", word(&letter.event), letter.event.time, letter.why),
    };
    names.into_iter().map(line).collect()
}

/// What happened, in one word.
pub(super) fn word(event: &ObjectEvent) -> &'static str {
    match event.what {
        Happened::Created(_) => "created",
        Happened::Removed => "removed",
        Happened::VersionRemoved(_) => "version-removed",
    }
}

async fn shown(
    instance: &Instance,
    letters: Vec<DeadLetter>,
    elsewhere: &Elsewhere,
    only: Option<u64>,
) -> Result<Answer, Failure> {
    let (backlog, unknown) = instance.backlog().await;
    let letters = letters.into_iter().map(|letter| DeadLetterView {
        id: letter.id,
        event: word(&letter.event).to_owned(),
        bucket: letter.bucket,
        key: letter.event.key.to_string(),
        happened_at_ms: letter.event.time.0,
        attempts: letter.attempts,
        why: letter.why,
        died_at_ms: letter.died_at.0,
        table: None,
        cause: None,
        record: None,
    });
    let mut all: Vec<DeadLetterView> = letters.collect();
    all.extend(queue_letters::views(&elsewhere.queues, only));
    all.extend(elsewhere.records.views(instance, only).await);
    let not_asked = elsewhere.records.unknown.iter().map(|(what, why)| format!("{what}: {why}"));
    Ok(Answer::DeadLetters(DeadLetters {
        now_ms: instance.now().0,
        letters: all,
        total: backlog.dead + elsewhere.records.aside(),
        unknown: unknown.into_iter().chain(not_asked).collect(),
    }))
}
