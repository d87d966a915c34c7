//! What stands beside an object's bytes: in the index as JSON, and on the data file for the day the index is lost.
//!
//! The label of a data file is the extended attribute `user.afterimage`: a line `1 <etag> <crc64nvme>`, then the attributes
//! as JSON if there are any. Small, so that a simple object's label fits into its inode. Where the file system has no such
//! attributes, or too little room, the label is a file `.afterimage/meta/<hash of the path>`. Set before the file is fsynced.

use super::limits::XATTR_BYTES_MAX;
use super::tree::Tree;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use engine::ports::objects::Attributes;
use lifecycle::ids::{Checksum, ETag};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

/// The name of the extended attribute.
const XATTR: &str = "user.afterimage";
/// The version of the label's layout.
const LABEL_VERSION: &str = "1";

/// What is kept with an object besides tag, size and checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// What travels with it.
    pub(super) attributes: Attributes,
    /// Checksums that the client sent, by algorithm.
    pub(super) sums: BTreeMap<String, String>,
    /// Of how many parts it was uploaded.
    pub(super) parts: Option<u32>,
}

/// The JSON of [`Stored`]; short names, since it must fit into an inode. Flat by hand: what serde flattens it reads twice.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredJson {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(rename = "encoding", skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[serde(rename = "disposition", skip_serializing_if = "Option::is_none")]
    content_disposition: Option<String>,
    #[serde(rename = "language", skip_serializing_if = "Option::is_none")]
    content_language: Option<String>,
    #[serde(rename = "cache", skip_serializing_if = "Option::is_none")]
    cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(rename = "meta", skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sums: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<u32>,
}

impl From<Stored> for StoredJson {
    fn from(stored: Stored) -> StoredJson {
        let Stored { attributes, sums, parts } = stored;
        let Attributes {
            content_type,
            content_encoding,
            content_disposition,
            content_language,
            cache_control,
            expires,
            metadata,
            tags,
        } = attributes;
        StoredJson {
            content_type,
            content_encoding,
            content_disposition,
            content_language,
            cache_control,
            expires,
            metadata,
            tags,
            sums,
            parts,
        }
    }
}

impl From<StoredJson> for Stored {
    fn from(json: StoredJson) -> Stored {
        let attributes = Attributes {
            content_type: json.content_type,
            content_encoding: json.content_encoding,
            content_disposition: json.content_disposition,
            content_language: json.content_language,
            cache_control: json.cache_control,
            expires: json.expires,
            metadata: json.metadata,
            tags: json.tags,
        };
        Stored { attributes, sums: json.sums, parts: json.parts }
    }
}

impl Stored {
    /// As JSON; `None` when there is nothing to keep.
    pub(super) fn to_json(&self) -> Option<String> {
        if *self == Stored::default() {
            return None;
        }
        let json = StoredJson::from(self.clone());
        Some(serde_json::to_string(&json).expect("text and maps of text always serialize"))
    }

    /// Reads [`Stored::to_json`] back.
    pub(super) fn from_json(json: Option<&str>) -> Result<Stored, serde_json::Error> {
        let Some(json) = json else { return Ok(Stored::default()) };
        Ok(serde_json::from_str::<StoredJson>(json)?.into())
    }
}

/// What the data file itself says of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// The entity tag.
    pub(super) etag: ETag,
    /// The checksum.
    pub(super) checksum: Option<Checksum>,
    /// The rest.
    pub(super) stored: Stored,
}

impl Label {
    fn to_text(&self) -> String {
        let etag = match decode_hex(self.etag.as_str()) {
            Some(md5) => STANDARD_NO_PAD.encode(md5),
            None => format!("\"{}\"", self.etag.as_str()),
        };
        let checksum = self.checksum.map_or("-".to_owned(), |sum| STANDARD_NO_PAD.encode(sum.0.to_be_bytes()));
        let json = self.stored.to_json().map_or(String::new(), |json| format!("\n{json}"));
        format!("{LABEL_VERSION} {etag} {checksum}{json}")
    }

