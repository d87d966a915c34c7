//! Writing a bucket from a stream: small bodies in one request, larger ones in parts, which become visible together. No more
//! than two parts is in memory (I11): for a body of known size the smallest of which 10,000 are enough.
//!
//! A body that ends in an error leaves nothing visible: the upload is aborted. A crash leaves an upload that was not
//! completed, or the whole object. Law: I5 (a source's handle is held by `restore` and `undelete` only).

use super::S3Bucket;
use super::attributes::{checksum_text, etag, expires, metadata, quoted, tagging, version_id};
use super::parts::{Upload, part_size};
use crate::error_map::{Call, status};
use crate::limits::{PART_BYTES, PARTS_MAX, PARTS_OF_ONE_SIZE, SENT_PART_BYTES_MAX, WRITE_PART_BYTES_MAX};
use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream as SdkStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use engine::error::{ErrorKind, PortResult};
use engine::ports::objects::{Attributes, ByteStream, Head, ObjectWrite, Onto, Written};
use futures_util::TryStreamExt;
use lifecycle::event::Version;
use lifecycle::ids::{Checksum, ObjectKey};
use md5::{Digest, Md5};

const RIGHTS: &str = "s3:PutObject and s3:PutObjectTagging (and kms:GenerateDataKey where KMS encrypts)";

#[async_trait]
impl ObjectWrite for S3Bucket {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        self.put_pieces(key, body, Parts::Growing, attributes, onto).await
    }

    async fn put_sized(
        &self,
        key: &ObjectKey,
        body: ByteStream,
        size: u64,
        attributes: &Attributes,
        onto: Onto,
    ) -> PortResult<Written> {
        let part = part_size(size, PART_BYTES);
        if part > SENT_PART_BYTES_MAX {
            let most = SENT_PART_BYTES_MAX * PARTS_MAX;
            let why = format!(
                "{size} bytes do not go through this process, which would hold too much of them: at most {most}"
            );
            return Err(self.call("write object", RIGHTS, key).failed(ErrorKind::Invalid(why)));
        }
        self.put_pieces(key, body, Parts::Of(part), attributes, onto).await
    }

    /// One request: what is there is not looked at, before or after.
    async fn put_new(&self, key: &ObjectKey, content: Bytes, attributes: &Attributes) -> PortResult<bool> {
        Ok(self.put_whole(key, content, attributes, &Onto::Nothing).await?.is_some())
    }

    /// Asked without looking first, as `put` does: the answer must be the store's own.
    async fn heeds_conditions(&self, probe: &ObjectKey) -> PortResult<bool> {
        for _ in 0..2 {
            let (body, plain) = (Bytes::from_static(b"{}"), Attributes::default());
            if !self.put_new(probe, body, &plain).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl S3Bucket {
    async fn put_pieces(
        &self,
        key: &ObjectKey,
        body: ByteStream,
        sizes: Parts,
        attributes: &Attributes,
        onto: Onto,
    ) -> PortResult<Written> {
        // Not every store heeds a condition: it is looked at, too.
        if !self.meets(key, &onto).await? {
            return Ok(Written::DestinationChanged);
        }
        let mut pieces = Pieces { body, sizes, rest: BytesMut::new(), crc64: crc64fast_nvme::Digest::new(), size: 0 };
        let first = pieces.part(1).await?;
        if (first.len() as u64) < sizes.bytes(1) {
            return self.put_at_once(key, first, attributes, &onto).await;
        }
        self.put_in_parts(key, first, pieces, attributes, &onto).await
    }

    async fn put_at_once(
        &self,
        key: &ObjectKey,
        body: Bytes,
        attributes: &Attributes,
        onto: &Onto,
    ) -> PortResult<Written> {
        match self.put_whole(key, body, attributes, onto).await? {
            Some(version) => self.written(key, version).await,
            None => Ok(Written::DestinationChanged),
        }
    }

    /// Sends a body in one request; `None`: the store says that its condition does not hold.
    async fn put_whole(
        &self,
        key: &ObjectKey,
        body: Bytes,
        attributes: &Attributes,
        onto: &Onto,
    ) -> PortResult<Option<Version>> {
        let put = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key.as_str())
            .set_metadata(Some(metadata(attributes)))
            .set_content_type(attributes.content_type.clone())
            .set_content_encoding(attributes.content_encoding.clone())
            .set_content_disposition(attributes.content_disposition.clone())
            .set_content_language(attributes.content_language.clone())
            .set_cache_control(attributes.cache_control.clone())
            .set_expires(expires(attributes))
            .set_tagging(tagging(&attributes.tags));
        // Whichever checksum the store knows: it refuses a body that changed on its way.
        let put = match self.is_aws() {
            true => put.checksum_crc64_nvme(checksum_text(checksum_of(&body))),
            false => put.content_md5(BASE64.encode(Md5::digest(&body))),
        };
        let put = match onto {
            Onto::Anything => put,
            Onto::Nothing => put.if_none_match("*"),
            Onto::This(etag) => put.if_match(quoted(etag)),
        };
        let size = body.len() as u64;
        match put.body(SdkStream::from(body)).send().await {
            Ok(answer) => {
                let (version_id, etag) = (version_id(answer.version_id()), etag(answer.e_tag().unwrap_or_default()));
                Ok(Some(Version { version_id, etag, size }))
            }
            Err(error) if *onto != Onto::Anything && matches!(status(&error), Some(412 | 409)) => Ok(None),
            Err(error) => Err(self.call("write object", RIGHTS, key).sdk(error)),
        }
    }

    async fn put_in_parts(
        &self,
        key: &ObjectKey,
        first: Bytes,
        pieces: Pieces,
        attributes: &Attributes,
        onto: &Onto,
    ) -> PortResult<Written> {
        let call = self.call("write object", RIGHTS, key);
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.name)
            .key(key.as_str())
            .set_metadata(Some(metadata(attributes)))
            .set_content_type(attributes.content_type.clone())
            .set_content_encoding(attributes.content_encoding.clone())
            .set_content_disposition(attributes.content_disposition.clone())
            .set_content_language(attributes.content_language.clone())
            .set_cache_control(attributes.cache_control.clone())
            .set_expires(expires(attributes))
            .set_tagging(tagging(&attributes.tags))
            .set_checksum_algorithm(self.is_aws().then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(self.is_aws().then_some(ChecksumType::FullObject))
            .send()
            .await
            .map_err(|error| call.sdk(error))?;
        let upload = Upload::begun(self, key, begun.upload_id(), &call)?;
        let (parts, checksum, size) = match self.put_parts(key, &upload, first, pieces, &call).await {
            Ok(sent) => sent,
            Err(error) => {
                upload.abort().await;
                return Err(error);
            }
        };
        if !upload.complete(parts, self.is_aws().then_some(checksum), onto).await? {
            return Ok(Written::DestinationChanged);
        }
        match self.look(key, None).await? {
            Some(there) if there.head.version.size == size => Ok(Written::Done(there.head)),
            Some(there) => {
                let why = format!("what was written has {} bytes, not {size}", there.head.version.size);
                Err(call.failed(ErrorKind::Damaged(why)))
            }
            None => Ok(Written::DestinationChanged), // deleted again right away
        }
    }

    /// Sends the parts; then their tags, and the checksum and size of the whole.
    async fn put_parts(
        &self,
        key: &ObjectKey,
        upload: &Upload,
        first: Bytes,
        mut pieces: Pieces,
        call: &Call,
    ) -> PortResult<(Vec<CompletedPart>, Checksum, u64)> {
        let (mut parts, mut number, mut piece) = (Vec::new(), 1, first);
        while !piece.is_empty() {
            // One part is sent while the next one is read.
            let sending = self.put_part(key, upload, number, piece, call);
            let (sent, next) = tokio::try_join!(sending, pieces.part(number + 1))?;
            parts.push(sent);
            (number, piece) = (number + 1, next);
        }
        Ok((parts, Checksum(pieces.crc64.sum64()), pieces.size))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &Upload,
        number: u64,
        piece: Bytes,
        call: &Call,
    ) -> PortResult<CompletedPart> {
        if number > PARTS_MAX {
            let why = "the body is larger than 10,000 parts hold".to_owned();
            return Err(call.failed(ErrorKind::Invalid(why)));
        }
        let number = i32::try_from(number).expect("at most 10,000");
        let put = self.client.upload_part().bucket(&self.name).key(key.as_str()).upload_id(upload.id());
        let put = match self.is_aws() {
            true => put.checksum_crc64_nvme(checksum_text(checksum_of(&piece))),
            false => put.content_md5(BASE64.encode(Md5::digest(&piece))),
        };
        let answer = put.part_number(number).body(SdkStream::from(piece)).send().await;
        let answer = answer.map_err(|error| call.sdk(error))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag().map(str::to_owned))
            .set_checksum_crc64_nvme(answer.checksum_crc64_nvme().map(str::to_owned))
            .build())
    }

    /// What was written, with the time that the store gave it.
    async fn written(&self, key: &ObjectKey, version: Version) -> PortResult<Written> {
        match self.look(key, version.version_id.as_ref()).await? {
            Some(there) if there.head.version.etag == version.etag => Ok(Written::Done(Head { version, ..there.head })),
            // Replaced right away: what was written was there.
            _ => Ok(Written::DestinationChanged),
        }
    }
}

