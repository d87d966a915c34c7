//! Bodies on their way through the endpoint: in, with limits, framing and the checks of XML; out, with the request's end.

use super::checks::XmlCheck;
use super::faults::from_store;
use super::framing::Framing;
use super::vitals::{InFlight, Vitals};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use s3s::{S3Error, S3ErrorCode, StdError};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// What the body of a request leaves for the answer: what was wrong with it, and what of it was not read.
#[derive(Debug, Default)]
pub(super) struct Afterwards {
    fault: Mutex<Option<S3Error>>,
    unread: Mutex<Option<Incoming>>,
}

impl Afterwards {
    /// What was wrong with the body, where `s3s` would hide it behind an internal error.
    pub(super) fn take_fault(&self) -> Option<S3Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads what is left of the body, if it has at most `limit` bytes; whether nothing is left. A client that is still
    /// sending would not see the answer if its connection were closed on it.
    pub(super) async fn drained(&self, limit: usize) -> bool {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = unread else { return true };
        if body.size_hint().lower() > limit as u64 {
            return false;
        }
        let mut seen = 0;
        while let Some(frame) = body.frame().await {
            seen += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
            if seen > limit || frame.is_err() {
                return false;
            }
        }
        true
    }
}

/// The body of a request.
pub(super) struct IncomingBody {
    inner: Option<Incoming>,
    vitals: Arc<Vitals>,
    afterwards: Arc<Afterwards>,
    /// Bytes that may still come.
    allowed: u64,
    framing: Option<Framing>,
    xml: Option<XmlCheck>,
    ready: VecDeque<Bytes>,
}

impl IncomingBody {
    /// Passes the body on as long as it has at most `allowed` bytes.
    pub(super) fn new(
        inner: Incoming,
        vitals: Arc<Vitals>,
        afterwards: Arc<Afterwards>,
        allowed: u64,
        framing: Option<Framing>,
        xml: Option<XmlCheck>,
    ) -> IncomingBody {
        IncomingBody { inner: Some(inner), vitals, afterwards, allowed, framing, xml, ready: VecDeque::new() }
    }

    fn refuse(&self, error: S3Error) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let told = error.message().unwrap_or_default().to_owned();
        *self.afterwards.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Poll::Ready(Some(Err(told.into())))
    }

    fn take(&mut self, piece: Bytes) -> Result<(), S3Error> {
        self.allowed = self.allowed.checked_sub(piece.len() as u64).ok_or_else(|| {
            S3Error::with_message(S3ErrorCode::EntityTooLarge, "the body is larger than this endpoint takes")
        })?;
        if let Some(check) = &mut self.xml {
            check.update(&piece);
        }
        match &mut self.framing {
            None => self.ready.push_back(piece),
            Some(framing) => framing
                .push(piece, &mut self.ready)
                .map_err(|error| S3Error::with_message(S3ErrorCode::InvalidRequest, error.to_string()))?,
        }
        Ok(())
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
            let frame = Pin::new(inner).poll_frame(cx);
            self.vitals.awaits_body(frame.is_pending());
            match ready!(frame) {
                Some(Ok(frame)) => {
                    // Trailers of HTTP itself carry nothing that we know.
                    let Ok(piece) = frame.into_data() else { continue };
                    if let Err(error) = self.take(piece) {
                        return self.refuse(error);
                    }
                }
                Some(Err(error)) => {
                    self.inner = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.inner = None;
                    if let Some(Err(mismatch)) = self.xml.take().map(XmlCheck::finish) {
                        return self.refuse(from_store(mismatch.into()));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // With a check, the end is only reached by asking for it.
        self.xml.is_none() && self.ready.is_empty() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.framing) {
            (Some(inner), None) if self.ready.is_empty() => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for IncomingBody {
    fn drop(&mut self) {
        self.vitals.awaits_body(false);
        if let Some(unread) = self.inner.take().filter(|inner| !inner.is_end_stream()) {
            *self.afterwards.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(unread);
        }
    }
}

/// The body of an answer: when it is dropped, the request is over.
pub(crate) struct OutgoingBody<B> {
    inner: B,
    _in_flight: InFlight,
}

impl<B> OutgoingBody<B> {
    /// Ends the request with this body.
    pub(crate) fn new(inner: B, in_flight: InFlight) -> OutgoingBody<B> {
        OutgoingBody { inner, _in_flight: in_flight }
    }
}

impl<B: Body<Data = Bytes, Error: Into<StdError>> + Unpin> Body for OutgoingBody<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
