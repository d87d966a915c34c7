//! Listing many objects through the adapter, page by page: the client's memory must not grow with their number. What answers
//! is no store but a process that makes up pages of ListObjectsV2, since only the client is measured.

use super::job::Job;
use super::servers::with_keys;
use super::wiring::Endpoint;
use crate::client::Keys;
use crate::process::{Worker, answer, ready, stay, work};
use crate::stats::Table;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use engine::limits::LIST_PAGE;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::convert::Infallible;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::net::TcpListener;

const LIMIT_MIB: u64 = 64;

/// Lists a few, then all; prints rate and memory of both.
pub(crate) fn run(folder: &Path, few: usize, objects: usize) -> Result<()> {
    let mut table =
        Table::new(&["objects", "per second", "client CPU, µs each", "peak of the client's resident memory, MiB"]);
    let mut highest = 0;
    for items in [few, objects] {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("listing").arg(items.to_string());
        let server = Worker::start(command)?;
        let command = Job::alone(&format!("http://{}", server.said), folder, items).worker("list")?;
        let any = Keys { access: "key".to_owned(), secret: "secret".to_owned() };
        let took = work(vec![with_keys(command, &any)], &[server.id()])?;
        ensure!(took.sum("done") == items as f64, "listed others: {:?}", took.answers);
        let each = |value: f64| format!("{value:.1}");
        let cpu = took.client_cpu * 1e6 / items as f64;
        table.row(vec![
            items.to_string(),
            format!("{:.0}", items as f64 / took.seconds),
            each(cpu),
            took.peak_mib.to_string(),
        ]);
        highest = highest.max(took.peak_mib);
    }
    table.print("Listing through the adapter");
    println!("highest {highest} MiB (aim: under {LIMIT_MIB})");
    Ok(())
}

/// The worker: lists everything, and forgets each page.
pub(crate) async fn ours(job: &Job) -> Result<()> {
    let s3 = Endpoint::of(&job.s3, &Arc::default()).await;
    let bucket = s3.bucket(&job.source).reader();
    ready()?;
    let (mut after, mut done) = (None, 0);
    loop {
        let page = bucket.list("", after.as_ref(), LIST_PAGE).await?;
        done += page.items.len();
        after = page.next;
        if after.is_none() {
            return answer(&json!({ "done": done }));
        }
    }
}

/// The process that answers: says its address, and runs until its standard input ends.
pub(crate) async fn serve(objects: usize) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a port of loopback")?;
    println!("ready {}", listener.local_addr()?);
    let accepting = async {
        loop {
            let (stream, _) = listener.accept().await?;
            let service = service_fn(move |request| async move { Ok::<_, Infallible>(page(&request, objects)) });
            tokio::spawn(async move {
                // A client that goes away ends its connection in the middle.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    };
    tokio::select! {
        ended = tokio::task::spawn_blocking(stay) => ended?,
        failed = accepting => failed,
    }
}

/// The page that follows the key which the request names.
fn page<B>(request: &Request<B>, objects: usize) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let after = query.split('&').find_map(|part| part.strip_prefix("start-after="));
    let number = after.and_then(|key| key.rsplit('-').next()?.parse::<usize>().ok());
    let first = number.map_or(0, |number| number + 1);
    let last = objects.min(first + LIST_PAGE);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>bucket</Name><Prefix></Prefix><MaxKeys>{LIST_PAGE}</MaxKeys><EncodingType>url</EncodingType>\
         <KeyCount>{}</KeyCount><IsTruncated>{}</IsTruncated>",
        last - first,
        last < objects
    );
    for n in first..last {
        let object = write!(
            text,
            "<Contents><Key>folder/of/documents/object-{n:09}</Key><LastModified>2026-11-21T07:26:12.000Z</LastModified>\
             <ETag>&quot;{n:032x}&quot;</ETag><Size>4096</Size><StorageClass>STANDARD</StorageClass></Contents>"
        );
        object.expect("a text takes everything");
    }
    text.push_str("</ListBucketResult>");
    let response = Response::builder().header("content-type", "application/xml");
    response.body(Full::from(text)).expect("a legal header")
}
