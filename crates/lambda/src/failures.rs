//! What Lambda gave up of a table's stream, from the queue that its event source mapping sends it to: places become records,
//! before the stream forgets what stands there.
//!
//! The message says only where the batch stood (shard, first and last number). The records are read there and archived. What
//! still cannot be archived goes to the queue's dead letters whole, each record an event of the stream as this function
//! itself takes it, so that from then on nothing depends on the stream; `dlq redrive` archives it from there. Sent first,
//! answered as done afterwards: a crash between leaves a record twice rather than nowhere (I8). What the stream has
//! forgotten already is an error in the log, and a dead letter that says so.

use crate::failure::Failure;
use crate::limits::BURIALS_IN_FLIGHT;
use crate::messages::{Message, Way};
use crate::time_limit::TimeLimit;
use crate::warm::{ArchivedTable, Warm};
use aws::DeadLetterReason;
use aws::parse::failures::{FailedRecords, Place, place_of, read_failed, whole};
use aws::parse::records::{RecordedTable, read_record, table_of_stream};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::flows::resolve::Resolving;
use engine::ports::streams::{Change, StreamRecord};
use engine::report::chain;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What was done in one invocation.
#[derive(Default)]
struct Done {
    messages: usize,
    failed: Vec<String>,
    records: u64,
    letters: u64,
}

/// Handles one batch of the queue, and answers it.
pub(crate) async fn resolve_failures(warm: &Warm, payload: &Value, limit: TimeLimit) -> Result<Value, Failure> {
    let (way, messages) = crate::messages::read(payload)?;
    let Way::Sqs { queue } = way else { return Err(Failure::new("payload", "no message of a queue is in it")) };
    let cancel = CancellationToken::new();
    let mut done = Done::default();
    let work = async {
        for message in &messages {
            if cancel.is_cancelled() {
                return;
            }
            let one = One { warm, queue: &queue, message };
            if let Err(error) = one.handle(&mut done).await {
                tracing::error!(queue, message = message.id, "it comes again: {}", chain(&error));
                done.failed.push(message.id.clone());
            }
            done.messages += 1;
        }
    };
    if limit.keep(warm.clock.as_ref(), &cancel, work).await.is_none() {
        tracing::warn!("the time was over before every message was handled: the rest comes again");
    }
    done.failed.extend(messages[done.messages..].iter().map(|message| message.id.clone()));
    warm.tell_metrics(&[
        ("messages", messages.len() as u64),
        ("messages_failed", done.failed.len() as u64),
        ("records", done.records),
        ("dead_letters", done.letters),
    ]);
    let failures: Vec<Value> = done.failed.iter().map(|id| json!({ "itemIdentifier": id })).collect();
    Ok(json!({ "batchItemFailures": failures }))
}

/// One message.
struct One<'a> {
    warm: &'a Warm,
    queue: &'a str,
    message: &'a Message,
}

impl One<'_> {
    async fn handle(&self, done: &mut Done) -> PortResult<()> {
        let failed = match read_failed(self.message.body.as_bytes()) {
            Ok(failed) => failed,
            Err(refused) => {
                done.letters += 1;
                return self.bury(&self.message.body, DeadLetterReason::Unreadable, &refused.to_string()).await;
            }
        };
        let (table, recorded) = self.table(&failed).await?;
        match &failed {
            FailedRecords::Whole(records) => {
                let read: Result<Vec<_>, _> = records.iter().map(|record| read_record(record, &recorded)).collect();
                match read {
                    Ok(records) => self.archive(table, None, &records, done).await,
                    Err(refused) => {
                        done.letters += 1;
                        self.bury(&self.message.body, DeadLetterReason::Unreadable, &refused.to_string()).await
                    }
                }
            }
            FailedRecords::Place(place) => {
                let stream = table.stream_named(&place.stream, recorded);
                let mut resolving = Resolving::open(&stream, &place.stretch).await?;
                while let Some(records) = resolving.next().await? {
                    self.archive(table, Some(place), &records, done).await?;
                }
                match resolving.lost() {
                    None => Ok(()),
                    Some(lost) => {
                        tracing::error!(queue = self.queue, message = self.message.id, "deletions may be lost: {lost}");
                        done.letters += 1;
                        self.bury(&self.message.body, DeadLetterReason::NotArchived, lost).await
                    }
                }
            }
        }
    }

    async fn table(&self, failed: &FailedRecords) -> PortResult<(&ArchivedTable, RecordedTable)> {
        let name = failed.stream().and_then(table_of_stream).unwrap_or_default();
        let Some(table) = self.warm.archives.get(name) else {
            let known: Vec<&str> = self.warm.archives.keys().map(String::as_str).collect();
            let why = format!("its table `{name}` is not archived by this function; there are: {}", known.join(", "));
            return Err(PortError::new("resolve message", &self.message.id, ErrorKind::NotSetUp(why)));
        };
        Ok((table, table.recorded().await?))
    }

    /// Archives them; what fails goes to the dead letters whole.
    async fn archive(
        &self,
        table: &ArchivedTable,
        place: Option<&Place>,
        records: &[StreamRecord],
        done: &mut Done,
    ) -> PortResult<()> {
        let ended = table.archive.archive(records).await;
        let failed = records.iter().zip(ended).filter_map(|(record, ended)| Some((record, ended.err()?)));
        let failed: Vec<(String, Option<String>, String)> = failed
            .filter_map(|(record, error)| {
                let body = match &record.change {
                    Change::Written => return None,
                    Change::Deleted(deleted) => &deleted.record,
                    Change::Unreadable { record, .. } => record,
                };
                let place = place.map(|place| place_of(place, &record.sequence));
                Some((whole(body), place, chain(&error)))
            })
            .collect();
        done.records += records.len() as u64;
        let letters = failed.len() as u64;
        let buried = stream::iter(failed)
            .map(|(body, place, why)| async move { self.keep(&body, place.as_deref(), &why).await });
        buried.buffer_unordered(BURIALS_IN_FLIGHT).try_collect::<()>().await?;
        done.letters += letters;
        Ok(())
    }

    /// Keeps a record in the dead letters. Of one that the queue refuses, most likely since it is too large for a message,
    /// its place at least: the others of its batch need not come again with it.
    async fn keep(&self, body: &str, place: Option<&str>, why: &str) -> PortResult<()> {
        match (self.bury(body, DeadLetterReason::NotArchived, why).await, place) {
            (Err(PortError { kind: ErrorKind::Invalid(refused), .. }), Some(place)) => {
                let queue = self.queue;
                tracing::error!(queue, "a record cannot be kept whole, only its place, for a day: {refused}");
                self.bury(place, DeadLetterReason::NotArchived, why).await
            }
            (buried, _) => buried,
        }
    }

    async fn bury(&self, body: &str, reason: DeadLetterReason, why: &str) -> PortResult<()> {
        let Some(letters) = self.warm.dead_letters(self.queue).await? else {
            let fix = format!(
                "it has no dead letters, where what cannot be archived ({why}) would be kept whole: give it a redrive policy"
            );
            return Err(PortError::new("resolve message of queue", self.queue, ErrorKind::NotSetUp(fix)));
        };
        letters.bury(body, self.message.attempts, reason, why).await
    }
}
