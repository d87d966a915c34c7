//! Feeds, from the outside: what is archived is told to a file, a webhook and a queue, whoever is killed or down.

use crate::emulator::Emulator;
use crate::process::Folder;
use crate::records::{Tables, archived, serve, until_archived};
use aws_sdk_dynamodb::types::StreamViewType;
use aws_sdk_sqs::types::QueueAttributeName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

const SECRET: &str = "0123456789abcdef-of-the-test";

/// A table, and a configuration that archives it and tells of it.
fn some(feed: &str) -> (Tables, Folder) {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", &feed.replace("ROOT", folder.root().to_str().unwrap()));
    (tables, folder)
}

fn delete(tables: &Tables, ids: &[&str]) {
    for id in ids {
        tables.put("Orders", id, &[]);
        tables.delete("Orders", id);
    }
}

/// The whole lines of a file.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("torn: {line}"))).collect()
}

fn id_of(line: &Value) -> String {
    line["keys"]["id"]["S"].as_str().unwrap().to_owned()
}

/// The sequence numbers of each shard, each where it was told first.
fn firsts<'a>(lines: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, Vec<String>> {
    let (mut seen, mut firsts) = (BTreeSet::new(), BTreeMap::<String, Vec<String>>::new());
    for line in lines {
        if seen.insert(line["id"].to_string()) {
            let sequence = line["sequence"].as_str().unwrap();
            firsts.entry(line["shard"].to_string()).or_default().push(format!("{sequence:0>40}"));
        }
    }
    firsts
}

/// Killed again and again while records are deleted, its file torn each time: each deletion is told, in order.
#[test]
fn a_file_is_told_every_deletion_in_order_whoever_is_killed_and_is_repaired_and_rotated() {
    const ROUNDS: usize = 4;
    const EACH: usize = 250;
    let (tables, folder) = some("feed = \"file://ROOT/deletions.jsonl\"");
    let path = folder.root().join("deletions.jsonl");
    let mut expected = BTreeSet::new();
    for round in 0..ROUNDS {
        let serving = serve(&folder);
        let ids: Vec<String> = (0..EACH).map(|n| format!("r{round}-{n:04}")).collect();
        tables.put_and_delete("Orders", &ids);
        expected.extend(ids);
        // In the middle of its work: some of this round is told, or archived and not told yet.
        let told = lines(&path).len();
        folder.wait("some lines", |_| lines(&path).len() > told && archived(&folder).len() > round * EACH);
        serving.kill();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"v\":1,\"id\":\"torn").unwrap();
    }
    let serving = serve(&folder);
    let told = || lines(&path).iter().map(id_of).collect::<BTreeSet<String>>();
    let status = folder.wait("all told", |status| {
        let feed = &status["archives"][0]["feed"];
        feed["waiting"] == 0 && archived(&folder).len() == expected.len() && told().len() == expected.len()
    });
    assert!(told() == expected, "{} of {}", told().len(), expected.len());
    for (shard, numbers) in firsts(&lines(&path)) {
        assert!(numbers.is_sorted(), "{shard} is told out of order");
    }
    for line in lines(&path) {
        assert_eq!((&line["object"]["destination"], &line["cause"]), (&"local://archive".into(), &"user".into()));
        let object = folder.data().join("buckets/archive").join(line["object"]["key"].as_str().unwrap());
        assert_eq!(fs::metadata(object).unwrap().len(), line["size"].as_u64().unwrap(), "{line}");
        assert_eq!(line.get("image"), None, "nobody asked for it");
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(status["archives"][0]["feed"]["to"].as_str().unwrap().ends_with("/deletions.jsonl"), "{status:#}");

    // Moved away, as logrotate does it: the next line is in a new file.
    let moved = folder.root().join("deletions.jsonl.1");
    fs::rename(&path, &moved).unwrap();
    delete(&tables, &["late"]);
    // It is told a moment before it is gone from the outbox.
    folder.wait("a new file", |status| {
        status["archives"][0]["feed"]["waiting"] == 0 && lines(&path).iter().any(|line| id_of(line) == "late")
    });
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(folder.ok(&["status"]).contains("/deletions.jsonl, 0 deletions waiting"));

    // Made by somebody else, who lets others read it: it is told, and so is that.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    delete(&tables, &["later"]);
    folder.wait("a line", |_| lines(&path).iter().any(|line| id_of(line) == "later"));
    assert!(folder.log().contains("others can read what was deleted"), "{}", folder.log());
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// What a webhook was told.
struct Posted {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Whether its signature is that of somebody who knows the secret.
    fn is_signed(&self) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        let (id, timestamp) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        mac.update(format!("{id}.{timestamp}.{}", self.body).as_bytes());
        self.header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A web server that answers what this says of each body.
fn web_server(listener: TcpListener, mut answer: impl FnMut(&str) -> u16 + Send + 'static) -> Receiver<Posted> {
    let (tell, posted) = channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            let (mut line, mut headers) = (String::new(), BTreeMap::new());
            client.read_line(&mut line).unwrap();
            assert_eq!(line, "POST /T1/secret-path?x=1 HTTP/1.1\r\n");
            loop {
                line.clear();
                client.read_line(&mut line).unwrap();
                let Some((name, value)) = line.trim().split_once(": ") else { break };
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            let mut body = vec![0; headers["content-length"].parse().unwrap()];
            client.read_exact(&mut body).unwrap();
            let body = String::from_utf8(body).unwrap();
            let status = answer(&body);
            let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.get_mut().write_all(answer.as_bytes()).unwrap();
            if tell.send(Posted { headers, body }).is_err() {
                return;
            }
        }
    });
    posted
}

