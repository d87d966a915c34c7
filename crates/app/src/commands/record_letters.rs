//! Dead letters of records, beside those of events: what lies aside in the archives, and what Lambda gave up, in the queues
//! that the archives name. `dlq` treats all of them alike.
//!
//! A letter goes only after its records are durable in the archive, or are found there (I8); one that is dropped leaves a
//! line in the journal first (I12). A crash in between leaves a letter whose records are archived: given again, that is
//! found. What cannot be asked is told, and holds up nothing else.

use super::dead_letters::dropped;
use super::queue_letters::take;
use crate::answer::DeadLetterView;
use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::gone_tables::archivings_with_notes;
use crate::instance::Instance;
use crate::limits::{ASIDE_NAMED_MAX, DEAD_LETTERS_LISTED};
use aws::parse::failures::{FailedRecords, Place, read_failed};
use aws::parse::records::{RecordedTable, cause_of_record, read_record, table_of_stream};
use aws::{QueueLetter, SqsQueue};
use engine::error::{ErrorKind, PortResult};
use engine::flows::archive::{Archive, Batch};
use engine::flows::redrive_records::RedriveRecords;
use engine::flows::resolve::Resolving;
use engine::format::laid_aside::Note;
use engine::limits::COMMAND_KEYS_IN_FLIGHT;
use engine::ports::streams::StreamRecord;
use engine::report::{Report, chain};
use engine::steps::aside::{Laid, laid_aside, read_aside};
use engine::steps::outbox::REDRIVEN;
use futures_util::{StreamExt, stream};
use lifecycle::ids::PolicyName;
use lifecycle::time::UnixMs;
use serde_json::Value;
use std::future::ready;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The letters of records.
#[derive(Default)]
pub(super) struct Letters {
    aside: Vec<Aside>,
    queues: Vec<Queue>,
    /// Where there may be more than were looked at.
    more: Vec<String>,
    /// What could not be asked, each with the reason.
    pub(super) unknown: Vec<(String, String)>,
}

/// A record that lies aside in an archive.
#[derive(Clone)]
struct Aside {
    archiving: Arc<Archiving>,
    laid: Laid,
}

/// A queue of what Lambda gave up, looked at, and hidden from others until it is let go.
struct Queue {
    name: String,
    queue: Arc<SqsQueue>,
    letters: Vec<QueueLetter>,
}

/// Looks into every archive, and every queue that one names.
pub(super) async fn look(instance: &Instance) -> Letters {
    let mut found = Letters::default();
    let (archivings, gone) = archivings_with_notes(instance).await;
    if let Err(failure) = gone {
        found.unknown.push(("what lies aside of tables that are gone".to_owned(), failure.chain()));
    }
    for archiving in archivings {
        let aside = format!("what lies aside of {}", archiving.config.table);
        match aside_of(instance, &archiving).await {
            Ok((all, is_all)) => {
                found.aside.extend(all.into_iter().map(|laid| Aside { archiving: archiving.clone(), laid }));
                found.more.extend((!is_all).then_some(aside));
            }
            Err(failure) => found.unknown.push((aside, failure.chain())),
        }
        let Some((name, queue)) = archiving.failures() else { continue };
        if found.queues.iter().any(|other| other.name == name) {
            continue;
        }
        match queue.look_at_letters(DEAD_LETTERS_LISTED).await {
            Ok(letters) => {
                found.more.extend((letters.len() >= DEAD_LETTERS_LISTED).then(|| name.clone()));
                found.queues.push(Queue { name, queue, letters });
            }
            Err(error) => found.unknown.push((name, chain(&error))),
        }
    }
    found
}

