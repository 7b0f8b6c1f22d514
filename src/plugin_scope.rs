//! Which slots' foreign code a thread is inside of: hooks, backends, plugins, and what plugins call in the host.
//!
//! A transition that is asked for from there waits for itself: the slot refuses it as misuse, at once. The marks are
//! plain thread-local cells without a destructor, so that a mark costs nanoseconds and takes no lock of the loader's.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many slots a thread can be inside of at once. One that is deeper counts as inside of all of them.
const DEPTH: usize = 8;

thread_local! {
    static ENTERED: Cell<Entered> = const { Cell::new(Entered { slots: [0; DEPTH], count: 0 }) };
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
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        let before = ENTERED.get();
        let _restored = Restore(before);
        if !before.contains(self.0) {
            ENTERED.set(before.with(self.0));
        }
        work()
    }

    /// Whether this thread runs foreign code of the slot.
    pub fn is_entered(&self) -> bool {
        ENTERED.get().contains(self.0)
    }
}

impl Entered {
    /// What this thread is inside of, for a thread that goes on with its work.
    pub(crate) fn here() -> Entered {
        ENTERED.get()
    }

    /// Runs `work` on another thread as if it were still on the one that this was taken from.
    pub(crate) fn resume<R>(self, work: impl FnOnce() -> R) -> R {
        let _restored = Restore(ENTERED.replace(self));
        work()
    }

    fn contains(&self, slot: u64) -> bool {
        self.count > DEPTH || self.slots[..self.count].contains(&slot)
    }

    fn with(mut self, slot: u64) -> Entered {
        if let Some(free) = self.slots.get_mut(self.count) {
            *free = slot;
        }
        self.count = (self.count + 1).min(DEPTH + 1);
        self
    }
}

/// Puts back what was, also if the work panics.
struct Restore(Entered);

impl Drop for Restore {
    fn drop(&mut self) {
        ENTERED.set(self.0);
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
