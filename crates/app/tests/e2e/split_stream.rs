//! A table's stream that splits and merges its shards, told by a server of the test's own: it answers DynamoDB Streams, and
//! passes everything else on to the engine behind it, which has one shard only.
//!
//! What the service promises is kept: deletions of one key go in order along its line of shards, a shard that has ended gets
//! nothing more, and numbers only grow. What it does not promise is not: pages come short or empty, shards are listed
//! children first, and iterators grow old at once.

use crate::proxy::{Request, answer};
use crate::storms::Dice;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Shards on one page of their list.
const SHARDS_A_PAGE: usize = 5;
/// Most records on a page.
const RECORDS_A_PAGE: usize = 60;
/// Of so many readings one finds its iterator too old.
const EXPIRED_ONE_IN: u64 = 11;
/// Of so many readings one gets a page without records, behind which there are some.
const EMPTY_ONE_IN: u64 = 47;
/// When everything was deleted, Unix seconds: on one day, so that deletions of a key want one name.
const AT: u64 = 1_795_245_972;
/// Longer than a dead reader's shards wait for another.
const PATIENCE: Duration = Duration::from_secs(300);

/// The stream, and what its readers did.
pub(crate) struct SplitStream {
    state: Mutex<State>,
    was_read: Condvar,
    /// Host and port of the engine.
    engine: String,
}

/// Everything that the server knows.
pub(crate) struct State {
    shards: Vec<Scripted>,
    dice: Dice,
    keys: usize,
    readings: u64,
    /// Every deletion: number of its key, and its own.
    pub(crate) deleted: Vec<(usize, u64)>,
    /// Keys that have gone through a merge on the side that the child does not name as its parent: no reader can know that
    /// their earlier deletions come first.
    pub(crate) loose: BTreeSet<usize>,
    /// Records that each reader got, those that it got again included.
    pub(crate) handed: Vec<usize>,
    pub(crate) splits: usize,
    pub(crate) merges: usize,
}

/// One shard.
struct Scripted {
    parent: Option<usize>,
    keys: Range<usize>,
    /// As in [`State::deleted`].
    records: Vec<(usize, u64)>,
    ended: bool,
    /// The furthest place that was read at: a reader goes there once all before it is archived.
    asked: usize,
}

impl SplitStream {
    /// A stream of so many shards that tells of so many keys, before the engine at `url`.
    pub(crate) fn before(url: &str, shards: usize, keys: usize, seed: u64) -> Arc<SplitStream> {
        let of = |n: usize| Scripted::new(None, n * keys / shards..(n + 1) * keys / shards);
        let state = State {
            shards: (0..shards).map(of).collect(),
            dice: Dice(seed),
            keys,
            readings: 0,
            deleted: Vec::new(),
            loose: BTreeSet::new(),
            handed: Vec::new(),
            splits: 0,
            merges: 0,
        };
        let engine = url.trim_start_matches("http://").to_owned();
        Arc::new(SplitStream { state: Mutex::new(state), was_read: Condvar::new(), engine })
    }

    /// An endpoint of its own for one more reader, so that they can be told apart.
    pub(crate) fn endpoint(self: &Arc<SplitStream>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stream, reader) = (Arc::clone(self), self.state().handed.len());
        self.state().handed.push(0);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (stream, client) = (Arc::clone(&stream), client.unwrap());
                // A client that is killed in the middle is what the test is about.
                thread::spawn(move || stream.serve(client, reader).map_err(|error| eprintln!("the stream: {error}")));
            }
        });
        url
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits for what readers bring about.
    pub(crate) fn wait(&self, what: &str, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.was_read.wait_timeout_while(self.state(), PATIENCE, |state| !until(state)).unwrap();
        assert!(!waited.1.timed_out(), "waited in vain for {what}: {}", waited.0.told());
        waited.0
    }

    fn serve(&self, mut client: TcpStream, reader: usize) -> io::Result<()> {
        let Some(request) = Request::read(&client)? else { return Ok(()) };
        let target = request.header("x-amz-target").and_then(|target| target.strip_prefix("DynamoDBStreams_20120810."));
        let Some(operation) = target else {
            return client.write_all(&request.pass_on(&self.engine)?);
        };
        let asked: Value = serde_json::from_slice(&request.body)?;
        let answered = self.state().answer(operation, &asked, reader);
        self.was_read.notify_all();
        let whole = match answered {
            Ok(body) => answer("200 OK", &body.to_string()),
            Err(code) => answer("400 Bad Request", &json!({ "__type": format!("x#{code}") }).to_string()),
        };
        client.write_all(whole.as_bytes())
    }
}

