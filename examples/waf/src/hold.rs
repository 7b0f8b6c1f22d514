//! How long requests were held up by a swap: measured on the requests themselves.
//!
//! A request is held up from the moment it asks for the rules until they begin to work on it: until it has a lease on
//! what serves, and an instance if that is a module. While a reload or a rollback is under way, every request notes how
//! long that took; the longest of these times is the reload's `downtime_ms`, their number its `requests_during_reload`.
//! Work of the rules themselves is no hold-up, and a reload that no request came across held up nobody: 0, of 0
//! requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

/// The reloads that are under way.
#[derive(Default)]
pub struct Holds {
    /// How many there are, so that requests in quiet times look at one number only.
    count: AtomicUsize,
    windows: RwLock<Vec<Arc<Counts>>>,
}

#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    served: AtomicU64,
    longest_nanos: AtomicU64,
}

/// What was measured over one reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub requests: u64,
    pub longest: Duration,
}

impl Holds {
    /// A request asks for the rules.
    #[inline]
    pub fn ask(&self) -> Waiting {
        let windows = match self.count.load(Ordering::Acquire) {
            0 => Vec::new(),
            // Under the lock, so that a window that was closed before is not entered.
            _ => {
                let windows = self.windows.read();
                for window in windows.iter() {
                    window.asked.fetch_add(1, Ordering::Relaxed);
                }
                windows.clone()
            }
        };
        Waiting { windows, since: Instant::now() }
    }

    /// A reload begins.
    pub fn open(&self) -> Window<'_> {
        let counts = Arc::new(Counts::default());
        self.windows.write().push(Arc::clone(&counts));
        self.count.fetch_add(1, Ordering::Release);
        Window { holds: self, counts }
    }
}

/// A request that waits for the rules.
pub struct Waiting {
    windows: Vec<Arc<Counts>>,
    pub since: Instant,
}

impl Waiting {
    /// The rules have worked on it, or it has been given up, after it was held up for so long.
    #[inline]
    pub fn end(self, held: Duration) {
        for window in self.windows {
            let nanos = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
            window.longest_nanos.fetch_max(nanos, Ordering::Relaxed);
            window.served.fetch_add(1, Ordering::Release);
        }
    }
}

/// The time of one reload.
pub struct Window<'a> {
    holds: &'a Holds,
    counts: Arc<Counts>,
}

impl Window<'_> {
    /// The reload has ended. Waits for the requests that came across it, but not longer than `patience`.
    pub fn close(self, patience: Duration) -> Held {
        let counts = Arc::clone(&self.counts);
        drop(self);
        let until = Instant::now() + patience;
        while counts.served.load(Ordering::Acquire) < counts.asked.load(Ordering::Relaxed) && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(50));
        }
        Held {
            requests: counts.asked.load(Ordering::Relaxed),
            longest: Duration::from_nanos(counts.longest_nanos.load(Ordering::Relaxed)),
        }
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.holds.count.fetch_sub(1, Ordering::Release);
        self.holds.windows.write().retain(|window| !Arc::ptr_eq(window, &self.counts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_for_the_reloads_that_they_came_across() {
        let holds = Holds::default();
        let millis = Duration::from_millis;
        holds.ask().end(millis(9));
        let outer = holds.open();
        let waiting = holds.ask();
        let inner = holds.open();
        holds.ask().end(millis(2));
        assert_eq!(inner.close(Duration::ZERO), Held { requests: 1, longest: millis(2) });
        waiting.end(millis(3));
        assert_eq!(outer.close(Duration::from_secs(60)), Held { requests: 2, longest: millis(3) });
        assert_eq!(holds.open().close(Duration::ZERO), Held::default());
    }
}
