//! Runs foreign code on another thread, so that nobody waits for it longer than agreed.
//!
//! Whoever waits needs nothing that a hanging library could keep from it: see [`lock`](crate::lock).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lock::Monitor;
use crate::plugin_scope::Entered;
use crate::text::panic_text;
use crate::workers::{self, Afterwards};

/// Why there is no result.
#[derive(Debug)]
pub(super) enum NoResult {
    /// The work goes on, but nobody waits for it any more.
    TimedOut,
    /// The work panicked, with this text.
    Panicked(String),
    /// The thread could not be spawned.
    NoThread(std::io::Error),
}

/// Where worker and caller meet: whoever comes second finds what the first left.
enum Meeting<R> {
    Working,
    Done(Result<R, String>),
    Abandoned,
}

/// The moment `timeout` from now, or one that is as good as never.
pub(super) fn after(timeout: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    Instant::now() + timeout.min(CENTURY)
}

/// The time from now to `deadline`.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Runs `work` on another thread and waits for its result until `deadline`.
///
/// The thread counts as inside of whatever the caller is inside of, so that foreign code which goes through another slot
/// is still known for what it is.
///
/// If the deadline passes first, `abandon` is called, and some time after it, on that thread, `late` with the result;
/// with `None` if it panicked, or had not begun when the deadline passed.
pub(super) fn within<R: Send + 'static>(
    deadline: Instant,
    afterwards: Afterwards,
    work: impl FnOnce() -> R + Send + 'static,
    abandon: impl FnOnce(),
    late: impl FnOnce(Option<R>) + Send + 'static,
) -> Result<R, NoResult> {
    let meeting = Arc::new(Monitor::new(Meeting::Working));
    let theirs = Arc::clone(&meeting);
    let entered = Entered::here();
    let body = move || {
        // It waited for a thread for so long that nobody waits for it any more.
        if matches!(*theirs.lock(), Meeting::Abandoned) {
            return late(None);
        }
        let result = catch_unwind(AssertUnwindSafe(|| entered.resume(work))).map_err(panic_text);
        let mut state = theirs.lock();
        if matches!(*state, Meeting::Abandoned) {
            drop(state);
            late(result.ok());
        } else {
            *state = Meeting::Done(result);
            theirs.notify_one();
        }
    };
    workers::run(afterwards, body).map_err(NoResult::NoThread)?;

    let working = |state: &mut Meeting<R>| matches!(state, Meeting::Working);
    let mut state = meeting.wait_while_until(meeting.lock(), deadline, working);
    match std::mem::replace(&mut *state, Meeting::Abandoned) {
        Meeting::Done(result) => result.map_err(NoResult::Panicked),
        Meeting::Working => {
            abandon();
            Err(NoResult::TimedOut)
        }
        Meeting::Abandoned => unreachable!("only the caller leaves, and it comes once"),
    }
}
