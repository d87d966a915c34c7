//! Names of archived records.
//!
//! `<service>/<yyyy>/<mm>/<dd>/<KEY>.json`, for example `orders/2026/11/21/USER#123_PROFILE.json`: the day (UTC) on which the
//! record was deleted, and the values of its key in the order of the table's key schema, so that a person finds a record by
//! what it is and when it went. The name follows from the deletion alone, so that a redelivery makes the same one.
//!
//! Names can meet: a record is deleted twice in a day, or `a` and `b_c` meet `a_b` and `c`. The first takes the plain name;
//! any other takes the name that carries its own sequence number, and nothing is overwritten. A key too long for a name is
//! cut at a character boundary, and a hash of all of it follows. The exact grammar stands in `docs/formats.md`.

use crate::ids::{KEY_BYTES_MAX, ObjectKey};
use crate::time::UnixMs;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::fmt;

/// Begins what follows the key's values in a name; in them it is escaped.
const MARK: char = '~';
const ENDING: &str = ".json";
/// Longest name of a service, so that it, the date and a hash leave most of a name to the key.
const SERVICE_BYTES_MAX: usize = 63;
/// DynamoDB's sequence numbers have 21 to 40 digits.
const SEQUENCE_DIGITS_MAX: usize = 40;
/// Characters that some file system, shell or tool does not take in a name, besides controls.
const UNSAFE: [char; 11] = ['/', '\\', '%', MARK, ':', '*', '?', '"', '<', '>', '|'];

/// What the archive calls the application that a table belongs to: 1 to 63 of `a-z`, `A-Z`, `0-9`, `-`, `_` and `.`,
/// beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// Why a string is no name of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a service: use 1 to 63 of a-z, A-Z, 0-9, `-`, `_` and `.`, beginning with a letter or digit"
)]
pub struct BadService(String);

impl ServiceName {
    /// Checks the characters and the length.
    pub fn new(name: &str) -> Result<ServiceName, BadService> {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && name.len() <= SERVICE_BYTES_MAX && name.chars().all(is_legal) {
            true => Ok(ServiceName(name.to_owned())),
            false => Err(BadService(name.to_owned())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One value of a record's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// `S`.
    Text(String),
    /// `N`, in the digits that the table gives.
    Number(String),
    /// `B`.
    Binary(Vec<u8>),
}

/// Who deleted a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Somebody, by a request.
    User,
    /// The table, since its time to live was over.
    Ttl,
}

impl Cause {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::User => "user",
            Cause::Ttl => "ttl",
        }
    }

    /// Reads it back.
    pub fn parse(text: &str) -> Option<Cause> {
        [Cause::User, Cause::Ttl].into_iter().find(|cause| cause.as_str() == text)
    }
}

/// A position in a shard of a stream: 1 to 40 digits. Later ones are greater; those of two shards say nothing of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(String);

impl Sequence {
    /// Checks the digits.
    pub fn new(digits: &str) -> Option<Sequence> {
        let is_legal = (1..=SEQUENCE_DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        is_legal.then(|| Sequence(digits.to_owned()))
    }

    /// The digits, as the stream gave them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Sequence) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sequence {
    /// By number; of equal numbers, by their digits.
    fn cmp(&self, other: &Sequence) -> Ordering {
        let (mine, others) = (self.0.trim_start_matches('0'), other.0.trim_start_matches('0'));
        let by_number = mine.len().cmp(&others.len()).then_with(|| mine.cmp(others));
        by_number.then_with(|| self.0.cmp(&other.0))
    }
}

impl fmt::Display for Sequence {
    /// Padded, where that is asked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a deletion's name is made of: all of it stands in the record of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Whose record it was.
    pub service: ServiceName,
    /// The table's name; two tables may share a service.
    pub table: String,
    /// The key's values, in the order of the table's key schema: one or two.
    pub key: Vec<KeyValue>,
    /// When it was deleted; the stream tells whole seconds.
    pub at: UnixMs,
    /// The deletion's number in the stream.
    pub sequence: Sequence,
}

impl Deletion {
    /// The name that it takes if it is the first of that name.
    pub fn plain_name(&self) -> ObjectKey {
        self.name("")
    }

    /// The name that nothing but this deletion can have.
    pub fn own_name(&self) -> ObjectKey {
        self.name(&format!("{MARK}{}", self.identity()))
    }

    /// What no other deletion has: its sequence number, and a hash of table and key.
    pub fn identity(&self) -> String {
        format!("{}-{}", self.sequence, hash(&[self.table.as_bytes(), &self.key_bytes()]))
    }

    /// The key's values as they stand in a name: escaped, and joined by `_`.
    pub fn key_in_names(&self) -> String {
        self.key.iter().map(in_names).collect::<Vec<_>>().join("_")
    }

    fn name(&self, own: &str) -> ObjectKey {
        let folder = day_prefix(&self.service, self.at);
        let key = self.key_in_names();
        let room = KEY_BYTES_MAX - folder.len() - own.len() - ENDING.len();
        let name = match key.len() <= room {
            true => format!("{folder}{key}{own}{ENDING}"),
            false => {
                let cut = format!("{MARK}h{}", hash(&[key.as_bytes()]));
                let start = &key[..key.floor_char_boundary(room - cut.len())];
                format!("{folder}{start}{cut}{own}{ENDING}")
            }
        };
        ObjectKey::new(name).expect("at most the limit, and the ending is not empty")
    }

