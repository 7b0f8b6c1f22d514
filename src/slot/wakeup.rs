//! Wakes the reaper.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Remembers that it was woken until somebody has waited for it, so that no ring is lost.
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

    /// Waits for a ring, until `deadline` if there is one.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let mut woken = self.woken.lock();
        while !*woken {
            match deadline {
                Some(deadline) if self.waiting.wait_until(&mut woken, deadline).timed_out() => break,
                Some(_) => {}
                None => self.waiting.wait(&mut woken),
            }
        }
        *woken = false;
    }
}
