//! Answers for people: tables and sentences.

use super::rows;
use super::tables::{enabled, self_tested, tiered};
use crate::answer::{
    Answer, ArchiveStatus, Audit, Capacity, Copy, Credentials, DeadLetters, Due, History, ItemView, JournalLine,
    ListedKey, ListedRecord, PolicyHistory, PolicyStatus, RecordView, ReportView, Status,
};
use crate::when::relative;
use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use lifecycle::time::{SpanMs, UnixMs};
use std::fmt::Write;

/// A stream that was read to its end so lately has nothing left, as far as anybody knows.
const CAUGHT_UP: SpanMs = SpanMs::seconds(5);

/// The line above the keys of `ls`.
pub(crate) const KEYS_HEAD: &str = "ACTIVE  DISOWNED        SIZE  NEWEST                    KEY";

/// One key of `ls`.
pub(crate) fn key(listed: &ListedKey) -> String {
    format!(
        "{:>6}  {:>8}  {:>10}  {}  {}",
        listed.active,
        listed.disowned,
        HumanBytes(listed.bytes).to_string(),
        UnixMs(listed.newest_ms),
        printable(&listed.key)
    )
}

/// The line above the records of `archive ls`.
pub(crate) const RECORDS_HEAD: &str = "DELETED ON        SIZE  CAUSE  OBJECT";

/// One record of `archive ls`.
pub(crate) fn record(listed: &ListedRecord) -> String {
    let (size, cause) = (HumanBytes(listed.bytes).to_string(), listed.cause.as_deref().unwrap_or("-"));
    format!("{}  {size:>10}  {cause:<5}  {}", listed.day, printable(&listed.object))
}

/// The last word of a command.
pub(crate) fn answer(answer: &Answer) -> String {
    let mut text = String::new();
    match answer {
        Answer::Status(of) => status(&mut text, of),
        Answer::Listed(listed) if !listed.unread.is_empty() => {
            for ItemView { object, why } in &listed.unread {
                line(&mut text, format_args!("NOT LISTED: {}: {}", printable(object), printable(why)));
            }
        }
        Answer::Listed(listed) if listed.keys == 0 && !listed.cancelled => {
            text.push_str("there is nothing to list\n");
            if let Some(note) = &listed.note {
                line(&mut text, format_args!("{note}"));
            }
        }
        Answer::Listed(listed) if listed.cancelled => text.push_str("stopped before the end of the list\n"),
        Answer::Listed(listed) => {
            if let Some(note) = &listed.note {
                line(&mut text, format_args!("{note}"));
            }
        }
        Answer::Record(of) => archived_record(&mut text, of),
        Answer::Queried(of) => text.push_str(&rows::queried(of)),
        Answer::Deletions(of) => text.push_str(&rows::deletions(of)),
        Answer::History(of) => history(&mut text, of),
        Answer::Done(done) => done.reports.iter().for_each(|of| report(&mut text, of)),
        Answer::Due(of) => due(&mut text, of),
        Answer::Audit(of) => audit(&mut text, of),
        Answer::DeadLetters(of) => dead_letters(&mut text, of),
        Answer::Enabled(of) => enabled(&mut text, of),
        Answer::Tiered(of) => tiered(&mut text, of),
        Answer::SelfTested(of) => self_tested(&mut text, of),
        Answer::Credentials(of) => {
            if of.rotated {
                text.push_str("# new keys; the old ones do not work any more\n");
            }
            text.push_str(&exports(of));
        }
    }
    text
}

/// The lines to paste into a shell, after which the stock S3 clients work.
pub(crate) fn exports(of: &Credentials) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("export AWS_ACCESS_KEY_ID={}", of.access_key_id));
    line(&mut text, format_args!("export AWS_SECRET_ACCESS_KEY={}", of.secret_access_key));
    // Clients differ in which of the two they read; of the addresses, too (s5cmd reads the second).
    line(&mut text, format_args!("export AWS_REGION={0} AWS_DEFAULT_REGION={0}", of.region));
    if let Some(endpoint) = &of.endpoint {
        line(&mut text, format_args!("export AWS_ENDPOINT_URL={endpoint} S3_ENDPOINT_URL={endpoint}"));
    }
    if let Some(endpoint) = &of.tables_endpoint {
        line(
            &mut text,
            format_args!("export AWS_ENDPOINT_URL_DYNAMODB={endpoint} AWS_ENDPOINT_URL_DYNAMODB_STREAMS={endpoint}"),
        );
    }
    text
}

