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
use lifecycle::ids::{ObjectKey, PolicyName};
use tokio_util::sync::CancellationToken;

/// What lies elsewhere than in the spool.
#[derive(Default)]
struct Elsewhere {
    /// In queues of events.
    queues: Vec<Looked>,
    /// Queues of events that could not be asked, each with the reason.
    unknown: Vec<(String, String)>,
    /// Records, in archives and in queues of what Lambda gave up.
    records: record_letters::Letters,
}

/// What becomes of letters.
#[derive(Clone, Copy)]
enum Fate<'a> {
    /// They are handled after all.
    Redrive,
    /// They are forgotten, as that person says.
    Drop(&'a str),
}

/// Does it. What lies in queues of services is let go afterwards, whatever came of it.
pub(crate) async fn act(
    instance: &Instance,
    act: DeadLetterAct,
    who: &str,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut elsewhere = Elsewhere::look(instance).await;
    let answer = act_on(instance, &mut elsewhere, act, who, cancel).await;
    if let Err(failure) = elsewhere.let_go().await {
        // What was done is done, and is told.
        tracing::warn!("dead letters that were looked at stay hidden for a while: {}", failure.chain());
    }
    answer
}

async fn act_on(
    instance: &Instance,
    elsewhere: &mut Elsewhere,
    act: DeadLetterAct,
    who: &str,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let (fate, ids) = match act {
        DeadLetterAct::List => {
            let here = instance.letters.list(None, DEAD_LETTERS_LISTED).await?;
            return shown(instance, here, elsewhere, None).await;
        }
        DeadLetterAct::Show { id } => {
            return match letter(instance, id).await? {
                Some(letter) => shown(instance, vec![letter], elsewhere, Some(id)).await,
                None if elsewhere.numbers().contains(&id) => shown(instance, Vec::new(), elsewhere, Some(id)).await,
                None => Err(elsewhere.no_letter(id)),
            };
        }
        DeadLetterAct::Redrive { ids } => (Fate::Redrive, ids),
        DeadLetterAct::Drop { ids } => (Fate::Drop(who), ids),
    };
    let report = match ids {
        Some(ids) => fate.of(instance, elsewhere, &ids, cancel).await?,
        None => fate.of_all(instance, elsewhere, cancel).await?,
    };
    Ok(Answer::Done(Done { reports: vec![ReportView::of(None, report)] }))
}

impl Elsewhere {
    async fn look(instance: &Instance) -> Elsewhere {
        let (queues, unknown) = queue_letters::look(instance).await;
        Elsewhere { queues, unknown, records: record_letters::look(instance).await }
    }

    /// What could not be asked, each with the reason.
    fn unknown(&self) -> impl Iterator<Item = &(String, String)> {
        self.unknown.iter().chain(&self.records.unknown)
    }

    /// Ends looking.
    async fn let_go(&self) -> Result<(), Failure> {
        let let_go = queue_letters::let_go(&self.queues).await;
        let_go.and(self.records.let_go().await)
    }

    fn numbers(&self) -> Vec<u64> {
        let mut numbers = queue_letters::numbers(&self.queues);
        numbers.extend(self.records.numbers());
        numbers
    }

    /// A number that nobody has; or nobody who could be asked.
    fn no_letter(&self, id: u64) -> Failure {
        let not_asked: String = self.unknown().map(|(what, why)| format!("; {what} cannot be asked: {why}")).collect();
        Failure::failed(format!("there is no dead letter {id}; `afterimage dlq list` names them{not_asked}"))
    }

    /// All of those numbers in the spool, or a refusal before anything is done.
    async fn named(&self, instance: &Instance, ids: &[u64]) -> Result<Vec<DeadLetter>, Failure> {
        let mut letters = Vec::with_capacity(ids.len());
        for id in ids {
            letters.push(letter(instance, *id).await?.ok_or_else(|| self.no_letter(*id))?);
        }
        Ok(letters)
    }

    /// Where there may be more than a look shows.
    fn more(&self) -> Vec<String> {
        let queues = self.queues.iter().filter(|looked| looked.more).map(Looked::name);
        queues.chain(self.records.more()).collect()
    }

    /// Looks again at what is left; `false`: there is nothing, or it cannot be asked.
    async fn look_again(&mut self, instance: &Instance, report: &mut Report) -> bool {
        if self.more().is_empty() {
            return false;
        }
        let let_go = std::mem::take(self).let_go().await;
        if let Err(failure) = let_go {
            report.fail("the rest of the dead letters", failure.chain());
            return false;
        }
        *self = Elsewhere::look(instance).await;
        true
    }

