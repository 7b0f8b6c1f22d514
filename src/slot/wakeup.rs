//! Wakes the reaper.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Remembers that it was rung until somebody has waited for it, so that no ring is lost.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    waiting: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rung.lock() = true;
        self.waiting.notify_one();
    }

    /// Waits for a ring, until `deadline` if there is one.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let mut rung = self.rung.lock();
        while !*rung {
            match deadline {
                Some(deadline) if self.waiting.wait_until(&mut rung, deadline).timed_out() => break,
                Some(_) => {}
                None => self.waiting.wait(&mut rung),
            }
        }
        *rung = false;
    }
}
