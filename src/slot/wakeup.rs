//! Wakes whoever waits for something to have changed.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Remembers that it was woken until somebody has waited for it, so that nothing is missed.
#[derive(Default)]
pub(super) struct Wakeup {
    woken: Mutex<bool>,
    waiting: Condvar,
}

impl Wakeup {
    pub(super) fn wake(&self) {
        *self.woken.lock() = true;
        self.waiting.notify_one();
    }

    /// Waits until it is woken, or until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) {
        let mut woken = self.woken.lock();
        while !*woken {
            if self.waiting.wait_until(&mut woken, deadline).timed_out() {
                break;
            }
        }
        *woken = false;
    }
}