    /// A command for all of them has not done all where it does not know what there is.
    fn tell_unknown(&self, report: &mut Report) {
        for (what, why) in self.unknown() {
            report.fail(what, why);
        }
    }
}

impl Fate<'_> {
    fn command(self) -> &'static str {
        match self {
            Fate::Redrive => "redrive",
            Fate::Drop(_) => "drop",
        }
    }

    /// Those numbers.
    async fn of(
        self,
        instance: &Instance,
        elsewhere: &mut Elsewhere,
        ids: &[u64],
        cancel: &CancellationToken,
    ) -> Result<Report, Failure> {
        let numbers = elsewhere.numbers();
        let here: Vec<u64> = ids.iter().filter(|id| !numbers.contains(id)).copied().collect();
        let mut report = self.here(instance, &elsewhere.named(instance, &here).await?).await?;
        self.there(instance, elsewhere, ids, &mut report, cancel).await;
        Ok(report)
    }

    /// All that there are: rounds of what a look shows, as long as nothing fails, since what failed would be seen again.
    async fn of_all(
        self,
        instance: &Instance,
        elsewhere: &mut Elsewhere,
        cancel: &CancellationToken,
    ) -> Result<Report, Failure> {
        let mut report = Report::of(self.command());
        for _ in 0..DEAD_LETTER_ROUNDS {
            let numbers = elsewhere.numbers();
            self.there(instance, elsewhere, &numbers, &mut report, cancel).await;
            let goes_on = report.is_success() && !cancel.is_cancelled();
            if !goes_on || !elsewhere.look_again(instance, &mut report).await {
                break;
            }
        }
        elsewhere.tell_unknown(&mut report);
        for more in elsewhere.more() {
            let again = self.command();
            report.fail(more, format!("there may be more than were looked at: give `dlq {again} --all` again"));
        }
        for _ in 0..DEAD_LETTER_ROUNDS {
            if cancel.is_cancelled() {
                report.cancelled = true;
                break;
            }
            // What is handled leaves the list, so its beginning is always what comes next.
            let letters = instance.letters.list(None, DEAD_LETTERS_LISTED).await?;
            if letters.is_empty() {
                break;
            }
            report.absorb(self.here(instance, &letters).await?);
        }
        Ok(report)
    }

    /// Letters of the spool.
    async fn here(self, instance: &Instance, letters: &[DeadLetter]) -> Result<Report, Failure> {
        let mut report = Report::of(self.command());
        let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
        match self {
            Fate::Redrive => report.count("redriven", instance.letters.redrive(&ids).await?),
            Fate::Drop(who) => {
                let lines: Vec<Entry> = letters.iter().flat_map(|letter| lines_about(instance, letter, who)).collect();
                instance.journal.append(&lines).await?;
                report.count("dropped", instance.letters.drop_letters(&ids).await?);
            }
        }
        Ok(report)
    }

    /// Letters elsewhere: what fails is in the report.
    async fn there(
        self,
        instance: &Instance,
        Elsewhere { queues, records, .. }: &mut Elsewhere,
        chosen: &[u64],
        report: &mut Report,
        cancel: &CancellationToken,
    ) {
        match self {
            Fate::Redrive => {
                queue_letters::redrive(queues, chosen, report).await;
                records.redrive(instance, chosen, report, cancel).await;
            }
            Fate::Drop(who) => {
                queue_letters::forget(instance, queues, chosen, who, report).await;
                records.forget(instance, chosen, who, report).await;
            }
        }
    }
}

async fn letter(instance: &Instance, id: u64) -> Result<Option<DeadLetter>, Failure> {
    let found = instance.letters.list(id.checked_sub(1), 1).await?;
    Ok(found.into_iter().find(|letter| letter.id == id))
}

/// One line for every policy that would have handled the event; one in the bucket's name when there is none.
fn lines_about(instance: &Instance, letter: &DeadLetter, who: &str) -> Vec<Entry> {
    let covering = instance.policies.covering(&letter.bucket, &letter.event.key);
    let mut names: Vec<PolicyName> = covering.iter().map(|policy| policy.name.clone()).collect();
    if names.is_empty() {
        names.push(PolicyName(letter.bucket.clone()));
    }
    let rule = format!("{} at {}: {}", word(&letter.event), letter.event.time, letter.why);
    let line = |policy| dropped(instance, who, policy, Some(letter.event.key.clone()), rule.clone());
    names.into_iter().map(line).collect()
}

