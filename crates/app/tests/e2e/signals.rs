//! Ctrl-C and SIGTERM with the real process: what is under way is finished or left whole, and it says what is left.

use crate::faults::files;
use crate::process::{Ended, Folder, Running, Serving};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;

/// Objects of the restore that is stopped in the middle.
const OBJECTS: usize = 400;
/// How often a restore is begun until a signal comes in its middle.
const TRIES: usize = 20;

/// Waits until the daemon takes no connections any more: it has heard the signal.
fn until_it_refuses(serving: &Serving) {
    while TcpStream::connect(serving.s3.address).is_ok() {}
}

#[test]
fn a_signal_lets_requests_in_flight_end_and_loses_nothing() {
    for signal in ["-INT", "-TERM"] {
        let folder = Folder::new();
        let serving = folder.serve();
        let s3 = serving.s3.clone();
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let (answered, counted) = channel();
        thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut acknowledged = BTreeMap::new();
                for n in 0.. {
                    let (key, text) = (format!("{}.txt", n % 7), format!("write {n}"));
                    match s3.put("source", &key, text.as_bytes()) {
                        Ok((200, _)) => acknowledged.insert(key, text),
                        // Not answered, or told to come back later: it may or may not have happened.
                        _ => return (acknowledged, key),
                    };
                    if answered.send(()).is_err() {
                        break;
                    }
                }
                (acknowledged, String::new())
            });
            assert_eq!(counted.iter().take(40).count(), 40);
            let slow = s3.put_pausing("source", "slow.txt", &[b'x'; 100_000], || {
                serving.signal(signal);
                until_it_refuses(&serving);
            });
            assert_eq!(slow.unwrap().0, 200, "{signal}: a request in flight is answered: {}", folder.log());
            drop(counted);
            let (acknowledged, unanswered) = load.join().unwrap();
            known.extend(acknowledged.into_iter().filter(|(key, _)| *key != unanswered));
        });
        assert_eq!(serving.ended(), 0, "{signal}: {}", folder.log());
        assert!(folder.log().contains("stopped: "), "{}", folder.log());

        let again = folder.serve();
        folder.settle();
        assert_eq!(again.text("source", "slow.txt").len(), 100_000);
        assert!(!known.is_empty());
        for (key, text) in &known {
            assert_eq!(again.text("source", key), *text, "{signal}");
            assert_eq!(folder.json(&["history", key])["policies"][0]["copies"][0]["state"], "active", "{key}");
        }
        assert_eq!(folder.json(&["reconcile"])["reports"][0]["counts"]["gap"], 0);
    }
}

/// A served folder with many objects, each with its copy.
fn filled(folder: &Folder) -> Serving {
    let serving = folder.serve();
    thread::scope(|scope| {
        for client in 0..4 {
            let serving = &serving;
            scope.spawn(move || {
                for n in (client..OBJECTS).step_by(4) {
                    serving.put("source", &format!("{n:03}.txt"), &text(n));
                }
            });
        }
    });
    folder.settle();
    serving
}

fn text(n: usize) -> String {
    format!("object {n} ").repeat(50)
}

/// Begins restores, each into a folder of its own, and ends them by `stop` when the first files are there, until one of
/// them was really stopped in its middle. Its folder and what it said.
fn stopped_in_the_middle(folder: &Folder, stop: impl Fn(&Running)) -> (String, Ended) {
    for n in 0..TRIES {
        let to = format!("out {n}");
        let running = folder.begin(&["restore", "--prefix", "", "--to", &to, "--json"]);
        while !folder.root().join(&to).exists() || files(&folder.root().join(&to)).is_empty() {}
        stop(&running);
        let ended = running.ended();
        if ended.code != 0 {
            return (to, ended);
        }
    }
    panic!("{TRIES} restores were over before they could be stopped");
}

/// It said what it did, and that is what is there: whole objects, and nothing else.
fn check(out: &Path, ended: &Ended) -> usize {
    assert_eq!(ended.code, 1, "{ended:?}");
    let answer: Value = serde_json::from_str(&ended.out).unwrap();
    let report = &answer["reports"][0];
    assert_eq!(report["cancelled"], true, "{report:#}");
    assert_eq!(report["failures"], 0, "{report:#}");
    let there = files(out);
    assert_eq!(report["counts"]["restored"], there.len(), "what it says is what is there");
    assert!((1..OBJECTS).contains(&there.len()), "{}", there.len());
    for file in &there {
        let name = file.file_name().unwrap().to_str().unwrap();
        let n: usize = name.trim_end_matches(".txt").parse().unwrap_or_else(|_| panic!("{name} is no object"));
        assert_eq!(fs::read_to_string(file).unwrap(), text(n), "{name}");
    }
    there.len()
}

/// The same command again goes on from there.
fn goes_on(folder: &Folder, to: &str, done: usize) {
    let report = folder.json(&["restore", "--prefix", "", "--to", to])["reports"][0].clone();
    assert_eq!(report["counts"]["restored"], OBJECTS - done, "{report:#}");
    assert_eq!(files(&folder.root().join(to)).len(), OBJECTS);
}

#[test]
fn a_command_that_is_stopped_says_what_it_did_and_goes_on_when_given_again() {
    let folder = Folder::new();
    let serving = filled(&folder);
    for signal in ["-INT", "-TERM"] {
        let (to, ended) = stopped_in_the_middle(&folder, |running| running.signal(signal));
        assert!(ended.err.contains("stopping; once more to leave at once"), "{ended:?}");
        let done = check(&folder.root().join(&to), &ended);
        goes_on(&folder, &to, done);
        clear(&folder);
    }
    // The daemon's own stop ends it, too.
    let (to, ended) = stopped_in_the_middle(&folder, |_| serving.signal("-TERM"));
    let done = check(&folder.root().join(&to), &ended);
    assert_eq!(serving.ended(), 0, "{}", folder.log());

    // And the same in a process of its own, while no daemon runs.
    goes_on(&folder, &to, done);
    clear(&folder);
    let (to, ended) = stopped_in_the_middle(&folder, |running| running.signal("-INT"));
    let done = check(&folder.root().join(&to), &ended);
    goes_on(&folder, &to, done);
}

/// Takes away what restores have made.
fn clear(folder: &Folder) {
    for entry in fs::read_dir(folder.root()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with("out ") {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}
