//! Folders outside of the data folder: one data folder at a time works in them, and a person can hand them on.

use super::clients::copy;
use super::*;
use std::path::PathBuf;

fn on(root: &Path, bucket: &str) -> BucketSpec {
    BucketSpec { name: name(bucket), role: Role::Destination, root: Some(root.to_owned()) }
}

fn marker(root: &Path) -> String {
    std::fs::read_to_string(root.join(".afterimage/bucket")).unwrap()
}

async fn refusal(store: &Arc<Store>, spec: BucketSpec) -> String {
    match store.create_bucket(spec).await {
        Ok(_) => panic!("taken"),
        Err(StoreError::Port(error)) => {
            assert!(matches!(error.kind, ErrorKind::AccessDenied(_) | ErrorKind::Invalid(_)), "{error}");
            std::error::Error::source(&error).unwrap().to_string()
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_folder_on_another_disk_is_one_data_folders_until_a_person_hands_it_on() {
    let disk = TempDir::new().unwrap();
    let root = disk.path().join("backup");
    let (ours, theirs) = (World::new().await, World::new().await);
    ours.store.create_bucket(on(&root, "elsewhere")).await.unwrap();
    let busy = refusal(&theirs.store, on(&root, "elsewhere")).await;
    assert!(busy.contains("works on the folder"), "{busy}");
    assert!(theirs.store.take_over(&name("elsewhere"), &root).await.is_err(), "a process works on it");

    let at = ours.folder.path().display().to_string();
    let ours = ours.crashed().await;
    let why = refusal(&theirs.store, on(&root, "elsewhere")).await;
    for part in [at, theirs.folder.path().display().to_string(), "--take-over".to_owned()] {
        assert!(why.contains(&part), "{part}: {why}");
    }
    ours.store.bucket("elsewhere").unwrap().open().await.unwrap();
    let ours = ours.crashed().await;

    // Its new place is known under another name.
    theirs.store.take_over(&name("handed-on"), &root).await.unwrap();
    let taken = theirs.store.create_bucket(on(&root, "handed-on")).await.unwrap();
    drop(taken);
    let theirs = theirs.crashed().await;
    let lost = ours.store.bucket("elsewhere").unwrap().open().await;
    assert!(matches!(lost, Err(StoreError::Port(PortError { kind: ErrorKind::AccessDenied(_), .. }))), "{lost:?}");
    theirs.store.bucket("handed-on").unwrap().open().await.unwrap();
}

#[tokio::test]
async fn what_is_part_of_another_data_folder_is_never_taken_over() {
    let (ours, theirs) = (World::new().await, World::new().await);
    std::fs::write(ours.folder.path().join("format"), "1\n").unwrap();
    let refused = async |root: &Path| {
        let before = std::fs::read_to_string(root.join(".afterimage/bucket")).unwrap();
        let refused = theirs.store.take_over(&name("elsewhere"), root).await;
        let Err(StoreError::Port(error)) = refused else { panic!("taken over: {refused:?}") };
        assert!(matches!(error.kind, ErrorKind::AccessDenied(_)), "{error}");
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("name another destination"), "{why}");
        assert_eq!(marker(root), before);
        assert!(!root.join(".afterimage/lock").exists(), "nothing is written there");
    };
    let root = ours.copies.info().root.clone();
    refused(&root).await;
    // Whatever its marker says, and wherever it is reached from.
    std::fs::write(root.join(".afterimage/bucket"), "copies\ndata-folder 0 /lost\n").unwrap();
    refused(&root).await;
    let disk = TempDir::new().unwrap();
    std::os::unix::fs::symlink(&root, disk.path().join("link")).unwrap();
    refused(&disk.path().join("link")).await;
    // As a data folder's bucket looks that is mounted alone.
    let alone = disk.path().join("alone");
    std::fs::create_dir_all(alone.join(".afterimage")).unwrap();
    std::fs::write(alone.join(".afterimage/bucket"), "copies\n").unwrap();
    refused(&alone).await;
}

#[tokio::test]
async fn a_folder_that_was_moved_keeps_its_owner_and_its_copies() {
    let disk = TempDir::new().unwrap();
    let (old, new) = (disk.path().join("old"), disk.path().join("new"));
    let world = World::new().await;
    drop(world.store.create_bucket(on(&old, "name-of-old")).await.unwrap());
    std::fs::write(old.join("a.copy"), "kept").unwrap();
    let world = world.crashed().await;
    std::fs::rename(&old, &new).unwrap();
    let moved = world.store.create_bucket(on(&new, "name-of-new")).await.unwrap();
    assert_eq!(get(&moved, "a.copy").await.unwrap(), "kept");
    assert!(marker(&new).starts_with("name-of-new\ndata-folder "), "{}", marker(&new));
}

#[tokio::test]
async fn a_marker_without_owner_gets_one_and_a_bucket_within_has_none() {
    let disk = TempDir::new().unwrap();
    let world = World::new().await;
    drop(world.store.create_bucket(on(disk.path(), "elsewhere")).await.unwrap());
    assert_eq!(marker(&world.copies.info().root.clone()), "copies\n", "whoever holds the data folder holds it");
    let world = world.crashed().await;
    std::fs::write(disk.path().join(".afterimage/bucket"), "elsewhere\n").unwrap();
    world.store.bucket("elsewhere").unwrap().open().await.unwrap();
    assert!(marker(disk.path()).contains("data-folder "), "{}", marker(disk.path()));
}

#[tokio::test]
async fn a_data_folder_that_is_moved_takes_its_buckets_along() {
    let above = TempDir::new().unwrap();
    let (old, new): (PathBuf, PathBuf) = (above.path().join("old"), above.path().join("new"));
    std::fs::create_dir(&old).unwrap();
    let clock = Arc::new(MemoryClock::at(UnixMs(1_795_000_000_000)));
    let store = open(&old, &clock).await;
    let bucket = store.create_bucket(spec("source", Role::Source)).await.unwrap();
    put(&bucket, "a", "1").await;
    store.close().await;
    drop((bucket, store));
    std::fs::rename(&old, &new).unwrap();
    let bucket = open(&new, &clock).await.bucket("source").unwrap();
    assert_eq!(get(&bucket, "a").await.unwrap(), "1");
    assert_eq!(bucket.info().root, new.join("buckets/source"));
}

#[tokio::test]
async fn a_buckets_own_folders_are_made_again_when_somebody_took_them_away() {
    let world = World::new().await;
    put(&world.source, "a", "1").await;
    let own = world.copies.info().root.join(".afterimage");
    let world = world.crashed().await;
    for folder in ["tmp", "uploads", "meta"] {
        std::fs::remove_dir(own.join(folder)).unwrap();
    }
    copy(&world, "a", "b").await.unwrap();
    assert_eq!(get(&world.copies, "b").await.unwrap(), "1");
}

#[tokio::test]
async fn nothing_is_restored_into_a_folder_that_is_kept_for_copies() {
    use super::super::FolderTarget;
    use engine::ports::objects::ObjectWrite;
    let above = TempDir::new().unwrap();
    let world = World::new().await;
    let root = above.path().join("disk/backup");
    world.store.create_bucket(on(&root, "elsewhere")).await.unwrap();
    let link = above.path().join("link");
    std::os::unix::fs::symlink(&root, &link).unwrap();
    std::fs::write(world.folder.path().join("format"), "1\n").unwrap();
    let open = |path: &Path| {
        FolderTarget::open(path, world.clock.clone(), Arc::new(crate::clock::SystemNonces::new().unwrap()))
    };
    let data = world.folder.path().to_owned();
    for kept in [root.clone(), root.join("new/deeper"), link.clone(), link.join("new"), data.clone(), data.join("x")] {
        let error = open(&kept).map(drop).expect_err("kept");
        assert!(error.to_string().contains("keeps for itself"), "{error}");
    }
    assert!(!root.join("new").exists() && !data.join("x").exists());

    let target = open(above.path()).unwrap();
    let write =
        async |text| target.put(&key(text), body(Bytes::from("x")), &Attributes::default(), Onto::Nothing).await;
    let error = write("disk/backup/notes/a").await.expect_err("kept");
    assert!(error.to_string().contains("keeps for itself"), "{error}");
    write("disk/other/a").await.unwrap();
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "the program's own folder, and nothing else");
}
