//! What is wrong with the machine, the folder or the command is said clearly, and nothing is lost by it.

use crate::process::Folder;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All files under a folder that are not the program's own.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != ".afterimage" {
                found.extend(files(&entry.path()));
            }
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[test]
fn a_second_serve_is_refused_and_names_the_first() {
    let folder = Folder::new();
    let serving = folder.serve();
    let second = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, 1);
    assert!(second.err.contains(&format!("in use by process {}", serving.pid())), "{second:?}");
    // Also where it would want the same port.
    let second = folder.run(&["serve", "--listen", &serving.s3.address.to_string()]);
    assert!(second.err.contains(&format!("in use by process {}", serving.pid())), "{second:?}");
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = folder.run(&["serve", "--listen", &address]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains(&address) && refused.err.contains("--listen 127.0.0.1:0"), "{refused:?}");
    assert!(!folder.data().exists(), "a start that could not be leaves nothing behind");
    fs::create_dir(folder.data()).unwrap();
    assert_eq!(folder.run(&["serve", "--listen", &address]).code, 1);
    assert_eq!(fs::read_dir(folder.data()).unwrap().count(), 0, "nor in a folder that was there");
}

#[test]
fn an_address_for_other_machines_must_be_meant() {
    let refused = Folder::new().run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("allow_remote = true"), "{refused:?}");
}

#[test]
fn a_folder_from_a_newer_version_is_refused_unchanged() {
    let folder = Folder::new();
    fs::create_dir(folder.data()).unwrap();
    fs::write(folder.data().join("format"), "9\n").unwrap();
    for words in [&["serve", "--listen", "127.0.0.1:0"][..], &["status"], &["reconcile", "--rebuild"]] {
        let refused = folder.run(words);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("newer version (format 9; this one knows 1)"), "{refused:?}");
    }
    assert!(!folder.data().join("state.sqlite").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    // A file where the folder should be: refused for every user, root included.
    fs::write(folder.data(), "in the way").unwrap();
    let refused = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains(&folder.data().display().to_string()), "{refused:?}");
}

