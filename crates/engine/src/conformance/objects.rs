//! What every pair of a source and a destination must do: each sentence of the object ports (`ports/objects.rs`) is a check
//! here, and every adapter runs all.
//!
//! A check gets two empty buckets of its own and panics with what was wrong. Laws shown: I1 (whole or not at all), I11, V8.
//! What only a stored bucket can show (crashes, damage, full disks) stands with the adapter that stores.

use crate::error::{ErrorKind, PortError};
use crate::memory::bucket::{body, collect};
use crate::ports::objects::{
    Attributes, Copied, CopyRequest, Head, ObjectCopy, ObjectPurge, ObjectRead, ObjectWrite, Onto, PurgeItem, Purged,
    Written,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lifecycle::ids::{Checksum, ETag, KEY_BYTES_MAX, ObjectKey};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The handles of a source and a destination.
pub struct Buckets {
    /// The source, as a restore holds it.
    pub source: Arc<dyn ObjectWrite>,
    /// The destination.
    pub destination: Arc<dyn ObjectRead>,
    /// Copies from the source to the destination.
    pub copy: Arc<dyn ObjectCopy>,
    /// Deletes from the destination.
    pub purge: Arc<dyn ObjectPurge>,
}

/// Runs every check, each on fresh buckets from `make`.
pub async fn objects<F: Future<Output = Buckets>>(make: impl Fn() -> F) {
    a_put_reads_back_whole(&make().await).await;
    absence_is_an_answer(&make().await).await;
    a_broken_body_leaves_what_was_there(&make().await).await;
    conditions_of_a_put(&make().await).await;
    ranges(&make().await).await;
    any_legal_key(&make().await).await;
    listings_in_key_order(&make().await).await;
    a_copy_has_everything_of_its_original(&make().await).await;
    a_copy_is_of_the_content_that_was_asked_for(&make().await).await;
    conditions_of_a_copy(&make().await).await;
    purges(&make().await).await;
}

const WORKS: &str = "the buckets answer";

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a key")
}

fn checksum(bytes: &[u8]) -> Checksum {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    Checksum(digest.sum64())
}

fn attributes() -> Attributes {
    let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    Attributes {
        content_type: Some("text/plain; charset=utf-8".to_owned()),
        content_encoding: Some("identity".to_owned()),
        content_disposition: Some("attachment; filename*=UTF-8''%C3%A4.txt".to_owned()),
        content_language: Some("de".to_owned()),
        cache_control: Some("no-store".to_owned()),
        expires: Some("Thu, 01 Dec 2044 16:00:00 GMT".to_owned()),
        metadata: pair("colour", "blue"),
        tags: pair("keep", "yes"),
    }
}

async fn put(buckets: &Buckets, text: &str, bytes: &'static str) -> Head {
    let attributes = Attributes::default();
    let written = buckets.source.put(&key(text), body(Bytes::from(bytes)), &attributes, Onto::Anything).await;
    let Written::Done(head) = written.expect(WORKS) else { panic!("a put without condition is done") };
    head
}

async fn text_of(bucket: &(impl ObjectRead + ?Sized), text: &str) -> Option<Bytes> {
    let object = bucket.get(&key(text), None, None).await.expect(WORKS)?;
    Some(collect(object.body).await.expect(WORKS))
}

fn request(from: &str, head: &Head, to: &str, onto: Onto) -> CopyRequest {
    CopyRequest {
        from: key(from),
        version: head.version.clone(),
        to: key(to),
        onto,
        add_metadata: BTreeMap::new(),
        seen: None,
    }
}

async fn copy(buckets: &Buckets, request: &CopyRequest) -> Head {
    match buckets.copy.copy(request).await.expect(WORKS) {
        Copied::Done(head) => head,
        other => panic!("copying {request:?} gave {other:?}"),
    }
}

