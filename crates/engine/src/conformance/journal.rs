//! What every journal must do: each sentence of the port (`ports/journal.rs`) is a check here, and every adapter runs all.
//!
//! A check gets an empty journal of its own and panics with what was wrong. Law shown: I12. What only a stored journal can
//! show (altered lines, crashes) stands with the adapter that stores.

use crate::ports::journal::{Action, Entry, Journal, JournalRead, Line};
use futures_util::future::join_all;
use lifecycle::ids::{Checksum, CopyKey, ObjectKey, PolicyName};
use lifecycle::time::UnixMs;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Runs every check, each on a fresh journal from `make`: both handles of one journal.
pub async fn journal<F: Future<Output = (Arc<dyn Journal>, Arc<dyn JournalRead>)>>(make: impl Fn() -> F) {
    let (write, read) = make().await;
    lines_read_back_whole(&*write, &*read).await;
    let (write, read) = make().await;
    the_newest_lines_about_a_key(&*write, &*read).await;
    let (write, read) = make().await;
    appends_at_once_keep_together(&*write, &*read).await;
    let (write, read) = make().await;
    audit_counts_and_the_head_moves(&*write, &*read).await;
}

const WORKS: &str = "the journal answers";

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a key")
}

fn entry(at: i64, of: Option<&str>) -> Entry {
    Entry {
        at: UnixMs(at),
        who: "service".to_owned(),
        policy: PolicyName::from("documents"),
        action: Action::Purge,
        key: of.map(key),
        copy_key: None,
        size: None,
        checksum: None,
        rule: "removed".to_owned(),
    }
}

async fn lines_read_back_whole(write: &dyn Journal, read: &dyn JournalRead) {
    assert_eq!(read.about(None, 10).await.expect(WORKS), Vec::new());
    write.append(&[]).await.expect("nothing to write is nothing wrong");
    let actions = [
        Action::Disown,
        Action::Purge,
        Action::MirrorDelete,
        Action::Restore,
        Action::Undelete,
        Action::Trip,
        Action::Release,
        Action::Refuse,
        Action::DropEvent,
    ];
    let mut entries: Vec<Entry> = actions.into_iter().map(|action| Entry { action, ..entry(5, None) }).collect();
    for text in
        ["it's \"quoted\"", "back\\slash", "new\nline\r\n", "ü🦀", "\u{0}\u{1}\u{7f}", "{\"hash\":\"0\"}", "\u{2028}"]
    {
        entries.push(Entry {
            who: text.to_owned(),
            policy: PolicyName::from(text),
            copy_key: Some(CopyKey::of(key(text))),
            size: Some(u64::MAX),
            checksum: Some(Checksum(u64::MAX)),
            rule: text.to_owned(),
            ..entry(i64::MAX, Some(text))
        });
    }
    entries.push(Entry { size: Some(0), checksum: Some(Checksum(0)), ..entry(0, Some(&"k".repeat(1_024))) });
    write.append(&entries).await.expect(WORKS);
    let expected: Vec<Line> = (1..).zip(&entries).map(|(number, entry)| Line::of(number, entry)).collect();
    assert_eq!(read.about(None, 100).await.expect(WORKS), expected, "in order, numbered from 1");
    for (number, entry) in (1..).zip(&entries).filter(|(_, entry)| entry.key.is_some()) {
        assert_eq!(read.about(entry.key.as_ref(), 100).await.expect(WORKS), [Line::of(number, entry)]);
    }
}

async fn the_newest_lines_about_a_key(write: &dyn Journal, read: &dyn JournalRead) {
    let names = ["a", "a/b", "b", "a\"", "policy", "A"];
    let entries: Vec<Entry> = (0..60).map(|n| entry(n, Some(names[n as usize % names.len()]))).collect();
    for group in entries.chunks(7) {
        write.append(group).await.expect(WORKS);
    }
    for name in names {
        let about: Vec<Line> = (1..)
            .zip(&entries)
            .filter(|(_, entry)| entry.key.as_ref().is_some_and(|key| key.as_str() == name))
            .map(|(number, entry)| Line::of(number, entry))
            .collect();
        for limit in [0, 1, 3, 10, 11] {
            let newest = &about[about.len().saturating_sub(limit)..];
            assert_eq!(read.about(Some(&key(name)), limit).await.expect(WORKS), newest, "{name}, at most {limit}");
        }
    }
    let last = read.about(None, 5).await.expect(WORKS);
    assert_eq!(last.iter().map(|line| line.number).collect::<Vec<_>>(), [56, 57, 58, 59, 60]);
    assert_eq!(read.about(Some(&key("nobody")), 5).await.expect(WORKS), Vec::new());
}

async fn appends_at_once_keep_together(write: &dyn Journal, read: &dyn JournalRead) {
    let groups: Vec<Vec<Entry>> =
        (0..40).map(|group| (0..5).map(|n| entry(n, Some(&format!("group {group}")))).collect()).collect();
    for outcome in join_all(groups.iter().map(|group| write.append(group))).await {
        outcome.expect(WORKS);
    }
    let lines = read.about(None, 1_000).await.expect(WORKS);
    assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), (1..=200).collect::<Vec<u64>>());
    let mut seen = BTreeSet::new();
    for group in lines.chunks(5) {
        assert!(group.iter().all(|line| line.key == group[0].key), "the lines of one call stand together");
        assert_eq!(group.iter().map(|line| line.at.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "in the order given");
        assert!(seen.insert(group[0].key.clone()));
    }
}

async fn audit_counts_and_the_head_moves(write: &dyn Journal, read: &dyn JournalRead) {
    let mut heads = BTreeSet::new();
    for lines in 0..5 {
        let audit = read.audit().await.expect(WORKS);
        assert_eq!((audit.lines, audit.faults), (lines, Vec::<String>::new()));
        assert!(heads.insert(audit.head.clone()), "the head tells every length apart");
        assert_eq!(read.audit().await.expect(WORKS).head, audit.head, "reading changes nothing");
        write.append(&[entry(1, Some("k"))]).await.expect(WORKS);
    }
}
