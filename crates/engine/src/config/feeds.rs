//! Where an archive's deletions are told, as the configuration names it: `feed`, `feed_image`, `feed_secret_file`. Pure.

use super::Destination;
use super::location::Wrong;
use super::services::{Remote, parse_queue};
use super::validate::{Check, parts};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use toml::Spanned;

/// A feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedConfig {
    /// Who is told.
    pub to: FeedTo,
    /// Each line carries the record's last image.
    pub with_image: bool,
}

/// Who is told.
#[derive(Clone, PartialEq, Eq)]
pub enum FeedTo {
    /// A file of this machine, by its absolute path.
    File(PathBuf),
    /// A webhook.
    Webhook {
        /// Its address.
        url: String,
        /// The file with the secret that signs what it is told.
        secret_file: PathBuf,
    },
    /// A queue of SQS; in FIFO order if its name says so.
    Queue(Remote),
}

impl fmt::Display for FeedTo {
    /// For people and logs: an address may hold a secret behind its host, so that the host alone is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedTo::File(path) => write!(f, "file://{}", path.display()),
            FeedTo::Queue(queue) => write!(f, "sqs://{queue}"),
            FeedTo::Webhook { url, .. } => f.write_str(&without_secrets(url)),
        }
    }
}

impl fmt::Debug for FeedTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FeedTo {
    /// As the configuration writes it, whole.
    pub(super) fn as_written(&self) -> String {
        match self {
            FeedTo::Webhook { url, .. } => url.clone(),
            other => other.to_string(),
        }
    }
}

/// An address up to the end of its host: what stands behind it (a path, a query, a fragment), or before an `@`, may be a secret.
fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| *scheme != "file") else {
        return url.to_owned();
    };
    let (host, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (before, host) = host.rsplit_once('@').map_or(("", host), |(_, host)| ("…@", host));
    let behind = if behind.len() > 1 { "/…" } else { "" };
    format!("{scheme}://{before}{host}{behind}")
}

/// What the configuration says of a feed.
pub(super) struct RawFeed {
    pub(super) to: Option<Spanned<String>>,
    pub(super) image: Option<Spanned<bool>>,
    pub(super) secret_file: Option<Spanned<String>>,
}

const FIX: &str = "write feed = \"file:///var/log/deletions.jsonl\", \"https://…\" or \"sqs://queue\"";
const SECRET_FIX: &str = "add feed_secret_file = \"/etc/afterimage/feed.secret\": its content signs each request";

impl Check<'_> {
    /// A feed, if one is asked for, and where it stands. `None`: it is wrong, and that is told.
    pub(super) fn feed(&mut self, section: &Range<usize>, raw: RawFeed) -> Option<Option<(Range<usize>, FeedConfig)>> {
        let RawFeed { to, image, secret_file } = raw;
        let Some((at, text)) = to.map(parts) else {
            let other = image.map(|image| image.span()).or(secret_file.map(|file| file.span()));
            if let Some(at) = other {
                self.wrong(Some(at), "there is no `feed` that this is of", FIX);
                return None;
            }
            return Some(None);
        };
        let secret_at = secret_file.as_ref().map_or(section.clone(), Spanned::span);
        let secret = secret_file.map(Spanned::into_inner).map(PathBuf::from);
        let to = match (parse(&text), secret) {
            (Err((what, fix)), _) => {
                self.wrong(Some(at), what, fix);
                return None;
            }
            (Ok(Parsed::Webhook(url)), Some(secret_file)) if secret_file.is_absolute() => {
                FeedTo::Webhook { url, secret_file }
            }
            (Ok(Parsed::Webhook(_)), Some(_)) => {
                self.wrong(Some(secret_at), "`feed_secret_file` is no absolute path", SECRET_FIX);
                return None;
            }
            (Ok(Parsed::Webhook(_)), None) => {
                self.wrong(Some(at), "a webhook needs a secret, so that it knows who tells it", SECRET_FIX);
                return None;
            }
            (Ok(_), Some(_)) => {
                self.wrong(Some(secret_at), "only a webhook has a secret", "remove `feed_secret_file`");
                return None;
            }
            (Ok(Parsed::File(path)), None) => FeedTo::File(path),
            (Ok(Parsed::Queue(queue)), None) => FeedTo::Queue(queue),
        };
        Some(Some((at, FeedConfig { to, with_image: image.is_some_and(Spanned::into_inner) })))
    }

    /// A feed's file is in no folder whose files are ours, or a policy's.
    pub(super) fn feed_apart(
        &mut self,
        at: &Range<usize>,
        feed: &FeedConfig,
        data: Option<&Path>,
        used: &[&Destination],
    ) {
        let FeedTo::File(file) = &feed.to else { return };
        let data = data.and_then(|path| std::path::absolute(path).ok());
        let folders = used.iter().filter_map(|destination| match destination {
            Destination::Folder(folder) => Some((folder.as_path(), destination.to_string())),
            _ => None,
        });
        let data = data.as_deref().map(|data| (data, "data_dir".to_owned()));
        if let Some((_, whose)) = data.into_iter().chain(folders).find(|(folder, _)| file.starts_with(folder)) {
            let what = format!("the file {} lies in {whose}", file.display());
            self.wrong(Some(at.clone()), what, "name a file elsewhere: what lies there is no place for others");
        }
    }
}

