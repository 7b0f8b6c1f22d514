//! A place for one thing between two who use it in turn, without a lock.
//!
//! Most calls of a plugin find here the instance that the last one has used, together with its permit: taking it and putting
//! it back are one atomic operation each, where two locks would be four.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Room for one `T`.
pub(super) struct Parked<T> {
    /// Null, or a box that was given up to whoever takes it out of here.
    place: AtomicPtr<T>,
    owns: PhantomData<Box<T>>,
}

// SAFETY: it is a box that one thread at a time has; it hands out no reference to what is in it.
unsafe impl<T: Send> Sync for Parked<T> {}
// SAFETY: the same.
unsafe impl<T: Send> Send for Parked<T> {}

impl<T> Parked<T> {
    pub(super) const fn new() -> Parked<T> {
        Parked { place: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    /// Takes what is there. It and [`put`](Parked::put) are sequentially consistent, for those who look elsewhere next.
    #[inline]
    pub(super) fn take(&self) -> Option<Box<T>> {
        let taken = self.place.swap(ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: what is not null was made of a box by `put`, and whoever swaps it out is the only one to have it.
        (!taken.is_null()).then(|| unsafe { Box::from_raw(taken) })
    }

    /// Leaves something there; gives it back if there is something already.
    #[inline]
    pub(super) fn put(&self, value: Box<T>) -> Result<(), Box<T>> {
        let value = Box::into_raw(value);
        match self.place.compare_exchange(ptr::null_mut(), value, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            // SAFETY: it was made of a box two lines above, and nobody else has seen it.
            Err(_) => Err(unsafe { Box::from_raw(value) }),
        }
    }
}

impl<T> Drop for Parked<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Parked;

    #[test]
    fn one_fits_and_is_dropped_with_its_place() {
        let (parked, value) = (Parked::new(), Arc::new(7));
        assert!(parked.take().is_none());
        assert!(parked.put(Box::new(Arc::clone(&value))).is_ok());
        assert!(parked.put(Box::new(Arc::clone(&value))).is_err());
        assert_eq!(parked.take().as_deref(), Some(&value));
        assert!(parked.put(Box::new(Arc::clone(&value))).is_ok());
        drop(parked);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn what_several_threads_take_in_turn_is_with_one_of_them_at_a_time() {
        const ROUNDS: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let parked = Parked::new();
        parked.put(Box::new(0_u64)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let mut count = loop {
                            match parked.take() {
                                Some(count) => break count,
                                None => std::thread::yield_now(),
                            }
                        };
                        *count += 1;
                        parked.put(count).expect("it was taken out");
                    }
                });
            }
        });
        assert_eq!(parked.take().as_deref(), Some(&(3 * ROUNDS)));
    }
}
