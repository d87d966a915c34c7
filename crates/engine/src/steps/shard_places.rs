//! How far each shard of a stream is read, and what was lost of it: objects beside the archive, under `.afterimage/`, which
//! no listing of records shows.
//!
//! A place says "everything up to here is archived", which stays true whoever wrote it: of two readers of one shard, of which
//! one only believes that it still has the lease, the worst is that records are read again. A crash before a place is written
//! goes back to the one before. Laws: I8 (written after the records are durable).

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::{LIST_PAGE, SHARD_CHECKPOINT_BYTES_MAX};
use crate::ports::objects::{ObjectRead, ObjectWrite, Onto};
use crate::ports::streams::ShardId;
use crate::steps::json_object;
use lifecycle::archive::{Sequence, hash_of};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Under this prefix and a table's name lies how far its stream is read.
pub const STREAMS_PREFIX: &str = ".afterimage/streams/";
/// Under this prefix and a table's name lies what was lost of its stream.
pub const GAPS_PREFIX: &str = ".afterimage/gaps/";
/// Version of the layouts.
const VERSION: u32 = 1;

/// How far a shard is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The last record that is archived, and when it happened.
    pub after: Option<(Sequence, UnixMs)>,
    /// The shard has ended, and all of it is archived.
    pub ended: bool,
    /// The stream had forgotten the shard before its end, and that is told.
    pub told: bool,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct StoredPlace {
    v: u32,
    shard: String,
    after: Option<String>,
    at: Option<i64>,
    ended: bool,
    #[serde(default)]
    told: bool,
}

/// Records that were lost before they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Version of the layout.
    v: u32,
    /// The table.
    pub table: String,
    /// The stream, by its own name.
    pub stream: String,
    /// Of which shard.
    pub shard: String,
    /// After this record, which was the last one read; `None`: from the shard's beginning.
    pub after: Option<String>,
    /// When that happened, Unix ms.
    pub after_at: Option<i64>,
    /// Before this record, which was the next one to be had; `None`: there is none.
    pub before: Option<String>,
    /// When that happened, Unix ms.
    pub before_at: Option<i64>,
    /// When it was noticed, Unix ms.
    pub noticed_at: i64,
    /// The object that says so, once it was read.
    #[serde(skip)]
    pub object: Option<ObjectKey>,
}

/// The places of one stream's shards.
#[derive(Clone)]
pub struct ShardPlaces {
    bucket: Arc<dyn ObjectWrite>,
    table: String,
    stream: String,
}

impl ShardPlaces {
    /// Of a table's stream; `stream` is its own name.
    pub fn new(bucket: Arc<dyn ObjectWrite>, table: &str, stream: &str) -> ShardPlaces {
        ShardPlaces { bucket, table: table.to_owned(), stream: stream.to_owned() }
    }

    /// How far a shard is read; nothing of it, if that is not known.
    pub async fn read(&self, shard: &ShardId) -> PortResult<Place> {
        let key = self.key(shard);
        let stored: StoredPlace = match json_object::read(self.bucket.as_ref(), &key, SHARD_CHECKPOINT_BYTES_MAX).await
        {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(Place::default()),
            Err(PortError { kind: ErrorKind::Damaged(what), .. }) => {
                tracing::warn!(object = %key, "{what}: the shard is read again from its oldest record on");
                return Ok(Place::default());
            }
            Err(error) => return Err(error),
        };
        if stored.v != VERSION {
            let fix = format!("its layout is {}, and this version knows {VERSION}: use a newer version", stored.v);
            return Err(PortError::new("read place of shard", key, ErrorKind::NotSetUp(fix)));
        }
        let after = stored.after.as_deref().and_then(Sequence::new);
        Ok(Place { after: after.zip(stored.at.map(UnixMs)), ended: stored.ended, told: stored.told })
    }

    /// Writes how far a shard is read.
    pub async fn write(&self, shard: &ShardId, place: &Place) -> PortResult<()> {
        let stored = StoredPlace {
            v: VERSION,
            shard: shard.0.clone(),
            after: place.after.as_ref().map(|(sequence, _)| sequence.to_string()),
            at: place.after.as_ref().map(|(_, at)| at.0),
            ended: place.ended,
            told: place.told,
        };
        json_object::write(self.bucket.as_ref(), &self.key(shard), &stored, Onto::Anything).await.map(drop)
    }

    /// All shards of which something was read.
    pub async fn known(&self) -> PortResult<Vec<ShardId>> {
        let prefix = self.prefix();
        let (mut shards, mut after) = (Vec::new(), None);
        loop {
            let page = self.bucket.list(&prefix, after.as_ref(), LIST_PAGE).await?;
            let names = page.items.iter().filter_map(|listed| listed.key.as_str().strip_prefix(&prefix));
            shards.extend(names.filter_map(|name| name.strip_suffix(".json")).map(|name| ShardId(name.to_owned())));
            after = page.next;
            if after.is_none() {
                return Ok(shards);
            }
        }
    }

    /// The streams of a table of which something was read, by their names.
    pub async fn streams(bucket: &dyn ObjectRead, table: &str) -> PortResult<Vec<String>> {
        tables_under(bucket, &format!("{STREAMS_PREFIX}{table}/")).await
    }

    /// Notes that the stream has forgotten a shard before its end was read; once.
    pub async fn note_forgotten(&self, shard: &ShardId, now: UnixMs) -> PortResult<bool> {
        let place = self.read(shard).await?;
        if place.ended || place.told {
            return Ok(false);
        }
        let is_new = self.note_gap(shard, place.after.as_ref(), None, now).await?;
        self.write(shard, &Place { told: true, ..place }).await?;
        Ok(is_new)
    }

