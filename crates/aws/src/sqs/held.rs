//! Which messages are being worked on, and what becomes of each when the last of its events is answered. Pure: no I/O, no
//! clock.
//!
//! A message holds one event or several, each a delivery of its own. Until all of them are answered the message stays as it
//! is; then the gentlest answer counts: if one event shall come again, the whole message does (the others find their facts
//! there already); if one is given up, the message goes to the dead letters; only when all are done is it deleted (V7).

use engine::ports::events::Receipt;
use lifecycle::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What was answered for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Again(UnixMs),
    GivenUp(String),
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The queue's name for it: the same at every delivery.
    pub(super) id: String,
    /// For answers; every delivery has another.
    pub(super) handle: String,
    /// As it was sent.
    pub(super) body: String,
    /// How often it was delivered, this time included.
    pub(super) attempts: u32,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Deleted,
    Again(UnixMs),
    GivenUp(String),
}

/// A message with all of its events answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) message: Message,
    pub(super) fate: Fate,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    open: BTreeSet<usize>,
    again: Option<UnixMs>,
    given_up: Option<String>,
    /// The queue has said that this delivery is over: extending it is of no use.
    lost: bool,
}

/// The messages that are being worked on.
#[derive(Debug, Default)]
pub(super) struct Held {
    last: u64,
    entries: BTreeMap<u64, Entry>,
    by_id: HashMap<String, u64>,
}

impl Held {
    /// Takes a message with so many events; the receipts, one for each. `None`: it is being worked on already (its time
    /// ran out, and the queue delivered it again); from now on the newer delivery is the one that is answered.
    pub(super) fn take(&mut self, message: Message, events: usize) -> Option<Vec<Receipt>> {
        if let Some(entry) = self.by_id.get(&message.id).and_then(|serial| self.entries.get_mut(serial)) {
            entry.message.handle = message.handle;
            entry.lost = false;
            return None;
        }
        self.last += 1;
        let serial = self.last;
        self.by_id.insert(message.id.clone(), serial);
        let open = (0..events).collect();
        self.entries.insert(serial, Entry { message, open, again: None, given_up: None, lost: false });
        Some((0..events).map(|place| Receipt(format!("{serial}.{place}"))).collect())
    }

    /// Notes an answer; the message, if it was the last. An answer that was given before changes nothing. `Err`: no receipt
    /// of this queue.
    pub(super) fn answer(&mut self, receipt: &Receipt, answer: Answer) -> Result<Option<Settled>, ()> {
        let (serial, place) = receipt.0.split_once('.').ok_or(())?;
        let (serial, place): (u64, usize) = (serial.parse().map_err(drop)?, place.parse().map_err(drop)?);
        let Some(entry) = self.entries.get_mut(&serial) else { return Ok(None) };
        if !entry.open.remove(&place) {
            return Ok(None);
        }
        match answer {
            Answer::Done => {}
            Answer::Again(at) => entry.again = entry.again.max(Some(at)),
            Answer::GivenUp(why) => {
                entry.given_up = Some(entry.given_up.take().map_or(why.clone(), |first| format!("{first}; {why}")));
            }
        }
        if !entry.open.is_empty() {
            return Ok(None);
        }
        let Some(entry) = self.forget(serial) else { return Ok(None) };
        let fate = match (entry.again, entry.given_up) {
            (Some(at), _) => Fate::Again(at),
            (None, Some(why)) => Fate::GivenUp(why),
            (None, None) => Fate::Deleted,
        };
        Ok(Some(Settled { message: entry.message, fate }))
    }

    fn forget(&mut self, serial: u64) -> Option<Entry> {
        let entry = self.entries.remove(&serial)?;
        self.by_id.remove(&entry.message.id);
        Some(entry)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The deliveries whose time must be extended: number and handle.
    pub(super) fn extendable(&self) -> Vec<(u64, String)> {
        let kept = self.entries.iter().filter(|(_, entry)| !entry.lost);
        kept.map(|(serial, entry)| (*serial, entry.message.handle.clone())).collect()
    }

    /// The queue has delivered it elsewhere, or will: this handle is worth nothing any more.
    pub(super) fn lost(&mut self, serial: u64, handle: &str) {
        if let Some(entry) = self.entries.get_mut(&serial).filter(|entry| entry.message.handle == handle) {
            entry.lost = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(handle: &str) -> Message {
        Message { id: "m".to_owned(), handle: handle.to_owned(), body: "{}".to_owned(), attempts: 1 }
    }

    fn fate(answers: &[Answer]) -> Option<Fate> {
        let mut held = Held::default();
        let receipts = held.take(message("h"), 3).unwrap();
        let mut settled = None;
        for (receipt, answer) in receipts.iter().zip(answers) {
            assert_eq!(settled, None, "it waits for the last answer");
            settled = held.answer(receipt, answer.clone()).unwrap();
        }
        assert_eq!(held.len(), usize::from(settled.is_none()));
        settled.map(|settled| settled.fate)
    }

    #[test]
    fn a_message_is_deleted_only_when_all_of_its_events_are_done() {
        let (done, dead) = (Answer::Done, Answer::GivenUp("no".to_owned()));
        let again = |at| Answer::Again(UnixMs(at));
        assert_eq!(fate(&[done.clone(), done.clone()]), None);
        assert_eq!(fate(&[done.clone(), done.clone(), done.clone()]), Some(Fate::Deleted));
        assert_eq!(fate(&[again(9), done.clone(), again(5)]), Some(Fate::Again(UnixMs(9))), "not before both times");
        assert_eq!(
            fate(&[dead.clone(), again(5), done.clone()]),
            Some(Fate::Again(UnixMs(5))),
            "nothing is given up yet"
        );
        assert_eq!(fate(&[dead.clone(), done, dead]), Some(Fate::GivenUp("no; no".to_owned())));
    }

    #[test]
    fn an_answer_counts_once_and_foreign_receipts_are_refused() {
        let mut held = Held::default();
        let receipts = held.take(message("h"), 2).unwrap();
        for _ in 0..3 {
            assert_eq!(held.answer(&receipts[0], Answer::Done), Ok(None));
        }
        assert!(held.answer(&receipts[1], Answer::Done).unwrap().is_some());
        assert_eq!(held.answer(&receipts[1], Answer::Done), Ok(None));
        assert_eq!(held.answer(&Receipt("x".to_owned()), Answer::Done), Err(()));
    }

    #[test]
    fn a_message_delivered_again_while_it_is_worked_on_is_not_handed_out_twice() {
        let mut held = Held::default();
        let receipts = held.take(message("old"), 1).unwrap();
        held.lost(1, "old");
        assert!(held.extendable().is_empty());
        assert_eq!(held.take(message("new"), 1), None);
        held.lost(1, "old");
        assert_eq!(held.extendable(), [(1, "new".to_owned())], "the newer delivery is not the one that was lost");
        assert_eq!(held.answer(&receipts[0], Answer::Done).unwrap().unwrap().message.handle, "new");
        assert!(held.take(message("third"), 1).is_some(), "after its answer it is a new one");
    }
}
