//! The stream of a DynamoDB table, or of one of a service that speaks its protocol.
//!
//! A reader holds an iterator, which the service forgets after some minutes: then a new one is asked for, behind the last
//! record that was read (never from the beginning, and never without end). An empty page is not the end of a shard; that
//! is when there is no next iterator. What is older than a day is gone, and is told as such. Nothing is written: a crash
//! leaves nothing. Laws: I8, I10.

mod record_json;

use crate::dynamodb::key_names;
use crate::error_map::Call;
use crate::limits::{ITERATORS_IN_A_ROW, SHARD_PAGES_MAX, STREAM_PAGE};
use crate::parse::records::{RecordedTable, read_record};
use async_trait::async_trait;
use aws_sdk_dynamodb::types::StreamViewType as TableView;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::error::ProvideErrorMetadata;
use aws_sdk_dynamodbstreams::types::{ShardIteratorType, StreamViewType};
use engine::error::{ErrorKind, PortResult};
use engine::ports::streams::{Position, Read, RecordStream, Shard, ShardId, ShardReader, StreamRecord};
use lifecycle::archive::ServiceName;
use std::sync::Arc;

/// A table's stream.
pub struct DynamoDbStream {
    client: Client,
    arn: String,
    label: String,
    table: Arc<RecordedTable>,
}

impl DynamoDbStream {
    /// The newest stream of a table. A table without one, or whose stream carries no old images, is refused (`NotSetUp`).
    pub async fn open(
        tables: &aws_sdk_dynamodb::Client,
        client: Client,
        service: ServiceName,
        table: &str,
    ) -> PortResult<DynamoDbStream> {
        let call = Call::new("open stream of table", "dynamodb:DescribeTable", table);
        let answer = tables.describe_table().table_name(table).send().await.map_err(|error| call.sdk(error))?;
        let found = answer.table.ok_or_else(|| call.failed(ErrorKind::Unavailable))?;
        let view = found.stream_specification().filter(|stream| stream.stream_enabled());
        let view = view.and_then(|stream| stream.stream_view_type());
        let remedy =
            "switch a stream on that carries old images (OLD_IMAGE or NEW_AND_OLD_IMAGES): `afterimage archive enable`";
        match view {
            Some(TableView::OldImage | TableView::NewAndOldImages) => {}
            Some(other) => {
                let why = format!("its stream carries {} only, and no old images: {remedy}", other.as_str());
                return Err(call.failed(ErrorKind::NotSetUp(why)));
            }
            None => return Err(call.failed(ErrorKind::NotSetUp(format!("it has no stream: {remedy}")))),
        }
        let key_names = key_names(&found);
        let (Some(arn), Some(label)) = (found.latest_stream_arn(), found.latest_stream_label()) else {
            return Err(call.failed(ErrorKind::Unavailable));
        };
        let table = Arc::new(RecordedTable { service, table: table.to_owned(), key_names });
        Ok(DynamoDbStream { client, arn: arn.to_owned(), label: label.to_owned(), table })
    }

    /// A stream by its ARN, as Lambda names it: nothing is asked. `table` says how its records are read.
    pub fn named(client: Client, arn: &str, table: RecordedTable) -> DynamoDbStream {
        let label = arn.rsplit('/').next().unwrap_or(arn).to_owned();
        DynamoDbStream { client, arn: arn.to_owned(), label, table: Arc::new(table) }
    }

    /// Streams that the table had before this one: what they still have is a day old at most.
    pub async fn older(&self) -> PortResult<Vec<DynamoDbStream>> {
        let call = Call::new("list streams of table", "dynamodb:ListStreams", &self.table.table);
        let (mut older, mut after) = (Vec::new(), None);
        for _ in 0..SHARD_PAGES_MAX {
            let request = self.client.list_streams().table_name(&self.table.table);
            let answer = request.set_exclusive_start_stream_arn(after).send().await.map_err(|error| call.sdk(error))?;
            for stream in answer.streams() {
                if let (Some(arn), Some(label)) = (stream.stream_arn(), stream.stream_label())
                    && arn != self.arn
                {
                    let (client, table) = (self.client.clone(), Arc::clone(&self.table));
                    let stream = DynamoDbStream { client, arn: arn.to_owned(), label: label.to_owned(), table };
                    if stream.carries_old_images().await? {
                        older.push(stream);
                    }
                }
            }
            after = answer.last_evaluated_stream_arn;
            if after.is_none() {
                return Ok(older);
            }
        }
        Err(call.failed(ErrorKind::Internal(format!("more than {SHARD_PAGES_MAX} pages of streams"))))
    }

