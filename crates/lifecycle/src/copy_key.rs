//! Names of copies.
//!
//! `<original key>.<UTC time>-<order and marks>-<version id or etag>`, for example
//! `notes/plan.txt.20261121T072612345Z-s0000019aa3c1f2b4-v0000019aa3c1f2b4`. The name follows from the event alone, so
//! that a redelivery makes the same one; it sorts by age; a person finds a file by name and time and copies it back; and
//! it reads back, so that a catalog can be rebuilt from a listing. The exact grammar stands in `docs/formats.md`.
//!
//! A key too long for the suffix is cut at a character boundary, and the suffix carries a hash of the whole key, which
//! then stands in the object's metadata and in the row.
//!
//! [`parse`] takes nothing but what [`CopyName::copy_key`] builds: a name that only looks like one (other letter case,
//! leading zeros, a date that does not exist) is a foreign object, which nobody may adopt.

use crate::event::Version;
use crate::ids::{CopyKey, ETag, KEY_BYTES_MAX, ObjectKey, VersionId};
use crate::order::Order;
use crate::row::Origin;
use crate::time::UnixMs;
use sha2::{Digest, Sha256};
use std::ops::RangeInclusive;

/// Longest encoded version id or tag that stands in a name in full; a longer one is hashed.
const IDENTITY_BYTES_MAX: usize = 128;
/// Longest nonce. With it the suffix stays below [`SUFFIX_BYTES_MAX`], so that a cut key always keeps most of its beginning.
const NONCE_BYTES_MAX: usize = 32;
/// Longest suffix, with the hash of a key that it had to cut.
const SUFFIX_BYTES_MAX: usize = 300;
/// Length of a hash in a name: 16 bytes in hex.
const HASH_DIGITS: usize = 32;

/// What a copy's name says, besides the original key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyName {
    /// When the version was created at the source.
    pub created_at: UnixMs,
    /// Its order.
    pub order: Order,
    /// The order is only a lower bound.
    pub floating: bool,
    /// What made the copy.
    pub origin: Origin,
    /// Makes the name one handler's own: 1 to 32 lower-case hex digits. Present on copies made by a look or by `undelete`.
    pub nonce: Option<String>,
    /// Which content it is.
    pub identity: Identity,
}

/// Which content a copy is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By version id.
    Version(VersionId),
    /// By entity tag, where the source has no versions.
    Tag(ETag),
    /// A version id, or a tag, too long for a name: as a hash, from which only the row knows the way back.
    Hashed(String),
}

/// A copy key read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The original key, or what the name has of it.
    pub original: Original,
    /// What the rest says.
    pub name: CopyName,
}

/// The original key in a copy's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Original {
    /// Whole.
    Whole(ObjectKey),
    /// Cut: the whole key is in the object's metadata, and hashes to this.
    Cut {
        /// SHA-256 of the whole key, first 16 bytes, hex.
        hash: String,
    },
}

impl Original {
    /// The original key, where the name has all of it.
    pub fn whole(self) -> Option<ObjectKey> {
        match self {
            Original::Whole(key) => Some(key),
            Original::Cut { .. } => None,
        }
    }

    /// Whether it is that key's.
    pub fn is_of(&self, key: &ObjectKey) -> bool {
        match self {
            Original::Whole(whole) => whole == key,
            Original::Cut { hash } => hash_of(key.as_str()) == *hash,
        }
    }

    /// The original key: from the name, or the one that the metadata gave, if it is the one that was cut.
    pub fn resolve(self, from_metadata: Option<ObjectKey>) -> Option<ObjectKey> {
        match self {
            Original::Whole(key) => Some(key),
            Original::Cut { hash } => from_metadata.filter(|key| hash_of(key.as_str()) == hash),
        }
    }
}

impl CopyName {
    /// The name of the copy that an event makes: from the event alone.
    pub fn of_event(version: &Version, order: Order, time: UnixMs) -> CopyName {
        CopyName {
            created_at: time,
            order,
            floating: false,
            origin: Origin::Event,
            nonce: None,
            identity: Identity::of(version),
        }
    }

    /// The copy's key, and whether the original key had to be cut (it must then stand in the copy's metadata). At most
    /// 1,024 bytes; [`parse`] reads it back.
    ///
    /// Panics when the nonce is no nonce: that is our own mistake.
    pub fn copy_key(&self, original: &ObjectKey) -> (CopyKey, bool) {
        let suffix = self.suffix();
        let whole = original.as_str();
        let (key, cut) = if whole.len() + suffix.len() <= KEY_BYTES_MAX {
            (format!("{whole}{suffix}"), false)
        } else {
            let suffix = cut_suffix(&suffix, &hash_of(whole));
            let start = &whole[..whole.floor_char_boundary(KEY_BYTES_MAX - suffix.len())];
            (format!("{start}{suffix}"), true)
        };
        (CopyKey::of(ObjectKey::new(key).expect("at most the limit, and the suffix is not empty")), cut)
    }

