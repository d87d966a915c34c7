//! Limits of the S3 endpoint, by name (I10).

use lifecycle::time::SpanMs;

/// Connections that the S3 endpoint serves at the same time; further ones wait in the listener's backlog.
pub const ENDPOINT_CONNECTIONS: usize = 512;
/// An endpoint connection is closed when it was idle, or when its client neither sent nor took a byte that we waited for,
/// during one whole span of this length.
pub const ENDPOINT_IDLE: SpanMs = SpanMs::seconds(60);
/// How long joining an upload's parts may take before its answer is begun, to be filled with white space until it is known.
pub const ENDPOINT_QUIET: SpanMs = SpanMs::seconds(5);
/// How long requests in flight may go on after the endpoint was told to stop.
pub const ENDPOINT_DRAIN: SpanMs = SpanMs::seconds(20);
/// Wait after the system refused to accept a connection (no file descriptors left).
pub const ENDPOINT_ACCEPT_WAIT: SpanMs = SpanMs(100);
/// Bytes that one endpoint connection may buffer in each direction.
pub const ENDPOINT_BUFFER: usize = 128 * 1024;
/// Header lines of one request.
pub const ENDPOINT_HEADERS: usize = 128;
/// Bytes of the body of one put or part: S3's own limit, 5 GiB.
pub const ENDPOINT_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// Bytes of an XML body: 1,000 keys of 1,024 bytes, each byte written as a character reference of six.
pub const ENDPOINT_XML_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of one signed piece of an `aws-chunked` body: it is held in memory until its signature is checked.
pub const ENDPOINT_SIGNED_CHUNK: u64 = 8 * 1024 * 1024;
/// Bytes of the line before a piece of an `aws-chunked` body.
pub const ENDPOINT_CHUNK_LINE: usize = 256;
/// Bytes of user metadata of one object, names and values: S3's own limit.
pub const ENDPOINT_METADATA_BYTES: usize = 2 * 1024;
/// Tags of one object: S3's own limit.
pub const ENDPOINT_TAGS: usize = 10;
/// Characters of a tag's key: S3's own limit.
pub const ENDPOINT_TAG_KEY_CHARS: usize = 128;
/// Characters of a tag's value: S3's own limit.
pub const ENDPOINT_TAG_VALUE_CHARS: usize = 256;
/// Keys of one batch delete: S3's own limit.
pub const ENDPOINT_DELETE_KEYS: usize = 1_000;
/// Entries of one page of a listing: S3's own limit.
pub const ENDPOINT_PAGE: usize = 1_000;
/// Parts of one upload, and their highest number: S3's own limit.
pub const ENDPOINT_PARTS: u32 = 10_000;
/// Longest life of a presigned URL, in seconds: S3's own limit.
pub const ENDPOINT_PRESIGNED_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Bytes of a body that are read and thrown away after the request was refused, so that its client sees the answer.
pub const ENDPOINT_LEFTOVER: usize = 256 * 1024 * 1024;
/// Bytes that are read and thrown away after such an answer ended the connection, for as long as [`ENDPOINT_LINGER`].
pub const ENDPOINT_LINGER_BYTES: usize = 256 * 1024 * 1024;
/// How long a connection that was ended in the middle of a body is still read from: a client that is sending would find
/// it broken, and never look at the answer.
pub const ENDPOINT_LINGER: SpanMs = SpanMs::seconds(5);
/// How often a copy starts over because its source was overwritten meanwhile.
pub const ENDPOINT_COPY_ROUNDS: usize = 4;
