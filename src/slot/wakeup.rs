//! Wakes all who wait for something to have changed.

use std::time::Instant;

use crate::lock::Monitor;

/// Counts how often it was woken, so that nobody who looked before misses anything, however many wait.
#[derive(Default)]
pub(super) struct Wakeup(Monitor<u64>);

impl Wakeup {
    pub(super) fn wake(&self) {
        *self.0.lock() += 1;
        self.0.notify_all();
    }

    /// Returns how often it was woken: to be asked before the look at what may have changed.
    pub(super) fn count(&self) -> u64 {
        *self.0.lock()
    }

    /// Waits until it has been woken since the count was `seen`, or until `deadline`.
    pub(super) fn wait(&self, seen: u64, deadline: Instant) {
        drop(self.0.wait_while_until(self.0.lock(), deadline, |count| *count == seen));
    }
}
