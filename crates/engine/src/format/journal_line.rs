//! One line of the journal: what is stored, how it is hashed, and how it reads back.
//!
//! A line is a JSON object whose last member is `hash`: SHA-256 over the bytes of the line before `,"hash":`, of which
//! `prev`, the hash of the line before, is a part. So a line is checked on the bytes that stand there, whatever later
//! versions add to it, and no line can be changed, taken out or moved without breaking the chain at the next one.
//!
//! Place: under every adapter that keeps a journal, so that all of them are read and checked alike (I12). Pure.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::{checksum_text, read_checksum};
use crate::ports::journal::{Entry, Line};
use lifecycle::ids::PolicyName;
use lifecycle::time::UnixMs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Version of the line's layout.
const VERSION: u32 = 1;

/// A hash as it stands in a line: 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(pub String);

impl Hash {
    /// What the first line names as the line before it.
    pub fn start() -> Hash {
        Hash("0".repeat(64))
    }

    fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The members of a line before its hash.
#[derive(Serialize, Deserialize)]
struct StoredLine<'a> {
    v: u32,
    n: u64,
    at: i64,
    who: Cow<'a, str>,
    policy: Cow<'a, str>,
    action: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copy_key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    rule: Cow<'a, str>,
    prev: Cow<'a, str>,
}

/// What the chain needs of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub number: u64,
    /// The hash that it names as the line's before it.
    pub prev: Hash,
    /// The hash that it names as its own.
    pub stated: Hash,
    /// Whether that is the hash of what it says.
    pub intact: bool,
}

#[derive(Deserialize)]
struct StoredLink {
    n: u64,
    prev: String,
}

const BEFORE_HASH: &str = ",\"hash\":\"";
const HASH_CHARS: usize = 64;

/// Appends the line (with its line feed) to `into`; gives back its hash.
pub fn write_line(into: &mut Vec<u8>, number: u64, prev: &Hash, entry: &Entry) -> PortResult<Hash> {
    let stored = StoredLine {
        v: VERSION,
        n: number,
        at: entry.at.0,
        who: Cow::Borrowed(&entry.who),
        policy: Cow::Borrowed(entry.policy.as_str()),
        action: Cow::Borrowed(entry.action.code()),
        key: entry.key.as_ref().map(|key| Cow::Borrowed(key.as_str())),
        copy_key: entry.copy_key.as_ref().map(|copy_key| Cow::Borrowed(copy_key.as_str())),
        size: entry.size,
        checksum: entry.checksum.map(checksum_text),
        rule: Cow::Borrowed(&entry.rule),
        prev: Cow::Borrowed(&prev.0),
    };
    let start = into.len();
    let failed =
        |error| PortError::new("append to journal", number, ErrorKind::Internal("JSON".to_owned())).because(error);
    serde_json::to_writer(&mut *into, &stored).map_err(failed)?;
    into.pop(); // the closing brace: the hash follows
    let hash = Hash::of(&into[start..]);
    into.extend_from_slice(BEFORE_HASH.as_bytes());
    into.extend_from_slice(hash.0.as_bytes());
    into.extend_from_slice(b"\"}\n");
    Ok(hash)
}

/// Reads what the chain needs of a line (without its line feed). `None`: it is no line of a journal.
pub fn read_link(line: &[u8]) -> Option<Link> {
    let body_bytes = line.len().checked_sub(BEFORE_HASH.len() + HASH_CHARS + 2)?;
    let (body, end) = line.split_at(body_bytes);
    let stated = end.strip_prefix(BEFORE_HASH.as_bytes())?.strip_suffix(b"\"}")?;
    let stated = std::str::from_utf8(stated).ok().filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let StoredLink { n, prev } = serde_json::from_slice(line).ok()?;
    let stated = Hash(stated.to_owned());
    Some(Link { number: n, prev: Hash(prev), intact: Hash::of(body) == stated, stated })
}

/// Reads a line. `None`: it is no line of a journal, or misses what every version has.
pub fn read_line(line: &[u8]) -> Option<Line> {
    let stored: StoredLine<'_> = serde_json::from_slice(line).ok()?;
    Some(Line {
        number: stored.n,
        at: UnixMs(stored.at),
        who: stored.who.into_owned(),
        policy: PolicyName(stored.policy.into_owned()),
        action: stored.action.into_owned(),
        key: stored.key.map(Cow::into_owned),
        copy_key: stored.copy_key.map(Cow::into_owned),
        size: stored.size,
        checksum: match stored.checksum {
            Some(text) => Some(read_checksum(&text)?),
            None => None,
        },
        rule: stored.rule.into_owned(),
    })
}

/// Bytes that every line about that key has: a line without them need not be read. Inside a string the quotes would be
/// escaped, so nothing else can look like it.
pub fn needle(key: &str) -> PortResult<String> {
    let failed = |error| PortError::new("read journal", key, ErrorKind::Internal("JSON".to_owned())).because(error);
    Ok(format!("\"key\":{}", serde_json::to_string(key).map_err(failed)?))
}
