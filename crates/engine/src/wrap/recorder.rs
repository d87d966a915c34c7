//! Records every call of tapped ports, for tests that say which calls a flow makes, and how many. For tests only.

use super::tap::{Call, Fate, Probe};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The calls so far.
#[derive(Debug, Default)]
pub struct Recorder {
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    /// Every call since the last [`Recorder::clear`], one line each: `port.method what-it-is-about`.
    pub fn lines(&self) -> Vec<String> {
        self.calls().iter().map(line).collect()
    }

    /// The same, of the calls that may change something.
    pub fn effects(&self) -> Vec<String> {
        self.calls().iter().filter(|call| call.effect).map(line).collect()
    }

    /// How often each `port.method` was called.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls().iter() {
            *counts.entry(call.name()).or_default() += 1;
        }
        counts
    }

    /// Forgets what was recorded.
    pub fn clear(&self) {
        self.calls().clear();
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner) // a list of calls is whole at any time
    }
}

fn line(call: &Call) -> String {
    format!("{} {}", call.name(), call.about).trim_end().to_owned()
}

impl Probe for Recorder {
    fn fate(&self, call: &Call) -> Fate {
        self.calls().push(call.clone());
        Fate::Pass
    }
}
