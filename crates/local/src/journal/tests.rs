//! The journal on disk: the port's suite, its chain under hand-made changes, and what crashes leave.

use super::FileJournal;
use engine::conformance;
use engine::error::ErrorKind;
use engine::ports::journal::{Action, Audit, Entry, Journal, JournalRead};
use lifecycle::ids::{Checksum, CopyKey, ObjectKey, PolicyName};
use lifecycle::time::UnixMs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Small enough for a few lines each.
const SMALL: u64 = 1_000;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn entry(n: i64) -> Entry {
    Entry {
        at: UnixMs(n),
        who: "service".to_owned(),
        policy: PolicyName::from("documents"),
        action: Action::Purge,
        key: Some(key(&format!("k{}", n % 3))),
        copy_key: Some(CopyKey::of(key("copy"))),
        size: Some(7),
        checksum: Some(Checksum(1)),
        rule: "removed".to_owned(),
    }
}

/// A closed journal with lines 1 to `lines` in small segments.
async fn written(lines: i64) -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("journal");
    let journal = FileJournal::open_with(&folder, SMALL).unwrap();
    for n in 1..=lines {
        journal.append(&[entry(n)]).await.unwrap();
    }
    journal.close().await;
    (temp, folder)
}

async fn audit(folder: &Path) -> Audit {
    let journal = FileJournal::open_with(folder, SMALL).unwrap();
    let audit = journal.audit().await.unwrap();
    journal.close().await;
    audit
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    std::fs::write(path, lines.concat()).unwrap();
}

#[tokio::test]
async fn the_journal_on_disk_conforms() {
    let temp = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    for segment_bytes in [u64::MAX, SMALL, 0] {
        conformance::journal::journal(|| async {
            let folder = temp.path().join(made.fetch_add(1, Ordering::Relaxed).to_string());
            let journal = Arc::new(FileJournal::open_with(&folder, segment_bytes).unwrap());
            (Arc::clone(&journal) as Arc<dyn Journal>, journal as Arc<dyn JournalRead>)
        })
        .await;
    }
}

#[tokio::test]
async fn a_line_can_be_read_and_checked_with_ordinary_tools() {
    let (_temp, folder) = written(1).await;
    let text = std::fs::read_to_string(folder.join("000001.jsonl")).unwrap();
    let zeros = "0".repeat(64);
    let body = format!(
        "{{\"v\":1,\"n\":1,\"at\":1,\"who\":\"service\",\"policy\":\"documents\",\"action\":\"purge\",\"key\":\"k1\",\
         \"copy_key\":\"copy\",\"size\":7,\"checksum\":\"AAAAAAAAAAE=\",\"rule\":\"removed\",\"prev\":\"{zeros}\""
    );
    // printf %s "$body" | sha256sum
    let hash = "02b6d866175f91f1777ea25458f3b1e88eb46bae422b28b6b11897eda3f2dce8";
    assert_eq!(text, format!("{body},\"hash\":\"{hash}\"}}\n"));
}