async fn a_put_reads_back_whole(buckets: &Buckets) {
    for (name, bytes) in [("small", b"hello".to_vec()), ("empty", vec![]), ("large", vec![7; 3_000_001])] {
        let put = buckets.source.put(&key(name), body(bytes.clone().into()), &attributes(), Onto::Anything).await;
        let Written::Done(written) = put.expect(WORKS) else { panic!("a put without condition is done") };
        assert_eq!(written.version.size, bytes.len() as u64);
        assert!(written.checksum.is_none_or(|sum| sum == checksum(&bytes)), "the checksum is CRC-64/NVME of the whole");
        assert_eq!(written.metadata, attributes().metadata);

        let head = buckets.source.head(&key(name), None).await.expect(WORKS).expect("it was just put");
        assert_eq!(head, written, "HEAD says what the put said");
        let object = buckets.source.get(&key(name), None, None).await.expect(WORKS).expect("it was just put");
        assert_eq!((object.head, object.attributes), (written, attributes()));
        assert_eq!(collect(object.body).await.expect(WORKS), bytes);
    }
}

async fn absence_is_an_answer(buckets: &Buckets) {
    let nothing = key("nothing");
    assert_eq!(buckets.source.head(&nothing, None).await.expect(WORKS), None);
    assert!(buckets.source.get(&nothing, None, None).await.expect(WORKS).is_none());
    assert_eq!(buckets.destination.head(&nothing, None).await.expect(WORKS), None);
    let page = buckets.destination.list("", None, 10).await.expect(WORKS);
    assert_eq!((page.items.len(), page.next), (0, None));
}

async fn a_broken_body_leaves_what_was_there(buckets: &Buckets) {
    let before = put(buckets, "a", "old").await;
    for name in ["a", "b"] {
        let broken = PortError::new("read body", name, ErrorKind::Unavailable);
        let pieces = stream::iter([Ok(Bytes::from(vec![1; 2_000_000])), Err(broken)]).boxed();
        let put = buckets.source.put(&key(name), pieces, &Attributes::default(), Onto::Anything).await;
        assert_eq!(put.expect_err("the body broke").kind, ErrorKind::Unavailable, "the body's own error comes back");
    }
    assert_eq!(buckets.source.head(&key("a"), None).await.expect(WORKS), Some(before));
    assert_eq!(buckets.source.head(&key("b"), None).await.expect(WORKS), None);
}

async fn conditions_of_a_put(buckets: &Buckets) {
    let put = async |bytes: &'static str, onto| {
        let attributes = Attributes::default();
        buckets.source.put(&key("a"), body(Bytes::from(bytes)), &attributes, onto).await.expect(WORKS)
    };
    let absent = put("0", Onto::This(ETag::from("any"))).await;
    assert_eq!(absent, Written::DestinationChanged, "what is not there has no tag");
    let Written::Done(first) = put("1", Onto::Nothing).await else { panic!("the key was free") };
    assert_eq!(put("2", Onto::Nothing).await, Written::DestinationChanged);
    let new = async |name: &str| {
        buckets.source.put_new(&key(name), "small".into(), &Attributes::default()).await.expect(WORKS)
    };
    assert_eq!([new("new").await, new("new").await], [true, false], "only where nothing is");
    let Written::Done(_) = put("3", Onto::This(first.version.etag.clone())).await else { panic!("the tag was right") };
    assert_eq!(put("4", Onto::This(first.version.etag)).await, Written::DestinationChanged);
    assert_eq!(text_of(&*buckets.source, "a").await.expect("it is there"), "3");
}

async fn ranges(buckets: &Buckets) {
    put(buckets, "a", "0123456789").await;
    for (range, wanted) in [(0..10, "0123456789"), (2..4, "23"), (8..99, "89"), (9..10, "9")] {
        let object = buckets.source.get(&key("a"), None, Some(range)).await.expect(WORKS).expect("it is there");
        assert_eq!(object.head.version.size, 10, "the size is the whole object's");
        assert_eq!(collect(object.body).await.expect(WORKS), wanted);
    }
    let beyond = buckets.source.get(&key("a"), None, Some(10..11)).await.map(drop);
    assert!(matches!(beyond.expect_err("nothing is there").kind, ErrorKind::Invalid(_)));
}

