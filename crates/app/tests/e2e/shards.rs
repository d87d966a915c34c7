//! Deleted records of a stream whose shards split and merge, read by two daemons that share them and are killed again and
//! again: the archive is compared with the list of what was deleted.

use crate::process::{Folder, Serving};
use crate::records::{CONFIG, Tables, serve};
use crate::split_stream::{SplitStream, key, sequence};
use crate::storms::Dice;
use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Shards that the stream begins with.
const SHARDS: usize = 6;
/// Deletions of one key, about.
const OF_A_KEY: usize = 4;
/// Of so many kills one leaves the other daemon alone until it has taken everything over, which takes a lease's minute.
const ABSENT_ONE_IN: usize = 10;

/// How many deletions, and how many kills. `AFTERIMAGE_DELETIONS=50000 AFTERIMAGE_KILLS=20` makes it a matter of minutes.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment how much to do")]
fn scale() -> (usize, usize) {
    let told = |name| std::env::var(name).ok().map(|many| many.parse().expect("a number"));
    (told("AFTERIMAGE_DELETIONS").unwrap_or(1_500), told("AFTERIMAGE_KILLS").unwrap_or(4))
}

/// The data folder whose bucket is the archive, which both daemons reach through its S3 endpoint.
fn store() -> (Folder, Serving) {
    let folder = Folder::new();
    fs::write(folder.root().join("store.toml"), "default_policy = \"off\"\n").unwrap();
    let serving = folder.serve_with(&["--config", "store.toml"]);
    assert_eq!(serving.s3.make_bucket("archive").unwrap().0, 200);
    (folder, serving)
}

/// A daemon's data folder, with an endpoint of its own to the stream.
fn reader(stream: &str, store: &Serving) -> Folder {
    let folder = Folder::new().signing_for(&store.s3);
    let text = format!(
        "default_policy = \"off\"\n[[service]]\nname = \"engine\"\nendpoint = \"{stream}\"\n\
         [[service]]\nname = \"store\"\nendpoint = \"http://{}\"\n[[archive]]\ntable = \"dynamodb://engine@Orders\"\n\
         service = \"orders\"\ndestination = \"s3://store@archive\"\nleases = \"dynamodb://engine@leases\"\n",
        store.s3.address
    );
    fs::write(folder.root().join("records.toml"), text).unwrap();
    folder
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn two_daemons_that_are_killed_share_shards_that_split_and_merge_and_archive_every_deletion_once() {
    let (deletions, kills) = scale();
    let (tables, (store, storing)) = (Tables::start(), store());
    tables.make("Orders", StreamViewType::OldImage);
    let stream = SplitStream::before(&tables.url, SHARDS, deletions / OF_A_KEY, 20_261_122);
    let folders = [0, 1].map(|_| reader(&stream.endpoint(), &storing));
    let mut serving =
        folders.each_ref().map(|folder| Some(folder.start(&[CONFIG, &["serve", "--make-tables"]].concat())));
    let mut dice = Dice(20_261_122);
    let (each, mut in_the_middle, mut absences) = (deletions / (kills + 1), 0, 0);
    for kill in 0..kills {
        reshard(&stream, each);
        let target = kill % 2;
        let before = stream.state().handed[target];
        let some = 1 + dice.below(each / 4);
        // It has just been given a page; where all of it is the other's, it is killed while it has nothing to do.
        let is_reading = |handed: usize| handed >= before + some;
        let state = stream.wait("a reading daemon", |state| is_reading(state.handed[target]) || state.is_read());
        in_the_middle += usize::from(is_reading(state.handed[target]));
        drop(state);
        serving[target].take().unwrap().kill();
        if kill % ABSENT_ONE_IN == ABSENT_ONE_IN / 2 + kill / ABSENT_ONE_IN {
            drop(stream.wait("the other daemon, which takes everything over", |state| state.is_read()));
            absences += 1;
        }
        serving[target] = Some(serve(&folders[target]));
        // So that the kills are spread over all of it.
        drop(stream.wait("the most part of it", |state| state.left() <= each / 2));
    }
    reshard(&stream, deletions - kills * each);
    drop(stream.wait("the end of every shard", |state| state.is_read()));
    // The listing comes a moment after the file.
    folders[0].wait("a listing of everything", |_| {
        folders[0].ok(&["archive", "ls", "orders", "--json"]).lines().count() >= deletions
    });
    for (folder, serving) in folders.iter().zip(serving) {
        assert_eq!(serving.unwrap().stop(), 0, "{}", folder.log());
    }
    let state = stream.state();
    let objects = compare(&store, &state.deleted, |key| state.loose.contains(&key));
    assert_eq!(in_the_middle > 0, kills > 0, "no daemon was killed while it read");
    assert!(state.handed.iter().all(|handed| *handed > 0), "one of them read nothing: {:?}", state.handed);
    println!(
        "{deletions} deletions in {} shards ({} splits, {} merges), {kills} kills ({in_the_middle} of a daemon that had \
         just been given records, {absences} with a takeover); handed out {:?}; {objects} objects, each deletion once",
        state.shards(),
        state.splits,
        state.merges,
        state.handed
    );
    assert_eq!(storing.stop(), 0, "{}", store.log());
}

/// Deletes so many records, while shards split and merge.
fn reshard(stream: &SplitStream, many: usize) {
    let mut state = stream.state();
    state.delete(many / 2);
    state.split();
    state.delete(many / 4);
    state.merge();
    let done = many / 2 + many / 4;
    state.delete(many - done);
}

/// Every deletion has one object, and every object is a deletion's; how many there are. Where the order of a key's deletions
/// is known, the first has the plain name.
fn compare(store: &Folder, deleted: &[(usize, u64)], is_loose: impl Fn(usize) -> bool) -> usize {
    let bucket = store.data().join("buckets/archive");
    let mut archived: Vec<(String, String)> = Vec::new();
    let mut plain: BTreeMap<String, String> = BTreeMap::new();
    for path in files(&bucket.join("orders")) {
        let object: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let told = &object["dynamodb"];
        let (key, number) = (text(&told["Keys"]["id"]["S"]), text(&told["SequenceNumber"]));
        assert_eq!(text(&told["OldImage"]["n"]["N"]), number.trim_start_matches('0'), "{key}: another one's image");
        // The store's own mark of the version follows.
        if path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{key}.json")) {
            plain.insert(key.clone(), number.clone());
        }
        archived.push((key, number));
    }
    archived.sort_unstable();
    let mut wanted: Vec<(String, String)> = deleted.iter().map(|(of, number)| (key(*of), sequence(*number))).collect();
    wanted.sort_unstable();
    let differs = archived.iter().zip(&wanted).find(|(archived, wanted)| archived != wanted);
    assert_eq!((archived.len(), differs), (wanted.len(), None), "archived, and deleted");
    let mut first: BTreeMap<usize, u64> = BTreeMap::new();
    for (of, number) in deleted {
        first.entry(*of).or_insert(*number);
    }
    first.retain(|of, _| !is_loose(*of));
    assert!(!first.is_empty(), "of some keys the order is known");
    for (of, number) in first {
        assert_eq!(plain[&key(of)], sequence(number), "the first deletion of {}", key(of));
    }
    for beside in ["aside", "gaps"] {
        assert_eq!(files(&bucket.join("%2Eafterimage").join(beside)), Vec::<PathBuf>::new());
    }
    archived.len()
}
