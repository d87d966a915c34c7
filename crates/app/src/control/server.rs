//! The daemon's end of the control socket: reads one command, runs it, streams its frames.
//!
//! A command whose client goes away is cancelled like one whose client asks for it: it stops between two items, and
//! nothing that it has done is half done (each flow keeps its own order of writes).

use super::{Cancel, Request, SocketPath, VERSION};
use crate::command::Command;
use crate::exit::Failure;
use crate::feed::{Feed, Frame, feed};
use crate::limits::{CONTROL_CONNECTIONS, CONTROL_LINE_MAX};
use crate::who::user_name;
use futures_util::future::BoxFuture;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs a command for a user, tells the feed, and ends it.
pub(crate) type Runner =
    Arc<dyn Fn(Command, String, Feed, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync + 'static>;

/// Opens the socket. The caller holds the folder's lock, so a socket that is there is a killed daemon's.
pub(crate) fn listen(folder: &Path) -> io::Result<UnixListener> {
    let path = SocketPath::of(folder)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Takes the socket away when the daemon stops, so that a command need not find out that nobody listens.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    fs::remove_file(SocketPath::of(folder)?)
}

/// Answers until cancelled, then waits for the commands under way, which are cancelled too.
pub(crate) async fn serve(listener: UnixListener, run: Runner, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS));
    let commands = TaskTracker::new();
    loop {
        let place = tokio::select! {
            () = cancel.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (run, cancel) = (run.clone(), cancel.child_token());
                commands.spawn(async move {
                    if let Err(error) = answer(stream, run, cancel).await {
                        // The client is gone, or never spoke: there is nobody left to tell.
                        tracing::debug!(%error, "control connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::task::yield_now().await;
            }
        }
    }
    commands.close();
    commands.wait().await;
}

async fn answer(stream: UnixStream, run: Runner, cancel: CancellationToken) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (feed, frames) = feed();
    let own = rustix::process::getuid().as_raw();
    if peer.uid() != own && peer.uid() != 0 {
        let refusal = Failure::failed(format!("only {} may give commands to this daemon", user_name(own)));
        feed.end(Err(refusal)).await;
    } else {
        match request(&mut reader).await? {
            Ok(command) => {
                let (running, stop) = (cancel.clone(), cancel.clone());
                tokio::spawn(async move { run(command, user_name(peer.uid()), feed, running).await });
                tokio::spawn(async move { watch(reader, stop).await });
            }
            Err(refusal) => drop(feed.end(Err(refusal)).await),
        }
    }
    let written = write_frames(frames, &mut writer).await;
    cancel.cancel();
    written
}

async fn request(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Result<Command, Failure>> {
    let mut line = String::new();
    reader.take(CONTROL_LINE_MAX as u64).read_line(&mut line).await?;
    Ok(match serde_json::from_str::<Request>(&line) {
        Ok(request) if request.version == VERSION => Ok(request.command),
        Ok(request) => Err(other_version(request.version)),
        // A version that says things differently still says which one it is.
        Err(error) => match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(value) if value["version"].as_u64().is_some_and(|version| version != u64::from(VERSION)) => {
                Err(other_version(value["version"].as_u64().unwrap_or_default() as u32))
            }
            _ => Err(Failure::failed(format!("the control socket got a line that is no command: {error}"))),
        },
    })
}

fn other_version(theirs: u32) -> Failure {
    Failure::failed(format!(
        "the running daemon speaks version {VERSION} of the control protocol and this command version {theirs}: use the \
         same version of afterimage for both (stop `serve` and start it again after an update)"
    ))
}

/// Cancels when the client asks for it or goes away.
async fn watch(mut reader: BufReader<OwnedReadHalf>, cancel: CancellationToken) {
    let mut line = String::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(CONTROL_LINE_MAX as u64);
        let read = tokio::select! {
            () = cancel.cancelled() => return,
            read = bounded.read_line(&mut line) => read,
        };
        let asked = serde_json::from_str::<Cancel>(&line).is_ok_and(|line| line.cancel);
        if asked || !matches!(read, Ok(1..)) {
            return cancel.cancel();
        }
    }
}

async fn write_frames(mut frames: mpsc::Receiver<Frame>, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        let mut line = serde_json::to_vec(&frame).map_err(io::Error::other)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        if matches!(frame, Frame::Answer { .. } | Frame::Failed { .. }) {
            break;
        }
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Answer, Listed};

    /// A command that works until it is cancelled, and then says so.
    fn endless() -> Runner {
        Arc::new(|_, _, feed, cancel| {
            Box::pin(async move {
                cancel.cancelled().await;
                feed.end(Ok((Answer::Listed(Listed { keys: 3, cancelled: true }), false))).await;
            })
        })
    }

    struct Server {
        folder: tempfile::TempDir,
        cancel: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
    }

    impl Server {
        fn start(run: Runner) -> Server {
            let folder = tempfile::tempdir().unwrap();
            let cancel = CancellationToken::new();
            let serving = tokio::spawn(serve(listen(folder.path()).unwrap(), run, cancel.clone()));
            Server { folder, cancel, serving }
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(SocketPath::of(self.folder.path()).unwrap()).await.unwrap()
        }

        async fn ask(&self, lines: &[&str]) -> String {
            let mut stream = self.connect().await;
            for line in lines {
                stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    const LS: &str = r#"{"version":1,"command":{"verb":"ls","policy":null,"prefix":""}}"#;

    #[tokio::test]
    async fn a_cancelled_command_has_the_last_word() {
        let server = Server::start(endless());
        let answer = server.ask(&[LS, r#"{"cancel":true}"#]).await;
        assert!(answer.contains(r#""keys":3,"cancelled":true"#), "{answer}");
        let mode = fs::metadata(server.folder.path().join("control.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_cancels_its_command() {
        let ended = CancellationToken::new();
        let told = ended.clone();
        let server = Server::start(Arc::new(move |_, _, _, cancel| {
            let told = told.clone();
            Box::pin(async move {
                cancel.cancelled().await;
                told.cancel();
            })
        }));
        let mut stream = server.connect().await;
        stream.write_all(format!("{LS}\n").as_bytes()).await.unwrap();
        drop(stream);
        ended.cancelled().await;
    }

    #[tokio::test]
    async fn a_stopping_daemon_cancels_its_commands_and_waits_for_them() {
        let server = Server::start(endless());
        let mut stream = server.connect().await;
        stream.write_all(format!("{LS}\n").as_bytes()).await.unwrap();
        server.cancel.cancel();
        server.serving.await.unwrap();
    }

    #[tokio::test]
    async fn another_version_and_nonsense_are_refused() {
        let server = Server::start(endless());
        for line in
            [r#"{"version":2,"command":{"verb":"ls","policy":null,"prefix":""}}"#, r#"{"version":9,"order":"?"}"#]
        {
            let answer = server.ask(&[line]).await;
            assert!(answer.contains("use the same version of afterimage for both"), "{answer}");
        }
        let answer = server.ask(&["GET / HTTP/1.1"]).await;
        assert!(answer.contains("no command"), "{answer}");
    }
}
