//! Lambda as a function sees it while it starts: the Runtime API on loopback, with one event that waits already. Tells when the
//! function asked for it, and when it answered.

use crate::latency::now;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use engine::clock::SystemClock;
use engine::ports::clock::Clock;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use lifecycle::time::SpanMs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How long one invocation may take.
const TIME_LIMIT: SpanMs = SpanMs::seconds(30);

/// From the start of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Until it asked for its first event: it had started.
    pub(crate) asked: Duration,
    /// Until the answer to that event was there.
    pub(crate) answered: Duration,
}

enum Said {
    Asked(Instant),
    Answered(Instant),
    Failed(String),
}

struct Api {
    event: Mutex<Option<String>>,
    said: mpsc::Sender<Said>,
}

/// Starts a function, gives it the event, and ends it once it has answered.
pub(crate) async fn first_answer(mut function: Command, event: String) -> Result<Start> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a port of loopback")?;
    let address: SocketAddr = listener.local_addr()?;
    let (said, mut heard) = mpsc::channel(4);
    let api = Arc::new(Api { event: Mutex::new(Some(event)), said });
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&api)));
        }
    });
    function.env("AWS_LAMBDA_RUNTIME_API", address.to_string());
    let started = now();
    let mut child = function.spawn().with_context(|| format!("start {function:?}"))?;
    let mut asked = None;
    let result = loop {
        let said = tokio::select! {
            said = heard.recv() => said,
            () = SystemClock.sleep(TIME_LIMIT) => None,
        };
        match said {
            Some(Said::Asked(at)) => asked = Some(at),
            Some(Said::Answered(at)) => break Ok(at),
            Some(Said::Failed(why)) => break Err(anyhow::anyhow!("the function failed: {why}")),
            None => break Err(anyhow::anyhow!("the function did not answer in {TIME_LIMIT}")),
        }
    };
    child.kill()?;
    child.wait()?;
    accepting.abort();
    let (answered, Some(asked)) = (result?, asked) else { bail!("an answer to no event") };
    Ok(Start { asked: asked.duration_since(started), answered: answered.duration_since(started) })
}

async fn serve(stream: TcpStream, api: Arc<Api>) {
    let service = service_fn(move |request| handle(request, Arc::clone(&api)));
    // The function is ended in the middle of asking for the next event.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn handle(request: Request<Incoming>, api: Arc<Api>) -> Result<Response<Full<Bytes>>> {
    if request.method() == Method::GET {
        let event = api.event.lock().unwrap_or_else(PoisonError::into_inner).take();
        // There is one event: who asks for another waits until it is ended.
        let Some(event) = event else { return std::future::pending().await };
        api.said.send(Said::Asked(now())).await?;
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", "00000000-0000-0000-0000-000000000001")
            .header("lambda-runtime-deadline-ms", SystemClock.now().plus(TIME_LIMIT).0.to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:bench")
            .header("content-type", "application/json");
        return Ok(response.body(Full::from(event))?);
    }
    let at = now();
    let is_answer = request.uri().path().ends_with("/response");
    let body = request.into_body().collect().await?.to_bytes();
    api.said.send(if is_answer { Said::Answered(at) } else { Said::Failed(format!("{body:?}")) }).await?;
    Ok(Response::builder().status(202).body(Full::default())?)
}
