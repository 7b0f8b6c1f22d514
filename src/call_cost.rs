//! What a call took and waited for, measured around it and given with its answer.
//!
//! A plugin's method has no parameter through which a backend could say how long the call waited for an instance. So the
//! measurement that is under way on a thread is in a thread-local cell, and stays inside the library: whoever
//! [measures](crate::Lease::measure) gets the figures in hand. The cells have no destructor, so that the first call of a
//! thread takes no lock of the loader's.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What one measured call cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallCost {
    /// From the call to its answer.
    pub took: Duration,
    /// The part of it in which the call waited for its turn, as far as the backend says: for a free instance of a
    /// module. Calls into libraries wait for nothing.
    pub waited: Duration,
    /// Whether the backend counted a failure in it: a panic, a trap, an answer that could not be read.
    pub failed: bool,
}

thread_local! {
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Adds to the waiting time of the call that is being measured on this thread, if one is. For backends.
pub fn record_wait(waited: Duration) {
    WAITED.set(WAITED.get().saturating_add(waited));
}

/// Measures `call`. One that is measured inside of another adds to it, too.
pub(crate) fn measure<R>(call: impl FnOnce() -> R) -> (R, CallCost) {
    let before = WAITED.replace(Duration::ZERO);
    let began = Instant::now();
    // A call that unwinds leaves its waiting time to the next one around it, or to nobody.
    let answer = call();
    let took = began.elapsed();
    let waited = WAITED.replace(Duration::ZERO);
    WAITED.set(before.saturating_add(waited));
    (answer, CallCost { took, waited, failed: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_given_with_the_call_that_waited_and_with_those_around_it() {
        let millis = Duration::from_millis;
        record_wait(millis(100));
        let ((), outer) = measure(|| {
            record_wait(millis(1));
            let ((), inner) = measure(|| record_wait(millis(2)));
            assert_eq!(inner.waited, millis(2));
        });
        assert_eq!(outer.waited, millis(3));
        assert_eq!(measure(|| ()).1.waited, Duration::ZERO);
    }
}
