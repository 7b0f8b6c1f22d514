//! A counting semaphore in front of the allocator, so that a call is refused as saturated instead of failing in there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::lock::Monitor;

/// A number of permits. Taking one while some are free waits for no more than the lock around the count.
pub(super) struct Permits {
    free: Monitor<usize>,
    total: usize,
    /// Those who are about to wait, or do.
    waiting: AtomicUsize,
}

impl Permits {
    pub(super) fn new(total: usize) -> Arc<Permits> {
        Arc::new(Permits { free: Monitor::new(total), total, waiting: AtomicUsize::new(0) })
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
            let is_none = |free: &mut usize| *free == 0;
            free = match Instant::now().checked_add(wait) {
                Some(deadline) => self.free.wait_while_until(free, deadline, is_none),
                None => self.free.wait_while(free, is_none),
            };
        }
        *free = free.checked_sub(1)?;
        Some(Permit(Arc::clone(self)))
    }
}

impl Permits {
    /// Announces that somebody is going to wait. What has been put elsewhere together with a permit has to be looked for
    /// after that: whoever puts something there later finds out that [it is waited for](Permits::is_waited_for).
    pub(super) fn announce(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }

    /// Returns whether somebody waits, or is about to.
    #[inline]
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }
}

/// Somebody who waits for a permit.
pub(super) struct Waiting<'a>(&'a Permits);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
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
