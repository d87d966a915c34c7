//! Puts rows that are most likely new, gathered: what comes while calls are under way goes with the next one, up to 25 rows in
//! a call. Who comes alone goes alone, at once. Nobody waits for others to come.
//!
//! Whoever waits is also who calls: there is no task of its own, and a caller that goes away takes nothing along but the
//! batch that it was sending, whose rows are then told as unknown and put again (an upsert may be repeated). Each row is put
//! whole, or not at all; a crash leaves some of a batch (V3).

use super::DynamoDbCatalog;
use super::item::row_item;
use super::statements::{Ended, NoStatements, Statement};
use crate::limits::{BATCH_STATEMENTS_MAX, INSERT_CALLS_IN_FLIGHT};
use aws_sdk_dynamodb::types::AttributeValue;
use engine::error::{ErrorKind, PortError, PortResult};
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::row::CopyRow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// How putting a row as a new one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    Done,
    /// It is there already, or the service takes no statements: a call of its own is to see to it.
    Alone,
}

/// The rows that wait for a call.
pub(super) struct Inserts {
    waiting: Mutex<VecDeque<Waiting>>,
    calls: Semaphore,
}

struct Waiting {
    id: (ObjectKey, CopyKey),
    row: CopyRow,
    done: oneshot::Sender<PortResult<Inserted>>,
}

impl Default for Inserts {
    fn default() -> Inserts {
        Inserts { waiting: Mutex::default(), calls: Semaphore::new(INSERT_CALLS_IN_FLIGHT) }
    }
}

impl Inserts {
    /// The next batch: no two of one row, and none whose caller has gone.
    fn next_batch(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut again, mut ids) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        while batch.len() < BATCH_STATEMENTS_MAX
            && let Some(next) = waiting.pop_front()
        {
            match () {
                () if next.done.is_closed() => {}
                () if ids.insert(next.id.clone()) => batch.push(next),
                () => again.push_back(next),
            }
        }
        again.append(&mut waiting);
        *waiting = again;
        batch
    }
}

impl DynamoDbCatalog {
    /// Puts a row if it is new.
    pub(super) async fn insert_row(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<Inserted> {
        if !self.takes_statements.load(Ordering::Relaxed) {
            return Ok(Inserted::Alone);
        }
        let (done, mut answer) = oneshot::channel();
        let waiting = Waiting { id: (original.clone(), row.copy_key.clone()), row: row.clone(), done };
        self.inserts.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiting);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or_else(|_| {
                    let call = self.call("put catalog row", RIGHT, format!("{original} / {}", row.copy_key));
                    Err(call.failed(ErrorKind::Unavailable)) // whoever called for it has gone
                }),
                _permit = self.inserts.calls.acquire() => self.insert_batch(self.inserts.next_batch()).await,
            }
        }
    }

    async fn insert_batch(&self, batch: Vec<Waiting>) {
        let call = match batch.as_slice() {
            [] => return,
            [Waiting { id: (original, _), row, .. }] => {
                let put = self.put_alone(original, row).await;
                return tell(batch, |_| put.clone().map(|()| Inserted::Done));
            }
            [first, ..] => self.call("put catalog rows", RIGHT, format!("{} / {} and others", first.id.0, first.id.1)),
        };
        let statements: Vec<Statement> =
            batch.iter().map(|Waiting { id, row, .. }| self.insertion(&id.0, row)).collect();
        match self.run_statements(&call, &statements).await {
            Err(NoStatements) => {
                self.takes_statements.store(false, Ordering::Relaxed);
                tell(batch, |_| Ok(Inserted::Alone));
            }
            Ok(ended) => {
                let mut ended = ended.into_iter();
                tell(batch, |(original, copy_key)| match ended.next() {
                    Some(Ok(Ended::Done { .. })) => Ok(Inserted::Done),
                    Some(Ok(Ended::Refused(_))) | None => Ok(Inserted::Alone),
                    Some(Err(error)) => {
                        let object = format!("{original} / {copy_key} in table {}", self.table);
                        Err(PortError { object, ..error })
                    }
                });
            }
        }
    }

    fn insertion(&self, original: &ObjectKey, row: &CopyRow) -> Statement {
        let item = row_item(&self.layout, original, row, &self.rev());
        let mut names: Vec<&String> = item.keys().collect();
        names.sort();
        let fields: Vec<String> = names.iter().map(|name| format!("'{name}': ?")).collect();
        let parameters: Vec<AttributeValue> = names.iter().map(|name| item[*name].clone()).collect();
        let text = format!("INSERT INTO \"{}\" VALUE {{{}}}", self.table, fields.join(", "));
        Statement { text, parameters }
    }
}

const RIGHT: &str = "dynamodb:PartiQLInsert";

/// Answers every caller that is still there.
fn tell(batch: Vec<Waiting>, mut how: impl FnMut(&(ObjectKey, CopyKey)) -> PortResult<Inserted>) {
    for Waiting { id, done, .. } in batch {
        // Who has gone needs no answer.
        drop(done.send(how(&id)));
    }
}
