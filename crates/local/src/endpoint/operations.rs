//! The operations of S3 that this endpoint does, each with the parameters and headers that it understands. Pure.
//!
//! This table is what `docs/s3-endpoint.md` tells; what is not in it is answered with `NotImplemented`.

/// Whether an operation writes the bucket in its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// No.
    Nothing,
    /// Yes, so it is refused on a destination as a whole.
    Bucket,
    /// Yes, and each key of the request is answered on its own.
    Keys,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// Its name in S3.
    pub(super) name: &'static str,
    /// What it writes.
    pub(super) writes: Writes,
    /// Parameters of its query.
    pub(super) parameters: &'static [&'static str],
    /// Headers without `x-amz-`, besides those that every operation knows.
    pub(super) headers: &'static [&'static str],
    /// Whether it takes user metadata (`x-amz-meta-*`).
    pub(super) takes_object: bool,
    /// Whether it takes `x-amz-checksum-*` and `x-amz-trailer`.
    pub(super) takes_checksums: bool,
}

const RESPONSE: &[&str] = &[
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
];
const OBJECT: &[&str] = &["acl", "storage-class", "tagging"];
const COPY: &[&str] = &[
    "acl",
    "storage-class",
    "tagging",
    "tagging-directive",
    "metadata-directive",
    "copy-source",
    "copy-source-if-match",
    "copy-source-if-none-match",
    "copy-source-if-modified-since",
    "copy-source-if-unmodified-since",
    "source-expected-bucket-owner",
];
const COPY_PART: &[&str] = &[
    "copy-source",
    "copy-source-range",
    "copy-source-if-match",
    "copy-source-if-none-match",
    "copy-source-if-modified-since",
    "copy-source-if-unmodified-since",
    "source-expected-bucket-owner",
];

const fn reads(name: &'static str, parameters: &'static [&'static str]) -> Operation {
    Operation { name, writes: Writes::Nothing, parameters, headers: &[], takes_object: false, takes_checksums: false }
}

const fn writes(name: &'static str, parameters: &'static [&'static str]) -> Operation {
    Operation { writes: Writes::Bucket, ..reads(name, parameters) }
}

const OPERATIONS: [Operation; 24] = [
    reads("ListBuckets", &["max-buckets", "continuation-token", "prefix"]),
    Operation { headers: &["acl", "bucket-object-lock-enabled", "object-ownership"], ..reads("CreateBucket", &[]) },
    writes("DeleteBucket", &[]),
    reads("HeadBucket", &[]),
    reads("GetBucketLocation", &["location"]),
    reads("GetBucketVersioning", &["versioning"]),
    reads("ListObjects", &["prefix", "delimiter", "marker", "max-keys", "encoding-type"]),
    reads(
        "ListObjectsV2",
        &[
            "list-type",
            "prefix",
            "delimiter",
            "start-after",
            "continuation-token",
            "max-keys",
            "encoding-type",
            "fetch-owner",
        ],
    ),
    Operation { headers: &["checksum-mode"], ..reads("GetObject", RESPONSE) },
    Operation { headers: &["checksum-mode"], ..reads("HeadObject", RESPONSE) },
    Operation { headers: OBJECT, takes_object: true, takes_checksums: true, ..writes("PutObject", &[]) },
    Operation { headers: COPY, takes_object: true, ..writes("CopyObject", &[]) },
    writes("DeleteObject", &[]),
    Operation { writes: Writes::Keys, takes_checksums: true, ..reads("DeleteObjects", &["delete"]) },
    reads("GetObjectTagging", &["tagging"]),
    Operation { takes_checksums: true, ..writes("PutObjectTagging", &["tagging"]) },
    writes("DeleteObjectTagging", &["tagging"]),
    Operation {
        headers: &["acl", "storage-class", "tagging", "checksum-algorithm", "checksum-type"],
        takes_object: true,
        ..writes("CreateMultipartUpload", &["uploads"])
    },
    Operation { takes_checksums: true, ..writes("UploadPart", &["uploadId", "partNumber"]) },
    Operation { headers: COPY_PART, ..writes("UploadPartCopy", &["uploadId", "partNumber"]) },
    Operation {
        headers: &["checksum-type", "mp-object-size"],
        takes_checksums: true,
        ..writes("CompleteMultipartUpload", &["uploadId"])
    },
    writes("AbortMultipartUpload", &["uploadId"]),
    reads("ListParts", &["uploadId", "max-parts", "part-number-marker"]),
    reads(
        "ListMultipartUploads",
        &["uploads", "prefix", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"],
    ),
];

/// The operation of that name, if this endpoint does it.
pub(super) fn operation(name: &str) -> Option<Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_that_changes_a_bucket_is_marked() {
        let harmless = ["Get", "List", "Head"];
        for operation in OPERATIONS {
            let reads = harmless.iter().any(|start| operation.name.starts_with(start));
            // A bucket that is to be created is no destination yet.
            let expected = !reads && operation.name != "CreateBucket";
            assert_eq!(operation.writes != Writes::Nothing, expected, "{}", operation.name);
        }
    }
}
