//! Waiting for what must happen, with a deadline that only keeps a broken library from hanging the tests.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hotslot::{Event, Subscription};

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The first event of which `look` makes something.
#[track_caller]
pub(crate) fn wait_for<R>(events: &Subscription, mut look: impl FnMut(&Event) -> Option<R>) -> R {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while let Some(event) = events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(found) = look(&event) {
            return found;
        }
        seen.push(event);
    }
    panic!("the event did not come, but these did: {seen:#?}");
}

/// Waits for what has no event of its own.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// The smallest executor there is.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}