pub(super) fn line(text: &mut String, args: std::fmt::Arguments<'_>) {
    writeln!(text, "{args}").expect("writing to a string");
}

/// A key as one line: control characters would move the cursor of whoever reads it, and some signs turn text around, or are
/// not seen.
pub(super) fn printable(key: &str) -> String {
    let misleads = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    key.chars().flat_map(|c| if misleads(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().copied());
    table
}

fn push_table(text: &mut String, table: &Table) {
    for row in table.lines() {
        line(text, format_args!("{}", row.trim_end()));
    }
}

fn plural(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

fn status(text: &mut String, of: &Status) {
    match (&of.endpoint, of.pid) {
        (Some(endpoint), Some(pid)) => line(text, format_args!("serving {endpoint} (process {pid})")),
        _ => line(text, format_args!("not serving: `afterimage serve` is not running on this folder")),
    }
    line(text, format_args!("data folder {}", of.data_dir));
    let now = UnixMs(of.now_ms);
    for policy in &of.policies {
        text.push('\n');
        policy_status(text, policy, now);
    }
    let unprotected: Vec<&str> =
        of.buckets.iter().filter(|bucket| bucket.role == "unprotected").map(|bucket| bucket.name.as_str()).collect();
    text.push('\n');
    if !unprotected.is_empty() {
        line(text, format_args!("buckets without a policy: {}", unprotected.join(", ")));
    }
    for archive in &of.archives {
        let ArchiveStatus { table, service, destination, shards, behind_ms, held_up, .. } = archive;
        let behind = match behind_ms {
            _ if *held_up => "held up".to_owned(),
            None => "not read yet".to_owned(),
            Some(ms) if SpanMs(*ms) < CAUGHT_UP => "caught up".to_owned(),
            Some(ms) => format!("{} behind", SpanMs(*ms)),
        };
        let shards = plural(*shards, "shard", "shards");
        line(text, format_args!("{table}: deleted records -> {destination}/{service}/, {shards}, {behind}"));
        if let Some(feed) = &archive.feed {
            let oldest = feed.oldest_ms.map(|at| format!(", the oldest {}", relative(UnixMs(at), now)));
            let waiting = plural(feed.waiting, "deletion", "deletions");
            let least = if feed.more { "at least " } else { "" };
            let oldest = oldest.unwrap_or_default();
            line(text, format_args!("{table}: told to {}, {least}{waiting} waiting{oldest}", feed.to));
        }
    }
    let oldest = of.queue.oldest_ms.map(|at| format!(", the oldest from {}", relative(UnixMs(at), now)));
    line(
        text,
        format_args!(
            "{} waiting{}; {}",
            plural(of.queue.waiting, "event", "events"),
            oldest.unwrap_or_default(),
            plural(of.queue.dead_letters, "dead letter", "dead letters")
        ),
    );
    for note in &of.notes {
        line(text, format_args!("note: {note}"));
    }
    for problem in &of.problems {
        line(text, format_args!("! {problem}"));
    }
}

fn archived_record(text: &mut String, of: &RecordView) {
    let RecordView { object, table, cause, deleted_at_ms, image, .. } = of;
    line(text, format_args!("{}", printable(object)));
    line(text, format_args!("deleted from {table} at {} by {cause}", UnixMs(*deleted_at_ms)));
    line(text, format_args!("{image:#}"));
}

fn policy_status(text: &mut String, of: &PolicyStatus, now: UnixMs) {
    let by_default = if of.by_default { " (by the default policy)" } else { "" };
    line(text, format_args!("{}: {} -> {}, {}{by_default}", of.name, of.source, of.destination, of.mode));
    if of.mode == "copies" {
        line(
            text,
            format_args!(
                "  keep {}, grace {}, protected for {}, clean {}",
                of.keep,
                SpanMs(of.grace_ms),
                SpanMs(of.protect_for_ms),
                of.clean
            ),
        );
    }
    line(
        text,
        format_args!(
            "  {}{} with {}, {} disowned{}",
            if of.estimated { "about " } else { "" },
            plural(of.live_keys, "key", "keys"),
            plural(of.active, "copy", "copies"),
            of.disowned,
            if of.estimated { String::new() } else { format!(", {}", HumanBytes(of.bytes)) }
        ),
    );
    if let Some(Capacity { read, write, calls }) = &of.capacity {
        line(text, format_args!("  the catalog used {read} read and {write} write units in {calls} requests"));
    }
    let ago = |at: Option<i64>| at.map_or_else(|| "never".to_owned(), |at| relative(UnixMs(at), now));
    // A table is nobody's to save.
    let saved = match of.capacity {
        Some(_) => String::new(),
        None => format!("; catalog saved {}", ago(of.snapshot_at_ms)),
    };
    let gap = of.reconcile_gap.map(|gap| format!(" (gap {gap})")).unwrap_or_default();
    line(
        text,
        format_args!(
            "  cleaned {}, next {}; reconciled {}{gap}{saved}",
            ago(of.cleaned_at_ms),
            ago(of.next_clean_ms),
            ago(of.reconciled_at_ms)
        ),
    );
    if let Some(at) = of.tripped_at_ms {
        line(
            text,
            format_args!(
                "  BREAKER tripped {}: at least {} removed; nothing is purged until `afterimage release --policy {}` (or \
                 `afterimage undelete --since TIME`)",
                relative(UnixMs(at), now),
                plural(of.tripped_removed.unwrap_or(0), "key", "keys"),
                of.name
            ),
        );
    }
}

fn history(text: &mut String, of: &History) {
    if of.policies.is_empty() {
        line(text, format_args!("{}: no copies, and nothing in the journal", printable(&of.key)));
    }
    let now = UnixMs(of.now_ms);
    for (n, part) in of.policies.iter().enumerate() {
        if n > 0 {
            text.push('\n');
        }
        policy_history(text, &of.key, part, now);
    }
}

fn policy_history(text: &mut String, key: &str, of: &PolicyHistory, now: UnixMs) {
    let active = of.copies.iter().filter(|copy| copy.state == "active").count() as u64;
    let disowned = of.copies.len() as u64 - active;
    line(
        text,
        format_args!(
            "{} (policy {}): {}, {disowned} disowned",
            printable(key),
            of.policy,
            plural(active, "active copy", "active copies")
        ),
    );
    if let Some(at) = of.removed_at_ms.filter(|_| active == 0) {
        line(text, format_args!("removed from the source {}", relative(UnixMs(at), now)));
    }
    if !of.copies.is_empty() {
        let mut copies = table(&["CREATED", "AGE", "STATE", "SIZE", "NEXT", "COPY"]);
        for copy in &of.copies {
            copies.add_row(copy_row(copy, now));
        }
        push_table(text, &copies);
    }
    // What became of copies that are still there stands above.
    let there = |line: &&JournalLine| !of.copies.iter().any(|copy| Some(&copy.copy_key) == line.copy_key.as_ref());
    let gone: Vec<JournalLine> = of.journal.iter().filter(there).cloned().collect();
    if !gone.is_empty() {
        text.push_str("\nwhat the journal knows of copies that are gone:\n");
        journal(text, &gone);
    }
}

fn copy_row(copy: &Copy, now: UnixMs) -> [String; 6] {
    let created = UnixMs(copy.created_at_ms);
    let reason = copy.reason_text.as_ref().map(|reason| format!(": {reason}"));
    [
        created.to_string(),
        now.since(created).to_string(),
        format!("{}{}", copy.state, reason.unwrap_or_default()),
        HumanBytes(copy.size).to_string(),
        copy.next.clone(),
        printable(&copy.copy_key),
    ]
}

fn journal(text: &mut String, lines: &[JournalLine]) {
    let mut rows = table(&["LINE", "WHEN", "WHO", "ACTION", "RULE", "OBJECT"]);
    for entry in lines {
        let object = entry.copy_key.as_ref().or(entry.key.as_ref());
        rows.add_row([
            entry.number.to_string(),
            UnixMs(entry.at_ms).to_string(),
            entry.who.clone(),
            entry.action.clone(),
            entry.rule.clone(),
            object.map_or_else(|| format!("policy {}", entry.policy), |object| printable(object)),
        ]);
    }
    push_table(text, &rows);
}

fn report(text: &mut String, of: &ReportView) {
    // What is done to an archive is done to a table's, or a service's.
    let kind = if of.operation.starts_with("archive ") { "" } else { "policy " };
    let of_policy = of.policy.as_ref().map(|policy| format!(" ({kind}{policy})")).unwrap_or_default();
    let counts: Vec<String> = of
        .counts
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(what, n)| match what.as_str() {
            "bytes" => HumanBytes(*n).to_string(),
            what => format!("{n} {what}"),
        })
        .collect();
    let counts = match (counts.is_empty(), of.failures) {
        (true, 0) => "nothing to do".to_owned(),
        (true, _) => "nothing done".to_owned(),
        (false, _) => counts.join(", "),
    };
    line(text, format_args!("{}{of_policy}: {counts}", of.operation));
    for item in &of.done {
        line(text, format_args!("  {}: {}", printable(&item.object), item.why));
    }
    for item in &of.skipped {
        line(text, format_args!("  skipped {}: {}", printable(&item.object), item.why));
    }
    for item in &of.failed {
        line(text, format_args!("  FAILED {}: {}", printable(&item.object), item.why));
    }
    let unnamed = of.failures.saturating_sub(of.failed.len() as u64);
    if unnamed > 0 {
        line(text, format_args!("  and {unnamed} more failed"));
    }
    for note in &of.notes {
        line(text, format_args!("  {note}"));
    }
    // What failed, and what was noted, says more.
    if of.cancelled && of.failures == 0 && of.notes.is_empty() {
        line(text, format_args!("  stopped before the end: what is done is done, the same command goes on from there"));
    }
}

fn due(text: &mut String, of: &Due) {
    let now = UnixMs(of.now_ms);
    for policy in &of.policies {
        let more = if policy.more { "more than " } else { "" };
        let next = policy.next_clean_ms.map(|at| format!(", purged at the next clean {}", relative(UnixMs(at), now)));
        line(
            text,
            format_args!(
                "{}: {more}{} due{}",
                policy.policy,
                plural(policy.due, "copy", "copies"),
                next.filter(|_| policy.due > 0 && !policy.tripped).unwrap_or_default()
            ),
        );
        if policy.tripped {
            line(text, format_args!("  the breaker holds them: `afterimage release --policy {}`", policy.policy));
        }
        if let Some(at) = policy.next_due_ms {
            line(text, format_args!("  the next one is due {}", relative(UnixMs(at), now)));
        }
    }
    if of.policies.iter().any(|policy| policy.due > 0 && !policy.tripped) {
        text.push_str("`afterimage clean --now` purges what is due\n");
    }
}

fn audit(text: &mut String, of: &Audit) {
    if !of.newest.is_empty() {
        journal(text, &of.newest);
        text.push('\n');
    }
    for fault in &of.faults {
        line(text, format_args!("! {fault}"));
    }
    let verdict = if of.faults.is_empty() {
        "the chain is whole".to_owned()
    } else {
        format!("the chain is BROKEN in {}", plural(of.faults.len() as u64, "place", "places"))
    };
    line(text, format_args!("{} read, {verdict}; head {}", plural(of.lines, "line", "lines"), of.head));
}

fn dead_letters(text: &mut String, of: &DeadLetters) {
    for unknown in &of.unknown {
        line(text, format_args!("! {unknown}"));
    }
    if of.letters.is_empty() {
        text.push_str("no dead letters\n");
        return;
    }
    let now = UnixMs(of.now_ms);
    let mut rows = table(&["ID", "GIVEN UP", "TRIES", "EVENT", "OBJECT", "WHY"]);
    for letter in &of.letters {
        rows.add_row([
            letter.id.to_string(),
            relative(UnixMs(letter.died_at_ms), now),
            letter.attempts.to_string(),
            match &letter.cause {
                Some(cause) => format!("{} by {cause}", letter.event),
                None => letter.event.clone(),
            },
            match &letter.table {
                Some(table) => format!("{table} {}", printable(&letter.key)),
                None => format!("{}/{}", letter.bucket, printable(&letter.key)),
            },
            printable(&letter.why),
        ]);
    }
    push_table(text, &rows);
    for record in of.letters.iter().filter_map(|letter| letter.record.as_ref()) {
        line(text, format_args!("{record:#}"));
    }
    if of.total > of.letters.len() as u64 && of.letters.len() > 1 {
        line(text, format_args!("and {} more", of.total - of.letters.len() as u64));
    }
}
