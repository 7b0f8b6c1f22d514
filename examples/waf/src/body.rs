//! Bodies: how one is held back and shown to the rules, and then streamed on.

use std::mem::take;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hotslot::BoxError;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Sleep, sleep, timeout};

use crate::upstream::Repeat;

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
/// How many looks a task takes before it lets others have the worker.
const TURN: usize = 16;
/// How long the later looks at a body may take together, besides what its length earns.
const GRANT: Duration = Duration::from_millis(100);
/// What a KiB of a body adds to that.
const PER_KIB: Duration = Duration::from_millis(1);
/// The share of the passing time that is given back, up to the grant: a conversation of short messages may go on for ever.
const GIVEN_BACK: u32 = 10;

/// What all bodies together may hold back, in KiB.
static MEMORY: Semaphore = Semaphore::const_new(256 << 10);

/// A body of which the beginning has been read. Its trailers are dropped: the rules do not see them.
pub struct Held {
    /// What may go on.
    ready: Bytes,
    /// What has not been read; `None` at the end.
    rest: Option<Incoming>,
    watch: Option<Watch>,
    progress: Arc<Progress>,
    room: Room,
    /// The room of what it shares with a copy of itself.
    shared: Option<Arc<Room>>,
    /// How long what is held back may take to be whole.
    patience: Duration,
    /// Until when it may, while something is held back.
    waiting: Option<Pin<Box<Sleep>>>,
    /// How many more looks are taken in this turn.
    turn: usize,
}

/// How far a body has been sent.
pub struct Progress {
    latest: Mutex<Instant>,
    cut: Mutex<Option<Cut>>,
    broke_off: AtomicBool,
}

impl Progress {
    /// Returns when the last piece of it went on.
    pub fn latest(&self) -> Instant {
        *self.latest.lock()
    }

    /// Returns whether it ended in an error: the client's, the rules' refusal, or the node's. That says nothing of whom it was sent to.
    pub fn broke_off(&self) -> bool {
        self.broke_off.load(Ordering::Acquire)
    }

    /// Returns why it will not be sent to its end, if that is so for a reason of the node's own.
    pub fn cut(&self) -> Option<Cut> {
        *self.cut.lock()
    }
}

/// Why the node gave up on a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    #[error("too much is held back already: try again")]
    Crowded,
    #[error("the body of the request took too long")]
    Slow,
}

/// Why the beginning of a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    #[error(transparent)]
    Cut(#[from] Cut),
}

/// A body's share of the memory for what is held back.
struct Room {
    all: &'static Semaphore,
    own: Option<SemaphorePermit<'static>>,
}

impl Room {
    fn none() -> Room {
        Room { all: &MEMORY, own: None }
    }

