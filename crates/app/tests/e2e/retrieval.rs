//! Archived records that lie in an archive tier, by the real binary and the S3 of an emulator, which gives them back two
//! seconds after they were asked for: refused with the remedy, asked for once, awaited, read. And the rules that move them there.

use crate::emulator::Emulator;
use crate::process::{Ended, Folder};
use crate::records::{CONFIG, Tables, serve};
use aws_sdk_dynamodb::types::AttributeValue::N;
use aws_sdk_dynamodb::types::StreamViewType;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleAndOperator, LifecycleRuleFilter, StorageClass, Tag,
};
use serde_json::{Value, json};
use std::fs;

/// What awaits its retrieval, and nothing else is wrong.
const AWAITS: i32 = 3;

/// A table `Orders`, whose deleted records are archived to the bucket `archive` of an emulator.
struct World {
    tables: Tables,
    emulator: Emulator,
    s3: aws_sdk_s3::Client,
    folder: Folder,
}

impl World {
    fn new(more: &str) -> World {
        let (tables, emulator, folder) = (Tables::start(), Emulator::start(), Folder::new());
        tables.make("Orders", StreamViewType::OldImage);
        let s3 = emulator.service().s3(&emulator.config());
        tables.runtime.block_on(s3.create_bucket().bucket("archive").send()).unwrap();
        let text = format!(
            "default_policy = \"off\"\n[[service]]\nname = \"engine\"\nendpoint = \"{}\"\n[[service]]\nname = \"cloud\"\n\
             endpoint = \"{}\"\n[[archive]]\ntable = \"dynamodb://engine@Orders\"\nservice = \"orders\"\n\
             destination = \"s3://cloud@archive\"\n{more}\n",
            tables.url,
            emulator.url()
        );
        fs::write(folder.root().join("records.toml"), text).unwrap();
        World { tables, emulator, s3, folder }
    }