#[test]
fn commands_without_a_data_folder_say_so_and_make_none() {
    let folder = Folder::new();
    let refused = folder.run(&["history", "a.txt"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("there is no data folder"), "{refused:?}");
    assert!(!folder.data().exists());
}

#[test]
fn a_socket_path_that_is_too_long_works_all_the_same() {
    let folder = Folder::named(&"d".repeat(120));
    let serving = folder.serve();
    let status = folder.json(&["status"]);
    assert_eq!(status["pid"], serving.pid());
}

#[test]
fn a_put_that_finds_no_room_is_an_error_and_leaves_nothing() {
    let folder = Folder::new();
    let serving = folder.serve_with_files_up_to(4 * 1024);
    serving.put("source", "a.txt", "one");
    folder.settle();
    let before = files(&folder.data().join("buckets"));
    for key in ["a.txt", "b.txt"] {
        let (status, body) = serving.s3.put("source", key, &vec![b'x'; 8 << 20]).unwrap();
        assert_eq!(status, 507, "{}", String::from_utf8_lossy(&body));
    }
    assert_eq!(serving.text("source", "a.txt"), "one");
    assert_eq!(serving.s3.get("source", "b.txt").unwrap().0, 404);
    folder.settle();
    assert_eq!(files(&folder.data().join("buckets")), before);
    assert_eq!(files(&folder.data().join("buckets/source/.afterimage/tmp")), Vec::<PathBuf>::new());
    let status = folder.json(&["status"]);
    assert_eq!((&status["counters"]["events_handled"], &status["queue"]["dead_letters"]), (&1.into(), &0.into()));
    serving.put("source", "a.txt", "two");
    folder.settle();
    assert_eq!(folder.json(&["history", "a.txt"])["policies"][0]["copies"].as_array().unwrap().len(), 2);
}

#[test]
fn a_stop_on_request_is_clean_and_says_what_is_left() {
    let folder = Folder::new();
    let serving = folder.serve();
    serving.put("source", "a.txt", "one");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    assert!(folder.log().contains("stopped: "), "{}", folder.log());
    let status = folder.json(&["status"]);
    assert_eq!(status["pid"], serde_json::Value::Null);
    let again = folder.serve();
    folder.settle();
    assert_eq!(again.text("source", "a.txt"), "one");
}

#[test]
fn a_damaged_catalog_is_refused_and_made_again_from_the_destination() {
    let folder = Folder::new();
    let serving = folder.serve();
    for n in 0..3 {
        serving.put("source", "a.txt", &format!("draft {n}"));
        folder.settle();
    }
    let before = folder.json(&["history", "a.txt"]);
    assert_eq!(serving.stop(), 0);
    let catalog = folder.data().join("catalog/source.sqlite");
    let mut file = fs::OpenOptions::new().write(true).open(&catalog).unwrap();
    file.write_all(&[0x55; 4096]).unwrap();
    drop(file);
    for ending in ["-wal", "-shm"] {
        let beside = PathBuf::from(format!("{}{ending}", catalog.display()));
        if beside.exists() {
            fs::remove_file(beside).unwrap();
        }
    }
    let refused = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("reconcile --rebuild"), "{refused:?}");

    folder.ok(&["reconcile", "--rebuild", "--policy", "source"]);
    let after = folder.json(&["history", "a.txt"]);
    let names = |history: &serde_json::Value| -> Vec<String> {
        let copies = history["policies"][0]["copies"].as_array().unwrap().clone();
        copies.iter().map(|copy| copy["copy_key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&after), names(&before));
    let aside = fs::read_dir(folder.data().join("catalog")).unwrap();
    let aside =
        aside.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("source.sqlite.2"));
    assert!(aside.count() >= 1, "the damaged file is kept");
}

#[test]
fn a_damaged_index_is_refused_and_named() {
    let folder = Folder::new();
    assert_eq!(folder.serve().stop(), 0);
    let file = folder.data().join("state.sqlite");
    fs::OpenOptions::new().write(true).open(&file).unwrap().write_all(&[0x55; 4096]).unwrap();
    let refused = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("state.sqlite") && refused.err.contains("move it away"), "{refused:?}");
}

#[test]
fn a_journal_line_altered_by_hand_is_named() {
    let folder = Folder::new();
    let serving = folder.serve();
    for n in 0..5 {
        serving.put("source", "a.txt", &format!("draft {n}"));
        folder.settle();
    }
    assert_eq!(folder.json(&["audit"])["faults"], serde_json::json!([]));
    assert_eq!(serving.stop(), 0);
    let segments = files(&folder.data().join("journal"));
    let segment = segments.iter().find(|file| fs::read_to_string(file).unwrap().contains("\"purge\"")).unwrap();
    let text = fs::read_to_string(segment).unwrap();
    fs::write(segment, text.replacen("a.txt", "b.txt", 1)).unwrap();
    let audited = folder.run(&["audit"]);
    assert_eq!(audited.code, 1, "{audited:?}");
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    assert!(audited.out.contains(&name) && audited.out.contains("BROKEN"), "{audited:?}");
}

#[test]
fn a_damaged_copy_is_refused_and_the_next_older_one_offered() {
    let folder = Folder::new();
    let serving = folder.serve();
    for n in 0..2 {
        serving.put("source", "a.txt", &format!("draft {n}"));
        folder.settle();
    }
    let history = folder.json(&["history", "a.txt"]);
    let copies = history["policies"][0]["copies"].as_array().unwrap().clone();
    let (newest, older) = (copies[0]["copy_key"].as_str().unwrap(), copies[1]["copy_key"].as_str().unwrap());
    let file = folder.data().join("buckets/copies").join(newest);
    let mut damaged = fs::OpenOptions::new().write(true).open(&file).unwrap();
    damaged.write_all(b"DAMAG").unwrap();
    drop(damaged);

    let refused = folder.run(&["restore", "a.txt", "--to", "out"]);
    assert_eq!(refused.code, 1);
    assert!(refused.out.contains("damaged") && refused.out.contains(older), "{refused:?}");
    assert!(!folder.root().join("out/a.txt").exists());
    folder.ok(&["restore", "a.txt", "--copy", older, "--to", "out"]);
    assert_eq!(fs::read_to_string(folder.root().join("out/a.txt")).unwrap(), "draft 0");
}

#[test]
fn a_bucket_that_a_client_makes_is_protected_at_once_and_after_a_restart() {
    let folder = Folder::new();
    let serving = folder.serve();
    assert_eq!(serving.s3.make_bucket("photos").unwrap().0, 200);
    serving.put("photos", "cat.jpg", "meow");
    folder.settle();
    let protected = |status: &serde_json::Value| {
        let policies = status["policies"].as_array().unwrap();
        let photos = policies.iter().find(|policy| policy["name"] == "photos").unwrap();
        assert_eq!((&photos["destination"], &photos["by_default"]), (&"local://photos-copies".into(), &true.into()));
        assert_eq!(photos["active"], 1);
    };
    protected(&folder.json(&["status"]));
    assert_eq!(serving.s3.put("photos-copies", "x", b"y").unwrap().0, 403, "nobody writes copies");
    assert_eq!(serving.stop(), 0);
    let _again = folder.serve();
    protected(&folder.json(&["status"]));
}

#[test]
fn new_keys_end_the_old_ones_at_once() {
    let folder = Folder::new();
    let serving = folder.serve();
    serving.put("source", "a.txt", "one");
    folder.ok(&["credentials", "rotate"]);
    assert_eq!(serving.s3.put("source", "a.txt", b"two").unwrap().0, 403);
}

#[test]
fn a_folder_remembers_the_configuration_that_it_was_served_with() {
    let folder = Folder::new();
    folder.ok(&["init", "afterimage.toml"]);
    let serving = folder.serve_with(&["--config", "afterimage.toml"]);
    assert!(serving.printed.contains("afterimage.toml"));
    assert_eq!(serving.stop(), 0);
    let status = folder.json(&["status"]);
    assert_eq!(status["policies"][0]["name"], "documents", "not the short retention for trying out");
    fs::remove_file(folder.root().join("afterimage.toml")).unwrap();
    let refused = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("--config"), "{refused:?}");
}

