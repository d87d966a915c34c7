//! Multipart uploads: begun, filled, completed or aborted. Nothing of them is visible before they are completed.

use super::attributes::{ShownChecksums, from_request, with_sums};
use super::buckets::page_limit;
use super::checks::{ALGORITHMS, CRC64, checksum_of};
use super::conditions::timestamp;
use super::faults::{from_store, named, not_implemented};
use super::limits::{ENDPOINT_PAGE, ENDPOINT_PARTS, ENDPOINT_QUIET};
use super::objects::{Upload, onto, or_missing};
use super::owner;
use super::service::{Service, object_key};
use crate::store::{Bucket, CompleteExpectation, CompletePart, ObjectInfo, PartInfo, UploadId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::ports::clock::Clock;
use engine::ports::objects::Onto;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use lifecycle::ids::{Checksum, ETag as Tag, ObjectKey};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, ETag, Initiator, ListPartsInput, ListPartsOutput, Part, StorageClass, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeMap;

/// Begins an upload.
pub(super) async fn create(
    service: &Service,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let S3Request { input, headers, .. } = request;
    checksum_kind(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key.clone())?;
    let attributes = from_request(&headers, input.metadata, input.tagging.as_deref())?;
    let upload = bucket.create_upload(&key, attributes).await.map_err(from_store)?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.0),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        ..CreateMultipartUploadOutput::default()
    }))
}

/// Of an upload's object there is CRC-64/NVME over the whole, and every other algorithm over the parts' checksums.
fn checksum_kind(algorithm: Option<&ChecksumAlgorithm>, kind: Option<&ChecksumType>) -> S3Result<()> {
    let name = algorithm.map(|algorithm| algorithm.as_str().to_ascii_lowercase());
    if let Some(name) = &name
        && !ALGORITHMS.iter().any(|(known, _)| known == name)
    {
        return Err(not_implemented(format!("the checksum algorithm `{name}`")));
    }
    let own = name.as_deref().is_none_or(|name| name == CRC64);
    match kind.map(ChecksumType::as_str) {
        None => Ok(()),
        Some(ChecksumType::FULL_OBJECT) if own => Ok(()),
        Some(ChecksumType::COMPOSITE) if !own => Ok(()),
        Some(other) => Err(not_implemented(format!(
            "the checksum type `{other}` with the algorithm `{}`",
            name.unwrap_or_default()
        ))),
    }
}

/// A part's number, 1 to 10,000.
pub(super) fn part_number(number: i32) -> S3Result<u32> {
    let number = u32::try_from(number).ok().filter(|number| (1..=ENDPOINT_PARTS).contains(number));
    number.ok_or_else(|| s3_error!(InvalidArgument, "part numbers lie between 1 and {ENDPOINT_PARTS}"))
}

/// Stores one part.
pub(super) async fn upload_part(
    service: &Service,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request { input, headers, trailing_headers, .. } = request;
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    let number = part_number(input.part_number)?;
    let upload = UploadId(input.upload_id);
    let Upload { promises, body, fault } =
        Upload::read(&headers, trailing_headers, input.content_length, input.body, &key)?;
    let part = bucket.put_part(&key, &upload, number, Some(Box::new(promises)), body).await;
    let part = part.map_err(|error| fault.or(error))?;
    let sums = ShownChecksums::from_map(&part.checksums, None);
    Ok(S3Response::new(with_sums!(sums => UploadPartOutput {
        e_tag: Some(ETag::Strong(part.etag.to_string())),
        ..UploadPartOutput::default()
    })))
}

