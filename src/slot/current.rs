//! The read side: the one cell that says which generation is current.
//!
//! Everything else needs three properties of it, so that another implementation can take its place:
//! 1. [`Current::load`] is wait-free, also while [`Current::set`] runs.
//! 2. A value that has left the cell, and that an exact [`Survey`] made after that says nobody holds, has no [`Hold`], and
//!    none can appear.
//! 3. The end of a hold frees nothing.

#[cfg(any(hotslot_loom, not(unix)))]
pub(super) use by_count::Survey;
#[cfg(all(not(hotslot_loom), not(unix)))]
pub(super) use over_arc_swap::{Current, Hold};
#[cfg(all(not(hotslot_loom), unix))]
pub(super) use over_readers::{Current, Hold, Survey};
#[cfg(hotslot_loom)]
pub(super) use reference::{Current, Hold};

/// A cell over the threads' [records](super::readers).
#[cfg(all(not(hotslot_loom), unix))]
mod over_readers {
    use std::marker::PhantomData;
    use std::ops::Deref;
    use std::ptr::{self, NonNull};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use crate::slot::readers::{self, Hazard};

    pub(in crate::slot) struct Current<G> {
        /// Owns nothing: whoever sets it keeps the value alive.
        cell: AtomicPtr<G>,
        shares: PhantomData<Arc<G>>,
    }

    impl<G> Current<G> {
        pub(in crate::slot) fn new() -> Current<G> {
            Current { cell: AtomicPtr::new(ptr::null_mut()), shares: PhantomData }
        }

        /// A hold on the current value, if there is one.
        #[inline]
        pub(in crate::slot) fn load(&self) -> Option<Hold<G>> {
            // SAFETY: what is counted is in the cell, or was an instant ago, and is alive by the contract of `set`: while
            // this runs, no survey is exact.
            let count = |value: NonNull<G>| unsafe { Arc::increment_strong_count(value.as_ptr()) };
            let (value, hazard) = readers::record().hold(&self.cell, count)?;
            Some(Hold { value, hazard, shares: PhantomData })
        }

        /// Puts a value in the place of the one that is there, or nothing.
        ///
        /// # Safety
        /// The caller keeps a reference to the value until it has left the cell and an exact [`Survey`], made after that,
        /// says that nobody holds it.
        pub(in crate::slot) unsafe fn set(&self, new: Option<&Arc<G>>) {
            let new = new.map_or(ptr::null_mut(), |new| Arc::as_ptr(new).cast_mut());
            // Pairs with the acquire in `Record::hold`: who finds the value finds it whole.
            self.cell.store(new, Ordering::Release);
        }
    }

    /// Keeps one value alive.
    pub(in crate::slot) struct Hold<G> {
        value: NonNull<G>,
        /// What protects the value; without one, the hold owns a count of it.
        hazard: Option<&'static Hazard>,
        shares: PhantomData<Arc<G>>,
    }

    impl<G> Hold<G> {
        /// A hold on a value that the caller has.
        pub(in crate::slot) fn of(value: &Arc<G>) -> Hold<G> {
            let value = Arc::into_raw(Arc::clone(value)).cast_mut();
            // An `Arc` is never null.
            let value = NonNull::new(value).expect("an Arc has an address");
            Hold { value, hazard: None, shares: PhantomData }
        }

        /// Whether the calling thread has noted a hold on this value.
        pub(in crate::slot) fn is_here(value: &Arc<G>) -> bool {
            readers::record().has(Arc::as_ptr(value))
        }
    }

    // SAFETY: a hold is a share of the value, like an `Arc`; any thread may clear a hazard.
    unsafe impl<G: Send + Sync> Send for Hold<G> {}
    // SAFETY: as above. Sharing a hold shares the value, and nothing else in it changes.
    unsafe impl<G: Send + Sync> Sync for Hold<G> {}

    impl<G> Deref for Hold<G> {
        type Target = G;

        #[inline]
        fn deref(&self) -> &G {
            // SAFETY: the hazard or the count keeps it alive: see `Record::hold`.
            unsafe { self.value.as_ref() }
        }
    }

    impl<G> Clone for Hold<G> {
        fn clone(&self) -> Hold<G> {
            // SAFETY: the value came out of an `Arc`, and is alive as long as this hold is.
            unsafe { Arc::increment_strong_count(self.value.as_ptr()) };
            Hold { value: self.value, hazard: None, shares: PhantomData }
        }
    }

    impl<G> Drop for Hold<G> {
        #[inline]
        fn drop(&mut self) {
            match self.hazard {
                Some(hazard) => hazard.clear(),
                // SAFETY: the count is this hold's own. It is not the last one: whoever set the value has another.
                None => unsafe { Arc::decrement_strong_count(self.value.as_ptr()) },
            }
        }
    }

