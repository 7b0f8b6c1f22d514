//! A counting semaphore in front of the allocator, so that a call is refused as saturated instead of failing in there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lock::Monitor;

/// A number of permits. Taking one while some are free waits for no more than the lock around the count.
pub(super) struct Permits {
    free: Monitor<usize>,
    total: usize,
}

impl Permits {
    pub(super) fn new(total: usize) -> Arc<Permits> {
        Arc::new(Permits { free: Monitor::new(total), total })
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn in_use(&self) -> usize {
        self.total - *self.free.lock()
    }

    /// Takes a permit, if one is free within `wait`.
    pub(super) fn take(self: &Arc<Self>, wait: Duration) -> Option<Permit> {
        let mut free = self.free.lock();
        if *free == 0 && !wait.is_zero() {
            free = self.free.wait_while_until(free, Instant::now() + wait, |free| *free == 0);
        }
        *free = free.checked_sub(1)?;
        Some(Permit(Arc::clone(self)))
    }
}

/// One permit, which is returned on drop.
pub(super) struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.free.notify_one();
    }
}
