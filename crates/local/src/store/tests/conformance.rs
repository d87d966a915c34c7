//! The store and the spool pass the suites that every adapter of their ports passes.

use super::*;
use engine::conformance::{events, objects};

#[tokio::test]
async fn buckets_on_the_file_system_conform() {
    objects::objects(|| async {
        let world = World::new().await;
        let (source, copies) = (name("source"), name("copies"));
        let buckets = objects::Buckets {
            source: world.store.writer(&source).unwrap(),
            destination: world.store.reader(&copies).unwrap(),
            copy: world.store.copier(&source, &copies).unwrap(),
            purge: world.store.purger(&copies).unwrap(),
        };
        // Lives as long as the test's process; the system's temporary folder is cleaned by the test's end.
        FOLDERS.lock().unwrap().push(world.folder);
        buckets
    })
    .await;
    FOLDERS.lock().unwrap().clear();
}

/// From a bucket here to a store of another kind, and the other way round: bytes go through this process.
#[tokio::test]
async fn a_copy_between_a_bucket_here_and_another_store_conforms() {
    use engine::memory::bucket::{MemoryBucket, Versioning};
    use engine::wrap::through::Through;
    objects::objects(|| async {
        let world = World::new().await;
        let source = world.store.writer(&name("source")).unwrap();
        let elsewhere = Arc::new(MemoryBucket::new("elsewhere", Versioning::Off, world.clock.clone()));
        let copy = Arc::new(Through::new(source.clone(), elsewhere.clone()));
        AWAY.lock().unwrap().push(world.folder);
        objects::Buckets { source, destination: elsewhere.clone(), copy, purge: elsewhere }
    })
    .await;
    objects::objects(|| async {
        let world = World::new().await;
        let copies = name("copies");
        let elsewhere = Arc::new(MemoryBucket::new("elsewhere", Versioning::On, world.clock.clone()));
        let copy = Arc::new(Through::new(elsewhere.clone(), world.store.writer(&copies).unwrap()));
        let destination = world.store.reader(&copies).unwrap();
        let purge = world.store.purger(&copies).unwrap();
        AWAY.lock().unwrap().push(world.folder);
        objects::Buckets { source: elsewhere, destination, copy, purge }
    })
    .await;
    AWAY.lock().unwrap().clear();
}

static AWAY: std::sync::Mutex<Vec<TempDir>> = std::sync::Mutex::new(Vec::new());

static FOLDERS: std::sync::Mutex<Vec<TempDir>> = std::sync::Mutex::new(Vec::new());

#[tokio::test]
async fn the_spool_conforms() {
    events::events(|| async {
        let world = World::new().await;
        let (spool, clock) = (Arc::clone(world.store.spool()), Arc::clone(&world.clock));
        let source = Arc::clone(&spool);
        let store = Arc::clone(&world.store);
        SPOOLS.lock().unwrap().push(world.folder);
        let push: events::Push = Box::new(move |bucket, event| {
            let (source, _store) = (Arc::clone(&source), Arc::clone(&store));
            Box::pin(async move { source.push(bucket, vec![event]).await.unwrap() })
        });
        events::Queue { queue: spool.clone(), dead: spool, push, clock }
    })
    .await;
    SPOOLS.lock().unwrap().clear();
}

static SPOOLS: std::sync::Mutex<Vec<TempDir>> = std::sync::Mutex::new(Vec::new());

#[tokio::test]
async fn a_restored_folder_has_whole_files_under_their_names_and_nothing_else() {
    use engine::ports::objects::{ObjectRead, ObjectWrite, Written};
    let (folder, clock) = (TempDir::new().unwrap(), Arc::new(MemoryClock::at(UnixMs(0))));
    let at = folder.path().join("back");
    let nonces = Arc::new(crate::clock::SystemNonces::new().unwrap());
    let target = super::super::FolderTarget::open(&at, clock, nonces).unwrap();
    for text in ["notes/plan.txt", "../evil", "notes"] {
        let put =
            async |onto| target.put(&key(text), body(Bytes::from(text)), &Attributes::default(), onto).await.unwrap();
        let Written::Done(head) = put(Onto::Nothing).await else { panic!("{text} was not there") };
        assert_eq!(put(Onto::Nothing).await, Written::DestinationChanged);
        assert_eq!(target.head(&key(text), None).await.unwrap().unwrap().version, head.version);
        let object = target.get(&key(text), None, None).await.unwrap().unwrap();
        assert_eq!(collect(object.body).await.unwrap(), text);
    }
    let broken = PortError::new("read body", "x", ErrorKind::Unavailable);
    let pieces: engine::ports::objects::ByteStream =
        futures_util::StreamExt::boxed(futures_util::stream::iter([Ok(Bytes::from("half")), Err(broken)]));
    assert!(target.put(&key("x"), pieces, &Attributes::default(), Onto::Anything).await.is_err());
    drop(target);
    let mut names: Vec<_> = std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["%2E%2E", "notes", "notes%"]);
    assert_eq!(std::fs::read_to_string(at.join("notes/plan.txt")).unwrap(), "notes/plan.txt");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing outside of the folder");
}
