//! The command's end of the control socket.

use super::{Cancel, Request, SocketPath, VERSION};
use crate::command::Command;
use crate::exit::Failure;
use crate::feed::{Feed, Frame};
use crate::limits::CONTROL_LINE_MAX;
use anyhow::Context;
use std::io;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

/// The daemon of that folder, if one runs.
pub(crate) async fn connect(folder: &Path) -> Result<Option<UnixStream>, Failure> {
    let connected = async {
        // Held across the connection: the path may lead through the handle in it.
        let path = SocketPath::of(folder)?;
        UnixStream::connect(&path).await
    };
    match connected.await {
        Ok(stream) => Ok(Some(stream)),
        // No folder, no socket, or one that a killed daemon left.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(Failure::Failed(
            anyhow::Error::new(error).context(format!("cannot reach the daemon of {}", folder.display())),
        )),
    }
}

/// Sends the command and passes on what comes back. On `cancel` the daemon is asked to stop, and its last word awaited.
pub(crate) async fn run(stream: UnixStream, command: Command, feed: &Feed, cancel: CancellationToken) {
    let (reader, mut writer) = stream.into_split();
    let result = exchange(reader, &mut writer, command, feed, cancel).await;
    if let Err(failure) = result {
        feed.end(Err(failure)).await;
    }
}

async fn exchange(
    reader: OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    command: Command,
    feed: &Feed,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    send(writer, &Request { version: VERSION, command }).await.context("cannot send the command to the daemon")?;
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut asked = false;
    loop {
        tokio::select! {
            () = cancel.cancelled(), if !asked => {
                asked = true;
                send(writer, &Cancel { cancel: true }).await.context("cannot ask the daemon to stop")?;
            }
            read = read_line(&mut reader, &mut line) => {
                if read.context("cannot read the daemon's answer")? == 0 {
                    return Err(Failure::failed("the daemon ended before the command was done; start it and try again"));
                }
                let frame: Frame = serde_json::from_slice(&line).context("the daemon's answer cannot be read")?;
                line.clear();
                let last = matches!(frame, Frame::Answer { .. } | Frame::Failed { .. });
                if !feed.send(frame).await || last {
                    return Ok(());
                }
            }
        }
    }
}

/// Safe to drop half-way: what was read stays in `line`.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<usize> {
    let left = CONTROL_LINE_MAX.saturating_sub(line.len()) as u64;
    reader.take(left).read_until(b'\n', line).await?;
    Ok(line.len())
}

async fn send<T: serde::Serialize>(writer: &mut OwnedWriteHalf, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