    /// Archives records that a user deleted.
    fn archive(&self, ids: &[&str]) {
        let serving = serve(&self.folder);
        for (n, id) in ids.iter().enumerate() {
            self.tables.put("Orders", id, &[("n", N(n.to_string()))]);
            self.tables.delete("Orders", id);
        }
        self.folder.wait("the archive", |_| self.names("orders/").len() == ids.len());
        assert_eq!(serving.stop(), 0);
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket("archive").prefix(prefix);
        let listed = self.tables.runtime.block_on(listed.send()).unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    /// As a lifecycle rule moves it.
    fn move_to(&self, class: StorageClass, name: &str) {
        let copy = self.s3.copy_object().bucket("archive").key(name).copy_source(format!("archive/{name}"));
        self.tables.runtime.block_on(copy.storage_class(class).send()).unwrap();
    }

    fn run(&self, words: &[&str]) -> Ended {
        self.folder.run(&[CONFIG, &["archive"], words].concat())
    }

    fn name_of(&self, id: &str) -> String {
        self.names("orders/").into_iter().find(|name| name.ends_with(&format!("/{id}.json"))).unwrap()
    }
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_record_in_an_archive_tier_is_refused_with_the_remedy_asked_for_once_and_then_read() {
    let world = World::new("");
    world.archive(&["USER#1", "USER#2"]);
    world.move_to(StorageClass::Glacier, &world.name_of("USER#1"));
    let refused = world.run(&["get", "orders", "USER#1"]);
    assert_eq!(refused.code, AWAITS, "{refused:?}");
    for part in ["1 object, ", "(GLACIER)", "1 not asked for, since that costs money", "`--retrieve standard` asks"] {
        assert!(refused.err.contains(part), "{part}: {refused:?}");
    }
    // Nothing is on its way: nothing is awaited.
    assert_eq!(world.run(&["get", "orders", "USER#1", "--wait"]).code, AWAITS);
    let asked = world.run(&["get", "orders", "USER#1", "--retrieve", "bulk", "--retrieve-days", "2"]);
    assert!(asked.code == AWAITS && asked.err.contains("1 asked for now. Give the same command again"), "{asked:?}");
    // With the daemon as without.
    let serving = serve(&world.folder);
    let again = world.run(&["get", "orders", "USER#1", "--retrieve", "bulk", "--wait", "--json"]);
    let record: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!((again.code, &record["image"]), (0, &json!({ "id": { "S": "USER#1" }, "n": { "N": "0" } })));
    assert_eq!(serving.stop(), 0);
    assert_eq!(world.run(&["get", "orders", "USER#2"]).code, 0);
    world.move_to(StorageClass::DeepArchive, &world.name_of("USER#2"));
    let deep = world.run(&["get", "orders", "USER#2", "--retrieve", "expedited"]);
    assert!(deep.code == 1 && deep.err.contains("no expedited retrieval: ask for standard"), "{deep:?}");
    let wrong = world.run(&["get", "orders", "USER#2", "--retrieve-days", "2"]);
    assert!(wrong.code == 2 && wrong.err.contains("--retrieve"), "{wrong:?}");
    assert!(world.emulator.url().starts_with("http://127.0.0.1"));
}

impl World {
    /// The bucket's lifecycle rules.
    fn rules(&self) -> Vec<LifecycleRule> {
        let told = self.s3.get_bucket_lifecycle_configuration().bucket("archive").send();
        self.tables.runtime.block_on(told).unwrap().rules.unwrap()
    }

    /// Their names, and after how many days each does something.
    fn days(&self) -> Vec<(String, Vec<i32>)> {
        let days = |rule: &LifecycleRule| {
            let moves = rule.transitions().iter().filter_map(|step| step.days());
            moves.chain(rule.expiration().and_then(|goes| goes.days())).collect()
        };
        self.rules().iter().map(|rule| (rule.id().unwrap().to_owned(), days(rule))).collect()
    }

    fn configure(&self, more: &str) {
        let file = self.folder.root().join("records.toml");
        let text = fs::read_to_string(&file).unwrap();
        let (kept, _) = text.split_once("destination").unwrap();
        fs::write(file, format!("{kept}destination = \"s3://cloud@archive\"\n{more}\n")).unwrap();
    }
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn the_buckets_lifecycle_is_shown_then_put_beside_the_rules_of_others_and_taken_back() {
    let world = World::new("");
    let (tag, uploads) =
        (Tag::builder().key("old").value("yes").build().unwrap(), AbortIncompleteMultipartUpload::builder());
    let both = LifecycleRuleAndOperator::builder().prefix("logs/").tags(tag).build();
    let filter = LifecycleRuleFilter::builder().and(both).build();
    let goes = LifecycleExpiration::builder().days(7).build();
    let theirs = LifecycleRule::builder().id("theirs").filter(filter).status(ExpirationStatus::Enabled);
    let theirs = theirs.abort_incomplete_multipart_upload(uploads.days_after_initiation(3).build());
    let rules =
        BucketLifecycleConfiguration::builder().rules(theirs.expiration(goes).build().unwrap()).build().unwrap();
    let put = world.s3.put_bucket_lifecycle_configuration().bucket("archive").lifecycle_configuration(rules);
    world.tables.runtime.block_on(put.send()).unwrap();
    let before = world.rules();
    let none = world.run(&["tiers", "orders", "--yes"]);
    assert!(none.code == 0 && none.out.contains("nothing is to be done"), "{none:?}");

    let classes = "{ after = \"90d\", class = \"STANDARD_IA\" }, { after = \"365d\", class = \"GLACIER\" }";
    world.configure(&format!("pack = \"daily\"\ntiers = [{classes}]\nexpire = \"7y\""));
    // Nobody can be asked: it says what it would do, and does nothing.
    let said = world.run(&["tiers", "orders"]);
    assert_eq!((said.code, world.rules()), (2, before.clone()), "{said:?}");
    for part in [
        "  theirs  logs/: DELETED after 7 days, only objects with certain tags, ends uploads that were left",
        "+ afterimage-records-of-orders  orders/: to STANDARD_IA after 90 days, to GLACIER after 365 days, DELETED after 2557",
        "+ afterimage-packs-of-orders  packed/service=orders/: to STANDARD_IA",
        "objects under 128 KB do not move",
    ] {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }
    let done = world.run(&["tiers", "orders", "--yes", "--json"]);
    let answer: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.code, &answer["buckets"][0]["done"]), (0, &json!(true)), "{done:?}");
    let ours = |name: &str| (format!("afterimage-{name}-of-orders"), vec![90, 365, 2_557]);
    assert_eq!(world.days()[1..], [ours("records"), ours("packs")]);
    assert_eq!(world.rules()[..1], before);
    assert!(world.run(&["tiers", "orders"]).out.contains("nothing is to be done"));

    // Without them in the configuration ours go, and no other.
    world.configure("");
    let gone = world.run(&["tiers", "orders", "--yes"]);
    assert!(gone.code == 0 && gone.out.contains("- afterimage-packs-of-orders"), "{gone:?}");
    assert_eq!(world.rules(), before);
    let unknown = world.run(&["tiers", "nobody"]);
    assert!(unknown.code == 2 && unknown.err.contains("no [[archive]]"), "{unknown:?}");
}

#[test]
fn a_folder_of_this_machine_has_no_lifecycle() {
    let (tables, folder) = (Tables::start(), Folder::new());
    tables.configure(&folder, "Orders", "");
    let refused = folder.run(&[CONFIG, &["archive", "tiers", "orders"]].concat());
    assert!(refused.code == 2 && refused.err.contains("local://archive has no lifecycle"), "{refused:?}");
    tables.configure(&folder, "Orders", "expire = \"7y\"");
    let refused = folder.run(&[CONFIG, &["config", "check"]].concat());
    assert!(refused.code != 0 && refused.err.contains("nothing in it goes by its age"), "{refused:?}");
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_bulk_restore_puts_what_can_be_read_and_the_rest_when_it_has_come() {
    let world = World::new("");
    world.archive(&["a", "b", "c"]);
    world.move_to(StorageClass::Glacier, &world.name_of("b"));
    let restore = |more: &[&str]| world.run(&[&["restore", "orders", "--from", "2020-01-01"], more].concat());
    let dry = restore(&["--dry-run", "--retrieve", "standard"]);
    assert!(
        dry.code == AWAITS && dry.out.contains("2 would-restore") && dry.out.contains("1 not asked for"),
        "{dry:?}"
    );
    let first = restore(&["--retrieve", "standard"]);
    assert_eq!(first.code, AWAITS, "{first:?}");
    for part in ["1 awaiting-retrieval", "2 restored", "it lies in an archive tier", "1 asked for now"] {
        assert!(first.out.contains(part), "{part}: {first:?}");
    }
    assert!(world.tables.get("Orders", "a").is_some() && world.tables.get("Orders", "b").is_none());
    let rest = restore(&["--wait"]);
    assert!(rest.code == 0 && rest.out.contains("1 restored") && rest.out.contains("2 there"), "{rest:?}");
    assert!(world.tables.get("Orders", "b").is_some());
}

#[test]
#[ignore = "needs the emulator: cargo xtask ci aws"]
fn a_statement_gives_no_number_without_packs_in_an_archive_tier_and_the_right_one_when_they_have_come() {
    // Objects are kept, and so the packs are not needed: until somebody takes the objects away, whatever the packs' notes say.
    let world = World::new("");
    world.archive(&["a", "b", "c"]);
    assert_eq!(world.run(&["pack", "orders"]).code, 0);
    let packs = world.names("packed/");
    packs.iter().for_each(|pack| world.move_to(StorageClass::Glacier, pack));
    let sql = "SELECT count(*) AS n FROM deletions";
    let all = world.run(&["query", sql, "--csv"]);
    assert_eq!((all.code, all.out.as_str()), (0, "n\n3\n"), "{all:?}");
    for name in world.names("orders/") {
        world.tables.runtime.block_on(world.s3.delete_object().bucket("archive").key(name).send()).unwrap();
    }
    for words in [&["query", sql, "--csv"][..], &["query", sql, "--csv", "--wait"], &["report", "--month", "2026-01"]] {
        let ended = world.run(words);
        let elsewhere = words[0] == "report";
        assert_eq!(ended.code, if elsewhere { 0 } else { AWAITS }, "{words:?}: {ended:?}");
        assert!(elsewhere || ended.out.is_empty() && ended.err.contains("--retrieve standard"), "{ended:?}");
    }
    let listed = world.run(&["ls", "orders"]);
    assert!(listed.code == AWAITS && listed.out.contains("1 not asked for"), "{listed:?}");
    let asked = world.run(&["query", sql, "--csv", "--retrieve", "standard", "--wait"]);
    assert_eq!((asked.code, asked.out.as_str()), (0, "n\n3\n"), "{asked:?}");
    let listed = world.run(&["ls", "orders"]);
    assert_eq!((listed.code, listed.out.matches(".json").count()), (0, 3), "{listed:?}");
}