    /// Takes, or gives back, what is needed to hold so many bytes.
    fn hold(&mut self, bytes: usize) -> Result<(), Cut> {
        let needed = bytes.div_ceil(1 << 10);
        let own = self.own.as_ref().map_or(0, SemaphorePermit::num_permits);
        if needed > own {
            let more = u32::try_from(needed - own).ok().and_then(|more| self.all.try_acquire_many(more).ok());
            let more = more.ok_or(Cut::Crowded)?;
            match &mut self.own {
                Some(own) => own.merge(more),
                None => self.own = Some(more),
            }
        } else if let Some(held) = &mut self.own {
            drop(held.split(own - needed));
        }
        Ok(())
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

/// The time that later looks at a body may still take.
struct Budget {
    left: Duration,
    since: Instant,
}

impl Budget {
    fn new() -> Budget {
        Budget { left: GRANT, since: Instant::now() }
    }

    /// So much more of the body has come.
    fn earn(&mut self, bytes: usize) {
        self.left += PER_KIB * u32::try_from(bytes).unwrap_or(u32::MAX) / 1024;
    }

    fn is_spent(&mut self) -> bool {
        let now = Instant::now();
        let passed = now.duration_since(self.since);
        self.since = now;
        if self.left < GRANT {
            self.left = GRANT.min(self.left + passed / GIVEN_BACK);
        }
        self.left < PER_KIB
    }

    fn spend(&mut self, took: Duration) {
        self.left = self.left.saturating_sub(took);
        self.since = Instant::now();
    }
}

struct Watch {
    judge: Judge,
    cap: usize,
    /// What has come: of the body, or, if it is framed, from the first message on that has not gone on.
    seen: BytesMut,
    /// How much of that has gone on.
    sent: usize,
    looks: usize,
    budget: Budget,
    /// Whether it is decided that what is not looked at goes on.
    unread_passes: bool,
    /// How much of a message that goes on is still to come.
    skip: usize,
    /// Whether nothing more is looked at.
    done: bool,
    /// Whether the body is a sequence of messages with a length in front of each, as gRPC has it.
    framed: bool,
    /// Whether there may be whole messages that have not been looked at.
    behind: bool,
}

/// The rules refused a body after its beginning had gone on.
#[derive(Debug, thiserror::Error)]
#[error("the rules refused the rest of the body")]
pub struct Refused;

impl Held {
    /// A body that nobody has looked at. What is held back of it has to be whole within `patience`.
    pub fn unread(body: Incoming, patience: Duration) -> Held {
        Held {
            ready: Bytes::new(),
            rest: Some(body),
            watch: None,
            progress: Arc::new(Progress {
                latest: Mutex::new(Instant::now()),
                cut: Mutex::default(),
                broke_off: AtomicBool::new(false),
            }),
            room: Room::none(),
            shared: None,
            patience,
            waiting: None,
            turn: TURN,
        }
    }

    /// Reads `body` to its end, or until more than `cap` bytes of it are there, or, if `streams`, until its sender pauses.
    pub async fn read(body: Incoming, cap: usize, streams: bool, patience: Duration) -> Result<Held, Unreadable> {
        let mut held = Held::unread(body, patience);
        // One buffer, however small the pieces are: a piece by itself would cost more than what is in it.
        let mut begun = BytesMut::new();
        while let Some(rest) = held.rest.as_mut().filter(|_| begun.len() <= cap) {
            let frame = if streams {
                match timeout(PAUSE, rest.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => break,
                }
            } else {
                rest.frame().await
            };
            match frame {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        held.room.hold(begun.len() + data.len())?;
                        begun.extend_from_slice(&data);
                    }
                    if held.rest.as_ref().is_some_and(hyper::body::Body::is_end_stream) {
                        held.rest = None;
                    }
                }
                None => held.rest = None,
            }
        }
        held.ready = begun.freeze();
        Ok(held)
    }

    /// Returns whether there is no more than what has been read.
    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Has what is still to come looked at before it goes on. What has been read has been looked at.
    pub fn watch(&mut self, cap: usize, judge: Judge) {
        let seen = BytesMut::from(&self.ready[..]);
        self.watch = Some(Watch { sent: seen.len(), seen, looks: LOOKS, ..Watch::new(cap, judge) });
    }