/// What the journal says of a letter that is dropped.
pub(super) fn dropped(
    instance: &Instance,
    who: &str,
    policy: PolicyName,
    key: Option<ObjectKey>,
    rule: String,
) -> Entry {
    Entry {
        at: instance.now(),
        who: who.to_owned(),
        policy,
        action: Action::DropEvent,
        key,
        copy_key: None,
        size: None,
        checksum: None,
        rule,
    }
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
    let not_asked = elsewhere.unknown().map(|(what, why)| format!("{what}: {why}"));
    Ok(Answer::DeadLetters(DeadLetters {
        now_ms: instance.now().0,
        letters: all,
        total: backlog.dead + elsewhere.records.aside(),
        unknown: unknown.into_iter().chain(not_asked).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::opened;
    use crate::intake::Intake;
    use crate::wiring::archiving_of_own_table;
    use aws::{SqsQueue, SqsSettings};
    use aws_sdk_sqs::config::retry::RetryConfig;
    use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
    use engine::driver::Policies;
    use engine::memory::clock::MemoryClock;
    use engine::ports::objects::Attributes;
    use lifecycle::time::UnixMs;
    use std::sync::Arc;

    /// A queue at an address where nobody listens.
    fn away(instance: &Instance) -> Intake {
        let keys = Credentials::new("test", "test", None, None, "test");
        let config = aws::SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url("http://127.0.0.1:9")
            .retry_config(RetryConfig::disabled())
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build();
        let queue = SqsQueue::new(&config, "away", SqsSettings::default(), instance.clock.clone());
        Intake { name: "sqs://away".to_owned(), queue: Arc::new(queue), policies: Policies::default() }
    }

    #[tokio::test]
    async fn a_queue_that_does_not_answer_hides_no_other_letters_and_is_told() {
        let (_root, instance) = opened(Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)))).await;
        let archiving = archiving_of_own_table(&instance, "Orders").await.unwrap();
        let name = ObjectKey::new(".afterimage/aside/Orders/1-whole.json").unwrap();
        let text = r#"{"format":1,"table":"Orders","why":"no image","record":{}}"#;
        let writer = archiving.writer(&instance).unwrap();
        assert!(writer.put_new(&name, text.into(), &Attributes::default()).await.unwrap());
        instance.intakes.write().unwrap().insert("sqs://away".to_owned(), away(&instance));
        let cancel = CancellationToken::new();
        let listed = act(&instance, DeadLetterAct::List, "alice", &cancel).await.unwrap();
        let Answer::DeadLetters(listed) = listed else { panic!("it is a list") };
        assert_eq!((listed.letters.len(), listed.letters[0].why.as_str()), (1, "no image"));
        assert!(listed.unknown.iter().any(|unknown| unknown.starts_with("sqs://away: ")), "{:?}", listed.unknown);
        // Which numbers it has, nobody knows.
        let shown = act(&instance, DeadLetterAct::Show { id: 4711 }, "alice", &cancel).await.unwrap_err();
        assert!(shown.chain().contains("sqs://away cannot be asked"), "{}", shown.chain());
        let dropped = act(&instance, DeadLetterAct::Drop { ids: None }, "alice", &cancel).await.unwrap();
        let Answer::Done(Done { reports }) = dropped else { panic!("it is a report") };
        assert_eq!((reports[0].counts.get("dropped"), reports[0].failures), (Some(&1), 1), "and not all was done");
    }

    /// What a newer version laid aside is no rubbish, and neither is what cannot be read just now.
    #[tokio::test]
    async fn only_what_can_be_read_or_never_will_be_is_dropped() {
        let (_root, instance) = opened(Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)))).await;
        let archiving = archiving_of_own_table(&instance, "Orders").await.unwrap();
        let writer = archiving.writer(&instance).unwrap();
        for (name, text) in [
            ("1-newer", r#"{"format":2,"table":"Orders","why":"no image","record":{}}"#),
            ("2-damaged", "{"),
            ("3-whole", r#"{"format":1,"table":"Orders","why":"no image","record":{}}"#),
        ] {
            let name = ObjectKey::new(format!(".afterimage/aside/Orders/{name}.json")).unwrap();
            assert!(writer.put_new(&name, text.into(), &Attributes::default()).await.unwrap());
        }
        let drop_all = DeadLetterAct::Drop { ids: None };
        let done = act(&instance, drop_all, "alice", &CancellationToken::new()).await.unwrap();
        let Answer::Done(Done { reports }) = done else { panic!("it is a report") };
        assert_eq!((reports[0].counts.get("dropped"), reports[0].failures), (Some(&2), 1));
        assert!(reports[0].failed[0].why.contains("use a newer version"), "{}", reports[0].failed[0].why);
        assert_eq!(record_letters::look(&instance).await.aside(), 1);
    }
}
