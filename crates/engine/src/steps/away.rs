//! What of an archive lies in archive tiers, where it cannot be read: noted by who comes upon it, how much it is, and, where
//! somebody has agreed to what that costs, asked for. Once: what is on its way is not asked for again.
//!
//! Place: in `wrap/unpacked.rs`, for all that reads archives. A crash leaves objects on their way: the next look sees that they
//! are. Laws: I10, I11.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::AWAY_NAMES_MAX;
use crate::ports::objects::{Head, Listed, ObjectRead, Reach, Retrieval};
use lifecycle::ids::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Intelligent tiering leaves smaller objects in its first tier.
const TIERED_BYTES_MIN: u64 = 128 << 10;

/// What was found to lie in archive tiers, and on which terms it is asked for.
pub struct Away {
    archive: Arc<dyn ObjectRead>,
    /// `None`: it is not asked for.
    terms: Option<Retrieval>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sum: AwaySum,
    /// Those that are counted, the first [`AWAY_NAMES_MAX`]; and whether they were asked for.
    names: BTreeMap<ObjectKey, bool>,
}

/// How much lies in archive tiers, of what was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwaySum {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that nobody has asked for.
    pub not_asked: u64,
    /// Those that were asked for now; the others were before.
    pub asked_now: u64,
    /// How they are kept.
    pub classes: BTreeSet<String>,
}

impl Away {
    /// Nothing is known yet. `terms`: on which an archive tier is asked for what is found; `None`: it is not.
    pub fn of(archive: Arc<dyn ObjectRead>, terms: Option<Retrieval>) -> Away {
        Away { archive, terms, state: Mutex::default() }
    }

    /// How much was found so far.
    pub fn sum(&self) -> AwaySum {
        self.lock().sum.clone()
    }

    /// Those of them that were asked for, by name.
    pub fn on_their_way(&self) -> Vec<ObjectKey> {
        self.lock().names.iter().filter(|(_, asked)| **asked).map(|(name, _)| name.clone()).collect()
    }

    /// Looks anew from now on.
    pub fn forget(&self) {
        *self.lock() = State::default();
    }

    /// Looks at one of a listing, and notes it if it lies in an archive tier; `is_wanted` says of which heads at all. Whether it
    /// does.
    pub async fn look_at(&self, listed: &Listed, is_wanted: impl Fn(&Head) -> bool) -> PortResult<bool> {
        if !may_be_away(listed) {
            return Ok(false);
        }
        let head = self.archive.head(&listed.key, None).await?;
        let Some(head) = head.filter(|head| head.reach != Reach::Readable && is_wanted(head)) else { return Ok(false) };
        self.note_as(&listed.key, &head).await?;
        Ok(true)
    }

    /// Notes an object that answered with `Archived`.
    pub async fn note(&self, name: &ObjectKey) -> PortResult<()> {
        match self.archive.head(name, None).await? {
            None => Ok(()),
            // It has come just now.
            Some(head) if head.reach == Reach::Readable => {
                self.note_as(name, &Head { reach: Reach::OnItsWay, ..head }).await
            }
            Some(head) => self.note_as(name, &head).await,
        }
    }

    async fn note_as(&self, name: &ObjectKey, head: &Head) -> PortResult<()> {
        if self.lock().names.contains_key(name) {
            return Ok(());
        }
        let asked_now = match (&self.terms, head.reach) {
            (Some(terms), Reach::Archived) => {
                self.archive.retrieve(name, terms).await?;
                true
            }
            _ => false,
        };
        let asked = asked_now || head.reach == Reach::OnItsWay;
        let mut state = self.lock();
        if state.names.len() < AWAY_NAMES_MAX && state.names.insert(name.clone(), asked).is_some() {
            return Ok(());
        }
        state.sum.objects += 1;
        state.sum.bytes += head.version.size;
        state.sum.not_asked += u64::from(!asked);
        state.sum.asked_now += u64::from(asked_now);
        state.sum.classes.extend(head.storage_class.clone());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a listing leaves open that it lies in an archive tier.
pub fn may_be_away(listed: &Listed) -> bool {
    match listed.storage_class.as_deref() {
        Some("GLACIER" | "DEEP_ARCHIVE") => true,
        Some("INTELLIGENT_TIERING") => listed.version.size >= TIERED_BYTES_MIN,
        _ => false,
    }
}

/// Whether something was not read because it lies in an archive tier.
pub fn is_archived(error: &PortError) -> bool {
    error.kind == ErrorKind::Archived
}
