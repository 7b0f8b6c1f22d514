//! How well a generation does: the calls that failed, counted by whoever saw them fail.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Counts a generation's failed calls. Cloning gives another handle to the same counts.
///
/// Backends report on their own what they can see, a panic or a trap; a caller adds what only it can judge, through
/// [`Lease::report_failure`](crate::Lease::report_failure). More failures than the slot's
/// [probation](crate::Builder::probation) allows roll the generation back.
#[derive(Clone)]
pub struct FailureCounter(Arc<Inner>);

struct Inner {
    failures: AtomicU64,
    last: Mutex<Option<String>>,
    /// Called after each failure; the slot looks whether it was one too many.
    notify: Box<dyn Fn() + Send + Sync>,
}

impl FailureCounter {
    pub(crate) fn new(notify: impl Fn() + Send + Sync + 'static) -> FailureCounter {
        FailureCounter(Arc::new(Inner {
            failures: AtomicU64::new(0),
            last: Mutex::new(None),
            notify: Box::new(notify),
        }))
    }

    /// Counts one failed call and remembers what went wrong.
    pub fn report_failure(&self, what: impl fmt::Display) {
        *self.0.last.lock() = Some(what.to_string());
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        (self.0.notify)();
    }

    /// How many calls failed so far.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// What went wrong the last time.
    pub fn last_failure(&self) -> Option<String> {
        self.0.last.lock().clone()
    }
}

impl fmt::Debug for FailureCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureCounter").field("failures", &self.failures()).finish_non_exhaustive()
    }
}