/// What lies aside in one archive, and whether that is all.
async fn aside_of(instance: &Instance, archiving: &Archiving) -> Result<(Vec<Laid>, bool), Failure> {
    let (reader, table) = (archiving.reader(instance)?, archiving.config.table.name.as_str());
    let (mut all, mut after) = (Vec::new(), None);
    while all.len() < ASIDE_NAMED_MAX {
        let page = laid_aside(reader.as_ref(), table, after.as_ref()).await?;
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok((all, after.is_none()))
}

impl Letters {
    /// Ends looking: whatever is still in a queue can be received again.
    pub(super) async fn let_go(&self) -> Result<(), Failure> {
        let mut ended = Ok(());
        for Queue { queue, letters, .. } in &self.queues {
            ended = ended.and(queue.let_go(letters).await);
        }
        Ok(ended?)
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let queued = self.queues.iter().flat_map(|queue| queue.letters.iter().map(|letter| letter.id));
        self.aside.iter().map(|aside| aside.laid.number()).chain(queued).collect()
    }

    /// Where there may be more than were looked at.
    pub(super) fn more(&self) -> Vec<String> {
        self.more.clone()
    }

    /// How many lie aside.
    pub(super) fn aside(&self) -> u64 {
        self.aside.len() as u64
    }

    /// For people, at most a page of them; with a number in `only` that one, and what it holds.
    pub(super) async fn views(&self, instance: &Instance, only: Option<u64>) -> Vec<DeadLetterView> {
        let chosen = self.aside.iter().filter(|aside| only.is_none_or(|id| id == aside.laid.number()));
        let chosen: Vec<Aside> = chosen.take(DEAD_LETTERS_LISTED).cloned().collect();
        let aside = stream::iter(chosen).map(|aside| view_of_aside(instance, aside, only));
        let mut views: Vec<DeadLetterView> = aside.buffered(COMMAND_KEYS_IN_FLIGHT).collect().await;
        for queue in &self.queues {
            let chosen = queue.letters.iter().filter(|letter| only.is_none_or(|id| id == letter.id));
            views.extend(chosen.map(|letter| view_of_letter(queue, letter, only)));
        }
        views
    }

    /// Archives the chosen ones after all. Counts `redriven`; what still cannot be archived is a failure with its reason.
    pub(super) async fn redrive(
        &mut self,
        instance: &Instance,
        chosen: &[u64],
        report: &mut Report,
        cancel: &CancellationToken,
    ) {
        let mut archivings: Vec<Arc<Archiving>> = self.aside.iter().map(|aside| aside.archiving.clone()).collect();
        archivings.dedup_by(|one, other| Arc::ptr_eq(one, other));
        for archiving in archivings {
            let of_it =
                |aside: &&Aside| Arc::ptr_eq(&aside.archiving, &archiving) && chosen.contains(&aside.laid.number());
            let laid: Vec<Laid> = self.aside.iter().filter(of_it).map(|aside| aside.laid.clone()).collect();
            if laid.is_empty() {
                continue;
            }
            if let Err(failure) = redrive_aside(instance, &archiving, laid, report, cancel).await {
                report.fail(format!("what lies aside of {}", archiving.config.table), failure.chain());
            }
        }
        for Queue { name, queue, letters } in &mut self.queues {
            for letter in take(letters, chosen) {
                if cancel.is_cancelled() {
                    report.cancelled = true;
                    letters.push(letter);
                    continue;
                }
                let redriven = async {
                    let aside = redrive_letter(instance, name, &letter).await?;
                    queue.forget_letter(&letter).await?;
                    Ok::<_, Failure>(aside)
                };
                let message = format!("message {}", letter.message);
                match redriven.await {
                    Ok(aside) if aside.is_empty() => report.count("redriven", 1),
                    Ok(aside) => {
                        let why = aside.first().cloned().unwrap_or_default();
                        let told = format!("still not: {} of its records lie aside now: {why}", aside.len());
                        report.fail(message, told);
                    }
                    Err(failure) => {
                        report.fail(message, failure.chain());
                        letters.push(letter);
                    }
                }
            }
        }
    }

    /// Forgets the chosen ones. Counts `dropped`; one that cannot be forgotten is a failure, and stays.
    pub(super) async fn forget(&mut self, instance: &Instance, chosen: &[u64], who: &str, report: &mut Report) {
        for aside in self.aside.iter().filter(|aside| chosen.contains(&aside.laid.number())) {
            match forget_aside(instance, aside, who).await {
                Ok(there) => report.count("dropped", u64::from(there)),
                Err(failure) => report.fail(&aside.laid.name, failure.chain()),
            }
        }
        for Queue { name, queue, letters } in &mut self.queues {
            for letter in take(letters, chosen) {
                let view = view_of_letter_parts(name, &letter);
                let policy = policy_of(view.table.as_deref().unwrap_or(name));
                let rule = format!("{} {}: {}", view.event, view.key, view.why);
                let forgotten = async {
                    instance.journal.append(&[dropped(instance, who, policy, None, rule)]).await?;
                    queue.forget_letter(&letter).await
                };
                match forgotten.await {
                    Ok(()) => report.count("dropped", 1),
                    Err(error) => {
                        report.fail_with(format!("message {}", letter.message), &error);
                        letters.push(letter);
                    }
                }
            }
        }
    }
}

/// Forgets one that lies aside; whether it was there. One that cannot be read only for now, or by this version, is no rubbish.
async fn forget_aside(instance: &Instance, Aside { archiving, laid }: &Aside, who: &str) -> Result<bool, Failure> {
    let (reader, purger) = (archiving.reader(instance)?, archiving.aside(instance)?);
    let rule = match read_aside(reader.as_ref(), &laid.name).await {
        Ok(None) => return Ok(false),
        Ok(Some(note)) => format!("{}: {}", told(&note.record), note.why),
        // It can never be read, and so it can only be dropped.
        Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) => chain(&error),
        Err(error) => return Err(error.into()),
    };
    let line = dropped(instance, who, policy_of(&archiving.config.table.name), Some(laid.name.clone()), rule);
    instance.journal.append(&[line]).await?;
    purger.remove(&laid.name).await?;
    Ok(true)
}

