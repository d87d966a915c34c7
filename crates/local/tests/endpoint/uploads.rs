//! Multipart uploads.

use crate::Server;
use crate::client::base64;

const PART: usize = 5 * 1024 * 1024;

async fn begin(server: &Server, key: &str, headers: &[(&str, &str)]) -> String {
    let reply = server.ask("POST", &format!("/source/{key}?uploads"), headers, b"").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.one("UploadId")
}

fn list(parts: &[(u32, &str)]) -> Vec<u8> {
    let parts: String = parts
        .iter()
        .map(|(number, tag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"))
        .collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").into_bytes()
}

#[tokio::test]
async fn an_upload_becomes_visible_in_one_step_with_its_attributes() {
    let server = Server::start().await;
    server.put("/source/old", &vec![b'o'; 2 * PART]).await;
    let sent = [("content-type", "text/plain"), ("x-amz-meta-a", "1"), ("x-amz-tagging", "t=1")];
    let id = begin(&server, "a", &sent).await;
    let part = |number: u32| format!("/source/a?partNumber={number}&uploadId={id}");
    let first = server.put(&part(1), &vec![b'a'; PART]).await;
    let copy = [("x-amz-copy-source", "/source/old"), ("x-amz-copy-source-range", "bytes=3-5242882")];
    let second = server.ask("PUT", &part(2), &copy, b"").await;
    assert_eq!(second.status, 200, "{}", second.text());
    let second = second.one("ETag");
    let third = server.put(&part(3), b"end").await;
    assert_eq!((server.get("/source/a").await.status, server.events().await), (404, 1), "nothing is visible yet");

    let page = server.get(&format!("/source/a?uploadId={id}&max-parts=2")).await;
    assert_eq!((page.all("PartNumber"), page.one("IsTruncated")), (vec!["1".into(), "2".into()], "true".into()));
    let rest = server.get(&format!("/source/a?uploadId={id}&part-number-marker=2")).await;
    assert_eq!((rest.all("PartNumber"), rest.all("Size")), (vec!["3".to_owned()], vec!["3".to_owned()]));
    assert_eq!(server.get("/source?uploads").await.all("UploadId"), std::slice::from_ref(&id));

    let body = list(&[(1, &first), (2, &second), (3, &third)]);
    let done = server.ask("POST", &format!("/source/a?uploadId={id}"), &[("if-none-match", "*")], &body).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.one("ETag").ends_with("-3\""), "{}", done.text());
    let again = server.ask("POST", &format!("/source/a?uploadId={id}"), &[("if-none-match", "*")], &body).await;
    assert_eq!((again.status, again.text()), (200, done.text()), "a client that did not hear the answer asks again");
    let got = server.get("/source/a").await;
    assert_eq!(got.body.len(), 2 * PART + 3);
    assert!(got.body.starts_with(b"aaa") && got.body.ends_with(b"ooend"));
    assert_eq!((got.header("content-type"), got.header("x-amz-meta-a")), ("text/plain", "1"));
    assert_eq!(server.get("/source/a?tagging").await.all("Value"), ["1"]);
    assert_eq!(server.events().await, 2);
    assert!(server.get("/source?uploads").await.all("UploadId").is_empty());
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let id = begin(&server, "a", &[]).await;
    let part = |number: u32| format!("/source/a?partNumber={number}&uploadId={id}");
    let (one, two) = (server.put(&part(1), b"small").await, server.put(&part(2), b"last").await);
    let done = format!("/source/a?uploadId={id}");
    for (parts, code) in [
        (list(&[(1, &one), (2, &two)]), "EntityTooSmall"),
        (list(&[(2, &two), (1, &one)]), "InvalidPartOrder"),
        (list(&[(1, "\"other\"")]), "InvalidPart"),
        (list(&[(7, &one)]), "InvalidPart"),
        (list(&[]), "MalformedXML"),
        (b"<nonsense".to_vec(), "MalformedXML"),
    ] {
        let reply = server.ask("POST", &done, &[], &parts).await;
        assert_eq!(reply.error(), (400, code.to_owned()), "{}", reply.text());
    }
    let sized = [("x-amz-mp-object-size", "6")];
    assert_eq!(server.ask("POST", &done, &sized, &list(&[(1, &one)])).await.status, 400);
    let unknown = server.ask("PUT", "/source/a?partNumber=1&uploadId=unknown", &[], b"x").await;
    assert_eq!(unknown.error(), (404, "NoSuchUpload".to_owned()));
    for number in ["0", "10001"] {
        let target = format!("/source/a?partNumber={number}&uploadId={id}");
        assert_eq!(server.ask("PUT", &target, &[], b"x").await.error(), (400, "InvalidArgument".to_owned()));
    }
    let wrong = [("x-amz-checksum-crc32", "AAAAAA==")];
    assert_eq!(server.ask("PUT", &part(3), &wrong, b"x").await.error(), (400, "BadDigest".to_owned()));
    server.put("/source/a", b"there").await;
    let guarded = server.ask("POST", &done, &[("if-none-match", "*")], &list(&[(1, &one)])).await;
    assert_eq!(guarded.error(), (412, "PreconditionFailed".to_owned()));
    assert_eq!((server.get("/source/a").await.body.as_slice(), server.events().await), (&b"there"[..], 1));
    assert_eq!(server.ask("DELETE", &done, &[], b"").await.status, 204);
    assert_eq!(server.ask("DELETE", &done, &[], b"").await.error(), (404, "NoSuchUpload".to_owned()));
}

#[tokio::test]
async fn checksums_of_parts_become_a_composite_one() {
    let server = Server::start().await;
    let id = begin(&server, "a", &[("x-amz-checksum-algorithm", "SHA256")]).await;
    let sum = |bytes: &[u8]| <sha2::Sha256 as sha2::Digest>::digest(bytes).to_vec();
    let own = base64(sum(b"only"));
    let part = format!("/source/a?partNumber=1&uploadId={id}");
    let reply = server.ask("PUT", &part, &[("x-amz-checksum-sha256", &own)], b"only").await;
    assert_eq!((reply.status, reply.header("x-amz-checksum-sha256")), (200, own.as_str()));
    let tag = reply.header("etag").to_owned();
    let composite = format!("{}-1", base64(sum(&sum(b"only"))));
    let done = format!("/source/a?uploadId={id}");
    let wrong = [("x-amz-checksum-sha256", own.as_str())];
    assert_eq!(server.ask("POST", &done, &wrong, &list(&[(1, &tag)])).await.error(), (400, "BadDigest".to_owned()));
    let right = [("x-amz-checksum-sha256", composite.as_str())];
    let reply = server.ask("POST", &done, &right, &list(&[(1, &tag)])).await;
    assert_eq!((reply.status, reply.one("ChecksumSHA256")), (200, composite.clone()), "{}", reply.text());
    let head = server.ask("HEAD", "/source/a", &[("x-amz-checksum-mode", "ENABLED")], b"").await;
    assert_eq!(head.header("x-amz-checksum-sha256"), composite);
    assert_eq!(head.header("x-amz-checksum-type"), "COMPOSITE");
}
