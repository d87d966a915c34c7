//! The cleaner: it does its share, says what is left, and comes to an end in any number of invocations.

use crate::cloud::Cloud;
use crate::harness::Lambda;
use engine::limits::KEYS_IN_FLIGHT;
use engine::ports::catalog::CatalogRead;
use lifecycle::copy_key::parse;
use lifecycle::ids::ObjectKey;
use lifecycle::time::SpanMs;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LIMIT: SpanMs = SpanMs::seconds(60);
/// As little as a function may be given here: three quarters of it are worked.
const SHORT: SpanMs = SpanMs::seconds(4);
/// More invocations than any of this takes.
const INVOCATIONS_MAX: usize = 200;

/// How many objects there are, and how long an invocation may take. `AFTERIMAGE_OBJECTS=100000` makes it a matter of many
/// minutes, in slices of half a minute.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment how much to do")]
fn scale() -> (usize, SpanMs) {
    let many = std::env::var("AFTERIMAGE_OBJECTS").ok().map(|many| many.parse().expect("a number of objects"));
    many.map_or((1_000, SHORT), |many| (many, SpanMs::seconds(30)))
}

/// How one policy's work came to its end.
struct Slices {
    invocations: usize,
    /// How many of them were over before their work had stopped: each leaves what a crash leaves.
    dropped: usize,
}

impl Slices {
    /// As many copies may have been made, and their rows not put: each key in flight had one.
    fn copies_without_rows_max(&self) -> usize {
        self.dropped * KEYS_IN_FLIGHT
    }
}

/// Invokes with that payload, then as a schedule does, until all is done.
async fn until_complete(function: &mut Lambda, payload: Value, limit: SpanMs) -> Slices {
    let schedule = json!({ "source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": {} });
    let mut answer = function.invoke(&payload, limit).await.unwrap();
    let mut dropped = 0;
    for invocations in 1..INVOCATIONS_MAX {
        dropped += usize::from(answer["policies"]["docs"]["dropped"] == true);
        if answer["complete"] == true {
            return Slices { invocations, dropped };
        }
        answer = function.invoke(&schedule, limit).await.unwrap();
    }
    panic!("it comes to no end: {answer}");
}

