//! The outbox of a feed: deletions that are archived and not told yet, as objects beside the archive, under
//! `.afterimage/feed/`, which no listing of records shows.
//!
//! An object holds the lines of one reading of one shard, in its order, and is named by the first and the last sequence number
//! and by how many there are, so that the order of the names is that of the stream, and a reading that is done again is the
//! same object. It is put after its records are durable in the archive and before the shard's place moves behind them; it goes
//! once all of its lines are told. The only file that deletes them (I3), and it deletes nothing else.
//!
//! A line that the other side refuses for good is laid aside under `.afterimage/feed-refused/`, as an object of the same kind,
//! before the one that it stood in goes; there it stays until it is taken after all, or a person deletes it.
//!
//! A crash before it is put goes back to the place before, and the records are read again; a crash after it was told, and
//! before it is gone, tells its lines once more. Laws: I8 (told after the archive is durable, and at least once), I10.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::archived::Stored;
use crate::format::feed_line::{ToldOf, id_of, line};
use crate::limits::{LIST_PAGE, OUTBOX_BYTES, RECORD_BYTES_MAX};
use crate::ports::feed::FeedLine;
use crate::ports::objects::{Attributes, ObjectPurge, ObjectRead, ObjectWrite, Onto, Page, PurgeItem};
use crate::ports::streams::DeletedRecord;
use crate::report::chain;
use futures_util::{TryStreamExt, stream};
use lifecycle::archive::{Sequence, hash_of};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use std::sync::Arc;
use tokio::sync::Notify;

/// Under this prefix and a table's name lies what is to be told.
pub const FEED_PREFIX: &str = ".afterimage/feed/";
/// Under this prefix and a table's name lies what a feed refused.
pub const REFUSED_PREFIX: &str = ".afterimage/feed-refused/";
/// What a record that was archived from a person's hands has instead of a stream and a shard.
pub const REDRIVEN: &str = "redriven";
const ENDING: &str = ".jsonl";
/// Digits of a sequence number in a name: the most that one has.
const DIGITS: usize = 40;

/// A deletion and what it became in the archive.
pub type Told<'a> = (&'a DeletedRecord, &'a Stored);

/// The outbox of one table.
pub struct Outbox {
    bucket: Arc<dyn ObjectWrite>,
    table: String,
    /// The archive's destination, as the configuration names it.
    destination: String,
    with_image: bool,
    /// Something was put here, by this process.
    pub(crate) put: Notify,
}

/// An object that waits to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub name: ObjectKey,
    /// Of which shard.
    pub shard: String,
    /// How many deletions it holds.
    pub deletions: u64,
    /// Since when it waits.
    pub since: UnixMs,
}

impl Outbox {
    /// Beside the archive in that bucket, which the configuration names so.
    pub fn new(bucket: Arc<dyn ObjectWrite>, table: &str, destination: &str, with_image: bool) -> Outbox {
        let (table, destination) = (table.to_owned(), destination.to_owned());
        Outbox { bucket, table, destination, with_image, put: Notify::new() }
    }

