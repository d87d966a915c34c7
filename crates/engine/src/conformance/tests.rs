//! The ports in memory pass the suites: so the simulation runs on what the real adapters do.

use crate::memory::catalog::MemoryCatalog;
use crate::memory::journal::MemoryJournal;
use crate::ports::catalog::{Catalog, CatalogKeys};
use crate::ports::journal::{Journal, JournalRead};
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
