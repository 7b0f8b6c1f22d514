//! Counts what there is only so much of, and says "saturated" before an allocator has to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A number of permits. Taking one when there are some never waits longer than for another thread to count.
pub(super) struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
    total: usize,
}

impl Permits {
    pub(super) fn new(total: usize) -> Arc<Permits> {
        Arc::new(Permits { free: Mutex::new(total), returned: Condvar::new(), total })
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn in_use(&self) -> usize {
        self.total - *self.free.lock()
    }

    /// A permit, if there is one within `wait`.
    pub(super) fn take(self: &Arc<Self>, wait: Duration) -> Option<Permit> {
        let mut free = self.free.lock();
        if *free == 0 && !wait.is_zero() {
            let until = Instant::now() + wait;
            while *free == 0 {
                if self.returned.wait_until(&mut free, until).timed_out() {
                    break;
                }
            }
        }
        *free = free.checked_sub(1)?;
        Some(Permit(Arc::clone(self)))
    }
}

/// Goes back when it is dropped.
pub(super) struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.returned.notify_one();
    }
}
