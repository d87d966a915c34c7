//! `status` of a feed: what waits for it, since when and why, and what it refused. A feed holds up nothing: what is wrong with it
//! is told here.

use super::status::counted;
use crate::answer::FeedStatus;
use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::instance::Instance;
use crate::limits::{FEED_LAG_MAX, FEED_STATUS_PAGES};
use engine::error::PortResult;
use engine::ports::objects::{ObjectRead, Page};
use engine::steps::outbox::{FEED_PREFIX, REFUSED_PREFIX, Waiting, page};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;

/// Objects of a feed, counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    deletions: u64,
    /// When the oldest was put there.
    oldest: Option<UnixMs>,
    /// There are more than were looked at.
    more: bool,
}

impl Counted {
    fn add(&mut self, items: &[Waiting]) {
        self.deletions += items.iter().map(|item| item.deletions).sum::<u64>();
        // In the order of shards, not of time: the oldest may be on any page.
        self.oldest = self.oldest.into_iter().chain(items.iter().map(|item| item.since)).min();
    }

    async fn under(archive: &dyn ObjectRead, prefix: &str, table: &str) -> PortResult<Counted> {
        let (mut counted, mut after): (_, Option<ObjectKey>) = (Counted::default(), None);
        for _ in 0..FEED_STATUS_PAGES {
            let Page { items, next } = page(archive, prefix, table, after.as_ref()).await?;
            counted.add(&items);
            after = next;
            if after.is_none() {
                return Ok(counted);
            }
        }
        Ok(Counted { more: true, ..counted })
    }

    fn in_words(&self, one: &str, many: &str) -> String {
        let least = if self.more { "at least " } else { "" };
        format!("{least}{}", counted(self.deletions, one, many))
    }
}

/// How a table's feed stands; `None`: it has none.
pub(super) async fn feed_status(
    instance: &Instance,
    archiving: &Archiving,
    now: UnixMs,
    problems: &mut Vec<String>,
) -> Option<FeedStatus> {
    let (table, to) = (&archiving.config.table, archiving.config.feed.as_ref()?.to.to_string());
    let look = async {
        let (reader, table) = (archiving.objects(instance)?, archiving.config.table.name.as_str());
        let waiting = Counted::under(reader.as_ref(), FEED_PREFIX, table).await?;
        Ok::<_, Failure>((waiting, Counted::under(reader.as_ref(), REFUSED_PREFIX, table).await?))
    };
    let (waiting, refused) = look.await.unwrap_or_else(|failure| {
        problems.push(format!("{table}: what its feed has to tell is not known: {}", failure.chain()));
        Default::default()
    });
    let seen = archiving.feed_seen.now();
    let words = waiting.in_words("deletion waits", "deletions wait");
    let since = waiting.oldest.map(|at| format!(", {words} since {at}")).unwrap_or_default();
    if let Some(trouble) = &seen.trouble {
        problems.push(format!("{table}: its feed {to} is not told{since}: {trouble}; archiving goes on"));
    } else if waiting.oldest.is_some_and(|oldest| now.since(oldest) > FEED_LAG_MAX) {
        problems.push(format!("{table}: its feed {to} lies behind{since}"));
    }
    if let Some(damaged) = &seen.damaged {
        let remedy = "its deletions are archived: ask for them with `archive query`, and delete the object";
        problems.push(format!("{table}: what is to be told to its feed {to} does not read back: {damaged}; {remedy}"));
    }
    if refused.deletions > 0 {
        let (words, place) = (refused.in_words("deletion", "deletions"), &archiving.config.destination);
        problems.push(format!(
            "{table}: its feed {to} refused {words} for good, which lie under {REFUSED_PREFIX}{}/ of {place} (the log says \
             why): `serve` tells them once more at its next start; `afterimage archive drop {} OBJECT` takes away what nobody needs",
            table.name, archiving.config.service
        ));
    }
    Some(FeedStatus {
        to,
        waiting: waiting.deletions,
        more: waiting.more,
        refused: refused.deletions,
        oldest_ms: waiting.oldest.map(|at| at.0),
        told_at_ms: seen.told_at.map(|at| at.0),
        trouble: seen.trouble,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::limits::LIST_PAGE;
    use engine::memory::bucket::{MemoryBucket, Versioning};
    use engine::memory::clock::MemoryClock;
    use engine::ports::objects::Attributes;
    use lifecycle::time::SpanMs;
    use std::sync::Arc;

    /// The oldest is of the last shard, behind a page of others.
    #[tokio::test]
    async fn all_pages_count_and_the_oldest_is_the_oldest_of_all() {
        let clock = Arc::new(MemoryClock::at(UnixMs(1_795_245_972_000)));
        let bucket = MemoryBucket::new("archive", Versioning::Off, clock.clone());
        let put = |shard: &str, n: usize| {
            let name = format!("{FEED_PREFIX}Orders/stream/{shard}/{n:040}-{n:040}-2.jsonl");
            bucket.put_object(&ObjectKey::new(name).unwrap(), "x", Attributes::default());
        };
        put("shard-9", 1);
        clock.advance(SpanMs::minutes(1));
        (0..LIST_PAGE).for_each(|n| put("shard-1", n));
        let counted = Counted::under(&bucket, FEED_PREFIX, "Orders").await.unwrap();
        let oldest = Some(UnixMs(1_795_245_972_000));
        assert_eq!(counted, Counted { deletions: 2 * (LIST_PAGE as u64 + 1), oldest, more: false });
        (0..LIST_PAGE * FEED_STATUS_PAGES).for_each(|n| put("shard-2", n));
        let counted = Counted::under(&bucket, FEED_PREFIX, "Orders").await.unwrap();
        assert!(counted.more && counted.in_words("waits", "wait").starts_with("at least 100000 wait"), "{counted:?}");
    }
}