impl Scripted {
    fn new(parent: Option<usize>, keys: Range<usize>) -> Scripted {
        Scripted { parent, keys, records: Vec::new(), ended: false, asked: 0 }
    }
}

impl State {
    /// Deletes so many records, of keys as they come.
    pub(crate) fn delete(&mut self, many: usize) {
        for _ in 0..many {
            let deletion = (self.dice.below(self.keys), 1 + self.deleted.len() as u64);
            self.deleted.push(deletion);
            let open = self.shards.iter_mut().find(|shard| !shard.ended && shard.keys.contains(&deletion.0));
            open.unwrap().records.push(deletion);
        }
    }

    /// A shard ends, and two go on with half of its keys each.
    pub(crate) fn split(&mut self) {
        let open = self.open();
        let [one, other] = [0, 1].map(|_| open[self.dice.below(open.len())]);
        // The wider of two, so that no shard takes everything in the end.
        let parent = if self.shards[one].keys.len() < self.shards[other].keys.len() { other } else { one };
        let Range { start, end } = self.end(parent);
        let middle = usize::midpoint(start, end);
        self.shards.extend([start..middle, middle..end].map(|keys| Scripted::new(Some(parent), keys)));
        self.splits += 1;
    }

    /// Two neighbours end, and one goes on with the keys of both; it names one of them. Only of the upper half of the keys:
    /// the order of the lower half stays known.
    pub(crate) fn merge(&mut self) {
        let mut open = self.open();
        open.retain(|&shard| self.shards[shard].keys.start >= self.keys / 2);
        if open.len() < 2 {
            return self.split();
        }
        let [one, other] = [0, 1].map(|_| self.dice.below(open.len() - 1));
        let width = |first: usize| self.shards[open[first]].keys.len() + self.shards[open[first + 1]].keys.len();
        let first = if width(one) > width(other) { other } else { one };
        let (named, unnamed) = (open[first], open[first + 1]);
        let keys = self.end(named).start..self.end(unnamed).end;
        self.loose.extend(self.shards[unnamed].keys.clone());
        self.shards.push(Scripted::new(Some(named), keys));
        self.merges += 1;
    }

    /// The shards that go on, in the order of their keys.
    fn open(&self) -> Vec<usize> {
        let mut open: Vec<usize> = (0..self.shards.len()).filter(|&shard| !self.shards[shard].ended).collect();
        open.sort_by_key(|&shard| self.shards[shard].keys.start);
        open
    }

    fn end(&mut self, shard: usize) -> Range<usize> {
        self.shards[shard].ended = true;
        self.shards[shard].keys.clone()
    }

    /// Whether readers have gone behind every record.
    pub(crate) fn is_read(&self) -> bool {
        self.left() == 0
    }

