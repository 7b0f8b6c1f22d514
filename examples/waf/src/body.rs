//! Bodies: how one is held back and shown to the rules, and then streamed on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hotslot::BoxError;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::timeout;

/// Any body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// After so long without another piece, a sender is taken to wait for an answer to what it has sent.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a message may be looked at while it comes. The rest of it has to be there before it goes on.
const LOOKS: usize = 32;

/// A body of which the beginning has been read.
pub struct Held {
    frames: VecDeque<Frame<Bytes>>,
    /// What has not been read; `None` at the end.
    rest: Option<Incoming>,
    watch: Option<Watch>,
    progress: Arc<Progress>,
}

/// How far a body has been sent.
pub struct Progress(Mutex<Instant>);

impl Progress {
    /// Returns when the last piece of it went on.
    pub fn latest(&self) -> Instant {
        *self.0.lock()
    }
}

/// What looks at a body while it passes: returns whether what has come so far may go on.
pub type Judge = Box<dyn FnMut(&Bytes, So) -> bool + Send>;

/// What has come of a body, or of one of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum So {
    /// The beginning.
    Far,
    /// All of it.
    Whole,
    /// More than is inspected.
    TooLong,
}

struct Watch {
    judge: Judge,
    cap: usize,
    /// What has come of the message.
    seen: BytesMut,
    looks: usize,
    /// How much of a message that goes on is still to come.
    skip: usize,
    /// Whether nothing more is looked at.
    done: bool,
    /// Whether the body is a sequence of messages with a length in front of each, as gRPC has it.
    framed: bool,
    /// What has come and must not go on yet.
    waiting: VecDeque<Frame<Bytes>>,
}

/// The rules refused a body after its beginning had gone on.
#[derive(Debug, thiserror::Error)]
#[error("the rules refused the rest of the body")]
pub struct Refused;

impl Held {
    /// A body that nobody has looked at.
    pub fn unread(body: Incoming) -> Held {
        let progress = Arc::new(Progress(Mutex::new(Instant::now())));
        Held { frames: VecDeque::new(), rest: Some(body), watch: None, progress }
    }

    /// Reads `body` to its end, or until more than `cap` bytes of it are there, or, if `streams`, until its sender pauses.
    pub async fn read(body: Incoming, cap: usize, streams: bool) -> Result<Held, hyper::Error> {
        let mut held = Held::unread(body);
        let mut length = 0;
        while let Some(rest) = held.rest.as_mut().filter(|_| length <= cap) {
            let frame = if streams {
                match timeout(PAUSE, rest.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Ok(held),
                }
            } else {
                rest.frame().await
            };
            match frame {
                Some(frame) => {
                    let frame = frame?;
                    length += frame.data_ref().map_or(0, Bytes::len);
                    held.frames.push_back(frame);
                    if held.rest.as_ref().is_some_and(hyper::body::Body::is_end_stream) {
                        held.rest = None;
                    }
                }
                None => held.rest = None,
            }
        }
        Ok(held)
    }

    /// Returns whether there is no more than what has been read.
    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Has what is still to come looked at before it goes on. What has been read has been looked at.
    pub fn watch(&mut self, cap: usize, judge: Judge) {
        let seen = BytesMut::from(&self.beginning()[..]);
        self.watch = Some(Watch {
            judge,
            cap,
            seen,
            looks: LOOKS,
            skip: 0,
            done: false,
            framed: false,
            waiting: VecDeque::new(),
        });
    }

    /// Has all of it looked at, message by message.
    pub fn watch_messages(&mut self, cap: usize, judge: Judge) {
        let waiting = VecDeque::new();
        self.watch =
            Some(Watch { judge, cap, seen: BytesMut::new(), looks: 0, skip: 0, done: false, framed: true, waiting });
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// What has been read.
    pub fn beginning(&self) -> Bytes {
        let mut data = self.frames.iter().filter_map(Frame::data_ref);
        let Some(first) = data.next() else { return Bytes::new() };
        let mut all = None::<BytesMut>;
        for next in data {
            all.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(next);
        }
        all.map_or_else(|| first.clone(), BytesMut::freeze)
    }
}

impl Watch {
    /// A piece has come. Pieces that may go on are put into `ready`.
    fn take(&mut self, frame: Frame<Bytes>, ready: &mut VecDeque<Frame<Bytes>>) -> Result<(), Refused> {
        if self.done {
            ready.push_back(frame);
            return Ok(());
        }
        if let Some(data) = frame.data_ref() {
            self.seen.extend_from_slice(data);
        }
        self.waiting.push_back(frame);
        if self.framed {
            return self.messages(ready);
        }
        let so = if self.seen.len() > self.cap { So::TooLong } else { So::Far };
        if so == So::TooLong {
            // What is not looked at goes on or does not: there is nothing more to be found out.
            self.look(so)?;
            self.seen.clear();
            self.done = true;
        } else if self.looks == 0 {
            return Ok(());
        } else {
            self.looks -= 1;
            self.look(so)?;
        }
        ready.append(&mut self.waiting);
        Ok(())
    }

    fn look(&mut self, so: So) -> Result<(), Refused> {
        let seen = Bytes::copy_from_slice(&self.seen);
        if (self.judge)(&seen, so) { Ok(()) } else { Err(Refused) }
    }

    /// Looks at every message that is there: a flag, four bytes of length, the message.
    fn messages(&mut self, ready: &mut VecDeque<Frame<Bytes>>) -> Result<(), Refused> {
        loop {
            let skipped = self.skip.min(self.seen.len());
            self.skip -= skipped;
            let _ = self.seen.split_to(skipped);
            let Some((head, rest)) = self.seen.split_first_chunk::<5>().filter(|_| self.skip == 0) else { break };
            let [_, length @ ..] = *head;
            let length = u32::from_be_bytes(length) as usize;
            if length > self.cap {
                if !(self.judge)(&Bytes::new(), So::TooLong) {
                    return Err(Refused);
                }
            } else if rest.len() < length {
                break;
            } else if !(self.judge)(&Bytes::copy_from_slice(&self.seen[..5 + length]), So::Whole) {
                return Err(Refused);
            }
            self.skip = 5 + length;
        }
        // Pieces go on when all messages in them have been looked at.
        if self.seen.is_empty() {
            ready.append(&mut self.waiting);
        }
        Ok(())
    }

    /// The body has ended.
    fn end(&mut self, ready: &mut VecDeque<Frame<Bytes>>) -> Result<(), Refused> {
        if !self.waiting.is_empty() {
            self.look(So::Whole)?;
            ready.append(&mut self.waiting);
        }
        Ok(())
    }
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        *this.progress.0.lock() = Instant::now();
        loop {
            if let Some(frame) = this.frames.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
            match ready!(Pin::new(rest).poll_frame(cx)) {
                Some(Ok(frame)) => match &mut this.watch {
                    Some(watch) => watch.take(frame, &mut this.frames)?,
                    None => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    this.rest = None;
                    if let Some(watch) = &mut this.watch {
                        watch.end(&mut this.frames)?;
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let waits = self.watch.as_ref().is_some_and(|watch| !watch.waiting.is_empty());
        !waits && self.frames.is_empty() && self.rest.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let frames = self.frames.iter().chain(self.watch.iter().flat_map(|watch| &watch.waiting));
        let held: usize = frames.filter_map(Frame::data_ref).map(Bytes::len).sum();
        let mut hint = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held as u64);
        }
        hint.set_lower(hint.lower() + held as u64);
        hint
    }
}
