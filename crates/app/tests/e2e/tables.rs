//! What a person does with a table itself: sets it up for its archive, tests that, deletes records later and takes that back.

use crate::process::{Ended, Folder};
use crate::records::{CONFIG, Tables, serve, until_archived};
use aws_sdk_dynamodb::types::AttributeValue::N;
use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::Value;
use std::fs;

fn run(folder: &Folder, words: &[&str]) -> Ended {
    folder.run(&[CONFIG, words].concat())
}

/// The view of the table's stream, and the attribute of its time to live.
fn setup(tables: &Tables, table: &str) -> (Option<StreamViewType>, Option<String>) {
    let described = tables.runtime.block_on(tables.client.describe_table().table_name(table).send()).unwrap();
    let view = described.table.unwrap().stream_specification.and_then(|stream| stream.stream_view_type);
    let ttl = tables.runtime.block_on(tables.client.describe_time_to_live().table_name(table).send()).unwrap();
    (view, ttl.time_to_live_description.and_then(|ttl| ttl.attribute_name))
}

#[test]
fn a_table_is_set_up_once_a_person_agrees_and_what_is_on_already_is_left_alone() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make_with_key("Orders", &["pk", "sk"]);
    let text = format!("default_policy = \"off\"\n[[service]]\nname = \"engine\"\nendpoint = \"{}\"\n", tables.url);
    fs::write(folder.root().join("records.toml"), text).unwrap();
    let enable = |more: &[&str]| run(&folder, &[&["archive", "enable", "dynamodb://engine@Orders"], more].concat());
    // Nobody can be asked: it says what it would do, and does nothing. No data folder is needed.
    let said = enable(&["--ttl", "until"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.out.contains("this will be done") && said.out.contains("with OLD_IMAGE"), "{said:?}");
    assert!(said.out.contains("the table DELETES every record whose `until`"), "{said:?}");
    assert!(said.err.contains("nothing was changed: --yes does it"), "{said:?}");
    assert_eq!(setup(&tables, "Orders"), (None, None));
    let done = enable(&["--ttl", "until", "--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("dynamodb://engine@Orders: done:"), "{done:?}");
    assert!(done.out.contains("[[archive]]\ntable = \"dynamodb://engine@Orders\"\nservice = \"orders\""), "{done:?}");
    assert_eq!(setup(&tables, "Orders"), (Some(StreamViewType::OldImage), Some("until".to_owned())));
    // Again: there is nothing to be done, and nobody is asked.
    let again = enable(&["--ttl", "until", "--view", "NEW_AND_OLD_IMAGES", "--json"]);
    let answer: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!((again.code, answer["switches"].as_array().unwrap().len()), (0, 0), "{again:?}");
    assert_eq!(answer["left"].as_array().unwrap().len(), 2, "{again:?}");
    let other = enable(&["--ttl", "other", "--yes"]);
    assert!(other.code == 1 && other.out.contains("by `until`, and a table has only one"), "{other:?}");
    // A stream that others may read is not replaced.
    tables.make("Keys", StreamViewType::KeysOnly);
    let keys = run(&folder, &["archive", "enable", "dynamodb://engine@Keys", "--yes"]);
    assert!(keys.code == 1 && keys.out.contains("REFUSED") && keys.out.contains("readable for 24 hours"), "{keys:?}");
    assert_eq!(setup(&tables, "Keys").0, Some(StreamViewType::KeysOnly));
    let wrong = enable(&["--view", "KEYS_ONLY"]);
    assert!(wrong.code == 2 && wrong.err.contains("an archive needs old images"), "{wrong:?}");
    let missing = run(&folder, &["archive", "enable", "dynamodb://engine@Nowhere", "--yes"]);
    assert!(missing.code == 1 && missing.err.contains("look at table Nowhere"), "{missing:?}");
    assert!(!folder.data().exists(), "it needs none, and makes none");
}

#[test]
fn a_record_is_deleted_later_by_its_table_and_taken_back_or_restored() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", "");
    let serving = serve(&folder);
    for id in ["USER#1", "USER#2"] {
        tables.put("Orders", id, &[("n", N("1".to_owned())), ("until", N("4102444800".to_owned()))]);
    }
    let before = tables.get("Orders", "USER#1");
    let said = folder.ok(&["record", "soft-delete", "Orders", "id=USER#1", "--after", "30d"]);
    assert!(said.contains("1 soft-deleted") && said.contains("the table deletes it some time after"), "{said}");
    let marked = tables.get("Orders", "USER#1").unwrap();
    assert!(
        marked.contains_key("afterimage_soft_delete") && marked["until"] != N("4102444800".to_owned()),
        "{marked:?}"
    );
    assert!(
        folder.ok(&["record", "soft-delete", "Orders", "id=USER#1", "--after", "1d"]).contains("it is soft-deleted")
    );
    let json = r#"{"id":{"S":"USER#1"}}"#;
    assert!(folder.ok(&["record", "undelete", "dynamodb://engine@Orders", json]).contains("1 undeleted"));
    assert_eq!(tables.get("Orders", "USER#1"), before);
    // The time is over: the table deletes it, the archive catches it, and it comes back without its mark.
    folder.ok(&["record", "soft-delete", "Orders", "id=USER#2", "--after", "1s"]);
    folder.wait("the table's time to live", |_| tables.database.sweep_ttl().unwrap() == 1);
    until_archived(&folder, 1);
    let gone = folder.run(&["record", "undelete", "Orders", "id=USER#2"]);
    assert!(gone.code == 1 && gone.out.contains("`afterimage archive restore orders 'USER#2'`"), "{gone:?}");
    assert!(folder.ok(&["archive", "restore", "orders", "USER#2"]).contains("its mark is left out"));
    assert_eq!(tables.get("Orders", "USER#2").map(|record| record["until"].clone()), Some(N("4102444800".to_owned())));
    assert!(!tables.get("Orders", "USER#2").unwrap().contains_key("afterimage_soft_delete"));
    for (words, code, part) in [
        (&["record", "undelete", "Orders", "USER#1"][..], 2, "write id=TEXT, or '{\"id\":{\"S\":\"TEXT\"}}'"),
        (&["record", "soft-delete", "Orders", "id=nobody", "--after", "30d"], 1, "there is no such record"),
    ] {
        let refused = folder.run(words);
        assert!(refused.code == code && format!("{}{}", refused.out, refused.err).contains(part), "{refused:?}");
    }
    assert_eq!(folder.run(&["record", "soft-delete", "Orders", "id=a", "--after", "soon"]).code, 2);
    let journal = folder.json(&["audit"])["newest"].to_string();
    assert!(journal.contains("\"soft-delete\"") && journal.contains("table engine@Orders"), "{journal}");
    assert_eq!(serving.stop(), 0, "{}", folder.log());
}

#[test]
fn a_self_test_goes_the_whole_way_says_how_long_it_took_and_which_step_failed() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.make("Orders", StreamViewType::OldImage);
    tables.configure(&folder, "Orders", "");
    let serving = serve(&folder);
    let tested = folder.ok(&["archive", "self-test", "Orders"]);
    assert_eq!(tested.lines().filter(|line| line.starts_with("ok ")).count(), 8, "{tested}");
    assert!(tested.contains("come back as they were"), "{tested}");
    let left = tables.runtime.block_on(tables.client.scan().table_name("Orders").send()).unwrap();
    assert_eq!(left.items().len(), 0);
    assert_eq!(serving.stop(), 0, "{}", folder.log());
    // Nobody archives now.
    let failed = folder.json(&["archive", "self-test", "dynamodb://engine@Orders", "--within", "1s"]);
    let steps = failed["steps"].as_array().unwrap();
    let wrong: Vec<&Value> = steps.iter().filter(|step| step["success"] == false).collect();
    assert!(matches!(&wrong[..], [step] if step["step"] == "find it in the archive"), "{failed:#}");
    assert!(wrong[0]["remedy"].to_string().contains("must be running"), "{failed:#}");
    assert!(wrong[0]["took_ms"].as_u64() >= Some(1_000), "{failed:#}");
    assert_eq!(folder.run(&["archive", "self-test", "Orders", "--within", "1s"]).code, 1);
    let unknown = folder.run(&["archive", "self-test", "dynamodb://engine@Other"]);
    assert!(unknown.code == 2 && unknown.err.contains("is not archived"), "{unknown:?}");
}