    /// Notes that records of a shard were lost, loudly; once, however often it is noticed.
    pub async fn note_gap(
        &self,
        shard: &ShardId,
        after: Option<&(Sequence, UnixMs)>,
        before: Option<&(Sequence, UnixMs)>,
        now: UnixMs,
    ) -> PortResult<bool> {
        let text = |edge: Option<&(Sequence, UnixMs)>| edge.map(|(sequence, _)| sequence.to_string());
        let at = |edge: Option<&(Sequence, UnixMs)>| edge.map(|(_, at)| at.0);
        let gap = Gap {
            v: VERSION,
            table: self.table.clone(),
            stream: self.stream.clone(),
            shard: shard.0.clone(),
            after: text(after),
            after_at: at(after),
            before: text(before),
            before_at: at(before),
            noticed_at: now.0,
            object: None,
        };
        let which = hash_of(format!("{}\n{shard}\n{:?}", self.stream, gap.after).as_bytes());
        let key = object(format!("{GAPS_PREFIX}{}/{which}.json", self.table));
        if !json_object::write(self.bucket.as_ref(), &key, &gap, Onto::Nothing).await? {
            return Ok(false);
        }
        let edge = |edge: Option<&(Sequence, UnixMs)>, none: &str| {
            edge.map_or(none.to_owned(), |(sequence, at)| format!("record {sequence} of {at}"))
        };
        let (from, until) = (edge(after, "the shard's beginning"), edge(before, "its end"));
        tracing::error!(
            table = self.table, %shard, object = %key,
            "deletions may be lost: the stream no longer has what came after {from} and before {until}"
        );
        Ok(true)
    }

    /// What was lost of a table's streams, as far as it is noted.
    pub async fn gaps(bucket: &dyn ObjectRead, table: &str) -> PortResult<Vec<Gap>> {
        let page = bucket.list(&format!("{GAPS_PREFIX}{table}/"), None, LIST_PAGE).await?;
        let mut gaps = Vec::new();
        for listed in page.items {
            let gap = json_object::read::<Gap>(bucket, &listed.key, SHARD_CHECKPOINT_BYTES_MAX).await?;
            gaps.extend(gap.map(|gap| Gap { object: Some(listed.key), ..gap }));
        }
        Ok(gaps)
    }

    fn prefix(&self) -> String {
        format!("{STREAMS_PREFIX}{}/{}/", self.table, self.stream)
    }

    fn key(&self, shard: &ShardId) -> ObjectKey {
        object(format!("{}{shard}.json", self.prefix()))
    }
}

/// The tables of which there is anything under one of these prefixes; what stands there up to the next `/`.
pub async fn tables_under(bucket: &dyn ObjectRead, prefix: &str) -> PortResult<Vec<String>> {
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = bucket.list(prefix, after.as_ref(), 1).await?;
        let first = page.items.into_iter().next();
        let name = first.as_ref().and_then(|listed| listed.key.as_str().strip_prefix(prefix)?.split('/').next());
        let Some(name) = name else {
            // An empty page is not the end of a listing.
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(names),
            }
            continue;
        };
        // `0` is the character after `/`.
        after = Some(object(format!("{prefix}{name}0")));
        names.push(name.to_owned());
    }
}

/// Names of tables have at most 255 bytes, of streams 65, of shards 65.
fn object(name: String) -> ObjectKey {
    ObjectKey::new(name).expect("far below the limit of keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::bucket::{MemoryBucket, Versioning};
    use crate::memory::clock::MemoryClock;
    use crate::ports::objects::{Attributes, Head, Listed, Object, Page, Retrieval};
    use async_trait::async_trait;
    use lifecycle::ids::VersionId;

    /// A store whose listings begin with an empty page that says where they go on.
    struct Sparse(MemoryBucket);

    #[async_trait]
    impl ObjectRead for Sparse {
        async fn head(&self, _: &ObjectKey, _: Option<&VersionId>) -> PortResult<Option<Head>> {
            unreachable!("it is only listed")
        }
        async fn get(
            &self,
            _: &ObjectKey,
            _: Option<&VersionId>,
            _: Option<std::ops::Range<u64>>,
        ) -> PortResult<Option<Object>> {
            unreachable!("it is only listed")
        }
        async fn retrieve(&self, _: &ObjectKey, _: &Retrieval) -> PortResult<()> {
            unreachable!("it is only listed")
        }
        async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
            match after {
                Some(after) if after.as_str().ends_with('!') => self.0.list(prefix, Some(after), limit).await,
                _ => {
                    let from = after.map_or(prefix, ObjectKey::as_str);
                    Ok(Page { items: Vec::new(), next: Some(object(format!("{from}!"))) })
                }
            }
        }
    }

    #[tokio::test]
    async fn an_empty_page_does_not_end_the_search_for_tables() {
        let bucket = MemoryBucket::new("archive", Versioning::Off, Arc::new(MemoryClock::at(UnixMs(0))));
        for name in ["Orders/1", "Orders/2", "Users/1"] {
            bucket.put_object(&object(format!("{GAPS_PREFIX}{name}")), "x", Attributes::default());
        }
        assert_eq!(tables_under(&Sparse(bucket), GAPS_PREFIX).await.unwrap(), ["Orders", "Users"]);
    }
}
