//! Who may do what: signatures, destinations, and what this endpoint does not do.

use crate::Server;
use crate::client::{Ask, Hash, Signer, raw, send};
use local::credentials::Credentials;

/// A refusal on the destination, with its reason, and nothing changed.
async fn denied(server: &Server, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
    let before = server.events().await;
    let reply = server.ask(method, target, headers, body).await;
    assert_eq!(reply.error(), (403, "AccessDenied".to_owned()), "{method} {target}: {}", reply.text());
    assert!(reply.one("Message").contains("holds copies"), "{}", reply.text());
    assert_eq!(server.get("/copies/kept").await.body, b"original");
    assert_eq!(server.events().await, before);
}

#[tokio::test]
async fn a_destination_can_be_listed_and_read() {
    let server = Server::start().await;
    server.make_copy().await;
    assert_eq!(server.get("/copies/kept").await.body, b"original");
    assert_eq!(server.get("/copies?list-type=2").await.all("Key"), ["kept"]);
    assert_eq!(server.ask("HEAD", "/copies/kept", &[], b"").await.status, 200);
    let back = server.ask("PUT", "/source/back", &[("x-amz-copy-source", "/copies/kept")], b"").await;
    assert_eq!(back.status, 200, "a person gets a copy back with an S3 client alone");
    assert_eq!(server.get("/source/back").await.body, b"original");
}

#[tokio::test]
async fn a_destination_refuses_a_put() {
    let server = Server::start().await;
    server.make_copy().await;
    denied(&server, "PUT", "/copies/kept", &[], b"overwritten").await;
    denied(&server, "PUT", "/copies/new", &[], b"new").await;
    denied(&server, "PUT", "/copies/kept?tagging", &[], b"<Tagging><TagSet/></Tagging>").await;
    denied(&server, "DELETE", "/copies/kept?tagging", &[], b"").await;
}

#[tokio::test]
async fn a_destination_refuses_a_copy_into_it() {
    let server = Server::start().await;
    server.make_copy().await;
    denied(&server, "PUT", "/copies/kept", &[("x-amz-copy-source", "/source/original")], b"").await;
}

#[tokio::test]
async fn a_destination_refuses_a_delete() {
    let server = Server::start().await;
    server.make_copy().await;
    denied(&server, "DELETE", "/copies/kept", &[], b"").await;
    denied(&server, "DELETE", "/copies", &[], b"").await;
}

#[tokio::test]
async fn a_destination_refuses_every_key_of_a_batch_delete() {
    let server = Server::start().await;
    server.make_copy().await;
    let body = b"<Delete><Object><Key>kept</Key></Object><Object><Key>other</Key></Object></Delete>";
    let reply = server.ask("POST", "/copies?delete", &[], body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.all("Code"), ["AccessDenied", "AccessDenied"]);
    assert_eq!(reply.all("Key"), ["kept", "other"]);
    assert!(reply.all("Deleted").is_empty());
    assert_eq!(server.get("/copies/kept").await.body, b"original");
}

#[tokio::test]
async fn a_destination_refuses_every_step_of_a_multipart_upload() {
    let server = Server::start().await;
    server.make_copy().await;
    denied(&server, "POST", "/copies/kept?uploads", &[], b"").await;
    denied(&server, "PUT", "/copies/kept?partNumber=1&uploadId=u", &[], b"part").await;
    let source = [("x-amz-copy-source", "/source/original")];
    denied(&server, "PUT", "/copies/kept?partNumber=1&uploadId=u", &source, b"").await;
    let list =
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>";
    denied(&server, "POST", "/copies/kept?uploadId=u", &[], list).await;
    denied(&server, "DELETE", "/copies/kept?uploadId=u", &[], b"").await;
}

#[tokio::test]
async fn wrong_credentials_and_none_are_refused() {
    let server = Server::start().await;
    let ask = || Ask { method: "PUT", target: "/source/a", headers: &[], body: b"x", hash: Hash::True };
    let wrong = Signer::new(&Credentials::new(server.credentials.access_key(), "wrong"));
    let reply = send(server.address, &wrong, ask()).await;
    assert_eq!(reply.error(), (403, "SignatureDoesNotMatch".to_owned()));
    let unknown = Signer::new(&Credentials::new("AFIMNOBODY", server.credentials.secret_key()));
    assert_eq!(send(server.address, &unknown, ask()).await.error(), (403, "InvalidAccessKeyId".to_owned()));
    let anonymous = b"PUT /source/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nconnection: close\r\n\r\n";
    assert_eq!(raw(server.address, anonymous, b"x").await.error(), (403, "AccessDenied".to_owned()));
    let old = b"GET /source/a HTTP/1.1\r\nhost: x\r\nauthorization: AWS AFIMTEST:sig\r\nconnection: close\r\n\r\n";
    assert_eq!(raw(server.address, old, b"").await.error(), (400, "InvalidRequest".to_owned()));
    let mut late = server.signer();
    late.now = "20200101T000000Z".to_owned();
    assert_eq!(send(server.address, &late, ask()).await.error(), (403, "RequestTimeTooSkewed".to_owned()));
    assert_eq!((server.get("/source/a").await.status, server.events().await), (404, 0));
}

