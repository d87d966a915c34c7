//! Puts rows that are most likely new: those that come at the same time go together, up to 25 in a call
//! ([`Gather`](crate::gather::Gather)). Each row is put whole, or not at all; a crash leaves some of a batch (V3).

use super::DynamoDbCatalog;
use super::item::row_item;
use super::statements::{Ended, NoStatements, Statement};
use aws_sdk_dynamodb::types::AttributeValue;
use engine::error::{ErrorKind, PortError, PortResult};
use lifecycle::ids::ObjectKey;
use lifecycle::row::CopyRow;
use std::sync::atomic::Ordering;

const RIGHT: &str = "dynamodb:PartiQLInsert";

/// How putting a row as a new one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    Done,
    /// It is there already, or the service takes no statements: a call of its own is to see to it.
    Alone,
}

/// A row to put, and of which key.
pub(super) type NewRow = (ObjectKey, CopyRow);

impl DynamoDbCatalog {
    /// Puts a row if it is new.
    pub(super) async fn insert_row(&self, original: &ObjectKey, row: &CopyRow) -> PortResult<Inserted> {
        if !self.takes_statements.load(Ordering::Relaxed) {
            return Ok(Inserted::Alone);
        }
        let id = (original.clone(), row.copy_key.clone());
        let new = (original.clone(), row.clone());
        let put = self.inserts.share(Some(id), new, |rows| self.insert_rows(rows)).await;
        put.unwrap_or_else(|| {
            let call = self.call("put catalog row", RIGHT, format!("{original} / {}", row.copy_key));
            Err(call.failed(ErrorKind::Unavailable))
        })
    }

    async fn insert_rows(&self, rows: Vec<NewRow>) -> Vec<PortResult<Inserted>> {
        let [(original, row), others @ ..] = rows.as_slice() else { return Vec::new() };
        if others.is_empty() {
            return vec![self.put_alone(original, row).await.map(|()| Inserted::Done)];
        }
        let call = self.call("put catalog rows", RIGHT, format!("{original} / {} and others", row.copy_key));
        let statements: Vec<Statement> = rows.iter().map(|(original, row)| self.insertion(original, row)).collect();
        let ended = match self.run_statements(&call, &statements).await {
            Ok(ended) => ended,
            Err(NoStatements) => {
                self.takes_statements.store(false, Ordering::Relaxed);
                return rows.iter().map(|_| Ok(Inserted::Alone)).collect();
            }
        };
        let told = |((original, row), ended): (&NewRow, PortResult<Ended>)| match ended {
            Ok(Ended::Done { .. }) => Ok(Inserted::Done),
            Ok(Ended::Refused(_)) => Ok(Inserted::Alone),
            Err(error) => {
                let object = format!("{original} / {} in table {}", row.copy_key, self.table);
                Err(PortError { object, ..error })
            }
        };
        rows.iter().zip(ended).map(told).collect()
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