    /// What is held, as of one moment.
    pub(in crate::slot) struct Survey(readers::Survey);

    impl Survey {
        /// What is held of everything that left its cell before; `None` if that cannot be told at the moment.
        pub(in crate::slot) fn exact() -> Option<Survey> {
            readers::READERS.survey().map(Survey)
        }

        /// The same, but a hold that is taken in this moment may be missing.
        pub(in crate::slot) fn glance() -> Survey {
            Survey(readers::READERS.glance())
        }

        /// How many holds there are on a value, besides the reference that is given.
        pub(in crate::slot) fn holds<G>(&self, value: &Arc<G>) -> usize {
            // In this order: see `readers`.
            let hazards = self.0.count(Arc::as_ptr(value));
            hazards + Arc::strong_count(value) - 1
        }
    }
}

/// A cell of arc-swap, for platforms without pthread keys: a reader notes a debt in a slot of its own thread instead of
/// touching a shared counter; a swap pays the debts on the old pointer by raising its count before it returns, so the count
/// tells all.
#[cfg(all(not(hotslot_loom), not(unix)))]
mod over_arc_swap {
    use std::sync::Arc;

    use arc_swap::{ArcSwapOption, Guard};

    pub(in crate::slot) struct Current<G>(ArcSwapOption<G>);

    impl<G> Current<G> {
        pub(in crate::slot) fn new() -> Current<G> {
            Current(ArcSwapOption::empty())
        }

        #[inline]
        pub(in crate::slot) fn load(&self) -> Option<Hold<G>> {
            let guard = self.0.load();
            if guard.is_some() { Some(Hold(guard)) } else { None }
        }

        /// # Safety
        /// As the other one's; this one needs nothing.
        pub(in crate::slot) unsafe fn set(&self, new: Option<&Arc<G>>) {
            self.0.store(new.cloned());
        }
    }

    /// Keeps one value alive. Never holds `None`.
    pub(in crate::slot) struct Hold<G>(Guard<Option<Arc<G>>>);

    impl<G> Hold<G> {
        /// A hold on a value that the caller has.
        pub(in crate::slot) fn of(value: &Arc<G>) -> Hold<G> {
            Hold(Guard::from_inner(Some(Arc::clone(value))))
        }

        /// Whether the calling thread has noted a hold on this value: it is not known here.
        pub(in crate::slot) fn is_here(_: &Arc<G>) -> bool {
            false
        }
    }

    impl<G> std::ops::Deref for Hold<G> {
        type Target = G;

        #[inline]
        fn deref(&self) -> &G {
            self.0.as_deref().expect("a hold is made of a value")
        }
    }

    impl<G> Clone for Hold<G> {
        fn clone(&self) -> Hold<G> {
            Hold(Guard::from_inner(Option::clone(&self.0)))
        }
    }
}

/// The obvious implementation, slow and plainly right: what the models of the line run on.
#[cfg(hotslot_loom)]
mod reference {
    use crate::slot::sync::{Arc, Mutex};

    pub(in crate::slot) struct Current<G>(Mutex<Option<Arc<G>>>);

    impl<G> Current<G> {
        pub(in crate::slot) fn new() -> Current<G> {
            Current(Mutex::new(None))
        }

        pub(in crate::slot) fn load(&self) -> Option<Hold<G>> {
            self.0.lock().clone().map(Hold)
        }

        /// # Safety
        /// As the real one's; this one needs nothing.
        pub(in crate::slot) unsafe fn set(&self, new: Option<&Arc<G>>) {
            *self.0.lock() = new.cloned();
        }
    }

    pub(in crate::slot) struct Hold<G>(Arc<G>);

    impl<G> Hold<G> {
        pub(in crate::slot) fn of(value: &Arc<G>) -> Hold<G> {
            Hold(Arc::clone(value))
        }

        pub(in crate::slot) fn is_here(_: &Arc<G>) -> bool {
            false
        }
    }

    impl<G> std::ops::Deref for Hold<G> {
        type Target = G;

        fn deref(&self) -> &G {
            &self.0
        }
    }

    impl<G> Clone for Hold<G> {
        fn clone(&self) -> Hold<G> {
            Hold(self.0.clone())
        }
    }
}

/// What is held, where every hold is in the count of its value.
#[cfg(any(hotslot_loom, not(unix)))]
mod by_count {
    use crate::slot::sync::Arc;

    pub(in crate::slot) struct Survey;

    impl Survey {
        pub(in crate::slot) fn exact() -> Option<Survey> {
            Some(Survey)
        }

        pub(in crate::slot) fn glance() -> Survey {
            Survey
        }

        pub(in crate::slot) fn holds<G>(&self, value: &Arc<G>) -> usize {
            Arc::strong_count(value) - 1
        }
    }
}