enum Parsed {
    File(PathBuf),
    Webhook(String),
    Queue(Remote),
}

fn parse(text: &str) -> Result<Parsed, Wrong> {
    let wrong = |what: &str| Err((format!("feed = \"{}\" {what}", without_secrets(text)), FIX.to_owned()));
    if let Some(path) = text.strip_prefix("file://") {
        let path = Path::new(path);
        let is_plain = !path.components().any(|part| part == Component::ParentDir);
        return match path.is_absolute() && path.file_name().is_some() && !text.ends_with('/') && is_plain {
            true => Ok(Parsed::File(path.to_owned())),
            false => wrong("names no file: it takes three slashes and an absolute path, without `..`"),
        };
    }
    if text.starts_with("sqs://") {
        // Unlike S3 and Lambda, a feed can be sent to a queue in FIFO order.
        let (name, fifo) = text.strip_suffix(".fifo").map_or((text, ""), |name| (name, ".fifo"));
        let Remote { service, name } = parse_queue(name)?;
        return Ok(Parsed::Queue(Remote { service, name: format!("{name}{fifo}") }));
    }
    let (is_secret, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return wrong("is no feed"),
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['#', '"', '<', '>', '\\']);
    if host.is_empty() || host.contains('@') || !is_plain {
        return wrong("is no address of a webhook (credentials do not belong into it)");
    }
    if !is_secret && !is_loopback(host) {
        return wrong("would be told in the clear: only this machine may be, by http://127.0.0.1; others by https");
    }
    Ok(Parsed::Webhook(text.to_owned()))
}

/// Whether a host, with or without a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((six, _)) => six,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither status and log, nor what is wrong with it, tell what stands behind the host.
    #[test]
    fn an_address_is_shown_up_to_its_host_whatever_comes_behind() {
        for (url, shown) in [
            ("https://hooks.example.org", "https://hooks.example.org"),
            ("https://hooks.example.org/", "https://hooks.example.org"),
            ("https://hooks.example.org:8443/T0KEN", "https://hooks.example.org:8443/…"),
            ("https://hooks.example.org?token=T0KEN", "https://hooks.example.org/…"),
            ("https://hooks.example.org?x=a/T0KEN", "https://hooks.example.org/…"),
            ("http://[::1]:80?T0KEN", "http://[::1]:80/…"),
        ] {
            let webhook = FeedTo::Webhook { url: url.to_owned(), secret_file: "/secret".into() };
            assert_eq!((webhook.to_string().as_str(), format!("{webhook:?}").as_str()), (shown, shown));
            assert_eq!(webhook.as_written(), url);
            assert!(matches!(parse(url), Ok(Parsed::Webhook(read)) if read == url), "{url}");
        }
        for wrong in [
            "https://hooks.example.org#T0KEN",
            "https://me:T0KEN@hooks.example.org",
            "http://hooks.example.org?T0KEN",
            "htps://hooks.example.org/T0KEN",
        ] {
            let Err((what, fix)) = parse(wrong) else { panic!("{wrong} is taken") };
            assert!(!what.contains("T0KEN") && !fix.contains("T0KEN") && what.contains("hooks.example.org"), "{what}");
        }
    }
}
