//! Signs of life of one connection: whether its client keeps us waiting, and for how long.
//!
//! The server looks at them once per `ENDPOINT_IDLE`, by the clock port. A client that trickles bytes keeps its connection
//! but no memory: buffers are bounded, and at most `ENDPOINT_CONNECTIONS` connections are served.

use super::limits::{ENDPOINT_LINGER, ENDPOINT_LINGER_BYTES};
use engine::ports::clock::Clock;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are thrown away at once.
const LINGER_PIECE: usize = 16 * 1024;

/// Counters of one connection.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Bytes that went through the socket, both ways.
    bytes: AtomicU64,
    /// Requests begun.
    requests: AtomicU64,
    /// Requests whose answer is not yet completely handed to the socket.
    in_flight: AtomicUsize,
    /// A request's body is waited for.
    awaits_body: AtomicBool,
    /// The client does not take what is sent.
    awaits_reader: AtomicBool,
    /// The connection ends before its last request's body has come.
    ends_early: AtomicBool,
}

/// What was seen at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    bytes: u64,
    requests: u64,
}

impl Vitals {
    /// What to compare the next look with, and whether the client kept us waiting ever since `last`.
    pub(crate) fn look(&self, last: Look) -> (Look, bool) {
        let now = Look { bytes: self.bytes.load(Ordering::Relaxed), requests: self.requests.load(Ordering::Relaxed) };
        let stalled = if self.in_flight.load(Ordering::Relaxed) == 0 {
            // Idle, or dribbling the header of a request.
            now.requests == last.requests
        } else {
            let waiting = self.awaits_body.load(Ordering::Relaxed) || self.awaits_reader.load(Ordering::Relaxed);
            waiting && now.bytes == last.bytes
        };
        (now, stalled)
    }

    /// A request has begun; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// The connection ends with this answer, though its client may still send the request's body.
    pub(crate) fn ends_early(&self) {
        self.ends_early.store(true, Ordering::Relaxed);
    }

    /// Whether the body of a request is being waited for.
    pub(crate) fn awaits_body(&self, waits: bool) {
        self.awaits_body.store(waits, Ordering::Relaxed);
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Vitals>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.awaits_body(false);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that keeps its vitals, and lingers at its end where the client may be sending still.
pub(crate) struct WatchedSocket {
    inner: TcpStream,
    vitals: Arc<Vitals>,
    clock: Arc<dyn Clock>,
    lingering: Option<Lingering>,
}

/// The end of a connection whose client may not have seen the answer: bytes that may still come, and for how long.
struct Lingering {
    left: usize,
    over: BoxFuture<'static, ()>,
}

impl WatchedSocket {
    /// Watches the socket.
    pub(crate) fn new(inner: TcpStream, vitals: Arc<Vitals>, clock: Arc<dyn Clock>) -> WatchedSocket {
        WatchedSocket { inner, vitals, clock, lingering: None }
    }

    /// Throws away what comes until the client ends the connection, too. To close it while bytes arrive would break it
    /// under the client's hands, whose system may then drop the answer unread.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let clock = Arc::clone(&self.clock);
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            left: ENDPOINT_LINGER_BYTES,
            over: Box::pin(async move { clock.sleep(ENDPOINT_LINGER).await }),
        });
        let mut thrown_away = [MaybeUninit::uninit(); LINGER_PIECE];
        while lingering.left > 0 && lingering.over.poll_unpin(cx).is_pending() {
            let mut piece = ReadBuf::uninit(&mut thrown_away);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() => {
                    lingering.left = lingering.left.saturating_sub(piece.filled().len())
                }
                _ => break,
            }
        }
        lingering.left = 0;
        Poll::Ready(())
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.vitals.awaits_reader.store(written.is_pending(), Ordering::Relaxed);
        let written = ready!(written)?;
        self.vitals.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.vitals.bytes.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        if self.vitals.ends_early.load(Ordering::Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_and_unfinished_headers_are_stalled_after_one_span() {
        let vitals = Arc::new(Vitals::default());
        let (first, _) = vitals.look(Look::default());
        vitals.bytes.fetch_add(10, Ordering::Relaxed);
        let (second, stalled) = vitals.look(first);
        assert!(stalled, "a dribbled header is no request");
        drop(vitals.begin());
        assert!(!vitals.look(second).1, "a request has been served since");
    }

    #[test]
    fn a_request_is_stalled_only_while_its_client_keeps_us_waiting() {
        let vitals = Arc::new(Vitals::default());
        let guard = vitals.begin();
        let (look, _) = vitals.look(Look::default());
        assert!(!vitals.look(look).1, "the server itself is at work");
        vitals.awaits_body(true);
        assert!(vitals.look(look).1, "no byte of the body came");
        vitals.bytes.fetch_add(1, Ordering::Relaxed);
        let (look, stalled) = vitals.look(look);
        assert!(!stalled);
        drop(guard);
        assert!(vitals.look(look).1);
    }
}
