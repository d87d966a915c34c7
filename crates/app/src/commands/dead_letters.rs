//! `dlq`: events that could not be handled: named, shown, put back into the queue, or dropped (which the journal notes,
//! since nobody will handle them then: I12).

use super::queue_letters::{self, Looked};
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

/// Does it. What lies in queues of services is let go afterwards, whatever came of it.
pub(crate) async fn act(
    instance: &Instance,
    act: DeadLetterAct,
    who: &str,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut looked = queue_letters::look(instance).await?;
    let answer = act_on(instance, &mut looked, act, who, cancel).await;
    let let_go = queue_letters::let_go(&looked).await;
    let answer = answer?;
    let_go.map(|()| answer)
}

async fn act_on(
    instance: &Instance,
    looked: &mut [Looked],
    act: DeadLetterAct,
    who: &str,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let elsewhere = queue_letters::numbers(looked);
    match act {
        DeadLetterAct::List => {
            let here = instance.letters.list(None, DEAD_LETTERS_LISTED).await?;
            shown(instance, here, queue_letters::views(looked, None)).await
        }
        DeadLetterAct::Show { id } => match letter(instance, id).await? {
            Some(letter) => shown(instance, vec![letter], Vec::new()).await,
            None if elsewhere.contains(&id) => {
                shown(instance, Vec::new(), queue_letters::views(looked, Some(id))).await
            }
            None => Err(Failure::failed(no_letter(id))),
        },
        DeadLetterAct::Redrive { ids: Some(ids) } => {
            let (there, here) = ids.into_iter().partition::<Vec<u64>, _>(|id| elsewhere.contains(id));
            let mut report = redrive(instance, &named(instance, &here).await?).await?;
            report.count("redriven", queue_letters::redrive(looked, &there).await?);
            done(report)
        }
        DeadLetterAct::Drop { ids: Some(ids) } => {
            let (there, here) = ids.into_iter().partition::<Vec<u64>, _>(|id| elsewhere.contains(id));
            let mut report = forget(instance, &named(instance, &here).await?, who).await?;
            report.count("dropped", queue_letters::forget(instance, looked, &there, who).await?);
            done(report)
        }
        DeadLetterAct::Redrive { ids: None } => {
            let mut report = Report::of("redrive");
            report.count("redriven", queue_letters::redrive(looked, &elsewhere).await?);
            for _ in 0..DEAD_LETTER_ROUNDS {
                let letters = next(instance, cancel, &mut report).await?;
                if letters.is_empty() {
                    break;
                }
                report.absorb(redrive(instance, &letters).await?);
            }
            done(report)
        }
        DeadLetterAct::Drop { ids: None } => {
            let mut report = Report::of("drop");
            report.count("dropped", queue_letters::forget(instance, looked, &elsewhere, who).await?);
            for _ in 0..DEAD_LETTER_ROUNDS {
                let letters = next(instance, cancel, &mut report).await?;
                if letters.is_empty() {
                    break;
                }
                report.absorb(forget(instance, &letters, who).await?);
            }
            done(report)
        }
    }
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
    elsewhere: Vec<DeadLetterView>,
) -> Result<Answer, Failure> {
    let total = instance.backlog().await.0.dead;
    let letters = letters.into_iter().map(|letter| DeadLetterView {
        id: letter.id,
        event: word(&letter.event).to_owned(),
        bucket: letter.bucket,
        key: letter.event.key.to_string(),
        happened_at_ms: letter.event.time.0,
        attempts: letter.attempts,
        why: letter.why,
        died_at_ms: letter.died_at.0,
    });
    Ok(Answer::DeadLetters(DeadLetters {
        now_ms: instance.now().0,
        letters: letters.chain(elsewhere).collect(),
        total,
    }))
}
