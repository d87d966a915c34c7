//! Listings: objects (both versions of the operation) and unfinished uploads, one page at a time.

use super::buckets::page_limit;
use super::conditions::timestamp;
use super::faults::{from_store, not_implemented};
use super::owner;
use super::service::Service;
use crate::store::{ListEntry, ListFrom, ListPage, ListRequest, ObjectInfo, UploadId, UploadInfo};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{
    CommonPrefix, ETag, EncodingType, Initiator, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, MultipartUpload, Object,
    ObjectStorageClass, StorageClass,
};
use s3s::{S3Response, S3Result, s3_error};

/// Whether names are shown URL-encoded, so that XML can carry every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names {
    encoded: bool,
}

impl Names {
    fn asked(encoding: Option<&EncodingType>) -> S3Result<Names> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Names { encoded: false }),
            Some(EncodingType::URL) => Ok(Names { encoded: true }),
            Some(other) => Err(s3_error!(InvalidArgument, "`{other}` is no encoding type; there is only `url`")),
        }
    }

    fn show(self, name: &str) -> String {
        if self.encoded { url_encoded(name) } else { name.to_owned() }
    }
}

/// Percent-encodes what is not unreserved, `/` excepted.
fn url_encoded(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            shown.push(char::from(byte));
        } else {
            shown.push_str(&format!("%{byte:02X}"));
        }
    }
    shown
}

/// What both versions of the operation ask for.
struct Asked<'a> {
    bucket: &'a str,
    prefix: Option<&'a str>,
    delimiter: Option<&'a str>,
    after: Option<String>,
    limit: usize,
}

async fn page(service: &Service, asked: Asked<'_>) -> S3Result<ListPage> {
    let bucket = service.bucket(asked.bucket)?;
    if asked.limit == 0 {
        return Ok(ListPage::default());
    }
    let request = ListRequest {
        prefix: asked.prefix.unwrap_or_default().to_owned(),
        delimiter: asked.delimiter.filter(|delimiter| !delimiter.is_empty()).map(str::to_owned),
        from: asked.after.filter(|after| !after.is_empty()).map_or(ListFrom::Start, ListFrom::After),
        limit: asked.limit,
    };
    bucket.list(&request).await.map_err(from_store)
}

fn shown(entries: Vec<ListEntry>, names: Names, with_owner: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
    let mut objects = Vec::new();
    let mut prefixes = Vec::new();
    for entry in entries {
        match entry {
            ListEntry::Object(info) => objects.push(object(&info, names, with_owner)),
            ListEntry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(names.show(&prefix)) }),
        }
    }
    (objects, prefixes)
}

fn object(info: &ObjectInfo, names: Names, with_owner: bool) -> Object {
    Object {
        e_tag: Some(ETag::Strong(info.version.etag.to_string())),
        key: Some(names.show(info.key.as_str())),
        last_modified: Some(timestamp(info.last_modified)),
        owner: with_owner.then(owner),
        size: i64::try_from(info.version.size).ok(),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Object::default()
    }
}

/// ListObjects, version 1.
pub(super) async fn list(service: &Service, input: ListObjectsInput) -> S3Result<S3Response<ListObjectsOutput>> {
    let names = Names::asked(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let asked = Asked {
        bucket: &input.bucket,
        prefix: input.prefix.as_deref(),
        delimiter: input.delimiter.as_deref(),
        after: input.marker.clone(),
        limit,
    };
    let page = page(service, asked).await?;
    // S3 names the next marker only with a delimiter; without one it is the last key.
    let last = page.entries.last().filter(|_| page.truncated && input.delimiter.is_some());
    let next_marker = last.map(|entry| names.show(entry.name()));
    let (contents, prefixes) = shown(page.entries, names, true);
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.show(&input.prefix.unwrap_or_default())),
        marker: Some(names.show(&input.marker.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(page.truncated),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.map(|delimiter| names.show(&delimiter)),
        next_marker,
        encoding_type: input.encoding_type,
        request_charged: None,
    }))
}