/// Makes the object of its parts. Joining large parts takes a while: a client that hears nothing would give up and ask again.
pub(super) async fn complete(
    service: &Service,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let S3Request { input, headers, .. } = request;
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key.clone())?;
    let upload = UploadId(input.upload_id);
    let onto = onto(&headers)?;
    let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let parts = parts_in_order(&listed)?;
    let (shown_bucket, shown_key) = (input.bucket, input.key);
    let stored = match stored_parts(&bucket, &key, &upload).await {
        Err(error) if *error.code() == S3ErrorCode::NoSuchUpload => {
            let info = bucket.completed_upload(&key, &upload, &parts).await.map_err(from_store)?.ok_or(error)?;
            return Ok(S3Response::new(completed(shown_bucket, shown_key, &info)));
        }
        stored => stored?,
    };
    parts_match(&listed, &stored)?;
    let chosen: Vec<&PartInfo> = parts.iter().filter_map(|part| stored.get(&part.number)).collect();
    let expected = expectation(&headers, input.mpu_object_size, &chosen)?;
    let matching = matches!(onto, Onto::This(_)).then(|| key.clone());
    // A key with control characters needs an answer that is looked through as a whole.
    let patient = key.as_str().contains(char::is_control);
    let joining = async move {
        match bucket.complete_upload(&key, &upload, &parts, onto, expected).await {
            Ok(info) => Ok(completed(shown_bucket, shown_key, &info)),
            Err(error) => Err(from_store(or_missing(&bucket, matching, error).await)),
        }
    };
    if patient {
        return Ok(S3Response::new(joining.await?));
    }
    match soon(joining.boxed(), service.clock.as_ref()).await {
        Ok(done) => Ok(S3Response::new(done?)),
        // From here on the status is told: what goes wrong stands in the body, as in S3.
        Err(later) => {
            let output = CompleteMultipartUploadOutput { future: Some(later), ..Default::default() };
            Ok(S3Response::new(output))
        }
    }
}

/// What the work comes to, if it ends soon; else the work, to be waited for while its client is kept interested.
async fn soon<T>(mut work: BoxFuture<'static, T>, clock: &dyn Clock) -> Result<T, BoxFuture<'static, T>> {
    tokio::select! {
        biased;
        done = &mut work => Ok(done),
        () = clock.sleep(ENDPOINT_QUIET) => Err(work),
    }
}

fn completed(bucket: String, key: String, info: &ObjectInfo) -> CompleteMultipartUploadOutput {
    let sums = ShownChecksums::of(info);
    with_sums!(sums => CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{key}")),
        bucket: Some(bucket),
        key: Some(key),
        e_tag: Some(ETag::Strong(info.version.etag.to_string())),
        checksum_type: sums.kind,
        ..CompleteMultipartUploadOutput::default()
    })
}

fn parts_in_order(listed: &[CompletedPart]) -> S3Result<Vec<CompletePart>> {
    if listed.is_empty() {
        return Err(s3_error!(MalformedXML, "completing an upload needs the list of its parts"));
    }
    let mut parts: Vec<CompletePart> = Vec::with_capacity(listed.len());
    for part in listed {
        let number = part_number(part.part_number.unwrap_or(0))?;
        if parts.last().is_some_and(|before| before.number >= number) {
            return Err(s3_error!(InvalidPartOrder, "the parts are not in ascending order"));
        }
        let etag = part.e_tag.as_ref().ok_or_else(|| s3_error!(MalformedXML, "part {number} has no tag"))?;
        parts.push(CompletePart { number, etag: Tag(etag.value().to_owned()) });
    }
    Ok(parts)
}

async fn stored_parts(bucket: &Bucket, key: &ObjectKey, upload: &UploadId) -> S3Result<BTreeMap<u32, PartInfo>> {
    let mut stored = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = bucket.parts(key, upload, after, ENDPOINT_PAGE).await.map_err(from_store)?;
        let last = page.parts.last().map(|part| part.number);
        stored.extend(page.parts.into_iter().map(|part| (part.number, part)));
        match last {
            // Numbers are at most 10,000 and rise from page to page.
            Some(last) if page.truncated && last > after => after = last,
            _ => return Ok(stored),
        }
    }
}

/// The checksums that the list of parts names are those that were verified when the parts came.
fn parts_match(listed: &[CompletedPart], stored: &BTreeMap<u32, PartInfo>) -> S3Result<()> {
    for part in listed {
        let number = u32::try_from(part.part_number.unwrap_or(0)).unwrap_or(0);
        let Some(info) = stored.get(&number) else { continue };
        let crc64 = STANDARD.encode(info.checksum.0.to_be_bytes());
        for (algorithm, told) in [
            ("crc32", &part.checksum_crc32),
            ("crc32c", &part.checksum_crc32c),
            (CRC64, &part.checksum_crc64nvme),
            ("sha1", &part.checksum_sha1),
            ("sha256", &part.checksum_sha256),
        ] {
            let own = (algorithm == CRC64).then_some(&crc64);
            let known = info.checksums.get(algorithm).or(own);
            if told.is_some() && told.as_ref() != known {
                return Err(s3_error!(InvalidPart, "part {number} was not uploaded with this {algorithm} checksum"));
            }
        }
    }
    Ok(())
}

