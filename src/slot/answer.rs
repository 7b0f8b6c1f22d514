//! One answer, for one who waits.
//!
//! Not a channel of std's: to wait for one of those gives a thread a thread-local with a destructor, which it cannot have while a
//! library's constructors run.

use std::sync::Arc;
use std::time::Instant;

use crate::lock::Monitor;

/// Gives the answer; or none, when it is dropped.
pub(super) struct Reply<R>(Arc<Monitor<State<R>>>);

/// Waits for the answer.
pub(super) struct Answer<R>(Arc<Monitor<State<R>>>);

enum State<R> {
    Awaited,
    Given(R),
    /// There will be none, or it was taken.
    Gone,
}

/// Makes the two ends.
pub(super) fn ask<R>() -> (Reply<R>, Answer<R>) {
    let state = Arc::new(Monitor::new(State::Awaited));
    (Reply(Arc::clone(&state)), Answer(state))
}

impl<R> Reply<R> {
    /// Gives the answer. Nobody may wait for it any more.
    pub(super) fn give(self, answer: R) {
        *self.0.lock() = State::Given(answer);
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let State::Awaited = *state {
            *state = State::Gone;
        }
        drop(state);
        self.0.notify_all();
    }
}

impl<R> Answer<R> {
    /// Waits for the answer; `None` if there will be none.
    pub(super) fn wait(self) -> Option<R> {
        take(&mut self.0.wait_while(self.0.lock(), is_awaited))
    }

    /// Waits for the answer until `deadline`; `None` if there is none by then.
    pub(super) fn wait_until(&self, deadline: Instant) -> Option<R> {
        take(&mut self.0.wait_while_until(self.0.lock(), deadline, is_awaited))
    }
}

fn is_awaited<R>(state: &mut State<R>) -> bool {
    matches!(state, State::Awaited)
}

fn take<R>(state: &mut State<R>) -> Option<R> {
    if let State::Awaited = state {
        return None;
    }
    match std::mem::replace(state, State::Gone) {
        State::Given(answer) => Some(answer),
        State::Awaited | State::Gone => None,
    }
}

#[cfg(all(test, not(hotslot_loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_who_waits_gets_the_answer_or_hears_that_there_is_none() {
        let (reply, answer) = ask();
        let asked = std::thread::spawn(move || answer.wait());
        reply.give(7);
        assert_eq!(asked.join().unwrap(), Some(7));
        let (reply, answer) = ask::<u8>();
        let asked = std::thread::spawn(move || answer.wait());
        drop(reply);
        assert_eq!(asked.join().unwrap(), None);
    }
}
