//! Rows of a table whose columns are known only when they come: as a table for people, as JSON or CSV for programs.

use super::text::printable;
use super::{Style, json_line};
use crate::answer::{Answer, Deletions, ItemView, Queried};
use crate::exit::tell;
use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeSet;
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
        self.names = if self.style == Style::Json { told_apart(names) } else { names };
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
            table.add_row(row.iter().map(|value| printable(&cell(value))));
        }
        writeln!(out, "{table}")
    }
}

/// A member of JSON has a name of its own: the second `day` is `day_2`.
fn told_apart(names: Vec<String>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut apart = |name: String| {
        let mut own = name.clone();
        let mut n = 1;
        while !taken.insert(own.clone()) {
            n += 1;
            own = format!("{name}_{n}");
        }
        own
    };
    names.into_iter().map(&mut apart).collect()
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
    let (damaged, passed_over): (&[ItemView], &[ItemView]) = match answer {
        Answer::Queried(of) => (&of.damaged, &of.passed_over),
        Answer::Deletions(deletions) => {
            csv_line(out, ["service", "table", "day", "cause", "records", "bytes"])?;
            for line in &deletions.lines {
                let (records, bytes) = (line.records.to_string(), line.bytes.to_string());
                csv_line(out, [&line.service, &line.table, &line.day, &line.cause, &records, &bytes])?;
            }
            (&deletions.damaged, &deletions.passed_over)
        }
        other => return write!(out, "{}", super::text::answer(other)),
    };
    for line in not_read(damaged, passed_over).lines() {
        tell(format_args!("afterimage: {line}"));
    }
    Ok(())
}

/// The end of a query, in words.
pub(super) fn queried(of: &Queried) -> String {
    let stopped = if of.cancelled { "stopped before the end\n" } else { "" };
    let not_read = not_read(&of.damaged, &of.passed_over);
    format!("rows: {}, of days that were opened: {}\n{stopped}{not_read}", of.rows, of.days)
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
    let (user, ttl, not_read) = (by("user"), by("ttl"), not_read(&of.damaged, &of.passed_over));
    format!("{table}{}: {user} deleted by users, {ttl} by the time to live\n{stopped}{not_read}", of.month)
}

/// What does not read back, and is not counted; and packs that do not, whose records are counted all the same.
fn not_read(damaged: &[ItemView], passed_over: &[ItemView]) -> String {
    let line = |what: &'static str| {
        move |item: &ItemView| format!("{what}: {}: {}\n", printable(&item.object), printable(&item.why))
    };
    let passed_over = passed_over.iter().map(line("damaged, and not needed: its records are read from their objects"));
    damaged.iter().map(line("not counted")).chain(passed_over).collect()
}

fn csv_line<T: AsRef<str>>(out: &mut impl Write, cells: impl IntoIterator<Item = T>) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    for cell in cells {
        writer.write_field(inert(cell.as_ref()).as_ref())?;
    }
    writer.write_record(None::<&[u8]>)?;
    out.write_all(&writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?)
}

/// What a spreadsheet would calculate, as text: keys are what users of a table wrote. Numbers stay numbers.
fn inert(cell: &str) -> Cow<'_, str> {
    let is_number = || cell.ends_with(|c: char| c.is_ascii_digit()) && cell.parse::<f64>().is_ok();
    match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_number() {
        true => Cow::Owned(format!("'{cell}")),
        false => Cow::Borrowed(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(style: Style, names: &[&str], row: &Value) -> String {
        let (mut rows, mut out) = (Rows::of(style), Vec::new());
        rows.columns(&mut out, names.iter().map(|name| (*name).to_owned()).collect()).unwrap();
        rows.row(&mut out, row.as_array().unwrap().clone()).unwrap();
        rows.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_spreadsheet_would_calculate_is_text_and_numbers_are_numbers() {
        let row = json!(["=1+1", "+49 1", "-x", "@a", "a=b", -5, "-5.25", "-1e-3", "-inf", null, "a,\"b"]);
        let names: Vec<String> = (0..11).map(|n| format!("c{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let expected = "'=1+1,'+49 1,'-x,'@a,a=b,-5,-5.25,-1e-3,'-inf,,\"a,\"\"b\"\n";
        assert_eq!(written(Style::Csv, &names, &row).split_once('\n').unwrap().1, expected);
    }

    #[test]
    fn columns_of_one_name_are_members_of_their_own() {
        let line = written(Style::Json, &["day", "day", "day_2"], &json!(["a", "b", "c"]));
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), json!({ "day": "a", "day_2": "b", "day_2_2": "c" }));
    }
}
