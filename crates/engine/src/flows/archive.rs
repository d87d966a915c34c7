//! Archive: every deleted record becomes an object, once.
//!
//! The name follows from the deletion, and the write is conditional on nothing being there (`If-None-Match: *`). What is
//! there already says in its metadata which deletion it is: this one, so that a redelivery makes no second object; or another
//! of the same name, and then the deletion takes the name that only it can have. Nothing is overwritten.
//!
//! What can never be archived (no old image, a name that somebody else's object holds) is laid aside, whole and with the
//! reason, under `.afterimage/aside/`, so that it holds up nothing behind it and is not lost. A crash leaves a part of the
//! batch archived; given again, the rest is. Laws: I8 (the stream's position moves on after this), I11.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::archived::{META_DELETION, META_HASH, Stored, body, metadata};
use crate::format::laid_aside::Note;
use crate::limits::ARCHIVE_PUTS_IN_FLIGHT;
use crate::ports::metrics::{Counter, Metrics};
use crate::ports::objects::{Attributes, ObjectWrite, Onto};
use crate::ports::streams::{Change, DeletedRecord, StreamRecord};
use crate::report::chain;
use crate::steps::aside::aside_name;
use crate::steps::json_object;
use crate::steps::outbox::Told;
use crate::wrap::lazy::Lazy;
use crate::wrap::unpacked::Unpacked;
use futures_util::{StreamExt, stream};
use lifecycle::archive::{Sequence, hash_of};
use lifecycle::ids::ObjectKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An object that is put on the condition that it is not there.
const CONDITIONS: &str = ".afterimage/conditions.json";

/// Where deleted records go.
pub struct Archive {
    /// Of which table.
    pub(super) table: String,
    destination: Arc<dyn ObjectWrite>,
    pub(super) metrics: Arc<dyn Metrics>,
    /// Known once it was asked for.
    heeds_conditions: Lazy<()>,
    /// Where deletions come so late that originals of their day may be gone.
    packs: Option<Unpacked>,
}

/// What a record of a stream became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// Nothing: it tells of no deletion.
    Nothing,
    /// An object of the archive, now or before.
    Stored(Stored),
    /// A note that lies aside, since it can never be archived as it is: why.
    Aside(String),
}

/// How putting a record ended.
enum Put {
    /// It is there.
    Counted(Counter, Stored),
    /// It can never be.
    Never(String),
}

impl Archive {
    /// The archive of a table.
    pub fn new(table: &str, destination: Arc<dyn ObjectWrite>, metrics: Arc<dyn Metrics>) -> Archive {
        Archive { table: table.to_owned(), destination, metrics, heeds_conditions: Lazy::new(), packs: None }
    }

    /// The same for deletions that may come late: dead letters have no age. A name that stands in a pack is taken, though its
    /// object has gone.
    pub fn for_late_ones(self) -> Archive {
        Archive { packs: Some(Unpacked::new(self.destination.clone())), ..self }
    }

    /// Archives what was deleted among some records of one shard, in order; what each one became. Records that follow a failed
    /// one may be archived all the same: given again, they are found.
    pub async fn archive(&self, records: &[StreamRecord]) -> Vec<PortResult<Became>> {
        if let Err(error) = self.heeds_conditions.get(|| self.ask_for_conditions()).await {
            return records.iter().map(|_| Err(error.clone())).collect();
        }
        // Those of one name in their order, so that the first has the plain one.
        let mut by_name: BTreeMap<ObjectKey, Vec<usize>> = BTreeMap::new();
        let mut ended: Vec<PortResult<Became>> = records.iter().map(|_| Ok(Became::Nothing)).collect();
        for (place, record) in records.iter().enumerate() {
            let name = match &record.change {
                Change::Written => continue,
                Change::Deleted(deleted) => deleted.deletion.plain_name(),
                Change::Unreadable { record: whole, .. } => aside_name(&self.table, &record.sequence, whole),
            };
            by_name.entry(name).or_default().push(place);
        }
        let mut groups = stream::iter(by_name.into_values().collect::<Vec<_>>())
            .map(|group| async move {
                let mut ended: Vec<(usize, PortResult<Became>)> = Vec::with_capacity(group.len());
                for place in group {
                    // One that fails holds up those of its name, which would have its place.
                    let how = match ended.last() {
                        Some((_, Err(error))) => Err(error.clone()),
                        Some((_, Ok(_))) | None => self.one(&records[place]).await,
                    };
                    ended.push((place, how));
                }
                ended
            })
            .buffer_unordered(ARCHIVE_PUTS_IN_FLIGHT);
        while let Some(group) = groups.next().await {
            for (place, how) in group {
                ended[place] = how;
            }
        }
        ended
    }

    /// A store that writes whatever the condition says would overwrite a deletion by the next one of the same name.
    async fn ask_for_conditions(&self) -> PortResult<()> {
        let probe = ObjectKey::new(CONDITIONS).expect("a short name");
        if self.destination.heeds_conditions(&probe).await? {
            return Ok(());
        }
        let why = "the store does not heed `If-None-Match`, so that one deletion would overwrite another: archive to a store \
                   that does";
        Err(PortError::new("archive records", &self.table, ErrorKind::NotSetUp(why.to_owned())))
    }

