//! Buckets: protected before their creator is answered, and never in the way of copies.

use crate::Server;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_new_bucket_is_protected_before_its_creator_is_answered() {
    let server = Server::start().await;
    assert_eq!(server.ask("PUT", "/photos", &[], b"").await.status, 200);
    assert_eq!(*server.hooks.created.lock().unwrap(), ["photos"]);
    assert_eq!(server.get("/").await.all("Name"), ["copies", "photos", "source"]);
    assert_eq!(server.ask("HEAD", "/photos", &[], b"").await.header("x-amz-bucket-region"), "us-east-1");
    assert!(server.get("/photos?location").await.text().contains("LocationConstraint"));
    assert!(!server.get("/photos?versioning").await.text().contains("Enabled"));
    server.put("/photos/a", b"x").await;
}

#[tokio::test]
async fn a_bucket_that_could_not_be_protected_is_repaired_by_asking_again() {
    let server = Server::start().await;
    server.hooks.refuses.store(true, Ordering::SeqCst);
    assert_eq!(server.ask("PUT", "/photos", &[], b"").await.error(), (503, "ServiceUnavailable".to_owned()));
    server.hooks.refuses.store(false, Ordering::SeqCst);
    assert_eq!(server.ask("PUT", "/photos", &[], b"").await.status, 200);
    assert_eq!(*server.hooks.created.lock().unwrap(), ["photos"]);
}

#[tokio::test]
async fn names_that_copies_need_are_not_given_away() {
    let server = Server::start().await;
    let code = |name: String| {
        let server = &server;
        async move { server.ask("PUT", &format!("/{name}"), &[], b"").await.error().1 }
    };
    assert_eq!(code("photos-copies".to_owned()).await, "InvalidBucketName");
    assert_eq!(code("b".repeat(57)).await, "InvalidBucketName", "its copies' bucket would have no legal name");
    assert_eq!(code("copies".to_owned()).await, "BucketAlreadyExists");
    assert_eq!(code("Upper".to_owned()).await, "InvalidBucketName");
    assert!(server.hooks.created.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_an_empty_bucket_whose_events_are_handled_can_be_deleted() {
    let server = Server::start().await;
    server.put("/source/a", b"x").await;
    assert_eq!(server.ask("DELETE", "/source", &[], b"").await.error(), (409, "BucketNotEmpty".to_owned()));
    server.ask("DELETE", "/source/a", &[], b"").await;
    server.hooks.keeps.store(true, Ordering::SeqCst);
    let reply = server.ask("DELETE", "/source", &[], b"").await;
    assert_eq!(reply.error(), (409, "OperationAborted".to_owned()));
    assert!(reply.one("Message").contains("events are not handled"));
    server.hooks.keeps.store(false, Ordering::SeqCst);
    assert_eq!(server.ask("DELETE", "/source", &[], b"").await.status, 204);
    assert_eq!(server.ask("HEAD", "/source", &[], b"").await.status, 404);
    assert_eq!(server.get("/source?list-type=2").await.error(), (404, "NoSuchBucket".to_owned()));
}
