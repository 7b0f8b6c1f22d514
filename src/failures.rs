//! Counts a generation's failed calls, by whoever saw them fail.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::Mutex;

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
    /// The text of the latest failure that is held and not counted yet.
    held: Mutex<Option<String>>,
    /// Called after each failure that counts; the slot judges the generation then.
    notify: Box<dyn Fn(&str) + Send + Sync>,
}

thread_local! {
    /// The counter whose failures are held on this thread, by its address, and how many there are.
    static HOLDING: Cell<(usize, u32)> = const { Cell::new((0, 0)) };
}

impl FailureCounter {
    pub(crate) fn new(notify: impl Fn(&str) + Send + Sync + 'static) -> FailureCounter {
        FailureCounter(Arc::new(Inner {
            failures: AtomicU64::new(0),
            last: Mutex::default(),
            held: Mutex::default(),
            notify: Box::new(notify),
        }))
    }

    /// Counts one failed call and remembers what went wrong.
    pub fn report_failure(&self, what: impl fmt::Display) {
        let (holding, held) = HOLDING.get();
        if holding == self.address() {
            HOLDING.set((holding, held.saturating_add(1)));
            *self.0.held.lock() = Some(what.to_string());
            return;
        }
        let what = what.to_string();
        *self.0.last.lock() = Some(what.clone());
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        (self.0.notify)(&what);
    }

    /// Returns how many calls failed so far.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// Returns what went wrong the last time.
    pub fn last_failure(&self) -> Option<String> {
        self.0.last.lock().clone()
    }

    /// Runs `call`, and holds what is reported here on this thread meanwhile: whether it counts is decided afterwards.
    /// Returns the text of the last one.
    pub(crate) fn hold<R>(&self, call: impl FnOnce() -> R) -> (R, Option<String>) {
        let _restored = Restore(HOLDING.replace((self.address(), 0)));
        let answer = call();
        let held = (HOLDING.get().1 > 0).then(|| self.0.held.lock().take().unwrap_or_default());
        (answer, held)
    }

    /// Counts one that was held, without telling anyone: whoever held it does.
    pub(crate) fn count_held(&self, what: &str) {
        *self.0.last.lock() = Some(what.to_owned());
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

/// Puts back what was held before, also if the call unwinds: what was held in it is forgotten then, because the unwinding
/// says it.
struct Restore((usize, u32));

impl Drop for Restore {
    fn drop(&mut self) {
        HOLDING.set(self.0);
    }
}

impl fmt::Debug for FailureCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureCounter").field("failures", &self.failures()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::FailureCounter;

    #[test]
    fn what_is_held_does_not_count_by_itself() {
        let (one, other) = (FailureCounter::new(|_| {}), FailureCounter::new(|_| {}));
        let ((), held) = one.hold(|| {
            one.report_failure("a trap");
            other.report_failure("another's");
            let ((), inner) = other.hold(|| other.report_failure("held inside"));
            assert_eq!(inner.as_deref(), Some("held inside"));
            one.report_failure("another trap");
        });
        assert_eq!((held.as_deref(), one.failures(), other.failures()), (Some("another trap"), 0, 1));
        assert_eq!(one.hold(|| ()).1, None);
        one.report_failure("counted");
        assert_eq!((one.failures(), one.last_failure().as_deref()), (1, Some("counted")));
    }
}