    async fn one(&self, record: &StreamRecord) -> PortResult<Became> {
        let (why, key, whole) = match &record.change {
            Change::Written => return Ok(Became::Nothing),
            Change::Unreadable { why, record } => (why.clone(), None, record),
            Change::Deleted(deleted) => match self.put(deleted).await? {
                Put::Counted(counter, stored) => {
                    self.metrics.add(counter, 1);
                    return Ok(Became::Stored(stored));
                }
                Put::Never(why) => (why, Some(deleted.key_names.clone()), &deleted.record),
            },
        };
        let note = Note::new(&self.table, &why, key, whole.clone());
        self.lay_aside(&record.sequence, &note).await?;
        Ok(Became::Aside(why))
    }

    /// Archives a record that lies aside, once more: the object that it is, or why it can still not be one. What is there
    /// already is found, so that a command that was stopped half-way can simply be given again.
    pub async fn archive_again(&self, record: &StreamRecord) -> PortResult<Result<Option<Stored>, String>> {
        self.heeds_conditions.get(|| self.ask_for_conditions()).await?;
        match &record.change {
            Change::Written => Ok(Ok(None)),
            Change::Unreadable { why, .. } => Ok(Err(why.clone())),
            Change::Deleted(deleted) => Ok(match self.put(deleted).await? {
                Put::Counted(counter, stored) => {
                    self.metrics.add(counter, 1);
                    Ok(Some(stored))
                }
                Put::Never(why) => Err(why),
            }),
        }
    }

    async fn put(&self, record: &DeletedRecord) -> PortResult<Put> {
        let deletion = &record.deletion;
        let content = body(record);
        let attributes = Attributes {
            content_type: Some("application/json".to_owned()),
            metadata: metadata(record, &content),
            ..Attributes::default()
        };
        let (identity, size) = (deletion.identity(), content.len() as u64);
        let own_name = deletion.own_name();
        for name in [deletion.plain_name(), own_name.clone()] {
            match self.packed_hash(&name).await? {
                Some(hash) if hash == hash_of(&content) => {
                    return Ok(Put::Counted(Counter::ArchivedBefore, Stored { name, size }));
                }
                Some(_) => continue,
                None => {}
            }
            match self.destination.put_new(&name, content.clone(), &attributes).await {
                Ok(true) => return Ok(Put::Counted(Counter::Archived, Stored { name, size })),
                Ok(false) => {}
                // The store says that it will never take this one, such as for its size.
                Err(error) if matches!(error.kind, ErrorKind::Invalid(_)) => return Ok(Put::Never(chain(&error))),
                Err(error) => return Err(error),
            }
            let there = self.destination.head(&name, None).await?;
            // Just gone: whoever removed it may be looked for, and the record comes again.
            let Some(there) = there else {
                return Err(PortError::new("archive record", name, ErrorKind::Unavailable));
            };
            if there.metadata.get(META_DELETION) == Some(&identity) {
                return Ok(Put::Counted(Counter::ArchivedBefore, Stored { name, size }));
            }
        }
        Ok(Put::Never(format!("{own_name} says nothing of this deletion, and has the name that only it can have")))
    }

    /// The hash of what a pack has under that name, if packs are looked into.
    async fn packed_hash(&self, name: &ObjectKey) -> PortResult<Option<String>> {
        let Some(packs) = &self.packs else { return Ok(None) };
        let head = packs.packed(name).await?;
        Ok(head.and_then(|mut head| head.metadata.remove(META_HASH)))
    }

    /// Lays a record aside that cannot be archived. One that lies there already is the same, come again.
    async fn lay_aside(&self, sequence: &Sequence, note: &Note) -> PortResult<()> {
        let name = aside_name(&self.table, sequence, &note.record);
        if json_object::write(self.destination.as_ref(), &name, note, Onto::Nothing).await? {
            self.metrics.add(Counter::LaidAside, 1);
            tracing::error!(table = self.table, object = %name, "a deleted record was laid aside: {}", note.why);
        }
        Ok(())
    }
}

/// The records of one reading of a shard, on their way to the archive: what failed is given again, and nothing else.
pub struct Batch {
    records: Vec<StreamRecord>,
    left: Vec<usize>,
    became: Vec<Became>,
}

impl Batch {
    /// Some records of one shard, in its order; nothing of them is archived yet.
    pub fn of(records: Vec<StreamRecord>) -> Batch {
        let (left, became) = ((0..records.len()).collect(), vec![Became::Nothing; records.len()]);
        Batch { records, left, became }
    }

    /// Archives what is left; why not all of it, of the first.
    pub async fn archive(&mut self, archive: &Archive) -> Option<PortError> {
        let left: Vec<StreamRecord> = self.left.iter().map(|place| self.records[*place].clone()).collect();
        let (mut failed, mut first) = (Vec::new(), None);
        for (place, ended) in self.left.drain(..).zip(archive.archive(&left).await) {
            match ended {
                Ok(became) => self.became[place] = became,
                Err(error) => {
                    failed.push(place);
                    first.get_or_insert(error);
                }
            }
        }
        self.left = failed;
        first
    }

    /// The deletions that are objects by now, in their order.
    pub fn archived(&self) -> Vec<Told<'_>> {
        let all = self.records.iter().zip(&self.became);
        let archived = all.filter_map(|(record, became)| match (&record.change, became) {
            (Change::Deleted(deleted), Became::Stored(stored)) => Some((deleted.as_ref(), stored)),
            _ => None,
        });
        archived.collect()
    }

    /// Why those lie aside that can never be archived.
    pub fn aside(&self) -> Vec<String> {
        let why = self.became.iter().filter_map(|became| match became {
            Became::Aside(why) => Some(why.clone()),
            Became::Nothing | Became::Stored(_) => None,
        });
        why.collect()
    }
}