/// The originals of the copies, each once.
fn originals(copies: &[String]) -> BTreeSet<String> {
    let parsed = copies.iter().map(|copy| parse(&ObjectKey::new(copy.clone()).unwrap()).unwrap());
    parsed.map(|parsed| parsed.original.whole().unwrap().to_string()).collect()
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn thousands_of_objects_are_compared_and_cleaned_in_slices_each_inside_its_time() {
    let cloud = Cloud::new(&["docs"]).await;
    let (objects, limit) = scale();
    let keys: Vec<String> = (0..objects).map(|n| format!("k{:02}/{n:06}", n % 50)).collect();
    cloud.put_all("docs", &keys).await;
    let configuration = cloud.configuration(&["docs"], "grace = \"0s\"\nbreaker = \"off\"");
    let mut function = cloud.cleaner(&configuration).await;
    let answer = function.invoke(&json!({}), LIMIT).await.unwrap();
    assert_eq!(answer["complete"], true, "nothing is due, and nobody asked for more: {answer}");
    assert_eq!(cloud.copies("docs").await.len(), 0);

    // What was there before, without an event.
    let slices = until_complete(&mut function, json!({ "reconcile": true }), limit).await;
    assert!(slices.invocations > 1, "all fitted into one slice: this shows nothing");
    println!("{} objects in {} invocations, {} of them dropped", keys.len(), slices.invocations, slices.dropped);
    let copies = cloud.copies("docs").await;
    assert_eq!(originals(&copies), keys.iter().cloned().collect());
    let twice = copies.len() - keys.len();
    assert!(twice <= slices.copies_without_rows_max(), "{twice} copies too many, after {} drops", slices.dropped);
    let (_, gap) = cloud.catalog("docs").await.state().await.unwrap().reconciled.unwrap();
    assert_eq!(gap, 0);

    // Removals that nobody told of, compared by another instance of the function from where this one stops.
    cloud.delete_all("docs", &keys).await;
    let first = function.invoke(&json!({ "reconcile": ["docs"] }), limit).await.unwrap();
    drop(function);
    let mut function = cloud.cleaner(&configuration).await;
    if first["complete"] != true {
        let after = first["policies"]["docs"]["comparison"]["after"].as_str().unwrap().to_owned();
        let second = function.invoke(&json!({}), limit).await.unwrap();
        assert_eq!(second["policies"]["docs"]["comparison"]["slices"], 2, "{second}");
        assert!(second["policies"]["docs"]["comparison"]["after"].as_str().unwrap() > after.as_str(), "{second}");
    }
    until_complete(&mut function, json!({}), limit).await;
    until_complete(&mut function, json!({}), limit).await;
    // Those without a row are adopted once they are of age, and purged then.
    assert_eq!(cloud.copies("docs").await.len(), twice);
    assert!(!cloud.partition("docs", &keys[0]).await.rows.iter().any(|row| row.is_active()));
    let journal = cloud.keys("docs-copies").await;
    assert!(journal.iter().any(|key| key.starts_with(".afterimage/journal/")), "what was purged stands in the journal");
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn a_payload_that_says_something_else_is_refused() {
    let cloud = Cloud::new(&["docs"]).await;
    let mut function = cloud.cleaner(&cloud.configuration(&["docs"], "")).await;
    for (payload, part) in [
        (json!({ "reconcile": "docs" }), "write true, or a list"),
        (json!({ "reconcile": ["docs", "dogs"] }), "names dogs, and there is no such policy"),
        (json!({ "reconcile": [1] }), "a list of names"),
    ] {
        let error = function.invoke(&payload, LIMIT).await.unwrap_err();
        assert_eq!(error["errorType"], "payload");
        assert!(error["errorMessage"].as_str().unwrap().contains(part), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
async fn the_journal_of_functions_is_whole_chains_of_lines_like_the_daemons() {
    let cloud = Cloud::new(&["docs"]).await;
    let configuration = cloud.configuration(&["docs"], "keep = 1\ngrace = \"0s\"\nbreaker = \"off\"");
    let mut replicator = cloud.replicator(&configuration).await;
    for n in 0..3 {
        cloud.put("docs", "a", &format!("content {n}")).await;
        replicator.invoke(&cloud.created("docs", "a", n).await, LIMIT).await.unwrap();
    }
    cloud.delete_all("docs", &["a".to_owned()]).await;
    let mut cleaner = cloud.cleaner(&configuration).await;
    until_complete(&mut cleaner, json!({ "reconcile": true }), SHORT).await;
    until_complete(&mut cleaner, json!({}), SHORT).await;
    let mut chains: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    for key in cloud.keys("docs-copies").await {
        if let Some((chain, _)) = key.strip_prefix(".afterimage/journal/").and_then(|rest| rest.split_once('/')) {
            let object = cloud.s3.get_object().bucket("docs-copies").key(&key).send().await.unwrap();
            let text = String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap();
            chains.entry(chain.to_owned()).or_default().push_str(&text);
        }
    }
    assert_eq!(chains.len(), 2, "one for each function");
    let mut purged = 0;
    for lines in chains.values() {
        let mut before = "0".repeat(64);
        for (n, line) in (1..).zip(lines.lines()) {
            let link = engine::format::journal_line::read_link(line.as_bytes()).unwrap();
            assert!(link.intact && link.number == n && link.prev.0 == before, "{line}");
            before = link.stated.0;
            purged += usize::from(line.contains("\"action\":\"purge\""));
        }
    }
    assert_eq!(purged, 3, "two beyond the rule, and the last with its original");
}
