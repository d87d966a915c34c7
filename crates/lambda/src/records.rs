//! Records of a table's stream: what was deleted is archived, before the stream's position moves on (I8).
//!
//! A batch is answered by the lowest position that failed: Lambda gives it again from there, whatever was archived behind it,
//! and what is told twice is found. What can never be archived is laid aside, whole, and holds up nothing behind it. Near its
//! end the function begins nothing new: what was not archived has failed, and comes again. What Lambda gives up all the same
//! comes as places, by a queue (`failures.rs`).

use crate::failure::Failure;
use crate::failures::resolve_failures;
use crate::limits::RECORDS_AT_ONCE;
use crate::time_limit::TimeLimit;
use crate::warm::Warm;
use aws::parse::records::{read_record, table_of_stream};
use engine::flows::archive::Archive;
use engine::ports::streams::StreamRecord;
use engine::report::chain;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Archives what was deleted in one batch, and answers it.
pub(crate) async fn archive_records(warm: &Warm, payload: &Value, limit: TimeLimit) -> Result<Value, Failure> {
    let unreadable = |why: &str| Failure::new("unreadable", why);
    let records = payload["Records"].as_array().ok_or_else(|| unreadable("`Records` is missing, or is no list"))?;
    let Some(first) = records.first() else { return Ok(json!({ "batchItemFailures": [] })) };
    if first["eventSource"] == "aws:sqs" {
        return resolve_failures(warm, payload, limit).await;
    }
    let arn = first["eventSourceARN"].as_str().unwrap_or_default();
    let name = table_of_stream(arn).ok_or_else(|| unreadable(&format!("`{arn}` is no stream of a table")))?;
    let Some(table) = warm.archives.get(name) else {
        let known: Vec<&str> = warm.archives.keys().map(String::as_str).collect();
        let why = format!("the table {name} is not archived; there are: {}", known.join(", "));
        return Err(Failure::new("configuration", why));
    };
    let cancel = CancellationToken::new();
    let mut done = 0;
    let work = async {
        let recorded = table.recorded().await?;
        let read = records.iter().map(|record| read_record(record, &recorded));
        let read = read.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(&error.to_string()))?;
        archive_in_order(&table.archive, &read, &mut done, &cancel).await;
        Ok::<(), Failure>(())
    };
    match limit.keep(warm.clock.as_ref(), &cancel, work).await {
        Some(result) => result?,
        None => tracing::warn!("the time was over before every record was archived: the rest comes again"),
    }
    let failed: Vec<Value> = records[done..].iter().take(1).map(position).collect();
    let again = (records.len() - done) as u64;
    warm.tell_metrics(&[("records", records.len() as u64), ("records_again", again)]);
    Ok(json!({ "batchItemFailures": failed }))
}

/// Archives piece by piece, in order; `done` counts those before the first that failed.
async fn archive_in_order(archive: &Archive, records: &[StreamRecord], done: &mut usize, cancel: &CancellationToken) {
    for records in records.chunks(RECORDS_AT_ONCE) {
        if cancel.is_cancelled() {
            return;
        }
        for ended in archive.archive(records).await {
            match ended {
                Ok(_) => *done += 1,
                Err(error) => {
                    tracing::error!("a record is archived when it comes again: {}", chain(&error));
                    return;
                }
            }
        }
    }
}

fn position(record: &Value) -> Value {
    json!({ "itemIdentifier": record["dynamodb"]["SequenceNumber"] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::error::ErrorKind;
    use engine::memory::bucket::Versioning;
    use engine::memory::stream::MemoryStream;
    use engine::memory::wiring::Memory;
    use engine::ports::streams::{Position, Read, RecordStream, ShardId};
    use engine::wrap::faults::Faults;
    use engine::wrap::tap::{Fate, Tap};
    use lifecycle::archive::Cause;
    use lifecycle::time::UnixMs;
    use std::sync::Arc;

    #[tokio::test]
    async fn only_what_stands_before_the_first_failure_counts_as_done() {
        let (memory, stream) = (Memory::new(Versioning::Off), MemoryStream::new());
        stream.begin("0", None);
        for name in ["a", "b", "c"] {
            stream.delete("0", name, UnixMs(1_795_219_200_000), Cause::User);
        }
        let mut reader = stream.open(&ShardId("0".to_owned()), Position::Oldest).await.unwrap();
        let Read::Records(records) = reader.next().await.unwrap() else { panic!("there are some") };
        let faults = Arc::new(Faults::default());
        faults.at("archive.put", 2, Fate::FailBefore(ErrorKind::Unavailable));
        let destination = Tap::new(faults).write("archive", memory.destination.clone());
        let archive = Archive::new("Table", destination, memory.metrics.clone());
        let archived =
            || memory.destination.contents().keys().filter(|name| name.as_str().starts_with("service/")).count();
        let (mut done, cancel) = (0, CancellationToken::new());
        archive_in_order(&archive, &records, &mut done, &cancel).await;
        assert_eq!((done, archived()), (1, 2), "the third is archived, and comes again");
        done = 0;
        archive_in_order(&archive, &records[1..], &mut done, &cancel).await;
        assert_eq!((done, archived()), (2, 3));
        cancel.cancel();
        done = 0;
        archive_in_order(&archive, &records, &mut done, &cancel).await;
        assert_eq!(done, 0, "nothing new is begun");
    }

    #[test]
    fn a_stream_says_its_table() {
        let arn = "arn:aws:dynamodb:eu-central-1:123:table/Orders-1.b/stream/2026-11-21T00:00:00.000";
        assert_eq!(table_of_stream(arn), Some("Orders-1.b"));
        for other in ["", "arn:aws:sqs:eu-central-1:123:queue", "arn:aws:dynamodb:x:1:table/"] {
            assert_eq!(table_of_stream(other), None, "{other}");
        }
    }
}
