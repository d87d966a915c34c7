//! The daemon's end of the control socket: reads one command, runs it, streams its frames.
//!
//! A command whose client goes away is cancelled like one whose client asks for it: it stops between two items, and
//! nothing that it has done is half done (each flow keeps its own order of writes).

use super::{Cancel, Request, SocketPath, VERSION};
use crate::command::Command;
use crate::exit::Failure;
use crate::feed::{Feed, Frame, feed};
use crate::limits::{CONTROL_ACCEPT_WAIT, CONTROL_CONNECTIONS, CONTROL_LINE_MAX};
use crate::who::user_name;
use engine::ports::clock::Clock;
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
pub(crate) async fn serve(listener: UnixListener, run: Runner, clock: Arc<dyn Clock>, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS));
    let commands = TaskTracker::new();
    loop {
        let place = tokio::select! {
            () = cancel.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let (stream, _) = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = next(|| listener.accept(), clock.as_ref()) => accepted,
        };
        let (run, cancel) = (run.clone(), cancel.child_token());
        commands.spawn(async move {
            if let Err(error) = answer(stream, run, cancel).await {
                // The client is gone, or never spoke: there is nobody left to tell.
                tracing::debug!(%error, "control connection ended");
            }
            drop(place);
        });
    }
    commands.close();
    commands.wait().await;
}

/// The next connection. What keeps one from being accepted (no file handle is free) lasts a while: after a failure there
/// is a pause, or the loop would take a whole core until it is over.
async fn next<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F, clock: &dyn Clock) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                clock.sleep(CONTROL_ACCEPT_WAIT).await;
            }
        }
    }
}

/// Over when the command is: whoever waits for this waits for all that the command has begun.
async fn answer(stream: UnixStream, run: Runner, cancel: CancellationToken) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (feed, frames) = feed();
    let own = rustix::process::getuid().as_raw();
    let refusal = if peer.uid() != own && peer.uid() != 0 {
        Failure::failed(format!("only {} may give commands to this daemon", user_name(own)))
    } else {
        let asked = tokio::select! {
            asked = request(&mut reader) => asked?,
            () = cancel.cancelled() => Err(Failure::failed("the daemon is stopping")),
        };
        match asked {
            Ok(command) => {
                let running = tokio::spawn(run(command, user_name(peer.uid()), feed, cancel.clone()));
                let watching = tokio::spawn(watch(reader, cancel.clone()));
                let written = write_frames(frames, &mut writer).await;
                // Nobody reads any more, or everything is said: what still runs must not outlive the connection.
                cancel.cancel();
                let (ended, watched) = tokio::join!(running, watching);
                return written.and(ended.and(watched).map_err(io::Error::other));
            }
            Err(refusal) => refusal,
        }
    };
    feed.end(Err(refusal)).await;
    write_frames(frames, &mut writer).await
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
    use engine::memory::clock::MemoryClock;
    use lifecycle::time::UnixMs;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::Notify;

    /// A command that works until it is cancelled, and then says so.
    fn endless() -> Runner {
        Arc::new(|_, _, feed, cancel| {
            Box::pin(async move {
                cancel.cancelled().await;
                feed.end(Ok((Answer::Listed(Listed { keys: 3, cancelled: true, ..Listed::default() }), 1))).await;
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
            let clock = Arc::new(MemoryClock::at(UnixMs(0)));
            let serving = tokio::spawn(serve(listen(folder.path()).unwrap(), run, clock, cancel.clone()));
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
    async fn a_stopping_daemon_waits_for_a_command_whose_client_is_gone() {
        let (began, may_end, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
        let (told, waits, done) = (began.clone(), may_end.clone(), ended.clone());
        let server = Server::start(Arc::new(move |_, _, feed, cancel| {
            let (told, waits, done) = (told.clone(), waits.clone(), done.clone());
            Box::pin(async move {
                cancel.cancelled().await;
                told.notify_one();
                waits.notified().await;
                // More than the client's socket could ever take: its end is noticed.
                while feed.send(Frame::Progress { done: 1, total: None, what: "copies".to_owned() }).await {}
                done.cancel();
            })
        }));
        let mut stream = server.connect().await;
        stream.write_all(format!("{LS}\n").as_bytes()).await.unwrap();
        drop(stream);
        began.notified().await;
        server.cancel.cancel();
        may_end.notify_one();
        server.serving.await.unwrap();
        assert!(ended.is_cancelled(), "the daemon went away under a running command");
    }

    #[tokio::test]
    async fn a_client_that_never_speaks_does_not_hold_up_a_stop() {
        let server = Server::start(endless());
        let mut silent = server.connect().await;
        // A second one is answered: the first was accepted before it.
        let answer = server.ask(&[LS, r#"{"cancel":true}"#]).await;
        assert!(answer.contains("cancelled"), "{answer}");
        server.cancel.cancel();
        server.serving.await.unwrap();
        let mut told = String::new();
        silent.read_to_string(&mut told).await.unwrap();
        assert!(told.contains("the daemon is stopping"), "{told}");
    }

    #[tokio::test]
    async fn after_a_failure_to_accept_there_is_a_pause() {
        let (tries, clock) = (AtomicU64::new(0), MemoryClock::skipping(UnixMs(0)));
        let accept = || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                3 => Ok("a connection"),
                _ => Err(io::Error::from(rustix::io::Errno::MFILE)),
            }
        };
        assert_eq!(next(accept, &clock).await, "a connection");
        assert_eq!(
            clock.now(),
            UnixMs(0).plus(CONTROL_ACCEPT_WAIT).plus(CONTROL_ACCEPT_WAIT).plus(CONTROL_ACCEPT_WAIT)
        );
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
