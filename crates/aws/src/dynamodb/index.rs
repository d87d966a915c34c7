//! What is due, by time: queries of the index, one for each shard, merged. Eventually consistent: hints (I9).
//!
//! The service keeps entries of one status in order of time, but those of one and the same time in an order of its own. A
//! page here is in order of time, key and copy key, whatever shards they stand in: the moments at which a page begins and
//! ends are read whole, each time, and of what was read only the page is held in memory.

use super::DynamoDbCatalog;
use super::item::{Item, Reader, number, text};
use super::layout::{COPY_KEY, DISOWNED_AT, INDEX, ORIGINAL_KEY, STATUS, TOMBSTONE, Word};
use crate::limits::{INDEX_PAGE_MAX, INDEX_QUERIES_MAX};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, Select};
use engine::error::{ErrorKind, PortResult};
use engine::ports::catalog::{IndexEntry, IndexQuery};
use engine::ports::objects::Page;
use futures_util::future::try_join_all;
use lifecycle::ids::{CopyKey, ObjectKey};
use lifecycle::time::UnixMs;
use std::collections::BTreeSet;

/// How far one shard was read.
struct Shard {
    status: String,
    /// Continue there.
    start: Option<Item>,
    /// Everything before this moment was read.
    read_to: UnixMs,
    ended: bool,
}

/// The smallest entries of a page, and one more that says whether there is another page.
struct Smallest {
    entries: BTreeSet<IndexEntry>,
    most: usize,
}

impl Smallest {
    fn add(&mut self, entry: IndexEntry) {
        self.entries.insert(entry);
        if self.entries.len() > self.most {
            self.entries.pop_last();
        }
    }

    /// Nothing that was not read yet can come before these.
    fn is_complete(&self, read_to: UnixMs) -> bool {
        self.entries.len() == self.most && self.entries.last().is_some_and(|last| last.at < read_to)
    }
}

impl DynamoDbCatalog {
    /// Entries of the index in order of time.
    pub(super) async fn index_page(&self, query: &IndexQuery) -> PortResult<Page<IndexEntry, IndexEntry>> {
        let limit = query.limit.min(INDEX_PAGE_MAX);
        let after = query.after.as_ref();
        let from = after.map_or(query.from, |after| after.at.max(query.from));
        if from > query.until || limit == 0 {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let word = Word::indexed(query.what);
        let statuses = self.layout.statuses(word, self.checked().await?.shards_ever);
        let shard = |status| Shard { status, start: None, read_to: from, ended: false };
        let mut shards: Vec<Shard> = statuses.into_iter().map(shard).collect();
        let mut smallest = Smallest { entries: BTreeSet::new(), most: limit + 1 };
        for round in 0..INDEX_QUERIES_MAX {
            let behind = shards.iter().filter(|shard| !shard.ended).map(|shard| shard.read_to).min();
            let Some(behind) = behind.filter(|behind| !smallest.is_complete(*behind)) else {
                return Ok(page(smallest, limit));
            };
            // A time that fills more than a page is read in large steps.
            let step = if round == 0 { limit + 1 } else { INDEX_PAGE_MAX };
            let next = shards.iter().filter(|shard| !shard.ended && shard.read_to == behind);
            let reads = try_join_all(next.map(|shard| self.read_shard(shard, query.until, from, step))).await?;
            let mut reads = reads.into_iter();
            for shard in shards.iter_mut().filter(|shard| !shard.ended && shard.read_to == behind) {
                let Some((entries, start)) = reads.next() else { break };
                shard.read_to = entries.last().map_or(shard.read_to, |entry| entry.at);
                shard.ended = start.is_none();
                shard.start = start;
                let new = entries.into_iter().filter(|entry| after.is_none_or(|after| entry > after));
                new.for_each(|entry| smallest.add(entry));
            }
        }
        let call = self.call("read catalog index", "dynamodb:Query", self.layout.plain(word));
        Err(call.failed(ErrorKind::Internal(format!("one page takes more than {INDEX_QUERIES_MAX} queries"))))
    }

    async fn read_shard(
        &self,
        shard: &Shard,
        until: UnixMs,
        from: UnixMs,
        step: usize,
    ) -> PortResult<(Vec<IndexEntry>, Option<Item>)> {
        let call = self.call("read catalog index", "dynamodb:Query", &shard.status);
        let query = self.index_query(&shard.status, from, until).limit(i32::try_from(step).unwrap_or(i32::MAX));
        let answer =
            query.set_exclusive_start_key(shard.start.clone()).send().await.map_err(|error| call.sdk(error))?;
        self.capacity.read(answer.consumed_capacity.as_slice());
        let entries = answer.items().iter().map(|item| self.entry(item)).collect::<PortResult<Vec<_>>>()?;
        Ok((entries, answer.last_evaluated_key))
    }

    fn index_query(&self, status: &str, from: UnixMs, until: UnixMs) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&self.table).index_name(INDEX);
        let query = query.key_condition_expression("#status = :status AND #at BETWEEN :from AND :until");
        let query = query.expression_attribute_names("#status", STATUS).expression_attribute_names("#at", DISOWNED_AT);
        let query = query.expression_attribute_values(":status", text(status));
        let query = query.expression_attribute_values(":from", number(from.0));
        let query = query.expression_attribute_values(":until", number(until.0));
        query.return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    /// Tombstones noted since then, counted up to `enough`.
    pub(super) async fn count_removed(&self, since: UnixMs, enough: u64) -> PortResult<u64> {
        let mut counted: u64 = 0;
        for status in self.layout.statuses(Word::Removed, self.checked().await?.shards_ever) {
            let call = self.call("count removed keys", "dynamodb:Query", &status);
            let mut start = None;
            for _ in 0..INDEX_QUERIES_MAX {
                let query = self.index_query(&status, since, UnixMs(i64::MAX)).select(Select::Count);
                let answer = query.set_exclusive_start_key(start).send().await.map_err(|error| call.sdk(error))?;
                self.capacity.read(answer.consumed_capacity.as_slice());
                counted = counted.saturating_add(u64::try_from(answer.count).unwrap_or(0));
                start = answer.last_evaluated_key;
                if counted >= enough {
                    return Ok(enough);
                }
                if start.is_none() {
                    break;
                }
            }
            if start.is_some() {
                return Ok(enough);
            }
        }
        Ok(counted)
    }

    fn entry(&self, item: &Item) -> PortResult<IndexEntry> {
        let stands = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
        let reader = Reader { item, which: format!("{} / {}", stands(ORIGINAL_KEY), stands(COPY_KEY)) };
        let original = self.layout.original(reader.text(ORIGINAL_KEY)?).ok_or_else(|| reader.damaged(ORIGINAL_KEY))?;
        let at = UnixMs(reader.number(DISOWNED_AT)?);
        let sort = reader.text(COPY_KEY)?;
        let is_tombstone = self.layout.word(reader.text(STATUS)?) == Some(Word::Removed);
        if is_tombstone != (sort == TOMBSTONE) {
            return Err(reader.damaged(STATUS));
        }
        let copy_key = match is_tombstone {
            true => None,
            false => Some(CopyKey::of(ObjectKey::new(sort).map_err(|_| reader.damaged(COPY_KEY))?)),
        };
        Ok(IndexEntry { at, original, copy_key })
    }
}

fn page(smallest: Smallest, limit: usize) -> Page<IndexEntry, IndexEntry> {
    let mut items: Vec<IndexEntry> = smallest.entries.into_iter().collect();
    let more = items.len() > limit;
    items.truncate(limit);
    Page { next: items.last().filter(|_| more).cloned(), items }
}
