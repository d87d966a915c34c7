//! One object: reads in part and on condition, conditional writes, deletes.

use crate::Server;

#[tokio::test]
async fn every_form_of_range() {
    let server = Server::start().await;
    server.put("/source/a", b"0123456789").await;
    server.put("/source/empty", b"").await;
    for (range, status, body, told) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=4-", 206, "456789", "bytes 4-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
        ("bytes=0-9", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=-100", 206, "0123456789", "bytes 0-9/10"),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = server.ask(method, "/source/a", &[("range", range)], b"").await;
            assert_eq!((reply.status, reply.header("content-range")), (status, told), "{method} {range}");
            assert_eq!(reply.header("content-length"), body.len().to_string(), "{method} {range}");
            assert_eq!(reply.text(), if method == "GET" { body } else { "" });
        }
    }
    for (target, range) in [("a", "bytes=10-"), ("a", "bytes=10-20"), ("a", "bytes=-0"), ("empty", "bytes=0-")] {
        let reply = server.ask("GET", &format!("/source/{target}"), &[("range", range)], b"").await;
        assert_eq!(reply.error(), (416, "InvalidRange".to_owned()), "{target} {range}");
        assert!(reply.header("content-range").starts_with("bytes */"), "{target} {range}");
        assert_eq!(server.ask("HEAD", &format!("/source/{target}"), &[("range", range)], b"").await.status, 416);
    }
    assert_eq!(server.get("/source/empty").await.body, b"");
}

#[tokio::test]
async fn conditional_reads() {
    let server = Server::start().await;
    let tag = server.put("/source/a", b"hello").await;
    let written = server.ask("HEAD", "/source/a", &[], b"").await.header("last-modified").to_owned();
    let (past, future) = ("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT");
    for (headers, status) in [
        (&[("if-match", tag.as_str())][..], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-none-match", tag.as_str())], 304),
        (&[("if-none-match", "\"other\"")], 200),
        (&[("if-modified-since", written.as_str())], 304),
        (&[("if-modified-since", past)], 200),
        (&[("if-unmodified-since", written.as_str())], 200),
        (&[("if-unmodified-since", past)], 412),
        (&[("if-match", tag.as_str()), ("if-unmodified-since", past)], 200),
        (&[("if-none-match", "\"other\""), ("if-modified-since", future)], 200),
        (&[("if-none-match", tag.as_str()), ("range", "bytes=99-")], 304),
        (&[("if-range", tag.as_str()), ("range", "bytes=0-0")], 206),
        (&[("if-range", "\"other\""), ("range", "bytes=0-0")], 200),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = server.ask(method, "/source/a", headers, b"").await;
            assert_eq!(reply.status, status, "{method} {headers:?}");
            if status == 304 {
                assert_eq!((reply.header("etag"), reply.body.len()), (tag.as_str(), 0), "{method} {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_reader_may_ask_for_other_headers() {
    let server = Server::start().await;
    server.put("/source/a", b"hello").await;
    let target = "/source/a?response-content-type=text%2Fcsv&response-cache-control=no-store\
                  &response-content-disposition=inline&response-content-language=fr&response-content-encoding=br";
    for method in ["GET", "HEAD"] {
        let reply = server.ask(method, target, &[], b"").await;
        assert_eq!((reply.header("content-type"), reply.header("cache-control")), ("text/csv", "no-store"));
        assert_eq!((reply.header("content-disposition"), reply.header("content-language")), ("inline", "fr"));
        assert_eq!(reply.header("content-encoding"), "br");
    }
}

#[tokio::test]
async fn conditional_writes() {
    let server = Server::start().await;
    let status = |headers: &'static [(&'static str, &'static str)], body: &'static [u8]| {
        let server = &server;
        async move { server.ask("PUT", "/source/a", headers, body).await.error() }
    };
    const ONE: &str = "\"f97c5d29941bfb1b2fdab0874906ab82\""; // of `one`
    assert_eq!(status(&[("if-match", ONE)], b"x").await, (404, "NoSuchKey".to_owned()));
    assert_eq!(status(&[("if-none-match", "*")], b"one").await.0, 200);
    assert_eq!(status(&[("if-none-match", "*")], b"x").await, (412, "PreconditionFailed".to_owned()));
    assert_eq!(status(&[("if-match", "\"other\"")], b"x").await, (412, "PreconditionFailed".to_owned()));
    assert_eq!((server.get("/source/a").await.body.as_slice(), server.events().await), (&b"one"[..], 1));
    assert_eq!(status(&[("if-match", ONE)], b"two").await.0, 200);
    assert_eq!((server.get("/source/a").await.body.as_slice(), server.events().await), (&b"two"[..], 2));
}

#[tokio::test]
async fn deletes_make_an_event_each_only_where_something_was() {
    let server = Server::start().await;
    let tag = server.put("/source/a", b"x").await;
    server.put("/source/b", b"x").await;
    assert_eq!(server.ask("DELETE", "/source/a", &[("if-match", "\"other\"")], b"").await.status, 412);
    assert_eq!(server.get("/source/a").await.status, 200);
    assert_eq!(server.ask("DELETE", "/source/a", &[("if-match", &tag)], b"").await.status, 204);
    assert_eq!(server.ask("DELETE", "/source/a", &[], b"").await.status, 204, "a missing key counts as deleted");
    assert_eq!(server.events().await, 3);
    let body = b"<Delete><Object><Key>b</Key></Object><Object><Key>gone</Key></Object>\
                 <Object><Key>v</Key><VersionId>1</VersionId></Object></Delete>";
    let reply = server.ask("POST", "/source?delete", &[], body).await;
    assert_eq!(reply.all("Deleted").len(), 2, "{}", reply.text());
    assert_eq!(reply.all("Code"), ["NotImplemented"]);
    assert_eq!(server.events().await, 4);
    let quiet = b"<Delete><Object><Key>b</Key></Object><Quiet>true</Quiet></Delete>";
    assert!(server.ask("POST", "/source?delete", &[], quiet).await.all("Deleted").is_empty());
    let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1_001));
    let reply = server.ask("POST", "/source?delete", &[], many.as_bytes()).await;
    assert_eq!(reply.error(), (400, "MalformedXML".to_owned()));
}

#[tokio::test]
async fn tags_are_replaced_and_removed_without_an_event() {
    let server = Server::start().await;
    server.put("/source/a", b"x").await;
    let tags = b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>";
    assert_eq!(server.ask("PUT", "/source/a?tagging", &[], tags).await.status, 200);
    assert_eq!(server.get("/source/a?tagging").await.all("Value"), ["v"]);
    assert_eq!(server.get("/source/a").await.header("x-amz-tagging-count"), "1");
    assert_eq!(server.ask("DELETE", "/source/a?tagging", &[], b"").await.status, 204);
    assert!(server.get("/source/a?tagging").await.all("Key").is_empty());
    assert_eq!(server.get("/source/missing?tagging").await.error(), (404, "NoSuchKey".to_owned()));
    assert_eq!(server.events().await, 1);
}

#[tokio::test]
async fn buckets_may_stand_in_the_host_name() {
    let server = Server::start().await;
    server.put("/source/a", b"hello").await;
    let ask =
        crate::client::Ask { method: "GET", target: "/a", headers: &[], body: b"", hash: crate::client::Hash::True };
    let host = format!("source.localhost:{}", server.address.port());
    let (headers, _) = server.signer().sign(&host, &ask);
    let head = crate::client::head("GET", "/a", &headers, 0);
    assert_eq!(crate::client::raw(server.address, head.as_bytes(), b"").await.body, b"hello");
}