/// What stands in the journal for a policy.
fn policy_of(table: &str) -> PolicyName {
    PolicyName(format!("archive {table}"))
}

async fn redrive_aside(
    instance: &Instance,
    archiving: &Archiving,
    laid: Vec<Laid>,
    report: &mut Report,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let (archive, reader) = (archiving.archive(instance)?, archiving.reader(instance)?);
    let aside = archiving.aside(instance)?;
    let table = instance.services.key_of_table(&archiving.config.table).await;
    let read = |note: &Note| read_note(archiving, &table, note);
    let outbox = archiving.outbox(instance)?;
    let (reader, outbox) = (reader.as_ref(), outbox.as_deref());
    let flow = RedriveRecords { archive: &archive, reader, outbox, aside: &aside, read: &read };
    let flow = &flow;
    let (mut ended, count) = (0, laid.len());
    let mut all = stream::iter(laid)
        .take_while(|_| ready(!cancel.is_cancelled()))
        .map(|laid| async move {
            let mut report = Report::of("redrive");
            flow.run(&laid, &mut report).await;
            report
        })
        .buffer_unordered(COMMAND_KEYS_IN_FLIGHT);
    while let Some(of_one) = all.next().await {
        ended += 1;
        report.absorb(of_one);
    }
    drop(all);
    report.cancelled |= ended < count;
    Ok(())
}

/// The table says the order of its key, unless the note does: a table may be gone by now.
fn read_note(archiving: &Archiving, table: &PortResult<Vec<String>>, note: &Note) -> Result<StreamRecord, String> {
    let key_names = match (&note.key, table) {
        (Some(names), _) | (None, Ok(names)) => names.clone(),
        (None, Err(error)) => return Err(chain(error)),
    };
    read_record(&note.record, &archiving.recorded(key_names)).map_err(|error| error.to_string())
}

/// Archives all that a letter tells of; what never can be is laid aside, and is no longer the letter's: why, of each.
async fn redrive_letter(instance: &Instance, queue: &str, letter: &QueueLetter) -> Result<Vec<String>, Failure> {
    let failed = read_failed(letter.body().as_bytes()).map_err(|error| Failure::failed(error.to_string()))?;
    let name = failed.stream().and_then(table_of_stream).unwrap_or_default();
    let archivings = instance.all_archivings();
    let of_table = archivings.iter().find(|archiving| {
        archiving.config.table.name == name && archiving.failures().is_some_and(|(named, _)| named == queue)
    });
    let Some(archiving) = of_table else {
        let fix = format!("add the [[archive]] of that table with failures = \"{queue}\"");
        return Err(Failure::failed(format!("its table `{name}` is not archived: {fix}")));
    };
    let archive = archiving.archive(instance)?;
    let recorded = archiving.recorded(instance.services.key_of_table(&archiving.config.table).await?);
    match &failed {
        FailedRecords::Whole(records) => {
            let read: Result<Vec<_>, _> = records.iter().map(|record| read_record(record, &recorded)).collect();
            let records = read.map_err(|error| Failure::failed(error.to_string()))?;
            archive_all(instance, archiving, &archive, records).await
        }
        FailedRecords::Place(place) => {
            let stream = instance.services.stream_named(&archiving.config, &place.stream, recorded).await?;
            let mut resolving = Resolving::open(&stream, &place.stretch).await?;
            let mut aside = Vec::new();
            while let Some(records) = resolving.next().await? {
                aside.extend(archive_all(instance, archiving, &archive, records).await?);
            }
            match resolving.lost() {
                None => Ok(aside),
                Some(lost) => Err(Failure::failed(format!(
                    "{lost}: what it still had is archived; drop the letter once you know what is lost"
                ))),
            }
        }
    }
}