/// What the request says about the whole object, and the composite checksums to keep with it.
fn expectation(headers: &HeaderMap, size: Option<i64>, parts: &[&PartInfo]) -> S3Result<CompleteExpectation> {
    let full = headers.get("x-amz-checksum-type").is_some_and(|kind| kind == ChecksumType::FULL_OBJECT);
    let mut expected = CompleteExpectation {
        size: size.map(u64::try_from).transpose().map_err(|_| s3_error!(InvalidArgument, "a negative size"))?,
        ..CompleteExpectation::default()
    };
    for (algorithm, _) in ALGORITHMS {
        let told = headers.get(format!("x-amz-checksum-{algorithm}")).and_then(|value| value.to_str().ok());
        if algorithm == CRC64 {
            expected.crc64 = told.map(crc64_of).transpose()?;
            continue;
        }
        if told.is_some() && full {
            return Err(not_implemented(format!("a {algorithm} checksum over a whole multipart object")));
        }
        let composite = composite(algorithm, parts);
        if let Some(told) = told {
            let actual = composite.as_deref().unwrap_or("unknown: not every part was uploaded with one");
            if actual != told && actual.split('-').next() != Some(told) {
                let message = format!("x-amz-checksum-{algorithm} is {actual}, but the request says {told}");
                return Err(named("BadDigest", StatusCode::BAD_REQUEST, message));
            }
        }
        if let Some(composite) = composite {
            expected.checksums.insert(algorithm.to_owned(), composite);
        }
    }
    Ok(expected)
}

fn crc64_of(text: &str) -> S3Result<Checksum> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| s3_error!(InvalidRequest, "`x-amz-checksum-crc64nvme` is no base64 of 8 bytes"))?;
    Ok(Checksum(u64::from_be_bytes(bytes)))
}

/// S3's checksum of checksums: `<base64>-<number of parts>`; only if every part has one.
fn composite(algorithm: &str, parts: &[&PartInfo]) -> Option<String> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(STANDARD.decode(part.checksums.get(algorithm)?).ok()?);
    }
    let sum = checksum_of(algorithm, &bytes)?;
    (!parts.is_empty()).then(|| format!("{sum}-{}", parts.len()))
}

/// Forgets an upload.
pub(super) async fn abort(
    service: &Service,
    input: AbortMultipartUploadInput,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key)?;
    bucket.abort_upload(&key, &UploadId(input.upload_id)).await.map_err(from_store)?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

/// The parts that an upload has so far.
pub(super) async fn list_parts(service: &Service, input: ListPartsInput) -> S3Result<S3Response<ListPartsOutput>> {
    let bucket = service.bucket(&input.bucket)?;
    let key = object_key(input.key.clone())?;
    let limit = page_limit(input.max_parts, "max-parts")?;
    let after = input.part_number_marker.unwrap_or(0);
    let after = u32::try_from(after).map_err(|_| s3_error!(InvalidArgument, "a negative part-number-marker"))?;
    let upload = UploadId(input.upload_id.clone());
    // A page of at least one, so that an unknown upload is always told.
    let mut page = bucket.parts(&key, &upload, after, limit.max(1)).await.map_err(from_store)?;
    if limit == 0 {
        page = crate::store::PartPage::default();
    }
    let next = page.parts.last().filter(|_| page.truncated).and_then(|part| i32::try_from(part.number).ok());
    let owner = owner();
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        initiator: Some(Initiator { display_name: owner.display_name.clone(), id: owner.id.clone() }),
        owner: Some(owner),
        is_truncated: Some(page.truncated),
        max_parts: i32::try_from(limit).ok(),
        part_number_marker: i32::try_from(after).ok(),
        next_part_number_marker: next,
        parts: Some(page.parts.into_iter().map(shown_part).collect()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..ListPartsOutput::default()
    }))
}