    fn from_text(text: &str) -> Option<Label> {
        let (line, json) = match text.split_once('\n') {
            Some((line, json)) => (line, Some(json)),
            None => (text, None),
        };
        let (version, rest) = line.split_once(' ')?;
        let (etag, checksum) = rest.rsplit_once(' ')?;
        let etag = match etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')) {
            Some(etag) => etag.to_owned(),
            None => encode_hex(&STANDARD_NO_PAD.decode(etag).ok()?),
        };
        let checksum = match checksum {
            "-" => None,
            sum => Some(Checksum(u64::from_be_bytes(STANDARD_NO_PAD.decode(sum).ok()?.try_into().ok()?))),
        };
        let stored = Stored::from_json(json).ok()?;
        (version == LABEL_VERSION).then_some(Label { etag: ETag(etag), checksum, stored })
    }

    /// Writes the label onto the open file. `false`: it must stand beside it ([`Label::put_beside`]).
    pub(super) fn put_on(&self, file: &File) -> io::Result<bool> {
        let text = self.to_text();
        if text.len() > XATTR_BYTES_MAX {
            return Ok(false);
        }
        match rustix::fs::fsetxattr(file, XATTR, text.as_bytes(), XattrFlags::empty()) {
            Ok(()) => Ok(true),
            // No such attributes here, or no room for one this long. A disk that is really full says so again beside.
            Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the label beside the file at that path, durably.
    pub(super) fn put_beside(&self, tree: &Arc<Tree>, path: &str, temp_name: String) -> io::Result<()> {
        let mut temp = tree.temp(temp_name)?;
        temp.file.write_all(self.to_text().as_bytes())?;
        temp.file.sync_all()?;
        tree.publish_own(&mut temp, &beside(path))
    }

    /// The label of the open file at that path; `None` when it has none that can be read.
    pub(super) fn of(tree: &Tree, file: &File, path: &str) -> io::Result<Option<Label>> {
        let mut text = vec![0; XATTR_BYTES_MAX];
        match rustix::fs::fgetxattr(file, XATTR, &mut text) {
            Ok(bytes) => Ok(std::str::from_utf8(&text[..bytes]).ok().and_then(Label::from_text)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {
                Ok(tree.read_own(&beside(path))?.as_deref().and_then(Label::from_text))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the label beside the file at that path, if there is one.
    pub(super) fn remove_beside(tree: &Tree, path: &str) -> io::Result<()> {
        tree.remove_own(&beside(path))
    }
}

fn beside(path: &str) -> String {
    format!("meta/{}", encode_hex(&Sha256::digest(path.as_bytes())[..16]))
}

/// A checksum as S3 writes it: base64 of 8 big-endian bytes.
pub(super) fn checksum_text(checksum: Checksum) -> String {
    STANDARD.encode(checksum.0.to_be_bytes())
}

/// Reads [`checksum_text`] back.
pub(super) fn parse_checksum(text: &str) -> Option<Checksum> {
    Some(Checksum(u64::from_be_bytes(STANDARD.decode(text).ok()?.try_into().ok()?)))
}

/// Lower-case hex.
pub(super) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 16 bytes from 32 lower-case hex digits.
pub(super) fn decode_hex(text: &str) -> Option<[u8; 16]> {
    let lower = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if lower { u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_keeps_its_form() {
        let map = |name: &str| BTreeMap::from([(name.to_owned(), "v".to_owned())]);
        let attributes = Attributes {
            content_type: Some("t".to_owned()),
            content_encoding: Some("e".to_owned()),
            content_disposition: Some("d".to_owned()),
            content_language: Some("l".to_owned()),
            cache_control: Some("c".to_owned()),
            expires: Some("x".to_owned()),
            metadata: map("m"),
            tags: map("g"),
        };
        let full = Stored { attributes, sums: map("s"), parts: Some(3) };
        let json = r#"{"type":"t","encoding":"e","disposition":"d","language":"l","cache":"c","expires":"x","#
            .to_owned()
            + r#""meta":{"m":"v"},"tags":{"g":"v"},"sums":{"s":"v"},"parts":3}"#;
        let parts = Stored { parts: Some(3), ..Stored::default() };
        for (stored, json) in [(full, json.as_str()), (parts, r#"{"parts":3}"#)] {
            assert_eq!(stored.to_json().as_deref(), Some(json));
            assert_eq!(Stored::from_json(Some(json)).unwrap(), stored);
        }
        assert_eq!(Stored::from_json(Some(r#"{"a newer field":[1]}"#)).unwrap(), Stored::default());
    }

    #[test]
    fn a_simple_label_is_short_and_every_label_reads_back() {
        let mut label = Label {
            etag: ETag::from("d41d8cd98f00b204e9800998ecf8427e"),
            checksum: Some(Checksum(7)),
            stored: Stored::default(),
        };
        assert_eq!(label.to_text(), "1 1B2M2Y8AsgTpgAmY7PhCfg AAAAAAAAAAc");
        label.stored.attributes.content_type = Some("text/plain".to_owned());
        assert!(label.to_text().len() <= 60, "{}", label.to_text());
        assert_eq!(Label::from_text(&label.to_text()), Some(label.clone()));
        label.etag = ETag::from("strange tag-3");
        label.checksum = None;
        label.stored.attributes.metadata.insert("a".to_owned(), "b\n".to_owned());
        label.stored.parts = Some(3);
        assert_eq!(Label::from_text(&label.to_text()), Some(label));
        for bad in ["", "1", "2 1B2M2Y8AsgTpgAmY7PhCfg -", "1 x", "1 1B2M2Y8AsgTpgAmY7PhCfg -\n{"] {
            assert_eq!(Label::from_text(bad), None);
        }
    }
}
