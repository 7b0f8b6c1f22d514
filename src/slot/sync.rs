//! The primitives of the swap itself, so that a model checker can take their place.
//!
//! Only [`current`](super::current), [`readers`](super::readers) and [`lineage`](super::lineage) are modelled; under
//! `--cfg hotslot_loom` they use loom's types, and everything else stays as it is.

#[cfg(not(hotslot_loom))]
pub(super) use crate::lock::Mutex;
#[cfg(not(hotslot_loom))]
pub(super) use std::sync::Arc;
#[cfg(all(unix, not(hotslot_loom)))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};

#[cfg(hotslot_loom)]
pub(super) use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, Ordering, fence},
};
#[cfg(hotslot_loom)]
pub(super) use loom_mutex::Mutex;

#[cfg(hotslot_loom)]
mod loom_mutex {
    /// loom's mutex with parking_lot's signature: no poisoning.
    #[derive(Debug)]
    pub(in crate::slot) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::slot) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(in crate::slot) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no model panics while it holds a lock")
        }

        pub(in crate::slot) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect("no model panics while it holds a lock")
        }
    }
}