fn shown_part(part: PartInfo) -> Part {
    let sums = ShownChecksums::from_map(&part.checksums, None);
    with_sums!(sums => Part {
        e_tag: Some(ETag::Strong(part.etag.to_string())),
        last_modified: Some(timestamp(part.last_modified)),
        part_number: i32::try_from(part.number).ok(),
        size: i64::try_from(part.size).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::time::UnixMs;

    fn part(number: u32, crc32: Option<&[u8]>) -> PartInfo {
        let checksums = crc32.map(|bytes| ("crc32".to_owned(), checksum_of("crc32", bytes).unwrap()));
        PartInfo {
            number,
            etag: Tag::from("e"),
            size: 1,
            last_modified: UnixMs(0),
            checksum: Checksum(7),
            checksums: checksums.into_iter().collect(),
        }
    }

    #[tokio::test]
    async fn work_that_takes_long_is_handed_back_and_goes_on() {
        let clock = engine::memory::clock::MemoryClock::at(UnixMs(0));
        assert_eq!(soon(std::future::ready(1).boxed(), &clock).await.ok(), Some(1));
        let (end, ended) = tokio::sync::oneshot::channel::<u32>();
        let pass = async {
            clock.until_asleep(1).await;
            clock.advance(ENDPOINT_QUIET);
        };
        let (slow, ()) = tokio::join!(soon(ended.boxed(), &clock), pass);
        let Err(later) = slow else { panic!("nothing has ended") };
        end.send(2).unwrap();
        assert_eq!(later.await, Ok(2));
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_composite_checksum_is_the_checksum_of_the_parts_checksums() {
        let (one, two) = (part(1, Some(b"a")), part(2, Some(b"b")));
        let raw: Vec<u8> = [b"a", b"b"]
            .iter()
            .flat_map(|bytes| STANDARD.decode(checksum_of("crc32", *bytes).unwrap()).unwrap())
            .collect();
        let right = format!("{}-2", checksum_of("crc32", &raw).unwrap());
        let expected = expectation(&HeaderMap::new(), None, &[&one, &two]).unwrap();
        assert_eq!(expected.checksums.get("crc32"), Some(&right));
        let named = headers("x-amz-checksum-crc32", &right);
        assert!(expectation(&named, None, &[&one, &two]).is_ok());
        assert_eq!(expectation(&named, None, &[&one]).unwrap_err().code().as_str(), "BadDigest");
        let bare = part(2, None);
        assert_eq!(expectation(&HeaderMap::new(), None, &[&one, &bare]).unwrap().checksums.get("crc32"), None);
    }

    #[test]
    fn the_list_of_parts_must_be_in_order_and_match_what_was_uploaded() {
        let listed = |number: i32| CompletedPart {
            part_number: Some(number),
            e_tag: Some(ETag::Strong("e".to_owned())),
            ..CompletedPart::default()
        };
        let code = |numbers: &[i32]| {
            let listed: Vec<CompletedPart> = numbers.iter().map(|number| listed(*number)).collect();
            parts_in_order(&listed).err().map(|error| error.code().as_str().to_owned()).unwrap_or_default()
        };
        assert_eq!(code(&[]), "MalformedXML");
        assert_eq!(code(&[2, 1]), "InvalidPartOrder");
        assert_eq!(code(&[1, 1]), "InvalidPartOrder");
        assert_eq!(code(&[0]), "InvalidArgument");
        assert_eq!(code(&[10_001]), "InvalidArgument");
        assert_eq!(code(&[1, 10_000]), "");
        let stored = BTreeMap::from([(1, part(1, Some(b"a")))]);
        let wrong = CompletedPart { checksum_crc32: checksum_of("crc32", b"b"), ..listed(1) };
        assert_eq!(parts_match(&[wrong], &stored).unwrap_err().code().as_str(), "InvalidPart");
        let right = CompletedPart { checksum_crc32: checksum_of("crc32", b"a"), ..listed(1) };
        assert!(parts_match(&[right], &stored).is_ok());
    }

    #[test]
    fn checksum_types_that_are_not_kept_are_refused() {
        let algorithm = |name: &'static str| ChecksumAlgorithm::from_static(name);
        let kind = |name: &'static str| ChecksumType::from_static(name);
        assert!(checksum_kind(Some(&algorithm("CRC32")), None).is_ok());
        assert!(checksum_kind(Some(&algorithm("CRC64NVME")), Some(&kind("FULL_OBJECT"))).is_ok());
        assert!(checksum_kind(Some(&algorithm("CRC32")), Some(&kind("FULL_OBJECT"))).is_err());
        assert!(checksum_kind(Some(&algorithm("SHA512")), None).is_err());
    }
}
