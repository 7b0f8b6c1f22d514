//! Bodies: how one is held back up to a cap, shown to the rules, and then streamed on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hotslot::BoxError;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

/// Any body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of which the beginning has been read.
pub struct Held {
    frames: VecDeque<Frame<Bytes>>,
    /// What has not been read; `None` at the end.
    rest: Option<Incoming>,
}

impl Held {
    /// A body that nobody has looked at.
    pub fn unread(body: Incoming) -> Held {
        Held { frames: VecDeque::new(), rest: Some(body) }
    }

    /// Reads `body` to its end, or until at least `cap` bytes of it are there.
    pub async fn read(mut body: Incoming, cap: usize) -> Result<Held, hyper::Error> {
        let (mut frames, mut length) = (VecDeque::new(), 0);
        while length < cap {
            if body.is_end_stream() {
                return Ok(Held { frames, rest: None });
            }
            match body.frame().await {
                Some(frame) => {
                    let frame = frame?;
                    length += frame.data_ref().map_or(0, Bytes::len);
                    frames.push_back(frame);
                }
                None => return Ok(Held { frames, rest: None }),
            }
        }
        Ok(Held { frames, rest: Some(body) })
    }

    /// The first `cap` bytes.
    pub fn beginning(&self, cap: usize) -> Bytes {
        let mut data = self.frames.iter().filter_map(Frame::data_ref);
        let Some(first) = data.next() else { return Bytes::new() };
        let mut all = None::<BytesMut>;
        for next in data {
            all.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(next);
        }
        let mut all = all.map_or_else(|| first.clone(), BytesMut::freeze);
        all.truncate(cap);
        all
    }
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let held: usize = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let mut hint = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held as u64);
        }
        hint.set_lower(hint.lower() + held as u64);
        hint
    }
}
