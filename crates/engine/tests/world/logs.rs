//! Fails a test that logs what nobody expected: WARN and ERROR lines are collected, and those that no [`Logs::expect`]
//! took are a failure. ERROR means that a person must act, so a flow that cries wolf is a defect.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Level, Metadata, Subscriber};

/// Collects what this thread logs, from its making until it is dropped. Tests run on one thread each.
pub(crate) struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
    _collecting: DefaultGuard,
}

impl Logs {
    /// Starts to collect.
    pub(crate) fn collect() -> Logs {
        let lines = Arc::new(Mutex::default());
        let guard = set_default(Collector(Arc::clone(&lines)));
        Logs { lines, _collecting: guard }
    }

    /// Takes the lines that contain this text; there must be one.
    pub(crate) fn expect(&self, text: &str) {
        let mut lines = self.lines.lock().unwrap();
        let before = lines.len();
        lines.retain(|line| !line.contains(text));
        assert!(lines.len() < before, "nothing was logged about `{text}`: {lines:?}");
    }

    /// Takes the lines that contain this text, if there are any.
    pub(crate) fn forgive(&self, text: &str) {
        self.lines.lock().unwrap().retain(|line| !line.contains(text));
    }

    /// The lines that nobody expected.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

struct Collector(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
