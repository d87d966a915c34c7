//! Any legal key goes in, comes out and stays below its bucket's folder; ordinary ones are found with `ls` and `cp`.

use super::clients::copy;
use super::*;
use std::process::Command;

const HOSTILE: [&str; 24] = [
    "..",
    ".",
    "../..",
    "../../etc/passwd",
    "/etc/passwd",
    "a//b",
    "//",
    "/",
    "a/",
    "a/./b",
    "a/../b",
    "%",
    "%2E%2E",
    "%%",
    "a%-",
    ".afterimage/tmp/x",
    ".afterimage",
    "a\0b",
    "\n",
    "💾 emoji",
    "a@0000000000000001",
    "a@0000000000000001/b",
    "-rf",
    "~",
];

#[tokio::test]
async fn hostile_keys_round_trip_and_never_leave_the_folder() {
    let world = World::new().await;
    let mut keys: Vec<String> = HOSTILE.iter().map(|text| (*text).to_owned()).collect();
    keys.extend([255, 256, 500, 1_024].map(|n| "x".repeat(n)));
    keys.extend([".".repeat(1_024), "ä".repeat(512), "/".repeat(1_024), "\u{1}".repeat(1_024), "../".repeat(341)]);
    keys.push(format!("{}..", "y".repeat(250)));
    let before = outside(&world);
    for text in &keys {
        put(&world.source, text, text.clone()).await;
        copy(&world, text, text).await.unwrap();
    }
    for text in &keys {
        assert_eq!(get(&world.source, text).await.unwrap(), text);
        assert_eq!(get(&world.copies, text).await.unwrap(), text);
    }
    assert_eq!(outside(&world), before, "nothing was made outside of the buckets");
    keys.sort();
    for bucket in [&world.source, &world.copies] {
        let listed = bucket.list(&super::super::ListRequest { limit: 1_000, ..Default::default() }).await.unwrap();
        let names: Vec<&str> = listed.entries.iter().map(|entry| entry.name()).collect();
        assert_eq!(names, keys);
    }
    // The tree alone gives the keys back.
    let report = world.store.reindex(&name("copies")).await.unwrap();
    assert_eq!((report.files, report.foreign, report.added), (keys.len() as u64, 0, 0));
    for text in &keys {
        delete(&world.source, text).await;
    }
    world.handle_all().await;
    assert_eq!(std::fs::read_dir(&world.source.info().root).unwrap().count(), 1, "empty folders go");
}

/// Everything in the data folder that is not below a bucket's.
fn outside(world: &World) -> Vec<String> {
    let list = |path: &Path| {
        let mut names: Vec<String> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path().display().to_string()).collect();
        names.sort();
        names
    };
    [list(world.folder.path()), list(&world.folder.path().join("buckets"))].concat()
}

#[tokio::test]
async fn names_in_conflict_stand_side_by_side_in_either_order() {
    let world = World::new().await;
    for text in ["a", "a/b", "x/y", "x", "x/y/z", "m/n/o", "m/n", "m"] {
        put(&world.source, text, text.to_owned()).await;
        copy(&world, text, text).await.unwrap();
    }
    for text in ["a", "a/b", "x/y", "x", "x/y/z", "m/n/o", "m/n", "m"] {
        assert_eq!(get(&world.copies, text).await.unwrap(), text);
        // Again: the key keeps its path.
        copy(&world, text, text).await.unwrap();
    }
    assert_eq!(world.files("copies"), ["a", "a%/b", "m%", "m/n%", "m/n/o", "x%", "x/y", "x/y%/z"]);
}

#[tokio::test]
async fn links_in_the_tree_are_not_followed() {
    let world = World::new().await;
    let elsewhere = TempDir::new().unwrap();
    std::fs::write(elsewhere.path().join("f"), "secret").unwrap();
    let root = world.copies.info().root.clone();
    std::os::unix::fs::symlink(elsewhere.path(), root.join("out")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("f"), root.join("file")).unwrap();
    assert_eq!(get(&world.copies, "out/f").await, None);
    assert_eq!(get(&world.copies, "file").await, None);
    put(&world.source, "out/g", "x").await;
    copy(&world, "out/g", "out/g").await.unwrap();
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    assert_eq!(get(&world.copies, "out/g").await.unwrap(), "x");
    let report = world.store.reindex(&name("copies")).await.unwrap();
    assert_eq!((report.files, report.added), (1, 0));
}

#[tokio::test]
async fn a_person_finds_a_copy_by_name_and_time_with_ls_and_cp_alone() {
    let world = World::new().await;
    let text = "letters/to mother (draft).txt";
    put(&world.source, text, "dear mother").await;
    let copy_key = format!("{text}.20261121T072612345Z-s0000019aa3c1f2b4-v0000019aa3c1f2b4");
    copy(&world, text, &copy_key).await.unwrap();
    let script = "cp \"$(ls \"$1/letters/to mother (draft).txt.20261121T\"*)\" \"$2\"";
    let back = world.folder.path().join("back.txt");
    let done = Command::new("sh").args(["-c", script, "sh"]).arg(&world.copies.info().root).arg(&back).status();
    assert!(done.unwrap().success());
    assert_eq!(std::fs::read_to_string(back).unwrap(), "dear mother");
}
