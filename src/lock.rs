//! Locks that can be waited for on any thread at any time.
//!
//! They are std's, without the poisoning. A thread that waits for one of parking_lot's gets a thread-local with a destructor
//! first, and to register that it takes the dynamic linker's lock, which is held while a library's constructors run: so one
//! that hangs there would hold up whoever waits elsewhere, beyond every deadline. std's wait in the kernel and need nothing
//! of the thread (on Linux; elsewhere the linker's lock is not held while constructors run, or nothing is promised).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Instant;

/// A mutex with parking_lot's signature. What panics while it holds one must leave the value sound.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    #[cfg_attr(hotslot_loom, allow(dead_code))]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// A value under a mutex, and those who wait for it to change.
///
/// Whoever changes the value does so under the lock, and notifies afterwards, with the lock or without. To notify when nobody
/// waits costs no system call.
#[derive(Debug, Default)]
pub(crate) struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
    /// Those who wait. One that is about to is counted under the lock, so whoever changed the value after that sees it.
    waiting: AtomicUsize,
}

impl<T> Monitor<T> {
    pub(crate) const fn new(value: T) -> Monitor<T> {
        Monitor { value: Mutex::new(value), changed: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock()
    }

    pub(crate) fn notify_one(&self) {
        if self.is_waited_for() {
            self.changed.notify_one();
        }
    }

    pub(crate) fn notify_all(&self) {
        if self.is_waited_for() {
            self.changed.notify_all();
        }
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until something has changed, or until `deadline`, or for no reason.
    pub(crate) fn wait<'a>(&self, guard: MutexGuard<'a, T>, deadline: Option<Instant>) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Waits while `waits` says so.
    pub(crate) fn wait_while<'a>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut waits: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while waits(&mut guard) {
            guard = self.wait(guard, None);
        }
        guard
    }

    /// Waits while `waits` says so, but not beyond `deadline`: `waits` may still hold then.
    pub(crate) fn wait_while_until<'a>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Instant,
        mut waits: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while waits(&mut guard) {
            if deadline <= Instant::now() {
                break;
            }
            guard = self.wait(guard, Some(deadline));
        }
        guard
    }
}