    /// Has all of it looked at, message by message.
    pub fn watch_messages(&mut self, cap: usize, judge: Judge) {
        self.watch = Some(Watch { framed: true, ..Watch::new(cap, judge) });
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// What has been read.
    pub fn beginning(&self) -> Bytes {
        self.ready.clone()
    }

    fn cut(&self, cut: Cut) -> BoxError {
        *self.progress.cut.lock() = Some(cut);
        cut.into()
    }

    /// The next piece of it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        *self.progress.latest.lock() = Instant::now();
        loop {
            // Whoever sends a body on does not stop by himself while there is more of it.
            if self.turn == 0 {
                self.turn = TURN;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.ready.is_empty() {
                // What is still held back has come since.
                self.waiting = None;
                return Poll::Ready(Some(Ok(Frame::data(take(&mut self.ready)))));
            }
            if let Some(watch) = self.watch.as_mut().filter(|watch| watch.behind) {
                self.ready = watch.messages(&mut self.turn)?;
                continue;
            }
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            match hyper::body::Body::poll_frame(Pin::new(rest), cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    match &mut self.watch {
                        Some(watch) => self.ready = watch.take(data, &mut self.turn)?,
                        None => self.ready = data,
                    }
                    let seen = self.watch.as_ref().map_or(0, |watch| watch.seen.len());
                    if let Err(cut) = self.room.hold(seen) {
                        return Poll::Ready(Some(Err(self.cut(cut))));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => {
                    self.rest = None;
                    if let Some(watch) = &mut self.watch {
                        self.ready = watch.end(&mut self.turn)?;
                    }
                }
                Poll::Pending => {
                    self.turn = TURN;
                    if let Err(slow) = self.wait(cx) {
                        return Poll::Ready(Some(Err(slow)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Fails when what is held back has been so for too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), BoxError> {
        if self.watch.as_ref().is_none_or(|watch| watch.held() == 0) {
            self.waiting = None;
            return Ok(());
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        if waiting.as_mut().poll(cx).is_ready() { Err(self.cut(Cut::Slow)) } else { Ok(()) }
    }
}

impl Repeat for Held {
    fn repeat(&mut self) -> Option<Held> {
        let is_whole = self.rest.as_ref().is_none_or(hyper::body::Body::is_end_stream);
        let is_seen = self.watch.as_ref().is_none_or(|watch| watch.held() == 0 && !watch.behind);
        if !is_whole || !is_seen {
            return None;
        }
        let room = std::mem::replace(&mut self.room, Room::none());
        let shared = Arc::clone(self.shared.get_or_insert_with(|| Arc::new(room)));
        Some(Held {
            ready: self.ready.clone(),
            rest: None,
            watch: None,
            progress: self.progress(),
            room: Room::none(),
            shared: Some(shared),
            patience: self.patience,
            waiting: None,
            turn: TURN,
        })
    }
}

impl Watch {
    fn new(cap: usize, judge: Judge) -> Watch {
        Watch {
            judge,
            cap,
            seen: BytesMut::new(),
            sent: 0,
            looks: 0,
            budget: Budget::new(),
            unread_passes: false,
            skip: 0,
            done: false,
            framed: false,
            behind: false,
        }
    }

    /// How much has come and must not go on yet.
    fn held(&self) -> usize {
        self.seen.len() - self.sent
    }

    /// A piece has come. Returns what may go on.
    fn take(&mut self, data: Bytes, turn: &mut usize) -> Result<Bytes, Refused> {
        if self.done {
            return Ok(data);
        }
        self.budget.earn(data.len());
        self.seen.extend_from_slice(&data);
        if self.framed {
            self.behind = true;
            return self.messages(turn);
        }
        let so = if self.seen.len() > self.cap { So::TooLong } else { So::Far };
        if so == So::Far && self.looks == 0 {
            return Ok(Bytes::new());
        }
        self.looks = self.looks.saturating_sub(1);
        self.look(Bytes::copy_from_slice(&self.seen), so, turn)?;
        let ready = Bytes::copy_from_slice(&self.seen[self.sent..]);
        self.sent = self.seen.len();
        // What is not looked at goes on or does not: there is nothing more to be found out.
        if self.unread_passes {
            (self.seen, self.sent, self.done) = (BytesMut::new(), 0, true);
        }
        Ok(ready)
    }

    /// Looks at something, unless there is too much of it, or too much time has gone into the body: that is decided once.
    fn look(&mut self, what: Bytes, so: So, turn: &mut usize) -> Result<(), Refused> {
        if so == So::TooLong || self.budget.is_spent() {
            self.unread_passes = self.unread_passes || (self.judge)(&what, So::TooLong);
            return if self.unread_passes { Ok(()) } else { Err(Refused) };
        }
        *turn = turn.saturating_sub(1);
        let began = Instant::now();
        let passes = (self.judge)(&what, so);
        self.budget.spend(began.elapsed());
        if passes { Ok(()) } else { Err(Refused) }
    }

    /// Looks at the messages that are there, a flag, four bytes of length and the message each, for as long as the turn goes
    /// on. Returns those that may go on.
    fn messages(&mut self, turn: &mut usize) -> Result<Bytes, Refused> {
        let mut passed = 0;
        loop {
            let skipped = self.skip.min(self.seen.len() - passed);
            self.skip -= skipped;
            passed += skipped;
            let rest = &self.seen[passed..];
            let Some((head, rest)) = rest.split_first_chunk::<5>().filter(|_| self.skip == 0) else { break };
            let [_, length @ ..] = *head;
            let length = u32::from_be_bytes(length) as usize;
            if length > self.cap {
                self.look(Bytes::new(), So::TooLong, turn)?;
            } else if rest.len() < length {
                break;
            } else if length > 0 {
                if *turn == 0 {
                    return Ok(self.seen.split_to(passed).freeze());
                }
                let message = Bytes::copy_from_slice(&self.seen[passed..passed + 5 + length]);
                self.look(message, So::Whole, turn)?;
            }
            self.skip = 5 + length;
        }
        self.behind = false;
        Ok(self.seen.split_to(passed).freeze())
    }

    /// The body has ended. Returns what may go on.
    fn end(&mut self, turn: &mut usize) -> Result<Bytes, Refused> {
        if self.held() > 0 {
            self.look(Bytes::copy_from_slice(&self.seen), So::Whole, turn)?;
        }
        let mut seen = take(&mut self.seen);
        Ok(seen.split_off(take(&mut self.sent)).freeze())
    }
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let next = this.poll_next(cx);
        if let Poll::Ready(Some(Err(_))) = next {
            this.progress.broke_off.store(true, Ordering::Release);
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        let holds = self.watch.as_ref().is_some_and(|watch| watch.held() > 0);
        !holds && self.ready.is_empty() && self.rest.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let held = (self.ready.len() + self.watch.as_ref().map_or(0, Watch::held)) as u64;
        let mut hint = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    fn framed(text: &str) -> Vec<u8> {
        [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
    }

    fn counting(framed: bool, takes: Duration) -> (Watch, Arc<Mutex<Vec<So>>>) {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&looks);
        let judge = Box::new(move |_: &Bytes, so| {
            noted.lock().push(so);
            sleep(takes);
            so != So::TooLong
        });
        (Watch { framed, looks: LOOKS, ..Watch::new(1000, judge) }, looks)
    }

    #[test]
    fn empty_messages_go_on_without_a_look() {
        let (mut watch, looks) = counting(true, Duration::ZERO);
        let empty = framed("").repeat(700);
        assert_eq!(watch.take(empty.clone().into(), &mut 1).unwrap(), empty);
        assert!(looks.lock().is_empty() && !watch.behind);
    }

    #[test]
    fn messages_are_looked_at_turn_by_turn() {
        let (mut watch, looks) = counting(true, Duration::ZERO);
        let all = framed("x").repeat(40);
        let mut sent = watch.take(all.clone().into(), &mut 16).unwrap().to_vec();
        assert_eq!((looks.lock().len(), sent.len(), watch.behind), (16, 16 * 6, true));
        sent.extend(watch.messages(&mut 16).unwrap());
        sent.extend(watch.messages(&mut 16).unwrap());
        assert_eq!((looks.lock().len(), sent, watch.behind), (40, all, false));
    }

    #[test]
    fn a_body_that_takes_too_much_time_is_one_that_is_not_inspected() {
        for is_framed in [true, false] {
            let (mut watch, looks) = counting(is_framed, GRANT + PER_KIB * 10);
            let piece = Bytes::from(framed("x"));
            watch.take(piece.clone(), &mut 16).unwrap();
            assert!(watch.take(piece, &mut 16).is_err());
            assert_eq!(looks.lock().last(), Some(&So::TooLong));
            assert_eq!(looks.lock().len(), 2);
        }
    }

    #[test]
    fn time_is_earned_by_what_comes_and_given_back_while_nothing_does() {
        let mut budget = Budget::new();
        budget.spend(GRANT);
        budget.earn(2 << 10);
        assert_eq!(budget.left, PER_KIB * 2);
        budget.since -= GRANT * 2 * GIVEN_BACK;
        assert!(!budget.is_spent());
        assert_eq!(budget.left, GRANT);
    }

    #[test]
    fn what_is_held_back_has_its_room_and_no_more() {
        let all: &Semaphore = Box::leak(Box::new(Semaphore::new(8)));
        let mut one = Room { all, own: None };
        let mut other = Room { all, own: None };
        one.hold(5 << 10).unwrap();
        one.hold((5 << 10) + 1).unwrap();
        assert_eq!(all.available_permits(), 2);
        assert_eq!(other.hold(3 << 10), Err(Cut::Crowded));
        one.hold(0).unwrap();
        other.hold(8 << 10).unwrap();
        drop(other);
        assert_eq!(all.available_permits(), 8);
    }
}