    /// Records that no reader has gone behind.
    pub(crate) fn left(&self) -> usize {
        self.shards.iter().map(|shard| shard.records.len() - shard.asked).sum()
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    fn told(&self) -> String {
        let left: Vec<String> = (self.shards.iter().enumerate())
            .filter(|(_, shard)| shard.asked < shard.records.len())
            .map(|(n, shard)| format!("shard {n} at {} of {}", shard.asked, shard.records.len()))
            .collect();
        format!("{} handed out, left: {}", self.handed.iter().sum::<usize>(), left.join(", "))
    }

    fn answer(&mut self, operation: &str, asked: &Value, reader: usize) -> Result<Value, &'static str> {
        match operation {
            "ListStreams" => Ok(json!({ "Streams": [] })),
            "DescribeStream" => Ok(self.describe(asked)),
            "GetShardIterator" => {
                let shard = number_of(&asked["ShardId"]);
                let records = &self.shards[shard].records;
                let place = match asked["ShardIteratorType"].as_str().unwrap() {
                    "TRIM_HORIZON" => 0,
                    "AFTER_SEQUENCE_NUMBER" => {
                        let after: u64 = asked["SequenceNumber"].as_str().unwrap().parse().unwrap();
                        records.partition_point(|(_, number)| *number <= after)
                    }
                    _ => return Err("ValidationException"),
                };
                Ok(json!({ "ShardIterator": format!("{shard}:{place}") }))
            }
            "GetRecords" => self.records(asked, reader),
            _ => Err("UnknownOperationException"),
        }
    }

    fn describe(&self, asked: &Value) -> Value {
        // Children first, which a reader must bear.
        let before = asked["ExclusiveStartShardId"]
            .as_str()
            .map_or(self.shards.len(), |_| number_of(&asked["ExclusiveStartShardId"]));
        let page: Vec<usize> = (0..before).rev().take(SHARDS_A_PAGE).collect();
        let shards = page.iter().map(|&n| {
            let Scripted { parent, records, ended, .. } = &self.shards[n];
            let edge = |record: Option<&(usize, u64)>| sequence(record.map_or(0, |(_, number)| *number));
            let mut range = json!({ "StartingSequenceNumber": edge(records.first()) });
            if *ended {
                range["EndingSequenceNumber"] = edge(records.last()).into();
            }
            json!({ "ShardId": name(n), "ParentShardId": parent.map(name), "SequenceNumberRange": range })
        });
        let more = page.last().filter(|&&last| last > 0).map(|&last| name(last));
        json!({ "StreamDescription": {
            "StreamViewType": "OLD_IMAGE", "Shards": shards.collect::<Vec<_>>(), "LastEvaluatedShardId": more,
        } })
    }

    fn records(&mut self, asked: &Value, reader: usize) -> Result<Value, &'static str> {
        let (shard, place) = asked["ShardIterator"].as_str().unwrap().split_once(':').unwrap();
        let (shard, place): (usize, usize) = (shard.parse().unwrap(), place.parse().unwrap());
        self.readings += 1;
        if self.readings.is_multiple_of(EXPIRED_ONE_IN) {
            return Err("ExpiredIteratorException");
        }
        let many = if self.readings.is_multiple_of(EMPTY_ONE_IN) { 0 } else { 1 + self.dice.below(RECORDS_A_PAGE) };
        let found = &mut self.shards[shard];
        found.asked = found.asked.max(place);
        let until = (place + many).min(found.records.len());
        let page: Vec<Value> = found.records[place..until].iter().map(|(key, number)| removed(*key, *number)).collect();
        self.handed[reader] += page.len();
        let is_over = found.ended && place == found.records.len();
        let next = (!is_over).then(|| format!("{shard}:{until}"));
        Ok(json!({ "Records": page, "NextShardIterator": next }))
    }
}

/// The name of a shard.
fn name(shard: usize) -> String {
    format!("shardId-{shard:020}")
}

fn number_of(name: &Value) -> usize {
    name.as_str().unwrap().trim_start_matches("shardId-").parse().unwrap()
}

/// A number as the stream writes it.
pub(crate) fn sequence(number: u64) -> String {
    format!("{number:021}")
}

/// The key of that number.
pub(crate) fn key(key: usize) -> String {
    format!("USER{key:06}")
}

fn removed(of: usize, number: u64) -> Value {
    let of = json!({ "S": key(of) });
    json!({
        "eventID": number.to_string(), "eventName": "REMOVE", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": AT, "SequenceNumber": sequence(number), "Keys": { "id": of },
            "OldImage": { "id": of, "n": { "N": number.to_string() } },
        },
    })
}