async fn any_legal_key(buckets: &Buckets) {
    let mut keys: Vec<String> = [
        "a",
        "a/b",
        "..",
        "../../x",
        ".",
        "a//b",
        "//",
        "/",
        "/a",
        "a/",
        "a/../b",
        "%",
        "%2F",
        "a+b",
        " a ",
        "a\u{0}b",
        "a\nb",
        "ä",
        "😀",
        "-",
        "~",
        "*?[]",
        "\\",
        ".afterimage/x",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.extend(["x", "/", "."].map(|text| text.repeat(KEY_BYTES_MAX)));
    keys.push("é".repeat(KEY_BYTES_MAX / 2));
    for text in &keys {
        let bytes = Bytes::from(text.clone().into_bytes());
        let put = buckets.source.put(&key(text), body(bytes), &Attributes::default(), Onto::Nothing).await;
        let Written::Done(head) = put.expect(WORKS) else { panic!("{text:?} was free") };
        copy(buckets, &request(text, &head, text, Onto::Nothing)).await;
    }
    keys.sort();
    for text in &keys {
        assert_eq!(text_of(&*buckets.source, text).await.expect("it was put"), *text);
        assert_eq!(text_of(&*buckets.destination, text).await.expect("it was copied"), *text);
    }
    let page = buckets.destination.list("", None, 1_000).await.expect(WORKS);
    assert_eq!(page.items.iter().map(|item| item.key.as_str()).collect::<Vec<_>>(), keys);
}

async fn listings_in_key_order(buckets: &Buckets) {
    // Bytes of UTF-8: `+` before `.` before `/`, and characters above U+FFFF last.
    let sorted = ["a", "a+b", "a.b", "a/b", "a/c/d", "b", "\u{E000}", "\u{10000}"];
    let mut heads = BTreeMap::new();
    for text in sorted.iter().rev() {
        heads.insert(*text, put(buckets, text, "x").await);
    }
    for (prefix, wanted) in [("", &sorted[..]), ("a", &sorted[..5]), ("a/", &sorted[3..5]), ("c", &[])] {
        for limit in 1..=sorted.len() + 1 {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = buckets.source.list(prefix, after.as_ref(), limit).await.expect(WORKS);
                assert!(page.items.len() <= limit, "a page has its limit");
                assert!(page.next.is_none() || page.items.len() == limit, "only a full page has a next one");
                found.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found.iter().map(|item| item.key.as_str()).collect::<Vec<_>>(), wanted, "pages of {limit}");
            for item in found {
                let head = &heads[item.key.as_str()];
                assert_eq!((&item.version, item.last_modified), (&head.version, head.last_modified));
            }
        }
    }
    let page = buckets.source.list("", Some(&key("a.0")), 1).await.expect(WORKS);
    assert_eq!(page.items[0].key, key("a.b"), "`after` need not be there");
}

async fn a_copy_has_everything_of_its_original(buckets: &Buckets) {
    let bytes = Bytes::from(vec![9; 1_500_000]);
    for (name, bytes) in [("small", Bytes::from("hello")), ("large", bytes), ("empty", Bytes::new())] {
        let size = bytes.len() as u64;
        let put = buckets.source.put_sized(&key(name), body(bytes.clone()), size, &attributes(), Onto::Anything).await;
        let Written::Done(head) = put.expect(WORKS) else { panic!("a put without condition is done") };
        let mut request = request(name, &head, &format!("{name}.copy"), Onto::Anything);
        request.add_metadata.insert("added".to_owned(), "1".to_owned());
        let copied = copy(buckets, &request).await;
        let again = copy(buckets, &request).await;
        assert_eq!(copied.version, again.version, "copying is safe to repeat");

        let object = buckets.destination.get(&request.to, None, None).await.expect(WORKS).expect("it was copied");
        assert_eq!(object.head, again);
        assert_eq!((object.head.version.size, object.head.checksum), (head.version.size, head.checksum));
        let mut wanted = attributes();
        wanted.metadata.insert("added".to_owned(), "1".to_owned());
        assert_eq!(object.attributes, wanted);
        assert_eq!(collect(object.body).await.expect(WORKS), bytes);
    }
    assert_eq!(buckets.destination.list("", None, 10).await.expect(WORKS).items.len(), 3);
}

