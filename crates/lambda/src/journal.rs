//! The journal of a policy without a machine (I12): lines in objects of its own destination, `.afterimage/journal/CHAIN/N.jsonl`.
//!
//! Functions run side by side and share nothing, so each warm function writes a chain of its own: the first line of it has
//! no line before it, and every object goes on where the one before ended. Lines that wait together become one object. An
//! object is durable when it is answered, and only then is anybody told (written before the act). An answer that is lost
//! leaves it unknown whether the object is there: the next lines begin another chain, so that none ever forks.
//!
//! The head of each chain goes to the log with every object: kept there, it tells of a chain that was cut short or taken out.

use async_trait::async_trait;
use engine::error::{PortError, PortResult};
use engine::flows::reconcile::RESERVED_PREFIX;
use engine::format::journal_line::{Hash, write_line};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::journal::{Entry, Journal};
use engine::ports::objects::{Attributes, ObjectWrite, Onto};
use futures_util::stream;
use lifecycle::ids::ObjectKey;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A journal in objects.
pub(crate) struct ObjectJournal {
    bucket: Arc<dyn ObjectWrite>,
    clock: Arc<dyn Clock>,
    nonces: Arc<dyn Nonces>,
    waiting: Mutex<Waiting>,
    chain: tokio::sync::Mutex<Chain>,
}

/// Lines that nobody writes yet.
#[derive(Default)]
struct Waiting {
    entries: Vec<Entry>,
    /// How many appends there were.
    appends: u64,
}

/// The chain that is written.
struct Chain {
    name: String,
    /// The number of the last line.
    number: u64,
    hash: Hash,
    /// An object is under way, and has not been answered.
    unknown: bool,
    /// Up to which append lines are written or have failed.
    until: u64,
    /// What failed last: the appends after the first number, up to the second.
    failed: Option<(u64, u64, PortError)>,
}

