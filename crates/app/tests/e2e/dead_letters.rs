//! Events that nobody can handle: named, told of, put back once their cause is gone, or dropped for good with a line in the
//! journal.

use crate::policies::{CONFIG, configure};
use crate::process::{Folder, Serving};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A daemon whose destination, a folder on another disk, has a file where its temporary files go: what is put now can never
/// be copied. Gives the place, too.
fn obstructed(folder: &Folder) -> (Serving, PathBuf) {
    let disk = folder.root().join("disk");
    configure(folder, &format!("destination = \"local://{}\"", disk.display()));
    let serving = folder.serve_with(CONFIG);
    folder.settle();
    let place = disk.join(".afterimage/tmp");
    fs::remove_dir(&place).unwrap();
    fs::write(&place, "in the way").unwrap();
    (serving, place)
}

fn letters(folder: &Folder) -> Vec<Value> {
    folder.json(&["dlq", "list"])["letters"].as_array().unwrap().clone()
}

fn until_given_up(folder: &Folder, how_many: u64) {
    folder.wait("dead letters", |status| status["queue"]["dead_letters"] == how_many);
}

#[test]
fn a_dead_letter_is_named_and_redriven_once_its_cause_is_gone() {
    let folder = Folder::new();
    let (serving, place) = obstructed(&folder);
    serving.put("source", "notes/plan.txt", "the plan");
    until_given_up(&folder, 1);
    let [letter] = &letters(&folder)[..] else { panic!("one event was given up: {:#?}", letters(&folder)) };
    assert_eq!((&letter["bucket"], &letter["key"]), (&json!("source"), &json!("notes/plan.txt")), "{letter:#}");
    let id = letter["id"].to_string();
    assert!(folder.ok(&["dlq", "show", &id]).contains("notes/plan.txt"));
    let checked = folder.run(&["status", "--check"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.out.contains("! 1 dead letter: `afterimage dlq list` says why"), "{checked:?}");

    // Too early: it fails again and is back.
    folder.ok(&["dlq", "redrive", &id]);
    until_given_up(&folder, 1);
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    assert!(folder.ok(&["dlq", "redrive", "--all"]).contains("1 redriven"));
    folder.settle();
    assert_eq!(letters(&folder), [json!(null); 0]);
    let history = folder.json(&["history", "notes/plan.txt"]);
    assert_eq!(history["policies"][0]["copies"][0]["state"], "active", "{history:#}");
    assert_eq!(folder.run(&["status", "--check"]).code, 0);
}

#[test]
fn a_dropped_letter_is_gone_for_good_and_the_journal_knows() {
    let folder = Folder::new();
    let (serving, _place) = obstructed(&folder);
    for key in ["notes/a.txt", "notes/b.txt", "notes/c.txt"] {
        serving.put("source", key, "the plan");
    }
    until_given_up(&folder, 3);
    let id = letters(&folder)[0]["id"].to_string();
    let missing = folder.run(&["dlq", "drop", &id, "4711"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.err.contains("there is no dead letter 4711"), "{missing:?}");
    assert_eq!(letters(&folder).len(), 3, "all of those that are named, or none");

    assert!(folder.ok(&["dlq", "drop", &id]).contains("1 dropped"));
    assert_eq!(letters(&folder).len(), 2);
    assert!(folder.ok(&["dlq", "drop", "--all"]).contains("2 dropped"));
    assert!(folder.ok(&["dlq", "list"]).contains("no dead letters"));
    let journal = folder.json(&["audit"]);
    let dropped: Vec<&Value> =
        journal["newest"].as_array().unwrap().iter().filter(|line| line["action"] == "drop-event").collect();
    assert_eq!(dropped.len(), 3, "{journal:#}");
    assert!(dropped.iter().all(|line| line["who"] != "afterimage" && line["policy"] == "one"), "{dropped:#?}");
    assert_eq!(serving.text("source", "notes/a.txt"), "the plan", "the object itself is untouched");
}
