//! Policies of several kinds, from the outside: mirrors, folders elsewhere, breakers, and what a lost index leaves.

use crate::faults::files;
use crate::process::Folder;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;

/// Writes a configuration with one policy.
pub(crate) fn configure(folder: &Folder, policy: &str) {
    let text = format!("[[policy]]\nname = \"one\"\nsource = \"local://source\"\n{policy}\n");
    fs::write(folder.root().join("one.toml"), text).unwrap();
}

pub(crate) const CONFIG: &[&str] = &["--config", "one.toml"];

#[test]
fn a_mirror_equals_its_source_whatever_the_keys_are_called() {
    let folder = Folder::new();
    configure(&folder, "destination = \"local://mirror\"\nmode = \"mirror\"\nbreaker = \"off\"");
    let serving = folder.serve_with(CONFIG);
    let keys = ["plain.txt", "with space", "a+b", "100%", "ünïcode/😀", "a", "a/b", "//x//", "../up", "trailing/"];
    let mut expected = BTreeMap::new();
    for (round, text) in ["one", "two", "three"].iter().enumerate() {
        for (n, key) in keys.iter().enumerate() {
            if (n + round) % 3 == 2 {
                assert_eq!(serving.s3.delete("source", key).unwrap().0, 204, "{key}");
                expected.remove(key);
            } else {
                serving.put("source", key, text);
                expected.insert(key, *text);
            }
        }
    }
    folder.settle();
    for key in &keys {
        let (status, body) = serving.s3.get("mirror", key).unwrap();
        match expected.get(key) {
            Some(text) => assert_eq!((status, body.as_slice()), (200, text.as_bytes()), "{key}"),
            None => assert_eq!(status, 404, "{key}"),
        }
    }
    assert_eq!(folder.json(&["reconcile"])["reports"][0]["counts"]["gap"], 0);
}

/// More keys than a page of a listing has, in buckets that read with few hands: by the command, without a daemon, and by the
/// first comparison of the daemon.
#[test]
fn a_bucket_that_was_in_use_gets_its_copies() {
    const EACH: usize = 1_050;
    let folder = Folder::new();
    fs::write(folder.root().join("one.toml"), "default_policy = \"off\"\n").unwrap();
    let serving = folder.serve_with(CONFIG);
    assert_eq!(serving.s3.make_bucket("source").unwrap().0, 200);
    std::thread::scope(|scope| {
        for part in ["a", "b"] {
            let s3 = &serving.s3;
            scope.spawn(move || {
                (0..EACH).for_each(|n| assert_eq!(s3.put("source", &format!("{part}/{n}"), b"before").unwrap().0, 200));
            });
        }
    });
    assert_eq!(serving.stop(), 0);
    configure(&folder, "destination = \"local://copies\"");
    let filled = &folder.json(&[CONFIG, &["backfill", "--prefix", "a/"]].concat())["reports"][0];
    assert_eq!((&filled["counts"]["copied"], &filled["failures"]), (&json!(EACH), &json!(0)), "{filled:#}");
    let _serving = folder.serve_with(CONFIG);
    folder.settle();
    let compared = &folder.json(&["reconcile"])["reports"][0]["counts"];
    assert_eq!(
        (&compared["keys"], &compared["gap"], &compared["adopted"]),
        (&json!(2 * EACH), &json!(0), &json!(null))
    );
    assert_eq!(folder.json(&["backfill"])["reports"][0]["counts"]["there"], 2 * EACH);
    assert_eq!(folder.json(&["status"])["policies"][0]["active"], 2 * EACH);
}

#[test]
fn copies_on_another_disk_are_plain_files_with_a_snapshot_of_their_catalog() {
    let folder = Folder::new();
    let disk = folder.root().join("disk");
    configure(&folder, &format!("destination = \"local://{}\"", disk.display()));
    let serving = folder.serve_with(CONFIG);
    serving.put("source", "notes/plan.txt", "the plan");
    folder.settle();
    let copies = files(&disk);
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert!(copies[0].strip_prefix(&disk).unwrap().to_str().unwrap().starts_with("notes/plan.txt.20"), "{copies:?}");
    assert_eq!(fs::read_to_string(&copies[0]).unwrap(), "the plan");
    assert!(disk.join(".afterimage/catalog-a.sqlite").exists());
    assert_eq!(folder.json(&["status"])["policies"][0]["destination"], json!(format!("local://{}", disk.display())));
}