impl ObjectJournal {
    pub(crate) fn new(bucket: Arc<dyn ObjectWrite>, clock: Arc<dyn Clock>, nonces: Arc<dyn Nonces>) -> ObjectJournal {
        let name = String::new();
        let chain = Chain { name, number: 0, hash: Hash::start(), unknown: true, until: 0, failed: None };
        ObjectJournal { bucket, clock, nonces, waiting: Mutex::default(), chain: tokio::sync::Mutex::new(chain) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Chain {
        let started = self.clock.now().timestamp().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let name = format!("{started}-{}", self.nonces.nonce());
        Chain { name, number: 0, hash: Hash::start(), unknown: false, until: 0, failed: None }
    }

    /// Writes all lines that wait as one object.
    async fn write(&self, chain: &mut Chain, entries: &[Entry]) -> PortResult<()> {
        if chain.unknown {
            *chain = Chain { until: chain.until, failed: chain.failed.take(), ..self.begin() };
        }
        let (mut lines, mut number, mut hash) = (Vec::new(), chain.number, chain.hash.clone());
        for entry in entries {
            number += 1;
            hash = write_line(&mut lines, number, &hash, entry)?;
        }
        let name = format!("{RESERVED_PREFIX}journal/{}/{:010}.jsonl", chain.name, chain.number + 1);
        let key = ObjectKey::new(name).expect("far below 1,024 bytes");
        let attributes = Attributes { content_type: Some("application/jsonl".to_owned()), ..Attributes::default() };
        let body = Box::pin(stream::iter([Ok(lines.into())]));
        chain.unknown = true;
        // No condition: nobody else has a chain of this name, and the objects of one are numbered.
        self.bucket.put(&key, body, &attributes, Onto::Anything).await?;
        (chain.number, chain.hash, chain.unknown) = (number, hash, false);
        tracing::info!(object = %key, lines = entries.len(), head = chain.hash.0, "journal");
        Ok(())
    }
}

#[async_trait]
impl Journal for ObjectJournal {
    async fn append(&self, entries: &[Entry]) -> PortResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mine = {
            let mut waiting = self.waiting();
            waiting.entries.extend_from_slice(entries);
            waiting.appends += 1;
            waiting.appends
        };
        let mut chain = self.chain.lock().await;
        if chain.until < mine {
            let (lines, until) = {
                let mut waiting = self.waiting();
                (std::mem::take(&mut waiting.entries), waiting.appends)
            };
            // Noted first: were this dropped in the middle, those that wait must not take their lines for written.
            let from = std::mem::replace(&mut chain.until, until);
            let dropped = engine::error::ErrorKind::Cancelled;
            chain.failed = Some((from, until, PortError::new("append to journal", "the chain", dropped)));
            match self.write(&mut chain, &lines).await {
                Ok(()) => chain.failed = None,
                Err(error) => chain.failed = Some((from, until, error)),
            }
        }
        match &chain.failed {
            Some((from, until, error)) if (from + 1..=*until).contains(&mine) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::error::ErrorKind;
    use engine::format::journal_line::{read_line, read_link};
    use engine::memory::bucket::Versioning;
    use engine::memory::wiring::Memory;
    use engine::ports::journal::Action;
    use engine::wrap::faults::Faults;
    use engine::wrap::tap::{Fate, Tap};
    use lifecycle::ids::PolicyName;
    use lifecycle::time::UnixMs;
    use std::collections::BTreeMap;

    fn entry(n: i64) -> Entry {
        Entry {
            at: UnixMs(n),
            who: "service".to_owned(),
            policy: PolicyName::from("docs"),
            action: Action::Purge,
            key: None,
            copy_key: None,
            size: Some(1),
            checksum: None,
            rule: "surplus".to_owned(),
        }
    }

    struct World {
        memory: Memory,
        faults: Arc<Faults>,
        journal: ObjectJournal,
    }

    fn world() -> World {
        let (memory, faults) = (Memory::new(Versioning::Off), Arc::new(Faults::default()));
        let bucket = Tap::new(Arc::clone(&faults) as _).write("copies", Arc::clone(&memory.destination) as _);
        let journal = ObjectJournal::new(bucket, Arc::clone(&memory.clock) as _, Arc::clone(&memory.nonces) as _);
        World { memory, faults, journal }
    }

    impl World {
        /// The times of all lines, by chain, each chain checked link by link.
        fn chains(&self) -> Vec<Vec<i64>> {
            let mut chains: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for (key, stored) in self.memory.destination.contents() {
                let [".afterimage", "journal", chain, _] = key.as_str().split('/').collect::<Vec<_>>()[..] else {
                    panic!("{key}");
                };
                chains.entry(chain.to_owned()).or_default().extend_from_slice(&stored.bytes);
            }
            let times = |lines: Vec<u8>| {
                let mut before = (0, Hash::start());
                let text = String::from_utf8(lines).unwrap();
                let line = |line: &str| {
                    let link = read_link(line.as_bytes()).unwrap();
                    assert!(link.intact && link.number == before.0 + 1 && link.prev == before.1, "{line}");
                    before = (link.number, link.stated);
                    read_line(line.as_bytes()).unwrap().at.0
                };
                text.lines().map(line).collect()
            };
            chains.into_values().map(times).collect()
        }
    }

    #[tokio::test]
    async fn lines_of_one_function_are_one_chain_over_all_its_objects() {
        let world = world();
        world.journal.append(&[]).await.unwrap();
        world.journal.append(&[entry(1), entry(2)]).await.unwrap();
        world.journal.append(&[entry(3)]).await.unwrap();
        assert_eq!(world.chains(), [[1, 2, 3]]);
        assert_eq!(world.memory.destination.contents().len(), 2);
    }

    #[tokio::test]
    async fn lines_that_wait_together_become_one_object() {
        let world = world();
        let entries: Vec<Vec<Entry>> = (0..50).map(|n| vec![entry(n)]).collect();
        let appends = futures_util::future::join_all(entries.iter().map(|entries| world.journal.append(entries)));
        let blocked = world.journal.chain.lock().await;
        let (results, ()) = futures_util::future::join(appends, async { drop(blocked) }).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(world.chains(), [(0..50).collect::<Vec<_>>()]);
        assert_eq!(world.memory.destination.contents().len(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_was_lost_is_an_error_for_all_of_its_lines_and_begins_another_chain() {
        for fate in [Fate::FailBefore(ErrorKind::Unavailable), Fate::FailAfter(ErrorKind::Unavailable)] {
            let after = matches!(fate, Fate::FailAfter(_));
            let world = world();
            world.journal.append(&[entry(1)]).await.unwrap();
            world.faults.at("copies.put", 1, fate);
            let blocked = world.journal.chain.lock().await;
            let two = [[entry(2)], [entry(3)]];
            let appends = futures_util::future::join_all(two.iter().map(|entries| world.journal.append(entries)));
            let (results, ()) = futures_util::future::join(appends, async { drop(blocked) }).await;
            assert!(results.iter().all(Result::is_err), "{results:?}");
            world.memory.clock.advance(lifecycle::time::SpanMs(1));
            world.journal.append(&[entry(4)]).await.unwrap();
            let first = if after { vec![1, 2, 3] } else { vec![1] };
            assert_eq!(world.chains(), [first, vec![4]]);
        }
    }

    #[tokio::test]
    async fn an_append_that_is_dropped_in_the_middle_leaves_whole_chains() {
        let world = world();
        world.journal.append(&[entry(1)]).await.unwrap();
        world.faults.at("copies.put", 1, Fate::First(Box::pin(std::future::pending())));
        let second = [entry(2)];
        let mut stuck = Box::pin(world.journal.append(&second));
        assert!(futures_util::poll!(&mut stuck).is_pending());
        drop(stuck);
        world.memory.clock.advance(lifecycle::time::SpanMs(1));
        world.journal.append(&[entry(3)]).await.unwrap();
        assert_eq!(world.chains(), [[1], [3]]);
    }
}
