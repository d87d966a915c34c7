//! Packs of archived records, SQL over them and the month's report, by the real binary.

use crate::process::{Ended, Folder};
use crate::records::{CONFIG, Tables, serve, until_archived};
use aws_sdk_dynamodb::types::AttributeValue::N;
use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

fn archive(folder: &Folder, words: &[&str]) -> Ended {
    folder.run(&[CONFIG, &["archive"], words].concat())
}

fn ok(folder: &Folder, words: &[&str]) -> String {
    folder.ok(&[CONFIG, &["archive"], words].concat())
}

/// The rows of a statement, as they come with `--json`: one on a line.
fn rows(folder: &Folder, sql: &str) -> Vec<Value> {
    let text = ok(folder, &["query", sql, "--json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn packs(folder: &Folder) -> Vec<PathBuf> {
    let days = fs::read_dir(folder.data().join("buckets/archive/packed/service=orders"));
    let days = days.into_iter().flatten().map(|day| day.unwrap().path());
    days.flat_map(|day| fs::read_dir(day).unwrap().map(|pack| pack.unwrap().path())).collect()
}

/// Archives 30 records that users deleted, numbered, and two that the time to live did.
fn some(more: &str) -> (Tables, Folder) {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", more);
    let serving = serve(&folder);
    for n in 0..30 {
        let id = format!("USER#{n:02}");
        tables.put("Orders", &id, &[("total", N(format!("{n}.5")))]);
        tables.delete("Orders", &id);
    }
    tables.expire("Orders", &["old 1", "old 2"]);
    until_archived(&folder, 32);
    assert_eq!(serving.stop(), 0);
    (tables, folder)
}

#[test]
fn archived_records_are_packed_asked_in_sql_and_counted_by_month() {
    let (tables, folder) = some("");
    let sql =
        "SELECT cause, count(*) AS n, max(item ->> '$.total') AS most FROM deletions GROUP BY cause ORDER BY cause";
    let expected = [json!({ "cause": "ttl", "n": 2, "most": null }), json!({ "cause": "user", "n": 30, "most": 29.5 })];
    assert_eq!(rows(&folder, sql), expected, "nothing is packed yet");
    let said = ok(&folder, &["pack", "orders", "--dry-run"]);
    assert!(said.contains("32 would-pack") && packs(&folder).is_empty(), "{said}");
    let packed = folder.json(&[CONFIG, &["archive", "pack", "orders"]].concat());
    assert_eq!(packed["reports"][0]["counts"]["packed"], 32, "{packed:#}");
    assert_eq!(packs(&folder).len(), packed["reports"][0]["counts"]["packs"].as_u64().unwrap() as usize);
    assert_eq!(rows(&folder, sql), expected, "each once, packed or not");

    // While the daemon runs, too; and what comes after the pack is seen.
    let serving = serve(&folder);
    tables.put("Orders", "late", &[]);
    tables.delete("Orders", "late");
    until_archived(&folder, 33);
    let one = rows(
        &folder,
        "SELECT partition_key, \"table\", image FROM deletions WHERE partition_key IN ('late', 'USER#07') ORDER BY 1",
    );
    assert_eq!(one[0]["partition_key"], "USER#07");
    let image: Value = serde_json::from_str(one[0]["image"].as_str().unwrap()).unwrap();
    assert_eq!(image, json!({ "id": { "S": "USER#07" }, "total": { "N": "7.5" } }));
    assert_eq!((&one[1]["partition_key"], &one[1]["table"]), (&json!("late"), &json!("Orders")));
    let csv = ok(
        &folder,
        &[
            "query",
            "SELECT partition_key AS \"a,b\", size > 0 AS s FROM deletions WHERE partition_key = 'late'",
            "--csv",
        ],
    );
    assert_eq!(csv, "\"a,b\",s\nlate,1\n");
    let none = ok(&folder, &["query", "SELECT * FROM deletions WHERE day = '2001-01-01'"]);
    assert!(none.ends_with("rows: 0, of days that were opened: 0\n"), "{none}");
    assert_eq!(ok(&folder, &["get", "orders", "USER#07"]).matches("7.5").count(), 1);

    let month = rows(&folder, "SELECT DISTINCT substr(day, 1, 7) AS month FROM deletions")[0]["month"].clone();
    let month = month.as_str().unwrap();
    let report = folder.json(&[CONFIG, &["archive", "report", "--month", month]].concat());
    let records = |cause: &str| -> u64 {
        let lines = report["lines"].as_array().unwrap().iter();
        lines.filter(|line| line["cause"] == cause).map(|line| line["records"].as_u64().unwrap()).sum()
    };
    assert_eq!((records("user"), records("ttl")), (31, 2), "{report:#}");
    let text = ok(&folder, &["report", "--month", month]);
    assert!(text.contains(&format!("{month}: 31 deleted by users, 2 by the time to live")), "{text}");
    assert!(ok(&folder, &["report", "--month", month, "--csv"]).starts_with("service,table,day,cause,records,bytes\n"));
    let page = ok(&folder, &["report", "--month", month, "--html"]);
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg") && page.contains("Orders"), "{}", page.len());
    assert_eq!(serving.stop(), 0);
}

/// By a condition, whether they are packed, packed in part, or not.
#[test]
fn records_that_meet_a_condition_are_put_back_and_what_is_no_condition_is_refused() {
    let (tables, folder) = some("");
    let restore = |more: &[&str]| folder.json(&[CONFIG, &["archive", "restore", "orders"], more].concat());
    let counts = |answer: &Value| answer["reports"][0]["counts"].clone();
    let few = "item ->> '$.total' >= 20 AND item ->> '$.total' < 25 AND cause = 'user'";
    let said = restore(&["--from", "2d ago", "--where", few, "--dry-run"]);
    assert_eq!((&counts(&said)["would-restore"], &counts(&said)["unmet"]), (&json!(5), &json!(27)), "{said:#}");
    assert_eq!(tables.get("Orders", "USER#20"), None);
    let done = restore(&["--where", few, "--rate", "1000"]);
    assert_eq!((&counts(&done)["restored"], &counts(&done)["unmet"]), (&json!(5), &json!(27)), "{done:#}");
    assert_eq!(tables.get("Orders", "USER#24").unwrap()["total"], N("24.5".to_owned()));
    assert_eq!((tables.get("Orders", "USER#25"), tables.get("Orders", "old 1")), (None, None));
    // Packed, and given again: what is there is left alone; with more that is not packed.
    ok(&folder, &["pack", "orders"]);
    let serving = serve(&folder);
    tables.put("Orders", "USER#24", &[("total", N("1".to_owned()))]);
    tables.delete("Orders", "USER#24");
    until_archived(&folder, 33);
    let again = restore(&["--from", "2d ago", "--where", few]);
    let told = counts(&again);
    assert_eq!((&told["restored"], &told["there"], &told["unmet"]), (&json!(0), &json!(4), &json!(28)), "{again:#}");
    assert_eq!(tables.get("Orders", "USER#24"), None, "its newest deletion is not what is asked for");
    let none = restore(&["--where", "day < '2020-01-01' AND cause = 'ttl'"]);
    assert_eq!(counts(&none), json!({ "restored": 0 }), "no day is read");
    for (condition, why) in [
        ("1; DELETE FROM deletions", "near \";\": syntax error, at character 2"),
        ("1) OR (1", "syntax error"),
        ("SELECT 1", "near \"SELECT\": syntax error"),
        ("colour = 1", "no such column: colour"),
    ] {
        let ended = archive(&folder, &["restore", "orders", "--where", condition]);
        assert!(ended.code == 2 && ended.err.contains(why), "{condition}: {} {}", ended.code, ended.err);
        assert!(ended.err.contains("an SQL expression over the columns of `deletions`"), "{}", ended.err);
    }
    let both = archive(&folder, &["restore", "orders", "USER#1", "--where", "1"]);
    assert!(both.code == 2 && both.err.contains("cannot be used with"), "{}", both.err);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

#[test]
fn statements_that_do_more_than_read_are_refused_and_say_what_is_wrong() {
    let (_tables, folder) = some("");
    let file = folder.root().join("stolen");
    let attach = format!("ATTACH '{}' AS stolen", file.display());
    let vacuum = format!("VACUUM INTO '{}'", file.display());
    for (sql, why) in [
        ("DELETE FROM deletions", "refused"),
        ("DROP VIEW deletions", "not authorized"),
        ("INSERT INTO days VALUES ('a', 'b')", "not authorized"),
        (&attach, "refused"),
        (&vacuum, "gives no rows"),
        ("PRAGMA database_list", "not authorized"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("SELECT colour FROM deletions", "no such column: colour"),
        ("SELEC 1", "syntax error"),
        ("", "gives no rows"),
    ] {
        let ended = archive(&folder, &["query", sql]);
        assert!(ended.code == 2 && ended.err.contains(why), "{sql}: {} {}", ended.code, ended.err);
    }
    assert!(!file.exists());
    let refused = archive(&folder, &["report", "--month", "2026-13"]);
    assert!(refused.code == 2 && refused.err.contains("write such as 2026-10"), "{}", refused.err);
}

#[test]
fn a_damaged_record_is_named_and_skipped_and_the_exit_code_says_so() {
    let (_tables, folder) = some("");
    let day = fs::read_dir(folder.data().join("buckets/archive/orders")).unwrap().next().unwrap().unwrap().path();
    let month = fs::read_dir(day).unwrap().next().unwrap().unwrap().path();
    let day = fs::read_dir(month).unwrap().next().unwrap().unwrap().path();
    fs::write(day.join("USER#03.json"), "{ not what it was").unwrap();
    for words in [&["query", "SELECT count(*) AS n FROM deletions", "--csv"][..], &["pack", "orders"]] {
        let ended = archive(&folder, words);
        assert_eq!(ended.code, 1, "{words:?}: {}", ended.err);
        assert!(
            format!("{}{}", ended.out, ended.err).contains("USER#03.json"),
            "{words:?}: {} {}",
            ended.out,
            ended.err
        );
    }
    let ended = archive(&folder, &["query", "SELECT count(*) AS n FROM deletions", "--csv"]);
    assert_eq!((ended.out.as_str(), ended.code), ("n\n31\n", 1));
}

#[test]
fn the_daemon_packs_by_its_schedule() {
    let (_tables, folder) = some("pack = \"hourly\"");
    let _serving = serve(&folder);
    folder.wait("a pack", |_| !packs(&folder).is_empty());
    assert_eq!(rows(&folder, "SELECT count(*) AS n FROM deletions"), [json!({ "n": 32 })]);
}

/// Whoever watches the daemon learns that it cannot pack, and the remedy that it names is one.
#[test]
fn a_damaged_pack_is_told_by_status_and_goes_by_the_command_that_is_named() {
    let (_tables, folder) = some("pack = \"hourly\"");
    let count = "SELECT count(*) AS n FROM deletions";
    for is_gone in [false, true] {
        let serving = serve(&folder);
        ok(&folder, &["pack", "orders"]);
        assert_eq!(serving.stop(), 0);
        let pack = packs(&folder).into_iter().max().unwrap();
        match is_gone {
            true => fs::remove_file(&pack).unwrap(),
            false => fs::write(&pack, "PAR1").unwrap(),
        }
        let serving = serve(&folder);
        let status = || folder.run(&[CONFIG, &["status", "--check"]].concat());
        folder.wait("what is wrong", |_| status().out.contains("could be packed"));
        let said = status();
        assert_eq!(said.code, 1, "{}", said.out);
        let remedy = said.out.split('`').find(|part| part.starts_with("afterimage archive drop ")).unwrap();
        let words: Vec<&str> = remedy.split(' ').skip(2).collect();
        // The pack, and its note.
        let said = ok(&folder, &words);
        assert!(said.contains("2 dropped"), "{said}");
        ok(&folder, &["pack", "orders"]);
        assert_eq!(rows(&folder, count), [json!({ "n": 32 })]);
        // What can be read, and records, stay.
        let pack = packs(&folder).into_iter().max().unwrap();
        let pack = pack.strip_prefix(folder.data().join("buckets/archive")).unwrap().to_str().unwrap();
        let listed = ok(&folder, &["ls", "orders", "--json"]);
        let record: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        for name in [pack, record["object"].as_str().unwrap()] {
            let refused = archive(&folder, &["drop", "orders", name]);
            assert_eq!((refused.code, refused.out.contains("FAILED")), (1, true), "{}", refused.out);
        }
        assert_eq!(serving.stop(), 0);
    }
}

#[test]
fn a_damaged_pack_is_told_as_not_needed_while_that_is_known_and_as_not_counted_otherwise() {
    let (tables, folder) = some("");
    let serving = serve(&folder);
    tables.put("Orders", "late", &[]);
    tables.delete("Orders", "late");
    until_archived(&folder, 33);
    ok(&folder, &["pack", "orders"]);
    let pack = packs(&folder).into_iter().max().unwrap();
    let mut damaged = fs::read(&pack).unwrap();
    let place = damaged.len() - 40;
    damaged[place] ^= 0x20;
    fs::write(&pack, damaged).unwrap();
    let count = ["query", "SELECT count(*) AS n FROM deletions"];
    let not_needed = "damaged, and not needed: its records are read from their objects: packed/service=orders/day=";
    let ended = archive(&folder, &count);
    assert!(
        ended.code == 1 && ended.out.contains("33") && ended.out.contains(not_needed),
        "{} {}",
        ended.out,
        ended.err
    );
    assert!(!ended.out.contains("not counted"), "{}", ended.out);
    let ended = archive(&folder, &[&count[..], &["--csv"]].concat());
    assert_eq!((ended.out.as_str(), ended.code), ("n\n33\n", 1));
    assert!(ended.err.contains(not_needed), "{}", ended.err);
    let ended = archive(&folder, &["pack", "orders"]);
    let said = format!("{}{}", ended.out, ended.err);
    assert!(ended.code == 1 && said.contains("afterimage archive drop orders packed/"), "{said}");

    // Nothing says any more which objects it has: then it is needed, whatever is there.
    let (day, number) = (pack.parent().unwrap().file_name().unwrap().to_str().unwrap(), pack.file_stem().unwrap());
    // The store's own files lie under that name.
    let notes = folder.data().join("buckets/archive/%2Eafterimage/packs/orders").join(day.replace("day=", ""));
    let note = notes.join(number).with_extension("json");
    assert!(note.exists(), "{}", note.display());
    fs::write(note, "{}").unwrap();
    let ended = archive(&folder, &count);
    assert!(
        ended.code == 1 && ended.out.contains("not counted: packed/service=orders/"),
        "{} {}",
        ended.out,
        ended.err
    );
    assert!(!ended.out.contains("33") && !ended.out.contains("not needed"), "{}", ended.out);
    let got = archive(&folder, &["get", "orders", "late"]);
    assert!(got.code == 1 && got.err.contains("damaged"), "{} {}", got.out, got.err);
    assert_eq!(serving.stop(), 0);
}
