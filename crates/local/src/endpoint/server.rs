//! Connections: accepted up to a limit, watched for clients that stall, ended in good order. Of the S3 endpoint, and of the
//! one for tables.
//!
//! On `cancel` an endpoint stops accepting, closes idle connections, lets requests in flight end within
//! `ENDPOINT_DRAIN`, then drops the rest: a put that is dropped leaves no object and no event, unless its body had
//! arrived, in which case the store carries it to its end.

use super::limits::{ENDPOINT_ACCEPT_WAIT, ENDPOINT_BUFFER, ENDPOINT_DRAIN, ENDPOINT_HEADERS, ENDPOINT_IDLE};
use super::vitals::{Look, Vitals, WatchedSocket};
use bytes::Bytes;
use engine::ports::clock::Clock;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::StdError;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Answers the requests of connections.
pub(crate) trait Answers: Send + Sync + 'static {
    /// What an answer consists of.
    type Body: Body<Data = Bytes, Error = StdError> + Send + 'static;

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        vitals: Arc<Vitals>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Serves connections until `cancel`, at most so many at the same time.
pub(crate) async fn serve(
    listener: TcpListener,
    front: Arc<impl Answers>,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
    at_once: usize,
) {
    let slots = Arc::new(Semaphore::new(at_once));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            // The slot comes first: a connection that cannot be served stays in the listener's backlog.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            (slot, accepted) = next => match (slot, accepted) {
                (Ok(slot), Ok((socket, _))) => {
                    let connection = connection(socket, Arc::clone(&front), Arc::clone(&clock), cancel.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "the endpoint could not accept a connection");
                    clock.sleep(ENDPOINT_ACCEPT_WAIT).await;
                }
                (Err(_closed), _) => break,
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = drained => {}
        () = clock.sleep(ENDPOINT_DRAIN) => tracing::warn!("requests to the endpoint were cut off at its stop"),
    }
}

async fn connection(socket: TcpStream, front: Arc<impl Answers>, clock: Arc<dyn Clock>, cancel: CancellationToken) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let vitals = Arc::new(Vitals::default());
    let io = TokioIo::new(WatchedSocket::new(socket, Arc::clone(&vitals), Arc::clone(&clock)));
    let service = service_fn(|request| {
        let (front, vitals) = (Arc::clone(&front), Arc::clone(&vitals));
        async move { Ok::<_, Infallible>(front.answer(request, vitals).await) }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(ENDPOINT_BUFFER).max_headers(ENDPOINT_HEADERS);
    let mut served = pin!(http.serve_connection(io, service));
    let mut look = Look::default();
    let mut closing = false;
    let mut span = clock.sleep(ENDPOINT_IDLE);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                }
                return;
            }
            () = cancel.cancelled(), if !closing => {
                closing = true;
                served.as_mut().graceful_shutdown();
            }
            () = &mut span => {
                let (now, stalled) = vitals.look(look);
                if stalled {
                    tracing::debug!("a connection that stalled was closed");
                    return;
                }
                look = now;
                span = clock.sleep(ENDPOINT_IDLE);
            }
        }
    }
}
