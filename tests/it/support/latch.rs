//! A door that a plugin, a hook or a thread waits at until the test opens it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::PATIENCE;

/// Closed until [`open`](Latch::open) is called; open from then on.
#[derive(Default)]
pub(crate) struct Latch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    waiting: usize,
}

impl Latch {
    /// Waits at the door, until it opens.
    pub(crate) fn pass(&self) {
        let mut state = self.lock();
        state.waiting += 1;
        self.changed.notify_all();
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, 2 * PATIENCE, |state| !state.open)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        drop(state);
        assert!(!timeout.timed_out(), "nobody opened the door");
    }

    /// Lets everyone through.
    pub(crate) fn open(&self) {
        self.lock().open = true;
        self.changed.notify_all();
    }

    /// How many stand at the door.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Waits until that many stand at the door.
    pub(crate) fn wait_for(&self, count: usize) {
        let enough = |state: &mut State| state.waiting < count;
        let (_state, timeout) =
            self.changed.wait_timeout_while(self.lock(), PATIENCE, enough).unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{count} were expected at the door");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
