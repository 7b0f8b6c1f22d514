//! The read side: the one cell that says which generation is current.
//!
//! Everything else needs two properties of it, so that another implementation can take its place:
//! 1. [`Current::load`] is wait-free, also while [`Current::replace`] runs.
//! 2. When `replace` has returned, every [`Hold`] on the old value is counted in the `Arc` that it gave back, and no
//!    further one can appear except by cloning one that is out. So a count of one means that the last reader has gone.

#[cfg(not(hotslot_loom))]
pub(super) use over_arc_swap::{Current, Hold};
#[cfg(hotslot_loom)]
pub(super) use reference::{Current, Hold};

/// arc-swap: a reader notes a debt in a slot of its own thread instead of touching a shared counter; a swap pays the
/// debts on the old pointer by raising its count before it returns (property 2).
#[cfg(not(hotslot_loom))]
mod over_arc_swap {
    use std::sync::Arc;

    use arc_swap::{ArcSwapOption, Guard};

    pub(in crate::slot) struct Current<G>(ArcSwapOption<G>);

    impl<G> Current<G> {
        pub(in crate::slot) fn new() -> Current<G> {
            Current(ArcSwapOption::empty())
        }

        /// A hold on the current value, if there is one.
        #[inline]
        pub(in crate::slot) fn load(&self) -> Option<Hold<G>> {
            let guard = self.0.load();
            if guard.is_some() { Some(Hold(guard)) } else { None }
        }

        /// Puts `new` in, or nothing, and gives back what was there.
        pub(in crate::slot) fn replace(&self, new: Option<Arc<G>>) -> Option<Arc<G>> {
            self.0.swap(new)
        }
    }

    /// Keeps one value alive. Never holds `None`.
    pub(in crate::slot) struct Hold<G>(Guard<Option<Arc<G>>>);

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

/// The obvious implementation, slow and plainly right: what the models run on.
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

        pub(in crate::slot) fn replace(&self, new: Option<Arc<G>>) -> Option<Arc<G>> {
            std::mem::replace(&mut *self.0.lock(), new)
        }
    }

    pub(in crate::slot) struct Hold<G>(Arc<G>);

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