    /// Puts what was archived of one shard, in its order.
    pub async fn put(&self, stream: &str, shard: &str, archived: &[Told<'_>]) -> PortResult<()> {
        let told = ToldOf { destination: &self.destination, shard, with_image: self.with_image };
        let (mut text, mut first, mut lines) = (String::new(), None, 0);
        for (place, (record, stored)) in archived.iter().enumerate() {
            let sequence = &record.deletion.sequence;
            text.push_str(&line(record, stored, &told));
            text.push('\n');
            lines += 1;
            let from = first.get_or_insert(sequence);
            if text.len() >= OUTBOX_BYTES || place + 1 == archived.len() {
                let name = name_of(&self.table, stream, shard, [from, sequence], lines);
                self.put_one(&name, std::mem::take(&mut text)).await?;
                (first, lines) = (None, 0);
            }
        }
        self.put.notify_one();
        Ok(())
    }

    async fn put_one(&self, name: &ObjectKey, text: String) -> PortResult<()> {
        let (size, body) = (text.len() as u64, Box::pin(stream::iter([Ok(text.into())])));
        let attributes = Attributes { content_type: Some("application/x-ndjson".to_owned()), ..Attributes::default() };
        // What is there is the same, from a reading before.
        self.bucket.put_sized(name, body, size, &attributes, Onto::Anything).await.map(drop)
    }

    /// What waits, in the order in which it is to be told: streams in that of their beginnings, shards in that of their names,
    /// and each in its own.
    pub async fn waiting(&self, after: Option<&ObjectKey>) -> PortResult<Page<Waiting>> {
        page(self.bucket.as_ref(), FEED_PREFIX, &self.table, after).await
    }

    /// What was refused, likewise.
    pub async fn refused(&self, after: Option<&ObjectKey>) -> PortResult<Page<Waiting>> {
        page(self.bucket.as_ref(), REFUSED_PREFIX, &self.table, after).await
    }

    /// Puts a line that is refused aside; where it lies.
    pub async fn lay_aside(&self, waiting: &Waiting, line: &FeedLine) -> PortResult<ObjectKey> {
        let place = waiting.name.as_str().strip_prefix(FEED_PREFIX).and_then(|place| place.rsplit_once('/'));
        let (folder, _) = place.expect("what waits lies under the prefix, in a folder");
        let is_plain = line.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let id = if is_plain { line.id.clone() } else { hash_of(line.text.as_bytes()) };
        let name = format!("{REFUSED_PREFIX}{folder}/{id}-1{ENDING}");
        let name = ObjectKey::new(name).expect("shorter than the name of the object that it stood in");
        self.put_one(&name, format!("{}\n", line.text)).await?;
        Ok(name)
    }

    /// The lines of an object; `None`: it is gone, since somebody else told it, or its bytes are: then it is still to be removed.
    pub async fn read(&self, name: &ObjectKey) -> PortResult<Option<Vec<FeedLine>>> {
        let mut object = match self.bucket.get(name, None, None).await {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(None),
            // A folder's bytes go before what names them: its removal was cut off, and it was told before that.
            Err(error) if error.bytes_are_gone() => {
                tracing::warn!(object = %name, "taken for told, since its bytes are gone: {}", chain(&error));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let damaged = |why: &str| PortError::new("read outbox of feed", name, ErrorKind::Damaged(why.to_owned()));
        let mut text = Vec::new();
        while let Some(piece) = object.body.try_next().await? {
            text.extend_from_slice(&piece);
            if text.len() > OUTBOX_BYTES + RECORD_BYTES_MAX {
                return Err(damaged("it is larger than what is ever put there"));
            }
        }
        let text = String::from_utf8(text).map_err(|_| damaged("it is no text"))?;
        let line = |line: &str| FeedLine {
            id: id_of(line).unwrap_or_else(|| hash_of(line.as_bytes())),
            text: line.to_owned(),
        };
        Ok(Some(text.lines().map(line).collect()))
    }
}

fn name_of(table: &str, stream: &str, shard: &str, [first, last]: [&Sequence; 2], lines: usize) -> ObjectKey {
    let name = format!("{FEED_PREFIX}{table}/{stream}/{shard}/{first:0>DIGITS$}-{last:0>DIGITS$}-{lines}{ENDING}");
    ObjectKey::new(name).expect("names of tables, streams and shards have some 400 bytes together")
}

/// What lies under one of the two prefixes of a table, one page: for who only looks.
pub async fn page(
    bucket: &dyn ObjectRead,
    prefix: &str,
    table: &str,
    after: Option<&ObjectKey>,
) -> PortResult<Page<Waiting>> {
    let prefix = format!("{prefix}{table}/");
    let Page { items, next } = bucket.list(&prefix, after, LIST_PAGE).await?;
    let named = items.into_iter().filter_map(|listed| {
        let mut parts = listed.key.as_str().strip_prefix(&prefix)?.strip_suffix(ENDING)?.split('/').skip(1);
        let (shard, name) = (parts.next()?.to_owned(), parts.next()?);
        let deletions = name.rsplit('-').next()?.parse().ok()?;
        Some(Waiting { shard, deletions, since: listed.last_modified, name: listed.key })
    });
    Ok(Page { items: named.collect(), next })
}

/// The right to remove what was told, or refused and laid aside. Nothing but this file can use it.
#[derive(Clone)]
pub struct OutboxPurger(Arc<dyn ObjectPurge>);

impl OutboxPurger {
    /// Wraps the handle when a feed is wired.
    pub fn new(objects: Arc<dyn ObjectPurge>) -> OutboxPurger {
        OutboxPurger(objects)
    }

    /// Removes one; one that is gone is as good.
    pub async fn remove(&self, name: &ObjectKey) -> PortResult<()> {
        if ![FEED_PREFIX, REFUSED_PREFIX].iter().any(|prefix| name.as_str().starts_with(prefix)) {
            let why = format!("it lies neither under {FEED_PREFIX} nor under {REFUSED_PREFIX}");
            return Err(PortError::new("remove what was told", name, ErrorKind::Invalid(why)));
        }
        let item = PurgeItem { key: name.clone(), version_id: None, if_match: None };
        self.0.purge(&[item]).await.into_iter().try_for_each(|purged| purged.map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of a stream may get one digit more, and names are told in their order.
    #[test]
    fn the_order_of_the_names_is_that_of_the_numbers() {
        let name = |first: &str, last: &str| {
            let numbers = [first, last].map(|digits| Sequence::new(digits).unwrap());
            name_of("Orders", "stream", "shard", [&numbers[0], &numbers[1]], 1)
        };
        assert!(name("8", "9") < name("10", "11"));
        assert!(name("9", "9") < name("9", "10"));
        let expected = format!(".afterimage/feed/Orders/stream/shard/{}9-{}10-1.jsonl", "0".repeat(39), "0".repeat(38));
        assert_eq!(name("9", "10").as_str(), expected);
    }
}
