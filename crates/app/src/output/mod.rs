//! What a person or a program sees of a command: tables and sentences, or JSON; bars on a terminal, plain lines elsewhere.
//!
//! Results go to standard output, everything about the way there to standard error.

mod page;
mod progress;
mod rows;
mod tables;
mod text;

pub(crate) use text::exports;

use crate::answer::Answer;
use crate::exit::tell;
use crate::feed::Frame;
use progress::Bar;
use rows::Rows;
use std::io::{self, Write};
use tokio::sync::mpsc;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people.
    Text,
    /// For programs: one document; of a listing one document a line.
    Json,
    /// Comma-separated values: tables and reports.
    Csv,
    /// A page: reports.
    Html,
}

/// Prints a command's frames to the end; its exit code.
pub(crate) async fn print(mut frames: mpsc::Receiver<Frame>, style: Style) -> io::Result<u8> {
    let mut bar = Bar::new();
    let mut out = io::stdout().lock();
    let (mut listed, mut rows) = (false, Rows::of(style));
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Progress { done, total, what } => bar.at(done, total, &what),
            Frame::Key(key) => {
                match style {
                    Style::Json => json_line(&mut out, &key)?,
                    Style::Text | Style::Csv | Style::Html => {
                        if !listed {
                            writeln!(out, "{}", text::KEYS_HEAD)?;
                        }
                        writeln!(out, "{}", text::key(&key))?;
                    }
                }
                listed = true;
            }
            Frame::Record(record) => {
                match style {
                    Style::Json => json_line(&mut out, &record)?,
                    Style::Text | Style::Csv | Style::Html => {
                        if !listed {
                            writeln!(out, "{}", text::RECORDS_HEAD)?;
                        }
                        writeln!(out, "{}", text::record(&record))?;
                    }
                }
                listed = true;
            }
            Frame::Columns(names) => {
                bar.end();
                rows.columns(&mut out, names)?;
                listed = true;
            }
            Frame::Row(row) => rows.row(&mut out, row)?,
            Frame::Answer { answer, code } => {
                bar.end();
                rows.end(&mut out)?;
                match style {
                    Style::Csv => rows::report(&mut out, &answer)?,
                    Style::Html => write!(out, "{}", page::page(&answer))?,
                    // The last line, and the only one, of a command that gives lines.
                    Style::Json if !listed && matches!(answer, Answer::Listed(_)) => json_line(&mut out, &answer)?,
                    Style::Json if !listed => {
                        serde_json::to_writer_pretty(&mut out, &answer)?;
                        writeln!(out)?;
                    }
                    // What was listed is on lines of its own; what was not is said beside them.
                    Style::Json => match &answer {
                        Answer::Listed(of) if !of.unread.is_empty() => tell(text::answer(&answer).trim_end()),
                        _ => {}
                    },
                    Style::Text => write!(out, "{}", text::answer(&answer))?,
                }
                out.flush()?;
                return Ok(code);
            }
            Frame::Failed { why, code } => {
                bar.end();
                rows.end(&mut out)?;
                out.flush()?;
                if style == Style::Json {
                    json_line(&mut out, &serde_json::json!({ "error": why }))?;
                }
                tell(format_args!("afterimage: {why}"));
                return Ok(code);
            }
        }
    }
    bar.end();
    tell("afterimage: the command ended without an answer");
    Ok(1)
}

/// Prints an answer that this process has itself.
pub(crate) fn show(answer: &Answer, style: Style) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match style {
        Style::Json => {
            serde_json::to_writer_pretty(&mut out, answer)?;
            writeln!(out)?;
        }
        Style::Text | Style::Csv | Style::Html => write!(out, "{}", text::answer(answer))?,
    }
    out.flush()
}

/// One document on one line.
pub(crate) fn json_line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}
