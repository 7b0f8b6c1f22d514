//! Threads that work until a test is over, also if it fails: the test would wait for them for ever.

use std::sync::atomic::{AtomicBool, Ordering};

/// Raises the flag when it goes.
pub(crate) struct Done<'a>(pub(crate) &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
