//! Which slots' foreign code a thread is inside of: hooks, backends, plugins, and what plugins call in the host.
//!
//! A transition that is asked for from there waits for itself: the slot refuses it as misuse, at once. The marks are
//! plain thread-local cells without a destructor, so that a mark costs nanoseconds and takes no lock of the loader's.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many slots a thread can be inside of at once. One that is deeper counts as inside of all of them.
const DEPTH: usize = 8;

thread_local! {
    static ENTERED: Marks = const { Marks { slots: [const { Cell::new(0) }; DEPTH], count: Cell::new(0) } };
}

/// The slots that this thread is inside of.
struct Marks {
    slots: [Cell<u64>; DEPTH],
    /// Of those above; one more than fit says that there were more.
    count: Cell<usize>,
}

/// The slots that a thread is inside of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    slots: [u64; DEPTH],
    /// Of those above; one more than fit says that there were more.
    count: usize,
}

/// Marks threads on which a slot's foreign code runs.
///
/// The slot does so for the backend, for hooks and for a plugin's run. A backend does so for whatever its plugins call
/// in the host, because that happens on the threads of callers, which the slot does not see: services, messages, log
/// lines. It gets the scope with the [`LoadContext`](crate::LoadContext).
///
/// ```
/// # fn service_called_by_a_plugin(scope: &hotslot::PluginScope) -> u32 {
/// scope.enter(|| 42) // a reload of this slot from in here is refused as misuse, instead of waiting for itself
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginScope(u64);

impl PluginScope {
    /// A scope of a slot that is new.
    pub(crate) fn new() -> PluginScope {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        PluginScope(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs `work` as foreign code of the slot.
    #[inline]
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        // Most threads are inside of nothing. What is beyond the count means nothing, so that only the count is put back.
        let _left = ENTERED.with(|entered| {
            let count = entered.count.get();
            if count == 0 {
                entered.slots[0].set(self.0);
                entered.count.set(1);
            } else if !entered.contains(self.0) {
                entered.add(self.0);
            }
            Leave(count)
        });
        work()
    }

    /// Returns whether this thread runs foreign code of the slot.
    pub fn is_entered(&self) -> bool {
        ENTERED.with(|entered| entered.contains(self.0))
    }
}

impl Entered {
    /// What this thread is inside of, for a thread that goes on with its work.
    pub(crate) fn here() -> Entered {
        ENTERED.with(|entered| Entered { slots: entered.slots.each_ref().map(Cell::get), count: entered.count.get() })
    }

    /// Runs `work` on another thread as if it were still on the one that this was taken from.
    pub(crate) fn resume<R>(self, work: impl FnOnce() -> R) -> R {
        let _restored = Restore(Entered::here());
        self.set();
        work()
    }

    fn set(self) {
        ENTERED.with(|entered| {
            entered.slots.iter().zip(self.slots).for_each(|(place, slot)| place.set(slot));
            entered.count.set(self.count);
        });
    }
}

impl Marks {
    fn contains(&self, slot: u64) -> bool {
        let count = self.count.get();
        count > DEPTH || self.slots[..count].iter().any(|entered| entered.get() == slot)
    }

    fn add(&self, slot: u64) {
        let count = self.count.get();
        if let Some(free) = self.slots.get(count) {
            free.set(slot);
        }
        self.count.set((count + 1).min(DEPTH + 1));
    }
}

/// Puts the count back, also if the work panics.
struct Leave(usize);

impl Drop for Leave {
    #[inline]
    fn drop(&mut self) {
        ENTERED.with(|entered| entered.count.set(self.0));
    }
}

/// Puts back what was, also if the work panics.
struct Restore(Entered);

impl Drop for Restore {
    fn drop(&mut self) {
        self.0.set();
    }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, Entered, PluginScope};

    #[test]
    fn a_thread_is_inside_until_the_work_ends_or_panics() {
        let (one, other) = (PluginScope::new(), PluginScope::new());
        one.enter(|| {
            assert!(one.is_entered() && !other.is_entered());
            let _ = std::panic::catch_unwind(|| other.enter(|| panic!("out")));
            assert!(one.is_entered() && !other.is_entered());
            let entered = Entered::here();
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    assert!(!one.is_entered());
                    entered.resume(|| assert!(one.is_entered()));
                    assert!(!one.is_entered());
                });
            });
        });
        assert!(!one.is_entered());
    }

    #[test]
    fn one_that_is_too_deep_to_be_noted_counts_as_inside_of_all() {
        fn nest(depth: usize, then: &dyn Fn()) {
            match depth {
                0 => then(),
                _ => PluginScope::new().enter(|| nest(depth - 1, then)),
            }
        }
        let unrelated = PluginScope::new();
        nest(DEPTH, &|| assert!(!unrelated.is_entered()));
        nest(DEPTH + 1, &|| assert!(unrelated.is_entered()));
    }
}
