//! Uploads in parts: how large a part is, how an upload is completed and aborted.
//!
//! A crash leaves an upload that was not completed. Nothing of it is visible; a lifecycle rule for incomplete uploads, which
//! every destination should have, removes its parts.

use super::S3Bucket;
use super::attributes::{checksum_text, quoted};
use crate::error_map::{Call, status};
use crate::limits::{COPY_WAIT, PARTS_MAX};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload, CompletedPart};
use engine::error::{ErrorKind, PortResult};
use engine::ports::objects::Onto;
use lifecycle::ids::{Checksum, ObjectKey};

/// One upload that has begun.
pub(super) struct Upload {
    bucket: S3Bucket,
    key: ObjectKey,
    id: String,
}

impl Upload {
    pub(super) fn begun(bucket: &S3Bucket, key: &ObjectKey, id: Option<&str>, call: &Call) -> PortResult<Upload> {
        let no_id = || call.failed(ErrorKind::Damaged("an upload began without an id".to_owned()));
        Ok(Upload { bucket: bucket.clone(), key: key.clone(), id: id.ok_or_else(no_id)?.to_owned() })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Joins the parts. `false`: the destination did not meet the condition, and the upload is aborted. `whole` is
    /// compared by S3, where it is given. An error aborts the upload, too.
    pub(super) async fn complete(
        &self,
        parts: Vec<CompletedPart>,
        whole: Option<Checksum>,
        onto: &Onto,
    ) -> PortResult<bool> {
        let timeouts = TimeoutConfig::builder().read_timeout(COPY_WAIT).build();
        let complete = self
            .bucket
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket.name)
            .key(self.key.as_str())
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_checksum_crc64_nvme(whole.map(checksum_text))
            .set_checksum_type(whole.map(|_| ChecksumType::FullObject));
        let complete = match onto {
            Onto::Anything => complete,
            Onto::Nothing => complete.if_none_match("*"),
            Onto::This(etag) => complete.if_match(quoted(etag)),
        };
        let answer = complete
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) => {
                self.abort().await;
                match status(&error) {
                    Some(412 | 409) if *onto != Onto::Anything => Ok(false),
                    _ => Err(self.bucket.call("complete upload of", "s3:PutObject", &self.key).sdk(error)),
                }
            }
        }
    }

    /// Gives the parts up. A failure leaves them to the bucket's lifecycle: nothing of them is visible.
    pub(super) async fn abort(&self) {
        let aborted = self
            .bucket
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket.name)
            .key(self.key.as_str())
            .upload_id(&self.id)
            .send()
            .await;
        if let Err(error) = aborted {
            let error = self.bucket.call("abort upload of", "s3:AbortMultipartUpload", &self.key).sdk(error);
            tracing::warn!(upload = %self.id, %error, "an upload was not aborted: its parts stay until they expire");
        }
    }
}

/// How large the parts of an object of that size are: the usual size, or whatever makes 10,000 of them enough (objects
/// may have 50 TB, a part 5 GiB).
pub(super) fn part_size(size: u64, usual: u64) -> u64 {
    usual.max(size.div_ceil(PARTS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COPY_PART_BYTES;

    #[test]
    fn ten_thousand_parts_are_always_enough_and_none_is_too_large() {
        const PART_MAX: u64 = 5 * 1024 * 1024 * 1024;
        for size in [1, COPY_PART_BYTES, 5 << 30, (5 << 30) + 1, 1 << 40, 50 * 1000_u64.pow(4)] {
            let part = part_size(size, COPY_PART_BYTES);
            assert!(part <= PART_MAX && size.div_ceil(part) <= PARTS_MAX, "{size}: {part}");
        }
        assert_eq!(part_size(6 << 30, COPY_PART_BYTES), COPY_PART_BYTES);
    }
}
