//! I8 with the real process: killed at random moments under load, every put that was answered 200 has its copy and its
//! row after the restart, and a comparison finds nothing that it cannot explain.

use crate::process::Folder;
use crate::s3::S3;
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Kills of one test.
const KILLS: u64 = 20;
/// Clients that put at the same time.
const CLIENTS: u64 = 4;
/// Keys that they put, over and over.
const KEYS: u64 = 24;

/// A small generator, so that a seed replays the same order of requests.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The newest content of each key that was answered with 200, and whether a later request was left without an answer.
type Acknowledged = BTreeMap<String, (Option<String>, bool)>;

/// Puts and deletes until the daemon is gone. Each client has keys of its own, so that it knows their order.
fn load(s3: &S3, client: u64, seed: u64, answered: &Sender<()>, known: &mut Acknowledged) {
    let mut random = Random(seed ^ (client << 32));
    for n in 0.. {
        let key = format!("client {client}/key+{}%.txt", random.below(KEYS / CLIENTS));
        let text = format!("seed {seed}, client {client}, write {n}: {}", "x".repeat(random.below(20_000) as usize));
        let deletes = random.below(5) == 0;
        let sent = if deletes { s3.delete("source", &key) } else { s3.put("source", &key, text.as_bytes()) };
        let entry = known.entry(key).or_insert((None, false));
        match sent {
            Ok((200 | 204, _)) => {
                *entry = ((!deletes).then_some(text), false);
                if answered.send(()).is_err() {
                    return;
                }
            }
            // No answer: it may or may not have happened.
            _ => {
                entry.1 = true;
                return;
            }
        }
    }
}

#[test]
fn killed_under_load_it_loses_nothing_that_it_acknowledged() {
    let seed: u64 = 20_261_121;
    let folder = Folder::new();
    let mut random = Random(seed);
    let mut known: Vec<Acknowledged> = vec![Acknowledged::new(); CLIENTS as usize];
    for kill in 0..KILLS {
        let serving = folder.serve();
        let s3 = serving.s3.clone();
        let (answered, counted) = channel();
        let after = 1 + random.below(120);
        thread::scope(|scope| {
            for (client, known) in known.iter_mut().enumerate() {
                let (s3, answered) = (&s3, answered.clone());
                scope.spawn(move || load(s3, client as u64, seed + kill, &answered, known));
            }
            // The moment is random in what was answered, not in time: a slow machine is killed as early as a fast one.
            drop(answered);
            let seen = counted.iter().take(after as usize).count() as u64;
            assert_eq!(seen, after, "the clients ended before the daemon was killed: {}", folder.log());
            serving.kill();
        });
    }
    check(&folder, &known);
}

fn check(folder: &Folder, known: &[Acknowledged]) {
    let serving = folder.serve();
    folder.settle();
    for (key, (text, unanswered)) in known.iter().flatten() {
        let there = match serving.s3.get("source", key).unwrap() {
            (200, body) => Some(String::from_utf8(body).unwrap()),
            (404, _) => None,
            (status, _) => panic!("{key}: {status}"),
        };
        assert!(*unanswered || there == *text, "{key} is not what was acknowledged last");
        has_copy(folder, &serving.s3, key, there.as_deref());
    }
    let reconciled = folder.json(&["reconcile"]);
    let report = &reconciled["reports"][0];
    assert_eq!(report["counts"]["gap"], 0, "{report:#}");
    assert_eq!(report["counts"]["unexplained"].as_u64().unwrap_or(0), 0, "{report:#}");
    assert_eq!(report["failures"], 0, "{report:#}");
    let audit = folder.json(&["audit"]);
    assert_eq!(audit["faults"], serde_json::json!([]), "{audit:#}");
    assert_eq!(folder.json(&["dlq", "list"])["total"], 0);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// The current content of a key has an active row whose bytes are that content; at most three rows are active.
fn has_copy(folder: &Folder, s3: &S3, key: &str, there: Option<&str>) {
    let history = folder.json(&["history", key]);
    let copies = history["policies"][0]["copies"].as_array().cloned().unwrap_or_default();
    let active: Vec<_> = copies.iter().filter(|copy| copy["state"] == "active").collect();
    assert!(active.len() <= 3, "{key}: {history:#}");
    match there {
        None => assert!(active.is_empty(), "{key} is deleted and has active copies: {history:#}"),
        Some(text) => {
            let newest = active.first().unwrap_or_else(|| panic!("{key} has no copy: {history:#}"));
            let (status, bytes) = s3.get("copies", newest["copy_key"].as_str().unwrap()).unwrap();
            assert_eq!((status, String::from_utf8(bytes).unwrap().as_str()), (200, text), "{key}");
        }
    }
}
