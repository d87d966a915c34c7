//! Whose a destination in a service is, and what an outage of it keeps from nobody: with the real binary and an emulator.
//! `cargo xtask ci aws` installs it; ignored otherwise.

use crate::process::{Folder, Serving};
use crate::proxy::Proxy;
use crate::services::{Cloud, Through, until};
use serde_json::Value;
use std::fs;

const COPIES: &str = "source = \"local://mine\"\ndestination = \"s3://cloud@copies\"";
const MIRROR: &str = "source = \"local://mine\"\ndestination = \"s3://cloud@copies\"\nmode = \"mirror\"";

fn serve(folder: &Folder) -> Serving {
    folder.start(&["--config", "cloud.toml", "serve"])
}

/// A start that is refused, with its reason.
fn refused(folder: &Folder, words: &[&str]) -> String {
    let start = ["--config", "cloud.toml", "serve", "--listen", "127.0.0.1:0"];
    let ended = folder.run(&[&start[..], words].concat());
    assert_eq!(ended.code, 1, "{ended:?}");
    ended.err
}

/// Without the mark the second folder's first comparison would delete the mirror: its source is empty.
#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_mirror_in_a_service_is_not_emptied_from_another_data_folder() {
    let (cloud, first, second) = (Cloud::new(Through::Notification), Folder::new(), Folder::new());
    cloud.configure(&first, MIRROR);
    cloud.configure(&second, MIRROR);
    let serving = serve(&first);
    serving.put("mine", "a.txt", "the only one");
    until(&first, "the mirrored object", || cloud.objects("copies").len() == 1);
    assert_eq!(serving.stop(), 0, "{}", first.log());

    let why = refused(&second, &[]);
    assert!(why.contains("it holds the mirror of the policy `docs` of") && why.contains("--take-over"), "{why}");
    let why = refused(&second, &["--take-over"]);
    assert!(why.contains("the source has no objects, so the mirror would delete everything"), "{why}");
    assert_eq!(cloud.objects("copies").len(), 1);

    // Where the source has its objects again, a person may say so; the first folder is refused from then on.
    cloud.configure(&second, "source = \"local://mine\"\ndestination = \"local://elsewhere\"");
    let serving = serve(&second);
    serving.put("mine", "a.txt", "the only one");
    assert_eq!(serving.stop(), 0, "{}", second.log());
    cloud.configure(&second, MIRROR);
    let serving = second.start(&["--config", "cloud.toml", "serve", "--take-over"]);
    serving.put("mine", "b.txt", "another");
    until(&second, "both objects", || cloud.objects("copies").len() == 2);
    assert_eq!(serving.stop(), 0, "{}", second.log());
    let why = refused(&first, &[]);
    assert!(why.contains(&second.data().display().to_string()), "{why}");
}

/// The table is not lost with the data folder; the source is, and with it the right to say what is gone.
#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_source_here_is_part_of_who_owns_a_mirror_also_where_the_catalog_is_a_table() {
    let (cloud, first, second) = (Cloud::new(Through::Notification), Folder::new(), Folder::new());
    let policy = format!("{MIRROR}\ncatalog = \"dynamodb://cloud@rows\"");
    cloud.configure(&first, &policy);
    cloud.configure(&second, &policy);
    let serving = first.start(&["--config", "cloud.toml", "serve", "--make-tables"]);
    serving.put("mine", "a.txt", "the only one");
    until(&first, "the mirrored object", || cloud.objects("copies").len() == 1);
    assert_eq!(serving.stop(), 0, "{}", first.log());
    let why = refused(&second, &[]);
    assert!(why.contains("it holds the mirror of the policy `docs` of"), "{why}");
    assert_eq!(cloud.objects("copies").len(), 1);
    assert_eq!(serve(&first).stop(), 0, "its own folder goes on: {}", first.log());
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn copies_in_a_service_belong_to_one_catalog_and_are_restored_from_any_data_folder() {
    let (cloud, first, second) = (Cloud::new(Through::Notification), Folder::new(), Folder::new());
    cloud.configure(&first, COPIES);
    cloud.configure(&second, COPIES);
    let serving = serve(&first);
    serving.put("mine", "a.txt", "kept");
    until(&first, "the copy", || cloud.objects("copies").len() == 1);
    assert_eq!(serving.stop(), 0, "{}", first.log());

    let serving = second.start(&["--config", "cloud.toml", "serve", "--take-over"]);
    assert_eq!(serving.stop(), 0, "{}", second.log());
    assert!(refused(&first, &[]).contains("it holds the copies of the policy `docs` of"));
    assert_eq!(cloud.objects("copies").len(), 1);

    // The disk is lost, and nobody takes anything over at 3 a.m.: a fresh folder reads what is there.
    let third = Folder::new();
    cloud.configure(&third, COPIES);
    assert!(refused(&third, &[]).contains("it holds the copies of the policy `docs` of"));
    let rebuilt = third.run(&["--config", "cloud.toml", "reconcile", "--rebuild"]);
    let restored = third.root().join("restored");
    third.ok(&["--config", "cloud.toml", "restore", "a.txt", "--to", restored.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(restored.join("a.txt")).unwrap(), "kept", "{rebuilt:?}");
}

/// A region that is out of reach: the other policies start, work and restore; its own events wait, and its status says why.
#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_service_out_of_reach_keeps_no_other_policy_from_its_work() {
    let (cloud, folder) = (Cloud::new(Through::Notification), Folder::new());
    let proxy = Proxy::before(cloud.url(), 1);
    let there = format!("{COPIES}\ncatalog = \"dynamodb://cloud@rows\"");
    cloud.configure_at(&folder, &there, proxy.url());
    let file = folder.root().join("cloud.toml");
    let here = "[[policy]]\nname = \"here\"\nsource = \"local://other\"\ndestination = \"local://other-copies\"";
    fs::write(&file, format!("{}{here}\n", fs::read_to_string(&file).unwrap())).unwrap();

    let serving = folder.start(&["--config", "cloud.toml", "serve", "--make-tables"]);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    proxy.away(true);
    let serving = serve(&folder);
    serving.put("mine", "m.txt", "waits");
    serving.put("other", "o.txt", "copied");
    until(&folder, "the copy here", || {
        folder.json(&["history", "--policy", "here", "o.txt"])["policies"][0]["copies"][0].is_object()
    });
    let status = folder.json(&["status"]);
    let problems = status["problems"].to_string();
    assert!(problems.contains("docs: its catalog cannot be asked"), "{status:#}");
    let restored = folder.root().join("restored");
    folder.ok(&["restore", "--policy", "here", "o.txt", "--to", restored.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(restored.join("o.txt")).unwrap(), "copied");
    // Of all policies: each is told of, and the failure of one is not the others'.
    for words in [&["clean", "--now", "--json"][..], &["reconcile", "--json"]] {
        let ended = folder.run(words);
        assert_eq!(ended.code, 1, "{ended:?}");
        let reports: Value = serde_json::from_str(&ended.out).unwrap();
        let failures = |policy: &str| {
            let reports = reports["reports"].as_array().unwrap();
            reports.iter().find(|report| report["policy"] == policy).unwrap()["failures"].as_u64().unwrap()
        };
        assert!(failures("docs") == 1 && failures("here") == 0, "{reports:#}");
    }
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    // No daemon runs: the same holds for a command by itself.
    folder.ok(&["restore", "--policy", "here", "o.txt", "--to", folder.root().join("again").to_str().unwrap()]);

    let serving = serve(&folder);
    proxy.away(false);
    until(&folder, "the copy there", || cloud.objects("copies").len() == 1);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}