/// Archives what was deleted among some records, and has it told where somebody is; why those lie aside that cannot be.
async fn archive_all(
    instance: &Instance,
    archiving: &Archiving,
    archive: &Archive,
    records: Vec<StreamRecord>,
) -> Result<Vec<String>, Failure> {
    let mut batch = Batch::of(records);
    if let Some(error) = batch.archive(archive).await {
        return Err(error.into());
    }
    let archived = batch.archived();
    if let Some(outbox) = archiving.outbox(instance)?.filter(|_| !archived.is_empty()) {
        outbox.put(REDRIVEN, REDRIVEN, &archived).await?;
    }
    Ok(batch.aside())
}

async fn view_of_aside(instance: &Instance, aside: Aside, only: Option<u64>) -> DeadLetterView {
    let Aside { archiving, laid } = aside;
    let table = archiving.config.table.to_string();
    let blank = DeadLetterView {
        id: laid.number(),
        bucket: archiving.config.destination.to_string(),
        key: laid.name.to_string(),
        event: "record-removed".to_owned(),
        happened_at_ms: laid.since.0,
        attempts: 1,
        why: String::new(),
        died_at_ms: laid.since.0,
        table: Some(table),
        cause: None,
        record: None,
    };
    let note = match archiving.reader(instance) {
        Ok(reader) => read_aside(reader.as_ref(), &laid.name).await.map_err(|error| chain(&error)),
        Err(failure) => Err(failure.chain()),
    };
    match note {
        Ok(Some(note)) => DeadLetterView {
            key: key_of(&note.record),
            happened_at_ms: happened_at(&note.record).unwrap_or(laid.since).0,
            cause: Some(cause_of_record(&note.record).as_str().to_owned()),
            why: note.why,
            record: only.map(|_| note.record),
            ..blank
        },
        Ok(None) => DeadLetterView { why: "it has just gone".to_owned(), ..blank },
        Err(why) => DeadLetterView { why, ..blank },
    }
}

fn view_of_letter(queue: &Queue, letter: &QueueLetter, only: Option<u64>) -> DeadLetterView {
    let view = view_of_letter_parts(&queue.name, letter);
    DeadLetterView { record: view.record.filter(|_| only.is_some()), ..view }
}

fn view_of_letter_parts(queue: &str, letter: &QueueLetter) -> DeadLetterView {
    let blank = DeadLetterView {
        id: letter.id,
        bucket: queue.to_owned(),
        key: format!("message {}", letter.message),
        event: "unreadable".to_owned(),
        happened_at_ms: letter.died_at.0,
        attempts: letter.attempts,
        why: letter.why.clone(),
        died_at_ms: letter.died_at.0,
        table: None,
        cause: None,
        record: None,
    };
    let failed = match read_failed(letter.body().as_bytes()) {
        Ok(failed) => failed,
        Err(error) => return DeadLetterView { why: format!("{}: {error}", letter.why), ..blank },
    };
    let table = failed.stream().and_then(table_of_stream).map(str::to_owned);
    let blank = DeadLetterView { event: "record-removed".to_owned(), table, ..blank };
    match failed {
        FailedRecords::Whole(records) => {
            let first = records.first();
            let more = match records.len() {
                0 | 1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            DeadLetterView {
                key: format!("{}{more}", first.map(key_of).unwrap_or_default()),
                happened_at_ms: first.and_then(happened_at).unwrap_or(letter.died_at).0,
                cause: first.map(|record| cause_of_record(record).as_str().to_owned()),
                record: Some(records.into()),
                ..blank
            }
        }
        FailedRecords::Place(place) => {
            let Place { stretch, at, records, condition, .. } = *place;
            let many = records.map_or_else(String::new, |n| format!("{n} "));
            DeadLetterView {
                key: format!("{many}records {} to {} of {}", stretch.from, stretch.to, stretch.shard),
                happened_at_ms: at.unwrap_or(letter.died_at).0,
                why: format!("{} ({condition}): only their place is known, and the stream forgets it", letter.why),
                ..blank
            }
        }
    }
}

/// What was deleted, in words.
fn told(record: &Value) -> String {
    format!("record {} removed by {}", key_of(record), cause_of_record(record).as_str())
}

/// The record's key, in DynamoDB's JSON.
fn key_of(record: &Value) -> String {
    match &record["dynamodb"]["Keys"] {
        Value::Null => "a record without a key".to_owned(),
        keys => keys.to_string(),
    }
}

fn happened_at(record: &Value) -> Option<UnixMs> {
    let seconds = record["dynamodb"]["ApproximateCreationDateTime"].as_f64()?;
    Some(UnixMs(seconds as i64 * 1_000))
}

impl Archiving {
    /// How its records are read.
    fn recorded(&self, key_names: Vec<String>) -> RecordedTable {
        let (service, table) = (self.config.service.clone(), self.config.table.name.clone());
        RecordedTable { service, table, key_names }
    }
}
