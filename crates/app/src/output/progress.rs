//! How far long work is: a bar that is redrawn on a terminal, now and then a plain line elsewhere.

use crate::exit::tell;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// Work of fewer items says nothing where there is no terminal.
const FIRST_LINE_AT: u64 = 1_000;

/// Shows progress on standard error.
pub(crate) enum Bar {
    /// A terminal.
    Drawn(Option<ProgressBar>),
    /// Anything else: the count at which the next line is due.
    Lines(u64),
}

impl Bar {
    /// Nothing is shown until there is something to tell.
    pub(crate) fn new() -> Bar {
        if stderr().is_terminal() { Bar::Drawn(None) } else { Bar::Lines(FIRST_LINE_AT) }
    }

    /// So much is done.
    pub(crate) fn at(&mut self, done: u64, total: Option<u64>, what: &str) {
        match self {
            Bar::Drawn(bar) => {
                let bar = bar.get_or_insert_with(ProgressBar::new_spinner);
                if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                    bar.set_length(total);
                    bar.set_style(style("{bar:30} {human_pos}/{human_len} {msg} ({eta} left)"));
                } else if total.is_none() {
                    bar.set_style(style("{spinner} {human_pos} {msg}"));
                }
                bar.set_message(what.to_owned());
                bar.set_position(done);
            }
            Bar::Lines(next) if done >= *next => {
                match total {
                    Some(total) => tell(format_args!("{done} of {total} {what}")),
                    None => tell(format_args!("{done} {what}")),
                }
                *next = done.saturating_mul(2);
            }
            Bar::Lines(_) => {}
        }
    }

    /// The work is over.
    pub(crate) fn end(&mut self) {
        if let Bar::Drawn(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well formed")
}
