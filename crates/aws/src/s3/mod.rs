//! A bucket of S3, or of a store that speaks its protocol, behind the engine's object ports.
//!
//! Place: sources and destinations of policies. Handles are given out by privilege: [`S3Bucket::reader`],
//! [`S3Bucket::writer`], [`S3Bucket::purger`], and [`S3Bucket::copier`] between two buckets of one service. What a crash
//! leaves stands at the head of each part. Laws: I1, I5 (a source is only ever read), I10, I11, V8.

mod attributes;
mod copy;
mod copy_parts;
mod parts;
mod purge;
mod read;
mod rules;
mod write;

use crate::error_map::Call;
use crate::limits::{COPY_PART_BYTES, SINGLE_COPY_BYTES_MAX};
use crate::service::Service;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::BucketVersioningStatus;
use engine::error::PortResult;
use engine::ports::bucket_rules::BucketRules;
use engine::ports::objects::{ObjectCopy, ObjectPurge, ObjectRead, ObjectWrite};
use engine::wrap::lazy::Lazy;
use lifecycle::ids::ObjectKey;
use std::sync::Arc;

/// One bucket.
#[derive(Clone, Debug)]
pub struct S3Bucket {
    client: Client,
    service: Service,
    name: String,
    /// Asked for when it is first needed, of the service itself.
    versioned: Arc<Lazy<bool>>,
    sizes: CopySizes,
}

/// How large objects are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopySizes {
    /// Up to this size in one request; at most 5 GiB.
    pub single_max: u64,
    /// The usual size of a part above that; at least 5 MiB. Grows where 10,000 parts would not be enough.
    pub part: u64,
}

impl Default for CopySizes {
    fn default() -> CopySizes {
        CopySizes { single_max: SINGLE_COPY_BYTES_MAX, part: COPY_PART_BYTES }
    }
}

impl S3Bucket {
    /// A bucket by its name: nothing is asked yet, so that an outage keeps nobody from what else they have.
    pub fn new(service: &Service, config: &SdkConfig, name: &str) -> S3Bucket {
        S3Bucket {
            client: service.s3(config),
            service: service.clone(),
            name: name.to_owned(),
            versioned: Arc::default(),
            sizes: CopySizes::default(),
        }
    }

    /// A bucket that answers. Errors: it is not there, the credentials may not look, or no answer came.
    pub async fn open(service: &Service, config: &SdkConfig, name: &str) -> PortResult<S3Bucket> {
        let bucket = S3Bucket::new(service, config, name);
        bucket.is_versioned().await?;
        Ok(bucket)
    }

    /// The same bucket with other sizes for copies into it: parts are copied side by side, which may be faster.
    pub fn copying_by(self, sizes: CopySizes) -> S3Bucket {
        S3Bucket { sizes, ..self }
    }

    /// Whether it keeps versions, or did. Asked once.
    pub async fn is_versioned(&self) -> PortResult<bool> {
        self.versioned.get(|| self.ask_for_versions()).await
    }

    async fn ask_for_versions(&self) -> PortResult<bool> {
        let call = Call::new("open bucket", "s3:GetBucketVersioning", format!("s3://{}", self.name));
        match self.client.get_bucket_versioning().bucket(&self.name).send().await {
            // Suspended, it may still hold the versions from before.
            Ok(answer) => {
                Ok(matches!(answer.status(), Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)))
            }
            Err(error) => match call.sdk(error) {
                // A store without versions may not know the question.
                error if error.kind == engine::error::ErrorKind::Unsupported => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Reads it.
    pub fn reader(&self) -> Arc<dyn ObjectRead> {
        Arc::new(self.clone())
    }

    /// Writes it: a destination, or, for `restore` and `undelete` only, a source (I5).
    pub fn writer(&self) -> Arc<dyn ObjectWrite> {
        Arc::new(self.clone())
    }

    /// Deletes from it.
    pub fn purger(&self) -> Arc<dyn ObjectPurge> {
        Arc::new(purge::Purger::of(self.clone()))
    }

    /// Its lifecycle rules: whoever calls this needs the right to change them.
    pub fn rules(&self) -> Arc<dyn BucketRules> {
        Arc::new(rules::Rules(self.clone()))
    }

    /// Copies from another bucket to it, inside the service. `None`: the two are of different services, between which
    /// bytes go through this process (`crates/engine/src/wrap/through.rs`).
    pub fn copier(&self, from: &S3Bucket) -> Option<Arc<dyn ObjectCopy>> {
        // Regions and accounts of AWS copy between each other; the destination's service asks the source's.
        let both_aws = from.service.endpoint.is_none() && self.service.endpoint.is_none();
        let same = from.service.endpoint == self.service.endpoint;
        (both_aws || same)
            .then(|| Arc::new(copy::Copier { from: from.clone(), to: self.clone() }) as Arc<dyn ObjectCopy>)
    }

    /// Whether it is AWS's own S3, which knows every checksum and condition.
    fn is_aws(&self) -> bool {
        self.service.endpoint.is_none()
    }

    fn call(&self, attempted: &'static str, action: &'static str, key: &ObjectKey) -> Call {
        Call::new(attempted, action, format!("s3://{}/{key}", self.name))
    }
}