    /// All that follows the original key, but the hash of one that had to be cut.
    fn suffix(&self) -> String {
        let mut suffix = format!(".{}-{}", self.created_at.timestamp().strftime("%Y%m%dT%H%M%S%3fZ"), self.order);
        if self.floating {
            suffix.push('F');
        }
        if let Origin::Undelete { at } = self.origin {
            suffix.push_str(&format!("U{}", at.0.max(0))); // a minus sign would end the part
        }
        if let Some(nonce) = &self.nonce {
            assert!(is_hex(nonce, 1..=NONCE_BYTES_MAX), "`{nonce}` is no nonce");
            suffix.push('N');
            suffix.push_str(nonce);
        }
        suffix.push('-');
        suffix.push_str(&self.identity.clone().fitting().encode());
        suffix
    }
}

/// What every copy's name has of the original key: all of it, or the beginning of one that is so long that some names cut it.
pub fn always_kept(original: &ObjectKey) -> &str {
    let whole = original.as_str();
    &whole[..whole.floor_char_boundary(KEY_BYTES_MAX - SUFFIX_BYTES_MAX)]
}

/// Reads a copy key back; `None` when it does not name a copy.
pub fn parse(object: &ObjectKey) -> Option<Parsed> {
    let point = object.as_str().rfind('.')?;
    let (start, suffix) = object.as_str().split_at(point);
    let mut parts = suffix[1..].split('-');
    let created_at = parse_time(parts.next()?)?;
    let (order, floating, origin, nonce) = parse_order(parts.next()?)?;
    let identity = Identity::decode(parts.next()?)?;
    let hash = parts.next();
    if parts.next().is_some() {
        return None;
    }
    let name = CopyName { created_at, order, floating, origin, nonce, identity };
    let original = match hash {
        None => Original::Whole(ObjectKey::new(start).ok()?),
        Some(hash) => Original::Cut { hash: hash.strip_prefix('h').filter(|hash| is_hash(hash))?.to_owned() },
    };
    let rebuilt = match &original {
        Original::Whole(_) => name.suffix(),
        Original::Cut { hash } => cut_suffix(&name.suffix(), hash),
    };
    (rebuilt == suffix).then_some(Parsed { original, name })
}

fn cut_suffix(suffix: &str, hash: &str) -> String {
    format!("{suffix}-h{hash}")
}

fn parse_time(text: &str) -> Option<UnixMs> {
    let digits = text.len() == 19 && text.is_ascii() && text.as_bytes()[8] == b'T' && text.ends_with('Z');
    if !digits {
        return None;
    }
    let with_point = format!("{}.{}", &text[..15], &text[15..]);
    let timestamp: jiff::Timestamp = with_point.parse().ok()?;
    Some(UnixMs(timestamp.as_millisecond()))
}

fn parse_order(text: &str) -> Option<(Order, bool, Origin, Option<String>)> {
    let (text, nonce) = match text.split_once('N') {
        Some((_, nonce)) if !is_hex(nonce, 1..=NONCE_BYTES_MAX) => return None,
        Some((text, nonce)) => (text, Some(nonce.to_owned())),
        None => (text, None),
    };
    let (text, undeleted_at) = match text.split_once('U') {
        Some((text, at)) => (text, Some(UnixMs(at.parse().ok()?))),
        None => (text, None),
    };
    let (text, floating) = match text.strip_suffix('F') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let origin = match (undeleted_at, &nonce) {
        (Some(at), _) => Origin::Undelete { at },
        (None, Some(_)) => Origin::Look,
        (None, None) => Origin::Event,
    };
    Some((text.parse().ok()?, floating, origin, nonce))
}

impl Identity {
    /// How a version is named: by its id where the source has versions, else by its tag.
    pub fn of(version: &Version) -> Identity {
        match &version.version_id {
            Some(id) => Identity::Version(id.clone()).fitting(),
            None => Identity::Tag(version.etag.clone()).fitting(),
        }
    }

    /// Hashed, if it is too long for a name.
    fn fitting(self) -> Identity {
        let (Identity::Version(VersionId(text)) | Identity::Tag(ETag(text))) = &self else { return self };
        if encode(text).len() <= IDENTITY_BYTES_MAX { self } else { Identity::Hashed(hash_of(text)) }
    }

    fn encode(&self) -> String {
        match self {
            Identity::Version(id) => format!("v{}", encode(id.as_str())),
            Identity::Tag(etag) => format!("e{}", encode(etag.as_str())),
            Identity::Hashed(hash) => format!("w{hash}"),
        }
    }

    fn decode(text: &str) -> Option<Identity> {
        match text.split_at_checked(1)? {
            ("v", id) => Some(Identity::Version(VersionId(decode(id)?))),
            ("e", tag) => Some(Identity::Tag(ETag(decode(tag)?))),
            ("w", hash) if is_hash(hash) => Some(Identity::Hashed(hash.to_owned())),
            _ => None,
        }
    }
}

/// Letters and digits as they are, every other byte as `_` and two hex digits: no `.` and no `-` is left, which the
/// grammar needs.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("_{byte:02x}"));
        }
    }
    encoded
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok().filter(|digits| is_hex(digits, 2..=2))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte if byte.is_ascii_alphanumeric() => byte,
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

/// SHA-256, first 16 bytes, lower-case hex.
fn hash_of(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hash(text: &str) -> bool {
    is_hex(text, HASH_DIGITS..=HASH_DIGITS)
}

/// Lower-case hex digits, so many of them.
fn is_hex(text: &str, lengths: RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