#[test]
fn a_mass_deletion_stops_every_purge_until_a_person_has_looked() {
    let folder = Folder::new();
    let rules = "destination = \"local://copies\"\ngrace = \"0s\"\nclean = \"every day\"\n\
                 breaker = { window = \"1h\", deletes = 3, share = 0.2 }";
    configure(&folder, rules);
    let serving = folder.serve_with(CONFIG);
    for n in 0..8 {
        serving.put("source", &format!("{n}.txt"), "kept");
    }
    folder.settle();
    for n in 0..8 {
        assert_eq!(serving.s3.delete("source", &format!("{n}.txt")).unwrap().0, 204);
    }
    folder.settle();
    folder.ok(&["clean", "--now"]);
    let status = folder.json(&["status"]);
    let policy = &status["policies"][0];
    // Counting stops where the rule trips.
    assert_eq!((&policy["disowned"], &policy["tripped_removed"]), (&json!(8), &json!(4)));
    assert_eq!(folder.run(&["status", "--check"]).code, 1);

    folder.ok(&["undelete", "--since", "1h ago"]);
    assert_eq!(serving.text("source", "5.txt"), "kept");
    assert_eq!(folder.json(&["status"])["policies"][0]["tripped_at_ms"], json!(null));
    folder.settle();
    assert_eq!(serving.s3.delete("source", "5.txt").unwrap().0, 204);
    folder.settle();
    folder.ok(&["clean", "--now"]);
    assert_eq!(serving.s3.get("source", "5.txt").unwrap().0, 404);
    let journal = folder.json(&["audit", "--lines", "200"]);
    let actions: Vec<&str> =
        journal["newest"].as_array().unwrap().iter().map(|line| line["action"].as_str().unwrap()).collect();
    for action in ["disown", "trip", "undelete", "release", "purge"] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
}

#[test]
fn an_index_that_is_lost_is_made_again_from_the_files() {
    let folder = Folder::new();
    let serving = folder.serve();
    serving.s3.make_bucket("photos").unwrap();
    serving.put("photos", "cat.jpg", "meow");
    serving.put("source", "a.txt", "one");
    folder.settle();
    assert_eq!(serving.stop(), 0);
    for ending in ["", "-wal", "-shm"] {
        let file = folder.data().join(format!("state.sqlite{ending}"));
        if file.exists() {
            fs::remove_file(file).unwrap();
        }
    }
    let again = folder.serve();
    folder.settle();
    assert_eq!(again.text("photos", "cat.jpg"), "meow");
    assert_eq!(again.text("source", "a.txt"), "one");
    for key in ["cat.jpg", "a.txt"] {
        let history = folder.json(&["history", key]);
        let copies = history["policies"][0]["copies"].as_array().unwrap().clone();
        assert!(copies.iter().any(|copy| copy["state"] == "active"), "{history:#}");
    }
    let policies = folder.json(&["status"])["policies"].clone();
    assert_eq!(policies[0]["name"], "photos", "{policies:#}");
}

#[test]
fn copies_outlive_their_data_folder_and_are_handed_on_to_a_new_one() {
    let folder = Folder::new();
    let disk = folder.root().join("disk");
    configure(&folder, &format!("destination = \"local://{}\"", disk.display()));
    let serving = folder.serve_with(CONFIG);
    for n in 0..3 {
        serving.put("source", &format!("{n}.txt"), "kept");
    }
    folder.settle();
    assert_eq!(serving.stop(), 0);
    // As on a new machine: the configuration and the disk are there, the data folder is not.
    let lost = folder.root().join("lost");
    fs::rename(folder.data(), &lost).unwrap();

    let refused = folder.run(&[CONFIG, &["serve", "--listen", "127.0.0.1:0"]].concat());
    assert_eq!(refused.code, 1);
    for part in [disk.to_str().unwrap(), folder.data().to_str().unwrap(), "--take-over"] {
        assert!(refused.err.contains(part), "{part}: {refused:?}");
    }
    let serving = folder.start(&[CONFIG, &["serve", "--take-over"]].concat());
    folder.settle();
    folder.ok(&["restore", "--everything"]);
    for n in 0..3 {
        assert_eq!(serving.text("source", &format!("{n}.txt")), "kept");
    }
    assert_eq!(serving.stop(), 0);

    fs::remove_dir_all(folder.data()).unwrap();
    fs::rename(&lost, folder.data()).unwrap();
    let refused = folder.run(&[CONFIG, &["serve", "--listen", "127.0.0.1:0"]].concat());
    assert_eq!(refused.code, 1, "the one that lost the folder must not purge in it: {refused:?}");
}

#[test]
fn a_mirror_is_never_made_over_files_that_it_did_not_make() {
    let folder = Folder::new();
    let disk = folder.root().join("disk");
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join("thesis.tex"), "dear").unwrap();
    configure(&folder, &format!("destination = \"local://{}\"\nmode = \"mirror\"", disk.display()));
    let serve = [CONFIG, &["serve", "--listen", "127.0.0.1:0"]].concat();
    let refused = folder.run(&serve);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("a mirror deletes what its source has not"), "{refused:?}");
    assert!(!disk.join(".afterimage").exists());

    fs::remove_file(disk.join("thesis.tex")).unwrap();
    let serving = folder.serve_with(CONFIG);
    serving.put("source", "a.txt", "kept");
    folder.settle();
    assert_eq!(serving.stop(), 0);
    fs::remove_dir_all(folder.data()).unwrap();
    let refused = folder.run(&[&serve[..], &["--take-over"]].concat());
    assert_eq!(refused.code, 1, "a new source is empty");
    assert!(refused.err.contains("the mirror would delete everything"), "{refused:?}");
    assert_eq!(fs::read_to_string(disk.join("a.txt")).unwrap(), "kept");
}
