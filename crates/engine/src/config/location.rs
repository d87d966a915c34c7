//! Where objects are, as the configuration writes it: `local://bucket`, `local://bucket/prefix`, `local:///folder`,
//! `s3://bucket`, `s3://service@bucket/prefix`. Pure.

use super::services::{Remote, remote};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// What a policy copies from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whose bucket it is.
    pub host: Host,
    /// The bucket.
    pub bucket: String,
    /// It covers the keys that begin with this; empty: all.
    pub prefix: String,
}

/// Whose a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// This data folder's.
    Local,
    /// Of a service by its name in the configuration; `None`: AWS, as the environment says.
    Service(Option<String>),
}

impl Source {
    /// The bucket as a thing of a service; `None`: it is one here.
    pub fn remote(&self) -> Option<Remote> {
        match &self.host {
            Host::Local => None,
            Host::Service(service) => Some(Remote { service: service.clone(), name: self.bucket.clone() }),
        }
    }

    /// What events call the bucket.
    pub fn in_events(&self) -> String {
        match self.host {
            Host::Local => self.bucket.clone(),
            Host::Service(_) => format!("s3://{}", self.bucket),
        }
    }
}

/// Where a policy's copies go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A bucket in the data folder.
    Bucket(String),
    /// An absolute folder anywhere, such as on another disk.
    Folder(PathBuf),
    /// A bucket of S3, or of a service that speaks its protocol.
    S3(Remote),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remote() {
            None => write!(f, "local://{}", self.bucket)?,
            Some(bucket) => write!(f, "s3://{bucket}")?,
        }
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Bucket(bucket) => write!(f, "local://{bucket}"),
            Destination::Folder(folder) => write!(f, "local://{}", folder.display()),
            Destination::S3(bucket) => write!(f, "s3://{bucket}"),
        }
    }
}

/// Why a text is no location: what is wrong, and what to write instead.
pub(super) type Wrong = (String, String);

/// Reads a source.
pub(super) fn parse_source(text: &str) -> Result<Source, Wrong> {
    if let Some(rest) = text.strip_prefix("s3://") {
        let (service, rest) = remote(rest);
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        check_bucket_name(bucket)?;
        return Ok(Source { host: Host::Service(service), bucket: bucket.to_owned(), prefix: prefix.to_owned() });
    }
    let rest = local(text)?;
    if rest.starts_with('/') {
        return Err((
            format!("a source is a bucket; `{text}` names a folder"),
            "write `local://bucket` or `local://bucket/prefix`; watching a folder is not in this version".to_owned(),
        ));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    check_bucket_name(bucket)?;
    Ok(Source { host: Host::Local, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// Reads a destination.
pub(super) fn parse_destination(text: &str) -> Result<Destination, Wrong> {
    if let Some(rest) = text.strip_prefix("s3://") {
        let (service, rest) = remote(rest);
        let name = own_bucket(text, rest)?.to_owned();
        return Ok(Destination::S3(Remote { service, name }));
    }
    let rest = local(text)?;
    if rest.starts_with('/') {
        return folder(text, Path::new(rest)).map(Destination::Folder);
    }
    Ok(Destination::Bucket(own_bucket(text, rest)?.to_owned()))
}

/// The bucket of a destination, which has no prefix.
fn own_bucket<'a>(text: &str, rest: &'a str) -> Result<&'a str, Wrong> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    check_bucket_name(bucket)?;
    if !prefix.is_empty() {
        return Err((
            format!("a destination has no prefix: a copy keeps the name of its original; `{text}` has `{prefix}`"),
            format!("give the policy a bucket of its own: `{}`", text.trim_end_matches(prefix).trim_end_matches('/')),
        ));
    }
    Ok(bucket)
}

/// Checks a bucket's name by the rules of S3 (user guide, "General purpose bucket naming rules").
pub fn check_bucket_name(name: &str) -> Result<(), (String, String)> {
    let wrong = |why: &str| {
        let fix = "3 to 63 of a-z, 0-9, `-` and `.`, beginning and ending with a letter or digit".to_owned();
        Err((format!("`{name}` is no bucket name: {why}"), fix))
    };
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !(3..=63).contains(&name.len()) {
        wrong("it has too few or too many characters")
    } else if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.') {
        wrong("it has a character that bucket names do not have")
    } else if !ends(name.chars().next()) || !ends(name.chars().next_back()) {
        wrong("it begins or ends with `-` or `.`")
    } else if name.contains("..") {
        wrong("it has two dots in a row")
    } else if name.parse::<std::net::Ipv4Addr>().is_ok() {
        wrong("it looks like an IP address")
    } else {
        Ok(())
    }
}

fn local(text: &str) -> Result<&str, Wrong> {
    if let Some(rest) = text.strip_prefix("local://") {
        return Ok(rest);
    }
    let fix = "write `local://bucket`, `s3://bucket`, or `local:///absolute/folder` for a destination".to_owned();
    match text.split_once("://") {
        Some((scheme @ "dir", _)) => Err((format!("`{scheme}://` is not in this version"), fix)),
        Some((scheme, _)) => Err((format!("`{scheme}://` is no known kind of location"), fix)),
        None => Err((format!("`{text}` does not say which kind of location it is"), fix)),
    }
}

fn folder(text: &str, path: &Path) -> Result<PathBuf, Wrong> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !plain || path.parent().is_none() {
        return Err((
            format!("`{text}` is no folder for copies"),
            "write an absolute folder below `/`, without `..`: `local:///mnt/backup/documents`".to_owned(),
        ));
    }
    Ok(path.components().collect()) // without doubled and trailing slashes, so that two spellings compare equal
}