#[tokio::test]
async fn rotated_keys_end_the_old_pair_at_once() {
    let server = Server::start().await;
    server.put("/source/a", b"x").await;
    let new = Credentials::new("AFIMNEW", "another");
    server.keyring.replace(new.clone());
    assert_eq!(server.get("/source/a").await.error(), (403, "InvalidAccessKeyId".to_owned()));
    let ask = Ask { method: "GET", target: "/source/a", headers: &[], body: b"", hash: Hash::True };
    assert_eq!(send(server.address, &Signer::new(&new), ask).await.body, b"x");
}

#[tokio::test]
async fn presigned_urls_do_what_was_signed_and_nothing_else() {
    let server = Server::start().await;
    let host = server.address.to_string();
    let signer = server.signer();
    let send = |method: &str, target: String, extra: &str, body: &'static [u8]| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\n{extra}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let address = server.address;
        async move { raw(address, head.as_bytes(), body).await }
    };
    let put = signer.presign(&host, "PUT", "/source/a", 60);
    assert_eq!(send("PUT", put.clone(), "", b"hello").await.status, 200);
    assert_eq!(send("GET", signer.presign(&host, "GET", "/source/a", 60), "", b"").await.body, b"hello");
    assert_eq!(send("GET", put.clone(), "", b"").await.error(), (403, "SignatureDoesNotMatch".to_owned()));
    let stolen = send("PUT", put.clone(), "x-amz-copy-source: /source/a\r\n", b"").await;
    assert_eq!(stolen.error(), (403, "AccessDenied".to_owned()));
    let tagged = signer.presign(&host, "PUT", "/source/a?x-amz-tagging=a%3Db", 60);
    assert_eq!(send("PUT", tagged, "", b"hello").await.status, 200);
    assert_eq!(server.get("/source/a?tagging").await.one("Value"), "b");
    let mut late = server.signer();
    late.now = "20200101T000000Z".to_owned();
    let expired = late.presign(&host, "GET", "/source/a", 60);
    assert_eq!(send("GET", expired, "", b"").await.error(), (403, "AccessDenied".to_owned()));
    let hash = format!("x-amz-content-sha256: {}\r\n", crate::client::sha256(b"other"));
    let lied = send("PUT", put, &hash, b"hello").await;
    assert_eq!(lied.error(), (400, "XAmzContentSHA256Mismatch".to_owned()));
}

#[tokio::test]
async fn what_is_not_supported_is_never_a_wrong_success() {
    let server = Server::start().await;
    server.put("/source/a", b"x").await;
    let before = server.events().await;
    let rules = b"<LifecycleConfiguration/>";
    for (method, target, headers, body) in [
        ("GET", "/source/a?versionId=1", &[][..], &b""[..]),
        ("GET", "/source/a?partNumber=1", &[], b""),
        ("GET", "/source/a?attributes", &[("x-amz-object-attributes", "ETag")], b""),
        ("GET", "/source/a?acl", &[], b""),
        ("GET", "/source?versions", &[], b""),
        ("GET", "/source?policy", &[], b""),
        ("PUT", "/source?lifecycle", &[], rules),
        ("PUT", "/source?versioning", &[], b"<VersioningConfiguration/>"),
        ("PUT", "/source?notification", &[], b"<NotificationConfiguration/>"),
        ("PUT", "/source?somethingNew", &[], b""),
        ("DELETE", "/source?somethingNew", &[], b""),
        ("DELETE", "/source/a?versionId=null", &[], b""),
        ("POST", "/source/a?restore", &[], b"<RestoreRequest/>"),
        ("PUT", "/source/b", &[("x-amz-acl", "public-read")], b"x"),
        ("PUT", "/source/b", &[("x-amz-server-side-encryption", "AES256")], b"x"),
        ("PUT", "/source/b", &[("x-amz-storage-class", "GLACIER")], b"x"),
        ("PUT", "/source/b", &[("x-amz-object-lock-mode", "GOVERNANCE")], b"x"),
        ("PUT", "/source/b", &[("x-amz-website-redirect-location", "/c")], b"x"),
        ("PUT", "/source/b", &[("content-range", "bytes 0-0/2")], b"x"),
        ("PUT", "/source/b", &[("if-none-match", "\"tag\"")], b"x"),
        ("PUT", "/source/b", &[("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")], b"x"),
        ("PUT", "/source/b", &[("x-amz-copy-source", "/source/a?versionId=1")], b""),
        ("PATCH", "/source/b", &[], b"x"),
    ] {
        let reply = server.ask(method, target, headers, body).await;
        let refused = reply.error() == (501, "NotImplemented".to_owned()) || reply.status == 405;
        assert!(refused, "{method} {target} {headers:?}: {} {}", reply.status, reply.text());
    }
    assert_eq!(server.get("/source?list-type=2").await.all("Key"), ["a"]);
    assert_eq!(server.events().await, before);
}
