//! Lambda as a function sees it: the Runtime API on loopback, one invocation at a time, each with a deadline. A function that
//! has not answered by then would be killed: here its test fails.

use engine::clock::SystemClock;
use engine::ports::clock::Clock;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::Value;
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What a function answered: what it gives back, or the error with its type.
pub(crate) type Answer = Result<Value, Value>;

struct Invocation {
    payload: String,
    deadline: UnixMs,
}

/// One function in its environment.
pub(crate) struct Lambda {
    process: Child,
    invocations: mpsc::Sender<Invocation>,
    answers: mpsc::Receiver<Answer>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Lambda {
    /// Starts a function with these variables in its environment.
    pub(crate) async fn start(program: &str, variables: &[(&str, &str)]) -> Lambda {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (invocations, waiting) = mpsc::channel(1);
        let (answered, answers) = mpsc::channel(1);
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (waiting, answered) = (Arc::clone(&waiting), answered.clone());
                let service = service_fn(move |request| api(request, Arc::clone(&waiting), answered.clone()));
                tokio::spawn(async move {
                    // The function ends with its test, in the middle of a request.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        let mut process = Command::new(program)
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "afterimage-test")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (output, into) = (BufReader::new(process.stdout.take().unwrap()), Arc::clone(&lines));
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line))
        });
        Lambda { process, invocations, answers, lines }
    }

    /// Invokes it with so much time, and waits for its answer.
    pub(crate) async fn invoke(&mut self, payload: &Value, limit: SpanMs) -> Answer {
        let deadline = SystemClock.now().plus(limit);
        self.invocations.send(Invocation { payload: payload.to_string(), deadline }).await.unwrap();
        tokio::select! {
            answer = self.answers.recv() => answer.unwrap(),
            () = SystemClock.sleep(limit) => panic!("task timed out after {limit}: {:#?}", self.lines()),
        }
    }

    /// What it has written to its log.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// The sum of a metric over all lines in the embedded format.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let lines = self.lines();
        lines.iter().filter(|line| line.get("_aws").is_some()).filter_map(|line| line[name].as_u64()).sum()
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        // Already gone is as good.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the function did not end: {error}");
        }
    }
}

type Waiting = Arc<tokio::sync::Mutex<mpsc::Receiver<Invocation>>>;

async fn api(
    request: Request<Incoming>,
    waiting: Waiting,
    answered: mpsc::Sender<Answer>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET && path.ends_with("/invocation/next") {
        let Some(Invocation { payload, deadline }) = waiting.lock().await.recv().await else {
            return Ok(Response::builder().status(StatusCode::GONE).body(Full::default()).unwrap());
        };
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", "00000000-0000-0000-0000-000000000001")
            .header("lambda-runtime-deadline-ms", deadline.0.to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:test")
            .header("content-type", "application/json");
        return Ok(response.body(Full::from(payload)).unwrap());
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let said: Value = serde_json::from_slice(&body).unwrap();
    let answer = if path.ends_with("/response") { Ok(said) } else { Err(said) };
    answered.send(answer).await.unwrap();
    Ok(Response::builder().status(StatusCode::ACCEPTED).body(Full::default()).unwrap())
}
