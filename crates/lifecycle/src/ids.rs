//! Identities. One newtype each, so that a copy key can never be passed where an original key is meant.

use std::fmt;

/// S3's limit for a key, in bytes of UTF-8; DynamoDB's for a sort key too.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Why a string is no object key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Keys have at least one byte.
    #[error("an object key must not be empty")]
    Empty,
    /// Keys have at most 1,024 bytes.
    #[error("an object key has at most 1,024 bytes of UTF-8; this one has {0}")]
    TooLong(usize),
}

/// The name of an object in a bucket: 1 to 1,024 bytes of UTF-8, any characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks the length and takes the string as it is.
    pub fn new(key: impl Into<String>) -> Result<ObjectKey, BadKey> {
        let key = key.into();
        match key.len() {
            0 => Err(BadKey::Empty),
            1..=KEY_BYTES_MAX => Ok(ObjectKey(key)),
            n => Err(BadKey::TooLong(n)),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a copy in a destination. Built and read by [`crate::copy_key`] only; unique per version of an original.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyKey(ObjectKey);

impl CopyKey {
    /// Takes an object key that is known to name a copy (read from a row, or built by `copy_key`).
    pub fn of(key: ObjectKey) -> CopyKey {
        CopyKey(key)
    }

    /// The copy's name as the object key that it is.
    pub fn object(&self) -> &ObjectKey {
        &self.0
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for CopyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub String);

        impl $name {
            /// The identity as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                $name(text.to_owned())
            }
        }
    };
}

text_identity!(
    /// The version id that a versioned source gave to one content of a key. Opaque.
    VersionId
);
text_identity!(
    /// An entity tag without its quotes. Equal tags of one bucket and key mean equal content; across buckets compare
    /// checksums instead (a multipart, SSE-KMS or SSE-C tag is no MD5).
    ETag
);
text_identity!(
    /// A policy's name, from the configuration.
    PolicyName
);
text_identity!(
    /// The token that every write of a row changes; conditional writes name the one they have read.
    Rev
);

/// CRC-64/NVME over the whole object, S3's own full-object checksum. Shown and stored as base64 of 8 big-endian bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub u64);
