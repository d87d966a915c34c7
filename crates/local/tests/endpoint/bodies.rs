//! Bodies that keep what their requests promise, and bodies that do not: nothing of those is stored, and no event.

use crate::client::{Ask, Hash, base64, head, raw, send, sha256};
use crate::{Server, object_files};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Public values of `hello`.
const CRC32: &str = "NhCmhg==";
const MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";
const SHA1: &str = "qvTGHdzF6KLavt4PO0gs2a6pQ00=";

fn hello_sha256() -> String {
    base64(Sha256::digest(b"hello"))
}

#[tokio::test]
async fn every_checksum_is_verified_and_kept() {
    let server = Server::start().await;
    let crc64 = server.ask("PUT", "/source/none", &[], b"hello").await.header("x-amz-checksum-crc64nvme").to_owned();
    assert_eq!(STANDARD.decode(&crc64).unwrap().len(), 8, "S3's own checksum, when the client sends none");
    for (name, right) in [
        ("x-amz-checksum-crc32", CRC32.to_owned()),
        ("x-amz-checksum-crc32c", "mnG7TA==".to_owned()),
        ("x-amz-checksum-crc64nvme", crc64),
        ("x-amz-checksum-sha1", SHA1.to_owned()),
        ("x-amz-checksum-sha256", hello_sha256()),
        ("content-md5", MD5.to_owned()),
    ] {
        let before = server.events().await;
        let target = format!("/source/{name}");
        let wrong = server.ask("PUT", &target, &[(name, &right)], b"hellp").await;
        assert_eq!(wrong.error(), (400, "BadDigest".to_owned()), "{name}: {}", wrong.text());
        assert_eq!((server.get(&target).await.status, server.events().await), (404, before), "{name}");
        let kept = server.ask("PUT", &target, &[(name, &right)], b"hello").await;
        assert_eq!(kept.status, 200, "{name}: {}", kept.text());
        if name != "content-md5" {
            assert_eq!(kept.header(name), right);
            let head = server.ask("HEAD", &target, &[("x-amz-checksum-mode", "ENABLED")], b"").await;
            assert_eq!((head.header(name), head.header("x-amz-checksum-type")), (right.as_str(), "FULL_OBJECT"));
            assert_eq!(server.ask("HEAD", &target, &[], b"").await.header(name), "", "only on request");
            let range = [("x-amz-checksum-mode", "ENABLED"), ("range", "bytes=0-1")];
            assert_eq!(server.ask("GET", &target, &range, b"").await.header(name), "", "it is no range's checksum");
        }
    }
    assert_eq!(server.events().await, 7);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_signature_says_leaves_nothing() {
    let server = Server::start().await;
    let lie = sha256(b"other");
    let ask = Ask { method: "PUT", target: "/source/a", headers: &[], body: b"hello", hash: Hash::Says(&lie) };
    let reply = send(server.address, &server.signer(), ask).await;
    assert_eq!(reply.error(), (400, "XAmzContentSHA256Mismatch".to_owned()), "{}", reply.text());
    assert_eq!((server.get("/source/a").await.status, server.events().await), (404, 0));
    assert_eq!(object_files(server.folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_batch_delete_whose_body_was_changed_deletes_nothing() {
    let server = Server::start().await;
    server.put("/source/a", b"x").await;
    let body = b"<Delete><Object><Key>a</Key></Object></Delete>";
    for header in [("content-md5", MD5), ("x-amz-checksum-crc32", CRC32)] {
        let reply = server.ask("POST", "/source?delete", &[header], body).await;
        assert_eq!(reply.error(), (400, "BadDigest".to_owned()), "{}", reply.text());
    }
    let lie = sha256(b"other");
    let ask = Ask { method: "POST", target: "/source?delete", headers: &[], body, hash: Hash::Says(&lie) };
    assert!(send(server.address, &server.signer(), ask).await.status >= 400);
    assert_eq!((server.get("/source/a").await.status, server.events().await), (200, 1));
    let right = base64(Sha256::digest(body));
    let reply = server.ask("POST", "/source?delete", &[("x-amz-checksum-sha256", &right)], body).await;
    assert_eq!((reply.status, reply.all("Key")), (200, vec!["a".to_owned()]));
    assert_eq!((server.get("/source/a").await.status, server.events().await), (404, 2));
}

/// Sends an `aws-chunked` body in signed pieces, perhaps changed on its way.
async fn chunked(
    server: &Server,
    target: &str,
    pieces: &[&[u8]],
    change: impl Fn(&mut Vec<u8>),
) -> crate::client::Reply {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let length = length.to_string();
    let headers = [("content-encoding", "gzip,aws-chunked"), ("x-amz-decoded-content-length", length.as_str())];
    let hash = Hash::Says("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let ask = Ask { method: "PUT", target, headers: &headers, body: b"", hash };
    let signer = server.signer();
    let (headers, seed) = signer.sign(&server.address.to_string(), &ask);
    let mut body = signer.chunked(&seed, pieces);
    change(&mut body);
    raw(server.address, head("PUT", target, &headers, body.len()).as_bytes(), &body).await
}

#[tokio::test]
async fn signed_pieces_are_taken_apart_and_each_verified() {
    let server = Server::start().await;
    let big = vec![b'b'; 70_000];
    let reply = chunked(&server, "/source/a", &[b"hello ", &big, b" end"], |_| {}).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let got = server.get("/source/a").await;
    assert_eq!(got.body, [b"hello ", big.as_slice(), b" end"].concat());
    assert_eq!(got.header("content-encoding"), "gzip", "`aws-chunked` is no encoding of the object");
    let forged = chunked(&server, "/source/b", &[b"hello"], |body| {
        let at = body.windows(5).position(|part| part == b"hello").unwrap();
        body[at] = b'j';
    });
    assert_eq!(forged.await.error(), (403, "SignatureDoesNotMatch".to_owned()));
    let cut = chunked(&server, "/source/b", &[b"hello", b"world"], |body| {
        let end = body.windows(5).position(|part| part == b"hello").unwrap() + 7;
        body.truncate(end);
    });
    assert_eq!(cut.await.error(), (400, "IncompleteBody".to_owned()));
    let garbled = chunked(&server, "/source/b", &[b"hello"], |body| body[0] = b'z').await;
    assert_eq!(garbled.error(), (400, "InvalidRequest".to_owned()), "{}", garbled.text());
    let huge = chunked(&server, "/source/b", &[b"hello"], |body| drop(body.splice(..1, *b"ffffffff"))).await;
    assert_eq!(huge.error(), (400, "InvalidRequest".to_owned()), "it would be held in memory: {}", huge.text());
    assert_eq!((server.get("/source/b").await.status, server.events().await), (404, 1));
}

/// Sends an unsigned `aws-chunked` body with a checksum in its trailer.
async fn trailing(server: &Server, target: &str, body: &str, trailer: &str) -> crate::client::Reply {
    let length = body.len().to_string();
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", length.as_str()),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    let framed = format!("{:x}\r\n{body}\r\n0\r\n{trailer}\r\n", body.len());
    let hash = Hash::Says("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    let ask = Ask { method: "PUT", target, headers: &headers, body: framed.as_bytes(), hash };
    send(server.address, &server.signer(), ask).await
}

#[tokio::test]
async fn a_checksum_in_a_trailer_is_verified_too() {
    let server = Server::start().await;
    let right = format!("x-amz-checksum-crc32:{CRC32}\r\n");
    let reply = trailing(&server, "/source/a", "hello", &right).await;
    assert_eq!((reply.status, reply.header("x-amz-checksum-crc32")), (200, CRC32), "{}", reply.text());
    let got = server.get("/source/a").await;
    assert_eq!((got.body.as_slice(), got.header("content-encoding")), (&b"hello"[..], ""));
    assert_eq!(trailing(&server, "/source/b", "hellp", &right).await.error(), (400, "BadDigest".to_owned()));
    assert_eq!(trailing(&server, "/source/b", "hello", "").await.error(), (400, "BadDigest".to_owned()));
    assert_eq!((server.get("/source/b").await.status, server.events().await), (404, 1));
}

#[tokio::test]
async fn metadata_type_and_tags_come_back_as_they_were_sent() {
    let server = Server::start().await;
    let headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("cache-control", "max-age=60"),
        ("content-disposition", "attachment; filename=\"a b\""),
        ("content-language", "de"),
        ("content-encoding", "identity"),
        ("expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
        ("x-amz-meta-colour", "blue"),
        ("x-amz-meta-nom", "=?UTF-8?B?w6k=?="),
        ("x-amz-tagging", "a=1&b=%26"),
    ];
    assert_eq!(server.ask("PUT", "/source/a", &headers, b"x").await.status, 200);
    for method in ["GET", "HEAD"] {
        let reply = server.ask(method, "/source/a", &[], b"").await;
        for (name, sent) in headers.iter().filter(|(name, _)| *name != "x-amz-tagging" && *name != "x-amz-meta-nom") {
            assert_eq!(reply.header(name), *sent, "{method} {name}");
        }
        assert!(!reply.header("x-amz-meta-nom").is_empty());
        assert_eq!(reply.header("x-amz-version-id"), "", "to clients the bucket has no versions");
    }
    let tags = server.get("/source/a?tagging").await;
    assert_eq!((tags.all("Key"), tags.all("Value")), (vec!["a".into(), "b".into()], vec!["1".into(), "&amp;".into()]));
    let long = "v".repeat(2_048);
    let reply = server.ask("PUT", "/source/b", &[("x-amz-meta-n", &long)], b"x").await;
    assert_eq!(reply.error(), (400, "MetadataTooLarge".to_owned()));
}
