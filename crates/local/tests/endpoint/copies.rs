//! Copies by clients: conditions on both sides, and which attributes come along.

use crate::Server;

#[tokio::test]
async fn a_copy_brings_its_attributes_or_gets_new_ones() {
    let server = Server::start().await;
    let sent = [("content-type", "text/plain"), ("x-amz-meta-a", "1"), ("x-amz-tagging", "t=1")];
    server.ask("PUT", "/source/a%2Bb%20c", &sent, b"hello").await;
    let from = ("x-amz-copy-source", "/source/a%2Bb%20c");
    let reply = server.ask("PUT", "/source/same", &[from], b"").await;
    assert_eq!((reply.status, reply.one("ETag")), (200, "\"5d41402abc4b2a76b9719d911017c592\"".to_owned()));
    let same = server.get("/source/same").await;
    assert_eq!((same.header("content-type"), same.header("x-amz-meta-a")), ("text/plain", "1"));
    assert_eq!(server.get("/source/same?tagging").await.all("Value"), ["1"]);

    let replace = [from, ("x-amz-metadata-directive", "REPLACE"), ("content-type", "text/html"), ("x-amz-meta-b", "2")];
    server.ask("PUT", "/source/new", &replace, b"").await;
    let new = server.get("/source/new").await;
    assert_eq!(
        (new.header("content-type"), new.header("x-amz-meta-a"), new.header("x-amz-meta-b")),
        ("text/html", "", "2")
    );
    assert_eq!(server.get("/source/new?tagging").await.all("Value"), ["1"], "tags have a directive of their own");

    let retag = [from, ("x-amz-tagging-directive", "REPLACE"), ("x-amz-tagging", "t=2")];
    server.ask("PUT", "/source/tagged", &retag, b"").await;
    assert_eq!(server.get("/source/tagged?tagging").await.all("Value"), ["2"]);
    assert_eq!(server.get("/source/tagged").await.header("x-amz-meta-a"), "1");
    assert_eq!(server.events().await, 4);
}

#[tokio::test]
async fn conditions_on_the_source_and_on_the_target_are_kept() {
    let server = Server::start().await;
    let tag = server.put("/source/a", b"one").await;
    server.put("/source/there", b"two").await;
    let before = server.events().await;
    let from = ("x-amz-copy-source", "source/a");
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    for (target, header, expected) in [
        ("/source/b", ("x-amz-copy-source-if-match", "\"other\""), 412),
        ("/source/b", ("x-amz-copy-source-if-none-match", tag.as_str()), 412),
        ("/source/b", ("x-amz-copy-source-if-unmodified-since", past), 412),
        ("/source/b", ("x-amz-copy-source-if-modified-since", "Thu, 01 Jan 2099 00:00:00 GMT"), 412),
        ("/source/there", ("if-none-match", "*"), 412),
        ("/source/there", ("if-match", "\"other\""), 412),
        ("/source/missing", ("if-match", tag.as_str()), 404),
        ("/source/b", ("x-amz-metadata-directive", "MERGE"), 400),
    ] {
        let reply = server.ask("PUT", target, &[from, header], b"").await;
        assert_eq!(reply.status, expected, "{header:?}: {}", reply.text());
    }
    assert_eq!((server.get("/source/b").await.status, server.events().await), (404, before));
    for header in [
        ("x-amz-copy-source-if-match", tag.as_str()),
        ("x-amz-copy-source-if-modified-since", past),
        ("if-none-match", "*"),
    ] {
        server.ask("DELETE", "/source/b", &[], b"").await;
        assert_eq!(server.ask("PUT", "/source/b", &[from, header], b"").await.status, 200, "{header:?}");
    }
    let onto = server.ask("PUT", "/source/b", &[("x-amz-copy-source", "source/there"), ("if-match", &tag)], b"").await;
    assert_eq!(onto.status, 200);
    assert_eq!(server.get("/source/b").await.body, b"two");
}

#[tokio::test]
async fn copies_from_nowhere_and_onto_themselves_are_refused() {
    let server = Server::start().await;
    server.put("/source/a", b"one").await;
    let copy = |source: &'static str| {
        let server = &server;
        async move { server.ask("PUT", "/source/a", &[("x-amz-copy-source", source)], b"").await.error() }
    };
    assert_eq!(copy("/source/missing").await, (404, "NoSuchKey".to_owned()));
    assert_eq!(copy("/nowhere/a").await, (404, "NoSuchBucket".to_owned()));
    assert_eq!(copy("/source/a").await, (400, "InvalidRequest".to_owned()));
    let retyped =
        [("x-amz-copy-source", "/source/a"), ("x-amz-metadata-directive", "REPLACE"), ("content-type", "a/b")];
    assert_eq!(server.ask("PUT", "/source/a", &retyped, b"").await.status, 200);
    assert_eq!(server.get("/source/a").await.header("content-type"), "a/b");
}