#[tokio::test]
async fn the_chain_goes_on_over_segments_and_restarts() {
    let (_temp, folder) = written(20).await;
    let before = audit(&folder).await;
    assert_eq!((before.lines, before.faults), (20, Vec::<String>::new()));
    assert!(folder.join("000003.jsonl").exists(), "it rotates");
    let journal = FileJournal::open_with(&folder, SMALL).unwrap();
    journal.append(&[entry(21)]).await.unwrap();
    let after = journal.audit().await.unwrap();
    assert_eq!((after.lines, after.faults), (21, Vec::<String>::new()));
    assert_ne!(after.head, before.head);
    let about = journal.about(Some(&key("k0")), 4).await.unwrap();
    assert_eq!(about.iter().map(|line| line.number).collect::<Vec<_>>(), [12, 15, 18, 21]);
    journal.close().await;
    let refused = journal.append(&[entry(22)]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_line_altered_by_hand_is_named() {
    let (_temp, folder) = written(12).await;
    change(&folder.join("000001.jsonl"), |lines| lines[1] = lines[1].replace("\"removed\"", "\"surplus\""));
    let found = audit(&folder).await;
    let expected = "000001.jsonl, line 2: it was altered (its hash is not the hash of what it says)";
    assert_eq!((found.lines, found.faults), (12, vec![expected.to_owned()]));
}

#[tokio::test]
async fn what_was_removed_moved_or_replaced_is_named() {
    type Change = fn(&mut Vec<String>);
    let altered: [(&str, Change, &[&str]); 6] = [
        (
            "taken out",
            |lines| drop(lines.remove(1)),
            &["000001.jsonl, line 2: it has number 3; the lines 2 to 2 are missing"],
        ),
        (
            "swapped",
            |lines| lines.swap(0, 1),
            &[
                "000001.jsonl, line 1: it has number 2; the lines 1 to 1 are missing",
                "000001.jsonl, line 2: it has number 1, where 3 belongs: it was moved or repeated",
                "000001.jsonl, line 3: it has number 3; the lines 2 to 2 are missing",
            ],
        ),
        (
            "repeated",
            |lines| lines.insert(1, lines[0].clone()),
            &["000001.jsonl, line 2: it has number 1, where 2 belongs: it was moved or repeated"],
        ),
        (
            "no line",
            |lines| lines[1] = "lorem ipsum\n".to_owned(),
            &[
                "000001.jsonl, line 2: it is no line of a journal",
                "000001.jsonl, line 3: the line before it is not the one that it was written after",
            ],
        ),
        (
            "hash too long",
            |lines| lines[1] = lines[1].replace("\"}", "0\"}"),
            &[
                "000001.jsonl, line 2: it is no line of a journal",
                "000001.jsonl, line 3: the line before it is not the one that it was written after",
            ],
        ),
        (
            "far too long",
            |lines| lines[1] = format!("{}\n", "x".repeat(200_000)),
            &[
                "000001.jsonl, line 2: it is no line of a journal",
                "000001.jsonl, line 3: the line before it is not the one that it was written after",
            ],
        ),
    ];
    for (what, by_hand, faults) in altered {
        let (_temp, folder) = written(12).await;
        change(&folder.join("000001.jsonl"), by_hand);
        assert_eq!(audit(&folder).await.faults, faults, "{what}");
    }

    // Altered, with a hash that fits: the next line does not follow from it.
    let (_temp, folder) = written(12).await;
    change(&folder.join("000001.jsonl"), |lines| {
        let mut forged = Vec::new();
        let prev = engine::format::journal_line::Hash::start();
        engine::format::journal_line::write_line(&mut forged, 1, &prev, &Entry { size: Some(8), ..entry(1) }).unwrap();
        lines[0] = String::from_utf8(forged).unwrap();
    });
    let fault = "000001.jsonl, line 2: the line before it is not the one that it was written after";
    assert_eq!(audit(&folder).await.faults, [fault]);

    let (_temp, folder) = written(20).await;
    std::fs::remove_file(folder.join("000002.jsonl")).unwrap();
    let faults = audit(&folder).await.faults;
    assert_eq!(faults[0], "000003.jsonl: the segment before it is missing");
    assert!(faults[1].starts_with("000003.jsonl, line 1: it has number "), "{faults:?}");
    assert_eq!(faults.len(), 2);
}

#[tokio::test]
async fn a_journal_cut_short_while_it_is_open_is_named() {
    let (_temp, folder) = written(12).await;
    let journal = FileJournal::open_with(&folder, u64::MAX).unwrap();
    journal.append(&[entry(13), entry(14)]).await.unwrap();
    let mut newest = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    newest.sort();
    change(newest.last().unwrap(), |lines| drop(lines.pop()));
    let faults = journal.audit().await.unwrap().faults;
    assert!(faults.len() == 1 && faults[0].ends_with("the end: lines 14 to 14 are missing"), "{faults:?}");
}

#[tokio::test]
async fn a_torn_last_line_is_cut_off_and_kept_aside() {
    let (_temp, folder) = written(2).await;
    let path = folder.join("000001.jsonl");
    let whole = std::fs::read(&path).unwrap();
    let torn_ends: [&[u8]; 4] = [b"{", &whole[..whole.len() / 2 - 1], &[0; 300], &[b'x'; 200_000]];
    for torn in torn_ends {
        std::fs::write(&path, [&whole, torn].concat()).unwrap();
        let journal = FileJournal::open_with(&folder, u64::MAX).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let aside = folder.join(format!("000001.jsonl.torn-at-{}", whole.len()));
        assert_eq!(std::fs::read(aside).unwrap(), torn);
        journal.append(&[entry(3)]).await.unwrap();
        let audit = journal.audit().await.unwrap();
        assert_eq!((audit.lines, audit.faults), (3, Vec::<String>::new()));
        journal.close().await;
    }
}

#[tokio::test]
async fn a_crash_right_after_a_new_segment_was_made_keeps_the_chain() {
    let (_temp, folder) = written(3).await;
    std::fs::write(folder.join("000002.jsonl"), "").unwrap();
    let journal = FileJournal::open_with(&folder, u64::MAX).unwrap();
    journal.append(&[entry(4)]).await.unwrap();
    let audit = journal.audit().await.unwrap();
    assert_eq!((audit.lines, audit.faults), (4, Vec::<String>::new()));
    assert!(std::fs::metadata(folder.join("000002.jsonl")).unwrap().len() > 0);
}

#[tokio::test]
async fn other_files_in_the_folder_are_left_alone() {
    let (_temp, folder) = written(1).await;
    for name in ["notes.txt", "1.jsonl", "0000001.jsonl", "000001.jsonl.torn-at-5", "x.jsonl"] {
        std::fs::write(folder.join(name), "not a journal").unwrap();
    }
    let found = audit(&folder).await;
    assert_eq!((found.lines, found.faults), (1, Vec::<String>::new()));
}

#[tokio::test]
async fn a_folder_that_cannot_be_one_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("journal");
    std::fs::write(&file, "a file").unwrap();
    let error = FileJournal::open(&file).err().unwrap();
    assert!(error.to_string().starts_with("open journal "), "{error}");
}

#[tokio::test]
async fn a_failed_write_fails_its_callers_and_the_next_goes_on_from_what_is_durable() {
    let (_temp, folder) = written(1).await;
    let journal = FileJournal::open_with(&folder, 1).unwrap();
    // What stands in the new segment's way: a folder of its name.
    let way = folder.join("000002.jsonl");
    std::fs::create_dir(&way).unwrap();
    for _ in 0..2 {
        assert!(journal.append(&[entry(2)]).await.is_err());
    }
    std::fs::remove_dir(&way).unwrap();
    journal.append(&[entry(2)]).await.unwrap();
    let audit = journal.audit().await.unwrap();
    assert_eq!((audit.lines, audit.faults), (2, Vec::<String>::new()));
}
