//! Connections: clients that break off or stall, and an end in good order.

use crate::client::{Ask, Hash, head, read_reply};
use crate::{Server, object_files, still_clock};
use engine::ports::clock::Clock;
use local::endpoint::limits::{ENDPOINT_DRAIN, ENDPOINT_IDLE};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection on which a put of `length` bytes has begun, with these already sent.
async fn begun(server: &Server, target: &str, length: usize, sent: &[u8]) -> TcpStream {
    let ask = Ask { method: "PUT", target, headers: &[], body: b"", hash: Hash::Says("UNSIGNED-PAYLOAD") };
    let (headers, _) = server.signer().sign(&server.address.to_string(), &ask);
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(head("PUT", target, &headers, length).as_bytes()).await.unwrap();
    socket.write_all(sent).await.unwrap();
    socket
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_no_object_no_event_and_no_file() {
    let server = Server::start().await;
    for sent in [0, 10, 400_000] {
        let socket = begun(&server, "/source/a", 500_000, &vec![b'x'; sent]).await;
        drop(socket);
    }
    // The endpoint ends when it has seen the ends of all its connections.
    server.cancel.cancel();
    let Server { serving, store, folder, .. } = server;
    serving.await.unwrap();
    let bucket = store.bucket("source").unwrap();
    assert!(bucket.head(&lifecycle::ids::ObjectKey::new("a").unwrap(), None).await.unwrap().is_none());
    assert_eq!(engine::ports::events::EventQueue::backlog(&**store.spool()).await.unwrap().waiting, 0);
    store.close().await;
    drop(store);
    assert_eq!(object_files(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn stopping_lets_a_request_in_flight_end() {
    let server = Server::start().await;
    let mut socket = begun(&server, "/source/a", 10, b"hello").await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    // The second request shows that the endpoint has taken both connections before it.
    server.put("/source/b", b"x").await;
    server.cancel.cancel();
    socket.write_all(b"world").await.unwrap();
    assert_eq!(read_reply(&mut socket).await.status, 200);
    drop(idle);
    let Server { serving, store, address, .. } = server;
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    let key = lifecycle::ids::ObjectKey::new("a").unwrap();
    assert!(store.bucket("source").unwrap().head(&key, None).await.unwrap().is_some());
}

#[tokio::test]
async fn stopping_waits_no_longer_than_its_limit_for_a_stalled_client() {
    let clock = still_clock();
    let server = Server::with_clock(clock.clone()).await;
    let mut socket = begun(&server, "/source/a", 10, b"hello").await;
    clock.until_asleep(1).await;
    server.cancel.cancel();
    clock.until_asleep(2).await;
    clock.advance(ENDPOINT_DRAIN);
    let Server { serving, store, .. } = server;
    serving.await.unwrap();
    let mut rest = Vec::new();
    // The connection is gone, politely or not.
    assert!(socket.read_to_end(&mut rest).await.is_err() || rest.is_empty());
    let key = lifecycle::ids::ObjectKey::new("a").unwrap();
    assert!(store.bucket("source").unwrap().head(&key, None).await.unwrap().is_none());
}

#[tokio::test]
async fn idle_and_stalled_connections_are_closed() {
    let clock = still_clock();
    let server = Server::with_clock(Arc::clone(&clock) as Arc<dyn Clock>).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut dribbling = TcpStream::connect(server.address).await.unwrap();
    dribbling.write_all(b"GET / HT").await.unwrap();
    let mut stalled = begun(&server, "/source/a", 10, b"hello").await;
    clock.until_asleep(3).await;
    // Two looks: at the first, the request of the third connection is news.
    clock.advance(ENDPOINT_IDLE);
    let mut nothing = Vec::new();
    for socket in [&mut idle, &mut dribbling] {
        assert!(socket.read_to_end(&mut nothing).await.is_err() || nothing.is_empty());
    }
    clock.until_asleep(1).await;
    clock.advance(ENDPOINT_IDLE);
    assert!(stalled.read_to_end(&mut nothing).await.is_err() || nothing.is_empty());
    let key = lifecycle::ids::ObjectKey::new("a").unwrap();
    assert!(server.store.bucket("source").unwrap().head(&key, None).await.unwrap().is_none());
}

#[tokio::test]
async fn a_refused_body_is_read_so_that_its_client_sees_why() {
    let server = Server::start().await;
    let body = vec![b'x'; 2 * 1024 * 1024];
    let reply = server.ask("PUT", "/copies/a", &[], &body).await;
    assert_eq!(reply.error(), (403, "AccessDenied".to_owned()));
    let reply = server.ask("PUT", "/source/a", &[("x-amz-security-token", "t")], &body).await;
    assert_eq!(reply.error(), (400, "InvalidToken".to_owned()));
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let mut socket = begun(&server, "/source/a", 6 * 1024 * 1024 * 1024, b"").await;
    socket.shutdown().await.unwrap();
    assert_eq!(read_reply(&mut socket).await.error(), (400, "EntityTooLarge".to_owned()));
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_not_to_send() {
    let server = Server::start().await;
    let headers = [("expect", "100-continue")];
    let ask =
        Ask { method: "PUT", target: "/copies/a", headers: &headers, body: b"", hash: Hash::Says("UNSIGNED-PAYLOAD") };
    let (headers, _) = server.signer().sign(&server.address.to_string(), &ask);
    let head = head("PUT", "/copies/a", &headers, 1_000_000).replace("connection: close\r\n", "");
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let reply = read_reply(&mut socket).await;
    assert_eq!(reply.error(), (403, "AccessDenied".to_owned()));
    assert_eq!(reply.header("connection"), "close", "or the client would have to send the body all the same");
}
