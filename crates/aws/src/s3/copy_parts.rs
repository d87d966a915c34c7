//! Copying what is larger than one CopyObject takes: an upload whose parts are copied server-side, side by side.
//!
//! Such an upload keeps nothing of the original by itself: content type, metadata, tags and storage class are given when
//! it begins. Each part is conditional on the tag; a failure aborts the upload. Laws: I1, I11.

use super::attributes::{Told, expires, metadata, quoted, tagging};
use super::copy::{Copier, copy_source, storage_class};
use super::parts::{Upload, part_size};
use crate::error_map::{is_absent, status};
use crate::limits::PARTS_IN_FLIGHT;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedPart};
use engine::error::{ErrorKind, PortResult};
use engine::ports::objects::{Copied, CopyRequest};
use futures_util::{StreamExt, TryStreamExt, stream};

/// How the copying of one part ended, where it did not fail.
enum Part {
    Done(CompletedPart),
    /// The original is gone, or another.
    Stop(Copied),
}

impl Copier {
    pub(super) async fn copy_in_parts(&self, request: &CopyRequest, source: &Told) -> PortResult<Copied> {
        let upload = self.begin(request, source).await?;
        let parts = match self.copy_parts(&upload, request, source.head.version.size).await {
            Ok(Ok(parts)) => parts,
            Ok(Err(stopped)) => {
                upload.abort().await;
                return Ok(stopped);
            }
            Err(error) => {
                upload.abort().await;
                return Err(error);
            }
        };
        let whole = source.head.checksum.filter(|_| self.to.is_aws());
        if !upload.complete(parts, whole, &request.onto).await? {
            return Ok(Copied::DestinationChanged);
        }
        let Some(there) = self.to.look(&request.to, None).await? else {
            return Ok(Copied::DestinationChanged); // deleted again right away
        };
        if there.head.version.size != source.head.version.size {
            let why = format!("the copy has {} bytes, not {}", there.head.version.size, source.head.version.size);
            return Err(self.call(request).failed(ErrorKind::Damaged(why)));
        }
        Ok(Copied::Done(there.head))
    }

    async fn begin(&self, request: &CopyRequest, source: &Told) -> PortResult<Upload> {
        // A HEAD need not tell how many there are.
        let tags = self.from.tags(&request.from, request.version.version_id.as_ref()).await?;
        let mut all = metadata(&source.attributes);
        all.extend(request.add_metadata.clone());
        // S3 compares the whole object's checksum when the upload is completed, where the original has one.
        let checked = source.head.checksum.is_some() && self.to.is_aws();
        let attributes = &source.attributes;
        let begun = self
            .to
            .client
            .create_multipart_upload()
            .bucket(&self.to.name)
            .key(request.to.as_str())
            .set_metadata(Some(all))
            .set_content_type(attributes.content_type.clone())
            .set_content_encoding(attributes.content_encoding.clone())
            .set_content_disposition(attributes.content_disposition.clone())
            .set_content_language(attributes.content_language.clone())
            .set_cache_control(attributes.cache_control.clone())
            .set_expires(expires(attributes))
            .set_tagging(tagging(&tags))
            .set_storage_class(storage_class(&source.head))
            .set_checksum_algorithm(checked.then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(checked.then_some(ChecksumType::FullObject))
            .send()
            .await;
        let begun = begun.map_err(|error| self.call(request).sdk(error))?;
        Upload::begun(&self.to, &request.to, begun.upload_id(), &self.call(request))
    }

    async fn copy_parts(
        &self,
        upload: &Upload,
        request: &CopyRequest,
        size: u64,
    ) -> PortResult<Result<Vec<CompletedPart>, Copied>> {
        let step = part_size(size, self.to.sizes.part);
        let ranges = (0..size.div_ceil(step)).map(|n| (n + 1, n * step, size.min((n + 1) * step) - 1));
        let copies = ranges.map(|(number, first, last)| self.copy_part(upload, request, number, first, last));
        let mut copies = stream::iter(copies).buffered(PARTS_IN_FLIGHT);
        let mut parts = Vec::new();
        while let Some(part) = copies.try_next().await? {
            match part {
                Part::Done(part) => parts.push(part),
                Part::Stop(stopped) => return Ok(Err(stopped)),
            }
        }
        Ok(Ok(parts))
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        request: &CopyRequest,
        number: u64,
        first: u64,
        last: u64,
    ) -> PortResult<Part> {
        let number = i32::try_from(number).expect("at most 10,000 parts");
        let answer = self
            .to
            .client
            .upload_part_copy()
            .bucket(&self.to.name)
            .key(request.to.as_str())
            .upload_id(upload.id())
            .part_number(number)
            .copy_source(copy_source(&self.from.name, &request.from, request.version.version_id.as_ref()))
            .copy_source_if_match(quoted(&request.version.etag))
            .copy_source_range(format!("bytes={first}-{last}"))
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let result = answer.copy_part_result();
                let part = CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(result.and_then(|result| result.e_tag()).map(str::to_owned))
                    .set_checksum_crc64_nvme(result.and_then(|result| result.checksum_crc64_nvme()).map(str::to_owned));
                Ok(Part::Done(part.build()))
            }
            Err(error) if is_absent(&error) => Ok(Part::Stop(Copied::SourceGone)),
            Err(error) if status(&error) == Some(412) => Ok(Part::Stop(Copied::SourceChanged)),
            Err(error) => Err(self.call(request).sdk(error)),
        }
    }
}