fn secret_file(folder: &Folder, mode: u32) {
    let path = folder.root().join("feed.secret");
    fs::write(&path, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_webhook_that_is_down_holds_up_nothing_and_is_told_all_of_it_signed_when_it_is_back() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (tables, folder) = some(&format!(
        "feed = \"http://127.0.0.1:{port}/T1/secret-path?x=1\"\nfeed_image = true\nfeed_secret_file = \"ROOT/feed.secret\""
    ));
    // A secret that others can read is refused, and archiving goes on.
    secret_file(&folder, 0o644);
    let serving = serve(&folder);
    delete(&tables, &["a", "b"]);
    until_archived(&folder, 2);
    let status = folder.wait("the secret's trouble", |status| {
        let feed = &status["archives"][0]["feed"];
        feed["trouble"].to_string().contains("chmod 600") && feed["waiting"] == 2
    });
    assert!(status["problems"].to_string().contains("2 deletions wait since"), "{status:#}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());

    // Nobody listens, and archiving goes on.
    secret_file(&folder, 0o600);
    let serving = serve(&folder);
    delete(&tables, &["c"]);
    until_archived(&folder, 3);
    let down = |status: &Value| {
        let problems = status["problems"].to_string();
        problems.contains(&format!("its feed http://127.0.0.1:{port}/… is not told"))
            && problems.contains("3 deletions")
    };
    folder.wait("that it is down", down);
    assert_eq!(folder.run(&["status", "--check"]).code, 1);

    // It is back, and fails once more.
    let mut answers = vec![429, 500];
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let posted = web_server(listener, move |_| answers.pop().unwrap_or(200));
    let mut told: Vec<Posted> = Vec::new();
    while told.iter().skip(2).flat_map(Posted::lines).count() < 3 {
        told.push(posted.recv().unwrap());
    }
    assert!(told.iter().all(Posted::is_signed), "each is signed");
    assert!(told.iter().all(|posted| posted.header("content-type") == "application/x-ndjson"));
    let ids: Vec<&str> = told.iter().map(|posted| posted.header("webhook-id")).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "what was refused is the same message when it comes again");
    let lines: Vec<Value> = told[2..].iter().flat_map(Posted::lines).collect();
    assert_eq!(lines.iter().map(id_of).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(lines[0]["image"]["id"]["S"], "a");
    folder.wait("that all is told", |status| {
        let feed = &status["archives"][0]["feed"];
        feed["waiting"] == 0 && feed["trouble"].is_null() && feed["told_at_ms"].is_i64()
    });
    assert_eq!(folder.run(&["status", "--check"]).code, 0);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    let log = folder.log();
    assert!(!log.contains(SECRET) && !log.contains("secret-path"), "neither secret nor address is in the log");
}

/// One line that is never taken: it lies aside, the others are told, and the next start tells it once more.
#[test]
fn a_line_that_a_webhook_refuses_lies_aside_and_is_told_once_more_at_the_next_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let feed =
        format!("feed = \"http://127.0.0.1:{port}/T1/secret-path?x=1\"\nfeed_secret_file = \"ROOT/feed.secret\"");
    let (tables, folder) = some(&feed);
    secret_file(&folder, 0o600);
    let takes_all = Arc::new(AtomicBool::new(false));
    let takes = Arc::clone(&takes_all);
    let posted = web_server(listener, move |body| match takes.load(Ordering::Relaxed) || !body.contains("poison") {
        true => 200,
        false => 413,
    });
    let serving = serve(&folder);
    delete(&tables, &["a", "poison", "b"]);
    let status = folder.wait("that one lies aside", |status| {
        let feed = &status["archives"][0]["feed"];
        feed["refused"] == 1 && feed["waiting"] == 0
    });
    assert!(status["problems"].to_string().contains("refused 1 deletion for good"), "{status:#}");
    assert_eq!(folder.run(&["status", "--check"]).code, 1);
    assert_eq!(serving.stop(), 0, "{}", folder.log());

    takes_all.store(true, Ordering::Relaxed);
    posted.try_iter().for_each(drop);
    let serving = serve(&folder);
    folder.wait("that it is told", |status| status["archives"][0]["feed"]["refused"] == 0);
    let told: Vec<String> = posted.try_iter().flat_map(|posted| posted.lines()).map(|line| id_of(&line)).collect();
    assert_eq!(told, ["poison"]);
    assert_eq!(folder.run(&["status", "--check"]).code, 0);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

/// Into a queue without an order, each once at least; into one in FIFO order, in that of the shard.
#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn queues_are_told_every_deletion_and_fifo_ones_in_order() {
    let emulator = Emulator::start();
    let client = aws_sdk_sqs::Client::new(&emulator.config());
    for name in ["told", "told.fifo"] {
        let (tables, folder) = some(&format!(
            "feed = \"sqs://cloud@{name}\"\n[[service]]\nname = \"cloud\"\nendpoint = \"{}\"",
            emulator.url()
        ));
        let serving = serve(&folder);
        let ids: Vec<String> = (0..60).map(|n| format!("k{n:02}")).collect();
        tables.put_and_delete("Orders", &ids);
        until_archived(&folder, ids.len());
        // The queue is not there yet: archiving did not wait for it.
        folder.wait("that it is missing", |status| status["problems"].to_string().contains("does not exist"));
        let url = tables.runtime.block_on(async {
            let mut request = client.create_queue().queue_name(name);
            if name.ends_with(".fifo") {
                request = request.attributes(QueueAttributeName::FifoQueue, "true");
            }
            request.send().await.unwrap().queue_url.unwrap()
        });
        let mut lines: Vec<Value> = Vec::new();
        let told = |lines: &[Value]| lines.iter().map(id_of).collect::<BTreeSet<String>>();
        while told(&lines).len() < ids.len() {
            let request = client.receive_message().queue_url(&url).max_number_of_messages(10).wait_time_seconds(1);
            for message in tables.runtime.block_on(request.send()).unwrap().messages.unwrap_or_default() {
                lines.push(serde_json::from_str(message.body().unwrap()).unwrap());
                let request = client.delete_message().queue_url(&url).receipt_handle(message.receipt_handle().unwrap());
                tables.runtime.block_on(request.send()).unwrap();
            }
        }
        assert!(told(&lines).into_iter().eq(ids.iter().cloned()), "{} are told", told(&lines).len());
        if name.ends_with(".fifo") {
            assert!(firsts(&lines).values().all(|numbers| numbers.is_sorted()), "in the order of the shard");
        }
        folder.wait("that all is told", |status| status["archives"][0]["feed"]["waiting"] == 0);
        assert_eq!(serving.stop(), 0, "{}", folder.log());
    }
}
