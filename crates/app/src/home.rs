//! Where the parts of a policy are: a bucket here or in a service, a catalog in a file or in a table; and the handles that
//! go with that, by privilege.
//!
//! What is on this machine is wrapped in the engine's retries, what is in a service tries again by itself. Bytes go through
//! this process where source and destination cannot copy to each other.

use crate::answer::Capacity;
use crate::exit::Failure;
use aws::S3Bucket;
use aws::dynamodb::{CapacityUsed, DynamoDbCatalog};
use engine::ports::catalog::{Catalog, CatalogKeys};
use engine::ports::objects::{ObjectCopy, ObjectPurge, ObjectRead, ObjectWrite};
use engine::wrap::retry::Retries;
use engine::wrap::through::Through;
use local::sqlite::catalog::SqliteCatalog;
use local::store::{BucketName, Store};
use std::sync::Arc;

/// Where a bucket is.
#[derive(Clone)]
pub(crate) enum Home {
    /// In the data folder, or in a folder of its own on this machine.
    Here(BucketName),
    /// In a service.
    There(S3Bucket),
}

impl Home {
    /// The bucket, if it is on this machine.
    pub(crate) fn here(&self) -> Option<&BucketName> {
        match self {
            Home::Here(name) => Some(name),
            Home::There(_) => None,
        }
    }

    /// The bucket, if it is in a service.
    pub(crate) fn there(&self) -> Option<&S3Bucket> {
        match self {
            Home::Here(_) => None,
            Home::There(bucket) => Some(bucket),
        }
    }

    pub(crate) fn reader(&self, store: &Arc<Store>, retries: &Retries) -> Result<Arc<dyn ObjectRead>, Failure> {
        Ok(match self {
            Home::Here(name) => retries.read(store.reader(name)?),
            Home::There(bucket) => bucket.reader(),
        })
    }

    /// The right to write it: a source's is held by `restore` and `undelete` only (I5).
    pub(crate) fn writer(&self, store: &Arc<Store>) -> Result<Arc<dyn ObjectWrite>, Failure> {
        Ok(match self {
            Home::Here(name) => store.writer(name)?,
            Home::There(bucket) => bucket.writer(),
        })
    }

    /// The right to delete from it, for a `Purger` only (I3).
    pub(crate) fn purger(&self, store: &Arc<Store>, retries: &Retries) -> Result<Arc<dyn ObjectPurge>, Failure> {
        Ok(match self {
            Home::Here(name) => retries.purge(store.purger(name)?),
            Home::There(bucket) => bucket.purger(),
        })
    }

    /// Copies from `from` to this one: inside one store or service without moving bytes, else through this process.
    pub(crate) fn copier(
        &self,
        from: &Home,
        store: &Arc<Store>,
        retries: &Retries,
    ) -> Result<Arc<dyn ObjectCopy>, Failure> {
        match (from, self) {
            (Home::Here(from), Home::Here(to)) => return Ok(retries.copy(store.copier(from, to)?)),
            (Home::There(from), Home::There(to)) => {
                if let Some(copier) = to.copier(from) {
                    return Ok(copier);
                }
            }
            _ => {}
        }
        let through = Through::new(from.reader(store, retries)?, self.writer(store)?);
        // A body that breaks off is nobody's to try again but the copy's as a whole.
        Ok(retries.copy(Arc::new(through)))
    }
}

/// Where a catalog is.
#[derive(Clone)]
pub(crate) enum Kept {
    /// In a file of the data folder.
    File(Arc<SqliteCatalog>),
    /// In a table.
    Table(Arc<DynamoDbCatalog>),
}

impl Kept {
    pub(crate) fn catalog(&self, retries: &Retries) -> Arc<dyn Catalog> {
        match self {
            Kept::File(catalog) => retries.catalog(catalog.clone()),
            Kept::Table(catalog) => catalog.clone(),
        }
    }

    /// The listing of its keys: a table has none, and its policy walks over the destination instead (I9).
    pub(crate) fn keys(&self, retries: &Retries) -> Option<Arc<dyn CatalogKeys>> {
        match self {
            Kept::File(catalog) => Some(retries.keys(catalog.clone())),
            Kept::Table(_) => None,
        }
    }

    /// The table, if it is in one.
    pub(crate) fn table(&self) -> Option<&Arc<DynamoDbCatalog>> {
        match self {
            Kept::File(_) => None,
            Kept::Table(catalog) => Some(catalog),
        }
    }

    /// What its service charged since the start.
    pub(crate) fn capacity(&self) -> Option<Capacity> {
        match self {
            Kept::File(_) => None,
            Kept::Table(catalog) => {
                let CapacityUsed { read, write, calls } = catalog.capacity_used();
                Some(Capacity { read, write, calls })
            }
        }
    }

    /// Answers what was asked before, then closes the file.
    pub(crate) async fn close(&self) {
        match self {
            Kept::File(catalog) => catalog.close().await,
            Kept::Table(_) => {}
        }
    }
}