/// ListObjects, version 2.
pub(super) async fn list_v2(service: &Service, input: ListObjectsV2Input) -> S3Result<S3Response<ListObjectsV2Output>> {
    let names = Names::asked(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let after = match &input.continuation_token {
        Some(token) => Some(from_token(token)?),
        None => input.start_after.clone(),
    };
    let asked = Asked {
        bucket: &input.bucket,
        prefix: input.prefix.as_deref(),
        delimiter: input.delimiter.as_deref(),
        after,
        limit,
    };
    let page = page(service, asked).await?;
    let next = page.entries.last().filter(|_| page.truncated);
    let next = next.map(|entry| URL_SAFE_NO_PAD.encode(entry.name()));
    let count = page.entries.len();
    let (contents, prefixes) = shown(page.entries, names, input.fetch_owner.unwrap_or(false));
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.show(&input.prefix.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        key_count: i32::try_from(count).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.truncated),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.map(|delimiter| names.show(&delimiter)),
        encoding_type: input.encoding_type,
        start_after: input.start_after.map(|after| names.show(&after)),
        request_charged: None,
    }))
}

fn from_token(token: &str) -> S3Result<String> {
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is none that this endpoint gave"))
}

/// Uploads that were begun and not completed.
pub(super) async fn uploads(
    service: &Service,
    input: ListMultipartUploadsInput,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    if input.delimiter.is_some() {
        return Err(not_implemented("listing uploads with a delimiter"));
    }
    let names = Names::asked(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_uploads, "max-uploads")?;
    let bucket = service.bucket(&input.bucket)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let key = input.key_marker.as_deref().filter(|marker| !marker.is_empty());
    // As in S3, an upload marker without a key marker has no meaning.
    let id = input.upload_id_marker.clone().filter(|marker| !marker.is_empty()).map(UploadId);
    let page = match limit {
        0 => crate::store::UploadPage::default(),
        _ => bucket.uploads(&prefix, key.map(|key| (key, id.as_ref())), limit).await.map_err(from_store)?,
    };
    let last = page.uploads.last().filter(|_| page.truncated);
    let next_key_marker = last.map(|upload| names.show(upload.key.as_str()));
    let next_upload_id_marker = last.map(|upload| upload.id.0.clone());
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        encoding_type: input.encoding_type,
        is_truncated: Some(page.truncated),
        key_marker: Some(names.show(&input.key_marker.unwrap_or_default())),
        max_uploads: i32::try_from(limit).ok(),
        next_key_marker,
        next_upload_id_marker,
        prefix: Some(names.show(&prefix)),
        upload_id_marker: input.upload_id_marker,
        uploads: Some(page.uploads.iter().map(|upload| shown_upload(upload, names)).collect()),
        ..ListMultipartUploadsOutput::default()
    }))
}

fn shown_upload(upload: &UploadInfo, names: Names) -> MultipartUpload {
    let owner = owner();
    MultipartUpload {
        initiated: Some(timestamp(upload.initiated)),
        initiator: Some(Initiator { display_name: owner.display_name.clone(), id: owner.id.clone() }),
        key: Some(names.show(upload.key.as_str())),
        owner: Some(owner),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        upload_id: Some(upload.id.0.clone()),
        ..MultipartUpload::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_so_that_every_decoder_gives_them_back() {
        assert_eq!(url_encoded("a b+c/d%e\u{1}é~"), "a%20b%2Bc/d%25e%01%C3%A9~");
    }

    #[test]
    fn a_token_is_the_name_after_which_the_listing_goes_on() {
        let name = "a/\u{1}é";
        assert_eq!(from_token(&URL_SAFE_NO_PAD.encode(name)).unwrap(), name);
        assert_eq!(from_token("%%%").unwrap_err().code().as_str(), "InvalidArgument");
    }
}
