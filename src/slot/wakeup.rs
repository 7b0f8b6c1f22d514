//! Wakes whoever waits for something to have changed.

use std::time::Instant;

use crate::lock::Monitor;

/// Remembers that it was woken until somebody has waited for it, so that nothing is missed.
#[derive(Default)]
pub(super) struct Wakeup(Monitor<bool>);

impl Wakeup {
    pub(super) fn wake(&self) {
        *self.0.lock() = true;
        self.0.notify_one();
    }

    /// Waits until it is woken, or until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) {
        *self.0.wait_while_until(self.0.lock(), deadline, |woken| !*woken) = false;
    }
}
