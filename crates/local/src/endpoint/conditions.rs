//! Conditional requests, as RFC 9110 (13.2.2) orders them. Pure.

use crate::store::ObjectInfo;
use lifecycle::time::UnixMs;
use s3s::dto::{ETag, ETagCondition, Timestamp, TimestampFormat};
use std::time::{Duration, SystemTime};

/// The four conditions of a request on what it reads.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

/// What they say about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Holds,
    /// 304 for a read, 412 for a copy.
    NotModified,
    /// 412.
    Failed,
}

impl Conditions {
    /// Judges the object: a tag condition outranks the date condition of its kind.
    pub(super) fn judge(&self, info: &ObjectInfo) -> Verdict {
        let tag = info.version.etag.as_str();
        let written = seconds(info.last_modified);
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !matches_strongly(condition, tag) => return Verdict::Failed,
            (None, Some(date)) if written > *date => return Verdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if matches_weakly(condition, tag) => Verdict::NotModified,
            (None, Some(date)) if written <= *date => Verdict::NotModified,
            _ => Verdict::Holds,
        }
    }
}

fn matches_strongly(condition: &ETagCondition, tag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(ETag::Strong(wanted)) => wanted == tag,
        ETagCondition::ETag(ETag::Weak(_)) => false,
    }
}

fn matches_weakly(condition: &ETagCondition, tag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == tag,
    }
}

/// Whether `If-Range` still names this content, so that a range of it may be sent.
pub(super) fn range_holds(if_range: &str, info: &ObjectInfo) -> bool {
    if let Ok(tag) = ETag::parse_http_header(if_range.as_bytes()) {
        return matches_strongly(&ETagCondition::ETag(tag), info.version.etag.as_str());
    }
    Timestamp::parse(TimestampFormat::HttpDate, if_range).is_ok_and(|date| date == seconds(info.last_modified))
}

/// A moment as S3 shows it.
pub(super) fn timestamp(moment: UnixMs) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(moment.0).unwrap_or(0));
    Timestamp::from(SystemTime::UNIX_EPOCH + since)
}

/// A moment with the resolution of an HTTP date.
fn seconds(moment: UnixMs) -> Timestamp {
    timestamp(UnixMs(moment.0.div_euclid(1_000) * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ports::objects::Attributes;
    use lifecycle::event::Version;
    use lifecycle::ids::{ETag as Tag, ObjectKey};
    use std::collections::BTreeMap;

    fn object() -> ObjectInfo {
        ObjectInfo {
            key: ObjectKey::new("a").unwrap(),
            version: Version { version_id: None, etag: Tag::from("t1"), size: 1 },
            last_modified: UnixMs(1_000_500),
            checksum: None,
            checksums: BTreeMap::new(),
            attributes: Attributes::default(),
            parts: None,
        }
    }

    fn tag(text: &str) -> Option<ETagCondition> {
        Some(ETagCondition::parse_http_header(text.as_bytes()).unwrap())
    }

    #[test]
    fn each_condition_alone() {
        let date = |ms| Some(timestamp(UnixMs(ms)));
        let cases = [
            (Conditions::default(), Verdict::Holds),
            (Conditions { if_match: tag("\"t1\""), ..Conditions::default() }, Verdict::Holds),
            (Conditions { if_match: tag("\"t2\""), ..Conditions::default() }, Verdict::Failed),
            (Conditions { if_match: tag("W/\"t1\""), ..Conditions::default() }, Verdict::Failed),
            (Conditions { if_match: tag("*"), ..Conditions::default() }, Verdict::Holds),
            (Conditions { if_none_match: tag("\"t1\""), ..Conditions::default() }, Verdict::NotModified),
            (Conditions { if_none_match: tag("W/\"t1\""), ..Conditions::default() }, Verdict::NotModified),
            (Conditions { if_none_match: tag("*"), ..Conditions::default() }, Verdict::NotModified),
            (Conditions { if_none_match: tag("\"t2\""), ..Conditions::default() }, Verdict::Holds),
            (Conditions { if_modified_since: date(1_000_000), ..Conditions::default() }, Verdict::NotModified),
            (Conditions { if_modified_since: date(999_000), ..Conditions::default() }, Verdict::Holds),
            (Conditions { if_unmodified_since: date(1_000_000), ..Conditions::default() }, Verdict::Holds),
            (Conditions { if_unmodified_since: date(999_000), ..Conditions::default() }, Verdict::Failed),
        ];
        for (conditions, verdict) in cases {
            assert_eq!(conditions.judge(&object()), verdict, "{conditions:?}");
        }
    }

    #[test]
    fn tags_outrank_dates() {
        let old = Some(timestamp(UnixMs(0)));
        let new = Some(timestamp(UnixMs(9_000_000)));
        let matching = Conditions { if_match: tag("\"t1\""), if_unmodified_since: old, ..Conditions::default() };
        assert_eq!(matching.judge(&object()), Verdict::Holds);
        let other = Conditions { if_none_match: tag("\"t2\""), if_modified_since: new, ..Conditions::default() };
        assert_eq!(other.judge(&object()), Verdict::Holds);
    }

    #[test]
    fn a_range_goes_on_only_in_the_same_content() {
        assert!(range_holds("\"t1\"", &object()));
        assert!(!range_holds("\"t2\"", &object()));
        assert!(!range_holds("W/\"t1\"", &object()));
        assert!(range_holds("Thu, 01 Jan 1970 00:16:40 GMT", &object()));
        assert!(!range_holds("Thu, 01 Jan 1970 00:16:41 GMT", &object()));
    }
}
