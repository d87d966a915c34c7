//! A stream in memory: shards with their parents, which split, merge, end, and forget their oldest records.
//!
//! Every record has the next sequence number of the whole stream. A page has few records, so that readers stop inside a
//! shard. Nothing fails by itself. Nothing outlives the process.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::memory::lock;
use crate::ports::streams::{
    Change, DeletedRecord, Position, Read, RecordStream, Shard, ShardId, ShardReader, StreamRecord,
};
use async_trait::async_trait;
use lifecycle::archive::{Cause, Deletion, KeyValue, Sequence, ServiceName};
use lifecycle::time::UnixMs;
use serde_json::json;
use std::sync::{Arc, Mutex};

/// Records of one page.
const PAGE: usize = 3;

#[derive(Clone, Debug, Default)]
struct Kept {
    parent: Option<ShardId>,
    records: Vec<StreamRecord>,
    /// So many of them are forgotten.
    forgotten: usize,
    ended: bool,
    /// The stream does not list it any more.
    gone: bool,
}

#[derive(Debug, Default)]
struct State {
    shards: Vec<(ShardId, Kept)>,
    sequence: u64,
    /// Sequence numbers have no zeros before them.
    unpadded: bool,
    /// So many readings fail before one succeeds.
    failing: usize,
}

impl State {
    fn shard(&mut self, shard: &ShardId) -> &mut Kept {
        self.shards.iter_mut().find(|(id, _)| id == shard).map(|(_, kept)| kept).expect("a shard of this stream")
    }

    fn next_sequence(&mut self) -> Sequence {
        self.sequence += 1;
        let digits = if self.unpadded { 1 } else { 21 };
        Sequence::new(&format!("{:0digits$}", self.sequence)).expect("digits")
    }
}

/// The stream of a table `Table`, whose records belong to the service `service`.
#[derive(Clone, Debug, Default)]
pub struct MemoryStream(Arc<Mutex<State>>);

impl MemoryStream {
    /// Without a shard.
    pub fn new() -> MemoryStream {
        MemoryStream::default()
    }

    /// One whose sequence numbers go on after that one, without zeros before them: they get a digit more on the way.
    pub fn unpadded(after: u64) -> MemoryStream {
        let state = State { sequence: after, unpadded: true, ..State::default() };
        MemoryStream(Arc::new(Mutex::new(state)))
    }

    /// A new shard, child of another one.
    pub fn begin(&self, shard: &str, parent: Option<&str>) {
        let parent = parent.map(|parent| ShardId(parent.to_owned()));
        lock(&self.0).shards.push((ShardId(shard.to_owned()), Kept { parent, ..Kept::default() }));
    }

    /// A shard ends.
    pub fn end(&self, shard: &str) {
        lock(&self.0).shard(&ShardId(shard.to_owned())).ended = true;
    }

    /// A record with that key is deleted.
    pub fn delete(&self, shard: &str, key: &str, at: UnixMs, cause: Cause) -> Sequence {
        let mut state = lock(&self.0);
        let sequence = state.next_sequence();
        let keys = json!({ "id": { "S": key } });
        let image = json!({ "id": { "S": key }, "n": { "N": sequence.to_string().trim_start_matches('0') } });
        let record = json!({
            "eventName": "REMOVE",
            "dynamodb": { "Keys": keys, "OldImage": image, "SequenceNumber": sequence.as_str() },
        });
        let deletion = Deletion {
            service: ServiceName::new("service").expect("a legal name"),
            table: "Table".to_owned(),
            key: vec![KeyValue::Text(key.to_owned())],
            at,
            sequence: sequence.clone(),
        };
        let deleted = DeletedRecord { deletion, key_names: vec!["id".to_owned()], cause, record };
        let record = StreamRecord { sequence: sequence.clone(), at, change: Change::Deleted(Box::new(deleted)) };
        state.shard(&ShardId(shard.to_owned())).records.push(record);
        sequence
    }

    /// Something else happens to a record.
    pub fn tell(&self, shard: &str, at: UnixMs, change: Change) {
        let mut state = lock(&self.0);
        let record = StreamRecord { sequence: state.next_sequence(), at, change };
        state.shard(&ShardId(shard.to_owned())).records.push(record);
    }

    /// The stream forgets the oldest records of a shard.
    pub fn forget(&self, shard: &str, how_many: usize) {
        lock(&self.0).shard(&ShardId(shard.to_owned())).forgotten += how_many;
    }

    /// The stream forgets a shard.
    pub fn forget_shard(&self, shard: &str) {
        lock(&self.0).shard(&ShardId(shard.to_owned())).gone = true;
    }

    /// The next readings fail.
    pub fn fail(&self, how_many: usize) {
        lock(&self.0).failing = how_many;
    }
}

#[async_trait]
impl RecordStream for MemoryStream {
    fn name(&self) -> &str {
        "stream"
    }

    async fn shards(&self) -> PortResult<Vec<Shard>> {
        let state = lock(&self.0);
        let listed = state.shards.iter().filter(|(_, kept)| !kept.gone);
        Ok(listed.map(|(id, kept)| Shard { id: id.clone(), parent: kept.parent.clone() }).collect())
    }

    async fn open(&self, shard: &ShardId, from: Position) -> PortResult<Box<dyn ShardReader>> {
        Ok(Box::new(MemoryShard { state: Arc::clone(&self.0), shard: shard.clone(), from }))
    }
}

struct MemoryShard {
    state: Arc<Mutex<State>>,
    shard: ShardId,
    from: Position,
}

#[async_trait]
impl ShardReader for MemoryShard {
    async fn next(&mut self) -> PortResult<Read> {
        let mut state = lock(&self.state);
        if state.failing > 0 {
            state.failing -= 1;
            return Err(PortError::new("read shard", &self.shard, ErrorKind::Unavailable));
        }
        let kept = state.shard(&self.shard);
        if kept.gone {
            return Ok(Read::Gone);
        }
        let start = match &self.from {
            Position::Oldest => kept.forgotten,
            Position::At(sequence) => kept.records.partition_point(|record| record.sequence < *sequence),
            Position::After(sequence) => kept.records.partition_point(|record| record.sequence <= *sequence),
        };
        if start < kept.forgotten {
            return Ok(Read::Trimmed);
        }
        let page: Vec<StreamRecord> = kept.records.iter().skip(start).take(PAGE).cloned().collect();
        if page.is_empty() && kept.ended {
            return Ok(Read::End);
        }
        if let Some(last) = page.last() {
            self.from = Position::After(last.sequence.clone());
        }
        Ok(Read::Records(page))
    }
}
