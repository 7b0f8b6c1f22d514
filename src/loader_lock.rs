//! Whether the dynamic linker's lock is held by a library whose constructors do not come to an end.
//!
//! While they run, no thread can start, end, or use a thread-local with a destructor for the first time. What a tracing
//! subscriber does is of that kind, so whoever must keep a deadline leaves it alone meanwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A lock that is held for longer counts as held up. Most libraries are loaded in a fraction of it.
const PATIENCE: Duration = Duration::from_millis(20);

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
/// When the first of those that are under way began, or the last one ended, in nanoseconds since `start`.
static SINCE: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Returns for how long the lock has been held, if a library is being loaded.
pub(crate) fn held_for() -> Option<Duration> {
    let under_way = UNDER_WAY.load(Relaxed) > 0;
    under_way.then(|| Duration::from_nanos(now().saturating_sub(SINCE.load(Relaxed))))
}

/// Returns whether it is better not to do what needs the lock.
pub(crate) fn is_held_up() -> bool {
    held_for().is_some_and(|time| time >= PATIENCE)
}

/// Waits until the lock is not held up any more. Returns `false` if it still is at `deadline`.
pub(crate) fn wait(deadline: Instant) -> bool {
    const POLL_INTERVAL: Duration = Duration::from_millis(5);
    while is_held_up() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(POLL_INTERVAL));
    }
    true
}

/// A library is being loaded, until this is dropped.
#[cfg(feature = "native")]
pub(crate) struct Loading(());

#[cfg(feature = "native")]
impl Loading {
    pub(crate) fn begin() -> Loading {
        if UNDER_WAY.fetch_add(1, Relaxed) == 0 {
            SINCE.store(now(), Relaxed);
        }
        Loading(())
    }
}

#[cfg(feature = "native")]
impl Drop for Loading {
    fn drop(&mut self) {
        SINCE.store(now(), Relaxed);
        UNDER_WAY.fetch_sub(1, Relaxed);
    }
}