    /// All of the key, so that no other key has the same bytes.
    fn key_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in &self.key {
            let (kind, value) = match value {
                KeyValue::Text(text) => (b'S', text.as_bytes()),
                KeyValue::Number(number) => (b'N', number.as_bytes()),
                KeyValue::Binary(binary) => (b'B', binary.as_slice()),
            };
            bytes.push(kind);
            bytes.extend((value.len() as u64).to_be_bytes());
            bytes.extend(value);
        }
        bytes
    }
}

/// Under which prefix the records of one service lie that were deleted on that day (UTC); it ends with `/`.
pub fn day_prefix(service: &ServiceName, at: UnixMs) -> String {
    format!("{service}/{}/", at.timestamp().strftime("%Y/%m/%d"))
}

/// A name read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Whose record it was.
    pub service: ServiceName,
    /// The day of the deletion, `yyyy/mm/dd`.
    pub day: String,
    /// The key's values as they stand in names; the beginning, if they had to be cut.
    pub key: String,
    /// The hash of all of it, if it had to be cut.
    pub cut: Option<String>,
    /// The sequence number, where the name is the deletion's own.
    pub sequence: Option<Sequence>,
}

/// Reads a name back; `None` when it is no archived record's.
pub fn parse(object: &ObjectKey) -> Option<Parsed> {
    let mut parts = object.as_str().splitn(5, '/');
    let service = ServiceName::new(parts.next()?).ok()?;
    let day = [(); 3].map(|()| parts.next());
    let [Some(year), Some(month), Some(day)] = day else { return None };
    let date: jiff::civil::Date = format!("{year}-{month}-{day}").parse().ok()?;
    let day = date.strftime("%Y/%m/%d").to_string();
    let rest = parts.next()?.strip_suffix(ENDING)?;
    let mut marks = rest.split(MARK);
    let key = marks.next()?.to_owned();
    let mut mark = marks.next();
    let cut = mark.and_then(|mark| mark.strip_prefix('h')).map(str::to_owned);
    if cut.is_some() {
        mark = marks.next();
    }
    let sequence = match mark {
        None => None,
        Some(own) => Some(own.split_once('-').filter(|(_, hash)| is_hash(hash)).and_then(|(n, _)| Sequence::new(n))?),
    };
    let parsed = Parsed { service, day, key, cut, sequence };
    let is_whole = marks.next().is_none() && parsed.cut.as_deref().is_none_or(is_hash) && is_escaped(&parsed.key);
    let is_dated = object.as_str().starts_with(&format!("{}/{}/", parsed.service, parsed.day));
    (is_whole && is_dated).then_some(parsed)
}

impl Parsed {
    /// Whether it is a name of that key's, given as [`Deletion::key_in_names`] gives it.
    pub fn is_of(&self, key_in_names: &str) -> bool {
        match &self.cut {
            None => self.key == key_in_names,
            Some(cut) => key_in_names.starts_with(&self.key) && hash(&[key_in_names.as_bytes()]) == *cut,
        }
    }

    /// The hash of all of the key as it stands in names: the same for all names of a key, wherever each of them was cut.
    pub fn key_hash(&self) -> String {
        self.cut.clone().unwrap_or_else(|| hash(&[self.key.as_bytes()]))
    }
}

/// A value as it stands in names: binary in base64url, numbers and text as they are, without what names do not take.
pub fn in_names(value: &KeyValue) -> String {
    match value {
        KeyValue::Binary(binary) => URL_SAFE_NO_PAD.encode(binary),
        KeyValue::Number(text) | KeyValue::Text(text) => escape(text),
    }
}

/// What a key may mean as a person types it, its values joined by `_`, each as names have it: the key itself; and where it
/// looks as if it came from a name, the key of that name, which is another one.
pub fn typed(key: &str) -> Vec<String> {
    let mut pieces = key.split('%').skip(1);
    let hex = |piece: &str| piece.get(..2).is_some_and(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let plain = escape(key);
    let of_a_name = (is_escaped(key) && pieces.all(hex) && plain != key).then(|| key.to_owned());
    [plain].into_iter().chain(of_a_name).collect()
}

/// `%` and two hex digits for each byte of a character that names do not take.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_unsafe(c) {
            escaped.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || UNSAFE.contains(&c)
}

fn is_escaped(text: &str) -> bool {
    text.chars().all(|c| c == '%' || !is_unsafe(c))
}

/// SHA-256, first 16 bytes, lower-case hex: what tells two contents apart in a name.
pub fn hash_of(content: &[u8]) -> String {
    hash(&[content])
}

/// [`hash_of`] of a content that lies in pieces.
pub fn hash_of_pieces(pieces: &[&[u8]]) -> String {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut hash = Sha256::new();
    hash.update((length as u64).to_be_bytes());
    pieces.iter().for_each(|piece| hash.update(piece));
    hex(&hash.finalize()[..16])
}

/// SHA-256 over the parts, each after its length; first 16 bytes, lower-case hex.
fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("four bits");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
