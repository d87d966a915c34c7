//! The ports in memory pass the suites: so the simulation runs on what the real adapters do.

use crate::memory::bucket::{MemoryBucket, Versioning};
use crate::memory::catalog::MemoryCatalog;
use crate::memory::clock::MemoryClock;
use crate::memory::copier::MemoryCopier;
use crate::memory::journal::MemoryJournal;
use crate::memory::queue::MemoryQueue;
use crate::ports::catalog::{Catalog, CatalogKeys};
use crate::ports::journal::{Journal, JournalRead};
use lifecycle::time::UnixMs;
use std::sync::Arc;

#[tokio::test]
async fn the_catalog_in_memory_conforms() {
    super::catalog::catalog(|| async { Arc::new(MemoryCatalog::default()) as Arc<dyn Catalog> }).await;
    super::catalog::catalog_keys(|| async {
        let catalog = Arc::new(MemoryCatalog::default());
        (Arc::clone(&catalog) as Arc<dyn Catalog>, catalog as Arc<dyn CatalogKeys>)
    })
    .await;
}

#[tokio::test]
async fn the_journal_in_memory_conforms() {
    super::journal::journal(|| async {
        let journal = Arc::new(MemoryJournal::default());
        (Arc::clone(&journal) as Arc<dyn Journal>, journal as Arc<dyn JournalRead>)
    })
    .await;
}

#[tokio::test]
async fn buckets_in_memory_conform() {
    for versioning in [Versioning::On, Versioning::Off] {
        super::objects::objects(|| async move {
            let clock = Arc::new(MemoryClock::at(UnixMs(1_795_000_000_000)));
            let source = Arc::new(MemoryBucket::new("source", versioning, clock.clone()));
            let destination = Arc::new(MemoryBucket::new("copies", Versioning::Off, clock));
            let copy = MemoryCopier::new(Arc::clone(&source), Arc::clone(&destination));
            super::objects::Buckets {
                source,
                destination: destination.clone(),
                copy: Arc::new(copy),
                purge: destination,
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_queue_in_memory_conforms() {
    super::events::events(|| async {
        let clock = Arc::new(MemoryClock::at(UnixMs(1_795_000_000_000)));
        let queue = Arc::new(MemoryQueue::new(clock.clone()));
        let source = Arc::clone(&queue);
        let push: super::events::Push = Box::new(move |bucket, event| {
            source.push(bucket, event);
            Box::pin(async {})
        });
        super::events::Queue { queue: queue.clone(), dead: queue, push, clock }
    })
    .await;
}