/// How large the parts of a body are.
#[derive(Clone, Copy)]
enum Parts {
    /// All but the last are of this size.
    Of(u64),
    /// How long the body is nobody knows: they grow with their number, so that 10,000 of them hold 270 GiB and a small body
    /// takes little memory.
    Growing,
}

impl Parts {
    fn bytes(self, number: u64) -> u64 {
        match self {
            Parts::Of(bytes) => bytes,
            Parts::Growing => {
                let doublings = u32::try_from(number / PARTS_OF_ONE_SIZE).unwrap_or(u32::MAX);
                PART_BYTES.saturating_mul(2_u64.saturating_pow(doublings)).min(WRITE_PART_BYTES_MAX)
            }
        }
    }
}

/// A body cut into parts, and summed up on the way.
struct Pieces {
    body: ByteStream,
    sizes: Parts,
    rest: BytesMut,
    crc64: crc64fast_nvme::Digest,
    size: u64,
}

impl Pieces {
    /// The part of that number, which is the next one: shorter than it should be, or empty, at the end only.
    async fn part(&mut self, number: u64) -> PortResult<Bytes> {
        let wanted = usize::try_from(self.sizes.bytes(number)).expect("a part fits in memory");
        while self.rest.len() < wanted {
            let Some(more) = self.body.try_next().await? else { break };
            self.crc64.write(&more);
            self.size += more.len() as u64;
            self.rest.extend_from_slice(&more);
        }
        Ok(self.rest.split_to(wanted.min(self.rest.len())).freeze())
    }
}

fn checksum_of(bytes: &[u8]) -> Checksum {
    let mut crc64 = crc64fast_nvme::Digest::new();
    crc64.write(bytes);
    Checksum(crc64.sum64())
}
