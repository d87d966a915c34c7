//! How long work tells how far it is: a bar on a terminal, plain lines elsewhere, nothing in tests.

/// Told now and then while a command works.
pub trait Progress: Send + Sync {
    /// So many items are done, of so many where that is known; `what` names the items.
    fn at(&self, done: u64, total: Option<u64>, what: &'static str);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn at(&self, _done: u64, _total: Option<u64>, _what: &'static str) {}
}