#[test]
fn a_running_daemon_answers_whatever_has_become_of_its_configuration_file() {
    let folder = Folder::new();
    folder.ok(&["init", "afterimage.toml"]);
    let file = folder.root().join("afterimage.toml");
    let serving = folder.serve_with(&["--config", "afterimage.toml"]);
    for broken in [Some("[[policy]]\nname = "), None] {
        match broken {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let status = folder.json(&["status"]);
        assert_eq!(status["pid"], serving.pid(), "{status:#}");
        assert_eq!(status["policies"][0]["name"], "documents");
    }
    assert_eq!(serving.stop(), 0);
    assert_eq!(folder.run(&["status"]).code, 1, "without a daemon the file is needed");
}

#[test]
fn wrong_usage_and_wrong_configuration_exit_with_two() {
    let folder = Folder::new();
    assert_eq!(folder.run(&["restore"]).code, 2);
    assert_eq!(folder.run(&["frobnicate"]).code, 2);
    for (line, remedy) in [("grase = \"1d\"", "grace"), ("grace = \"1 lightyear\"", "30d"), ("keep = 0", "keep")] {
        let policy = format!("[[policy]]\nname = \"x\"\n{line}\nsource = \"local://s\"\ndestination = \"local://c\"\n");
        fs::write(folder.root().join("bad.toml"), policy).unwrap();
        for words in [&["config", "check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
            let refused = folder.run(&[&["--config", "bad.toml"], words].concat());
            assert_eq!(refused.code, 2, "{refused:?}");
            assert!(refused.err.contains("bad.toml:3") && refused.err.contains(remedy), "{refused:?}");
        }
    }
    assert!(!folder.data().exists(), "nothing was made for it");
    let _serving = folder.serve();
    assert_eq!(folder.run(&["ls", "--policy", "nosuch"]).code, 2);
}

/// A small disk; taken away at the end, whatever the end is.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(folder: PathBuf) -> SmallDisk {
        fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&folder).status();
        assert!(mounted.unwrap().success());
        SmallDisk(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("-l").arg(&self.0).status().unwrap().success());
    }
}

#[test]
#[ignore = "needs the right to mount: `cargo xtask ci full-disk` as root"]
fn a_full_disk_is_told_to_clients_and_loses_nothing() {
    let folder = Folder::new();
    let disk = SmallDisk::at(folder.data());
    let serving = folder.serve();
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![0; 12 << 20]).unwrap();
    let text = |n: usize| format!("{n:06}").repeat(100_000);
    let mut refused = None;
    for n in 0..100 {
        let (status, body) = serving.s3.put("source", &n.to_string(), text(n).as_bytes()).unwrap();
        if status != 200 {
            refused = Some((n, status, String::from_utf8(body).unwrap()));
            break;
        }
    }
    let (accepted, status, body) = refused.expect("a disk of 32 MiB becomes full");
    assert!(accepted > 0);
    assert_eq!(status, 507, "{body}");
    assert!(body.contains("<Code>InsufficientStorage</Code>"), "{body}");
    assert_eq!(serving.s3.get("source", &accepted.to_string()).unwrap().0, 404, "nothing half-written is visible");

    fs::remove_file(ballast).unwrap();
    folder.settle();
    for n in 0..accepted {
        assert_eq!(serving.text("source", &n.to_string()), text(n));
        let copies = folder.json(&["history", &n.to_string()])["policies"][0]["copies"].clone();
        assert_eq!(copies.as_array().map(Vec::len), Some(1), "{n}: {copies}");
    }
    let of_refused = folder.json(&["history", &accepted.to_string()]);
    assert_eq!(of_refused["policies"], serde_json::json!([]), "it made no event");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}
