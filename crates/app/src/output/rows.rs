//! Rows of a table whose columns are known only when they come: as a table for people, as JSON or CSV for programs.

use super::{Style, json_line};
use crate::answer::{Answer, Deletions, ItemView, Queried};
use crate::exit::tell;
use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use serde_json::{Map, Value};
use std::io::{self, Write};

/// Rows that are laid out together: the columns of the next ones may have other widths.
const TOGETHER: usize = 1_000;

/// Writes rows as they come.
pub(super) struct Rows {
    style: Style,
    names: Vec<String>,
    waiting: Vec<Vec<Value>>,
}

impl Rows {
    pub(super) fn of(style: Style) -> Rows {
        Rows { style, names: Vec::new(), waiting: Vec::new() }
    }

    pub(super) fn columns(&mut self, out: &mut impl Write, names: Vec<String>) -> io::Result<()> {
        if self.style == Style::Csv {
            csv_line(out, names.iter().map(String::as_str))?;
        }
        self.names = names;
        Ok(())
    }

    pub(super) fn row(&mut self, out: &mut impl Write, row: Vec<Value>) -> io::Result<()> {
        match self.style {
            Style::Json => {
                let named: Map<String, Value> = self.names.iter().cloned().zip(row).collect();
                json_line(out, &named)
            }
            Style::Csv => csv_line(out, row.iter().map(cell)),
            Style::Text | Style::Html => {
                self.waiting.push(row);
                match self.waiting.len() >= TOGETHER {
                    true => self.end(out),
                    false => Ok(()),
                }
            }
        }
    }

    /// Writes what waits.
    pub(super) fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(&self.names);
        for row in self.waiting.drain(..) {
            table.add_row(row.iter().map(|value| super::text::printable(&cell(value))));
        }
        writeln!(out, "{table}")
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A report as CSV; what could not be counted is named on standard error.
pub(super) fn report(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let damaged: &[ItemView] = match answer {
        Answer::Queried(queried) => &queried.damaged,
        Answer::Deletions(deletions) => {
            csv_line(out, ["service", "table", "day", "cause", "records", "bytes"])?;
            for line in &deletions.lines {
                let (records, bytes) = (line.records.to_string(), line.bytes.to_string());
                csv_line(out, [&line.service, &line.table, &line.day, &line.cause, &records, &bytes])?;
            }
            &deletions.damaged
        }
        other => return write!(out, "{}", super::text::answer(other)),
    };
    damaged.iter().for_each(|item| tell(format_args!("afterimage: {}: {}", item.object, item.why)));
    Ok(())
}

/// The end of a query, in words.
pub(super) fn queried(of: &Queried) -> String {
    let stopped = if of.cancelled { "stopped before the end\n" } else { "" };
    format!("rows: {}, of days that were opened: {}\n{stopped}{}", of.rows, of.days, not_counted(&of.damaged))
}

/// A month's deletions as a table.
pub(super) fn deletions(of: &Deletions) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SERVICE", "TABLE", "DAY", "CAUSE", "RECORDS", "ARCHIVED"]);
    for line in &of.lines {
        let (records, bytes) = (line.records.to_string(), HumanBytes(line.bytes).to_string());
        table.add_row([&line.service, &line.table, &line.day, &line.cause, &records, &bytes]);
    }
    let by = |cause: &str| of.lines.iter().filter(|line| line.cause == cause).map(|line| line.records).sum::<u64>();
    let table = if of.lines.is_empty() { String::new() } else { format!("{table}\n") };
    let stopped = if of.cancelled { "stopped before the end: it is not whole\n" } else { "" };
    let (user, ttl, not_counted) = (by("user"), by("ttl"), not_counted(&of.damaged));
    format!("{table}{}: {user} deleted by users, {ttl} by the time to live\n{stopped}{not_counted}", of.month)
}

fn not_counted(damaged: &[ItemView]) -> String {
    let line = |item: &ItemView| format!("not counted: {}: {}\n", super::text::printable(&item.object), item.why);
    damaged.iter().map(line).collect()
}

fn csv_line<T: AsRef<[u8]>>(out: &mut impl Write, cells: impl IntoIterator<Item = T>) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(cells)?;
    out.write_all(&writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?)
}