    /// One that does not, as before a person mended it, has nothing for the archive.
    async fn carries_old_images(&self) -> PortResult<bool> {
        let call = Call::new("look at stream", "dynamodb:DescribeStream", &self.arn);
        let request = self.client.describe_stream().stream_arn(&self.arn).limit(1);
        match request.send().await.map_err(|error| call.sdk(error)) {
            Ok(answer) => {
                let view = answer.stream_description.and_then(|found| found.stream_view_type);
                Ok(matches!(view, Some(StreamViewType::OldImage | StreamViewType::NewAndOldImages)))
            }
            // It has just been forgotten.
            Err(error) if error.kind == ErrorKind::Missing => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whose records it tells of.
    pub fn table(&self) -> &RecordedTable {
        &self.table
    }
}

#[async_trait]
impl RecordStream for DynamoDbStream {
    fn name(&self) -> &str {
        &self.label
    }

    async fn shards(&self) -> PortResult<Vec<Shard>> {
        let call = Call::new("list shards of stream", "dynamodb:DescribeStream", &self.arn);
        let (mut shards, mut after) = (Vec::new(), None);
        for _ in 0..SHARD_PAGES_MAX {
            let request = self.client.describe_stream().stream_arn(&self.arn).set_exclusive_start_shard_id(after);
            let answer = request.send().await.map_err(|error| call.sdk(error))?;
            let found = answer.stream_description.ok_or_else(|| call.failed(ErrorKind::Unavailable))?;
            let id = |id: &str| ShardId(id.to_owned());
            shards.extend(found.shards().iter().filter_map(|shard| {
                Some(Shard { id: id(shard.shard_id()?), parent: shard.parent_shard_id().map(id) })
            }));
            after = found.last_evaluated_shard_id;
            if after.is_none() {
                return Ok(shards);
            }
        }
        Err(call.failed(ErrorKind::Internal(format!("more than {SHARD_PAGES_MAX} pages of shards"))))
    }

    async fn open(&self, shard: &ShardId, from: Position) -> PortResult<Box<dyn ShardReader>> {
        Ok(Box::new(Reader {
            client: self.client.clone(),
            arn: self.arn.clone(),
            table: Arc::clone(&self.table),
            shard: shard.clone(),
            from,
            iterator: Iterator::None,
        }))
    }
}

/// What there is behind what was read.
enum Place {
    At(String),
    /// The stream has forgotten it.
    Forgotten,
    /// There is no such shard any more.
    Gone,
}

/// Where a reader is.
enum Iterator {
    /// It has to be asked for.
    None,
    /// It is good for the next page.
    Next(String),
    /// The shard has ended.
    End,
}

struct Reader {
    client: Client,
    arn: String,
    table: Arc<RecordedTable>,
    shard: ShardId,
    from: Position,
    iterator: Iterator,
}

impl Reader {
    fn call(&self, attempted: &'static str, action: &'static str) -> Call {
        Call::new(attempted, action, format!("{} of {}", self.shard, self.arn))
    }

    /// A new iterator behind what was read.
    async fn new_iterator(&self) -> PortResult<Place> {
        let call = self.call("find place in shard", "dynamodb:GetShardIterator");
        let request = self.client.get_shard_iterator().stream_arn(&self.arn).shard_id(&self.shard.0);
        let request = match &self.from {
            Position::Oldest => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Position::At(sequence) => {
                request.shard_iterator_type(ShardIteratorType::AtSequenceNumber).sequence_number(sequence.as_str())
            }
            Position::After(sequence) => {
                request.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).sequence_number(sequence.as_str())
            }
        };
        match request.send().await {
            Ok(answer) => match answer.shard_iterator {
                Some(iterator) => Ok(Place::At(iterator)),
                None => Err(call.failed(ErrorKind::Unavailable)),
            },
            Err(error) if error.code() == Some("TrimmedDataAccessException") => Ok(Place::Forgotten),
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(Place::Gone),
            Err(error) => Err(call.sdk(error)),
        }
    }

    fn read(&self, record: &aws_sdk_dynamodbstreams::types::Record) -> PortResult<StreamRecord> {
        let call = self.call("read record of shard", "dynamodb:GetRecords");
        let Some(whole) = record_json::in_json(record, &self.arn) else {
            let why = "a value has a type that this version does not know: a newer one must read it, within a day";
            return Err(call.failed(ErrorKind::NotSetUp(why.to_owned())));
        };
        // Without its number nothing behind it can be reached either.
        read_record(&whole, &self.table)
            .map_err(|error| call.failed(ErrorKind::Invalid(error.to_string())).because(error))
    }
}

#[async_trait]
impl ShardReader for Reader {
    async fn next(&mut self) -> PortResult<Read> {
        let call = self.call("read shard", "dynamodb:GetRecords");
        for _ in 0..ITERATORS_IN_A_ROW {
            // What fails is asked for again behind what was read.
            let iterator = match std::mem::replace(&mut self.iterator, Iterator::None) {
                Iterator::Next(iterator) => iterator,
                Iterator::End => {
                    self.iterator = Iterator::End;
                    return Ok(Read::End);
                }
                Iterator::None => match self.new_iterator().await? {
                    Place::At(iterator) => iterator,
                    Place::Forgotten => return Ok(Read::Trimmed),
                    Place::Gone => return Ok(Read::Gone),
                },
            };
            let request = self.client.get_records().shard_iterator(iterator).limit(STREAM_PAGE);
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) if error.code() == Some("ExpiredIteratorException") => continue,
                Err(error) if error.code() == Some("TrimmedDataAccessException") => return Ok(Read::Trimmed),
                Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(Read::Gone),
                Err(error) => return Err(call.sdk(error)),
            };
            let records = answer.records().iter().map(|record| self.read(record)).collect::<PortResult<Vec<_>>>()?;
            if let Some(last) = records.last() {
                self.from = Position::After(last.sequence.clone());
            }
            self.iterator = answer.next_shard_iterator.map_or(Iterator::End, Iterator::Next);
            if records.is_empty() && matches!(self.iterator, Iterator::End) {
                return Ok(Read::End);
            }
            return Ok(Read::Records(records));
        }
        Err(call.failed(ErrorKind::Unavailable))
    }
}