async fn a_copy_is_of_the_content_that_was_asked_for(buckets: &Buckets) {
    let first = put(buckets, "a", "first").await;
    put(buckets, "a", "second").await;
    let copied = buckets.copy.copy(&request("a", &first, "a.copy", Onto::Anything)).await.expect(WORKS);
    if first.version.version_id.is_some() {
        assert!(matches!(copied, Copied::Done(_)), "the version is kept until its event is handled: {copied:?}");
        assert_eq!(text_of(&*buckets.destination, "a.copy").await.expect("it was copied"), "first");
    } else {
        assert_eq!(copied, Copied::SourceChanged);
        assert_eq!(text_of(&*buckets.destination, "a.copy").await, None);
    }
    let gone = buckets.copy.copy(&request("nothing", &first, "b.copy", Onto::Anything)).await.expect(WORKS);
    assert_eq!(gone, Copied::SourceGone);
    let mut other = request("a", &first, "c.copy", Onto::Anything);
    other.version.etag = ETag::from("another");
    assert_eq!(buckets.copy.copy(&other).await.expect(WORKS), Copied::SourceChanged);
    assert_eq!(text_of(&*buckets.destination, "c.copy").await, None);
}

async fn conditions_of_a_copy(buckets: &Buckets) {
    let (one, two) = (put(buckets, "one", "1").await, put(buckets, "two", "2").await);
    let there = copy(buckets, &request("one", &one, "to", Onto::Nothing)).await;
    let refused = [Onto::Nothing, Onto::This(ETag::from("another"))];
    for onto in refused {
        let outcome = buckets.copy.copy(&request("two", &two, "to", onto)).await.expect(WORKS);
        assert_eq!(outcome, Copied::DestinationChanged);
    }
    let absent = buckets.copy.copy(&request("two", &two, "absent", Onto::This(there.version.etag.clone()))).await;
    assert_eq!(absent.expect(WORKS), Copied::DestinationChanged);
    assert_eq!(text_of(&*buckets.destination, "to").await.expect("it was copied"), "1");
    copy(buckets, &request("two", &two, "to", Onto::This(there.version.etag))).await;
    assert_eq!(text_of(&*buckets.destination, "to").await.expect("it was copied"), "2");
}

async fn purges(buckets: &Buckets) {
    let head = put(buckets, "a", "1").await;
    let mut last = None;
    for to in ["x/1", "x/2", "x/3"] {
        last = Some(copy(buckets, &request("a", &head, to, Onto::Anything)).await);
    }
    let etag = last.expect("three were copied").version.etag;
    let item = |text: &str, if_match: Option<&ETag>| PurgeItem {
        key: key(text),
        version_id: None,
        if_match: if_match.cloned(),
    };
    let other = ETag::from("another");
    let items = [item("x/2", None), item("gone", None), item("x/1", Some(&other)), item("x/3", Some(&etag))];
    let wanted = [Purged::Done, Purged::Done, Purged::Changed, Purged::Done];
    for _ in 0..2 {
        let results = buckets.purge.purge(&items).await;
        let results: Vec<Purged> = results.into_iter().map(|result| result.expect(WORKS)).collect();
        assert_eq!(results, wanted, "one result each, in order; purging again is fine");
    }
    let left = buckets.destination.list("", None, 10).await.expect(WORKS);
    assert_eq!(left.items.iter().map(|item| item.key.as_str()).collect::<Vec<_>>(), ["x/1"]);
    assert_eq!(buckets.destination.head(&key("x/2"), None).await.expect(WORKS), None);
    assert!(buckets.purge.purge(&[]).await.is_empty());
    assert_eq!(text_of(&*buckets.source, "a").await.expect("sources are not purged"), "1");
}
