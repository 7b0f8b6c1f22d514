//! How deep calls into plugins are nested on a thread, and how much of its stack is left.
//!
//! A plugin calls the host, the host calls a slot, and the slot calls the plugin again: without a limit, that ends in an
//! overflow of the thread's stack, which ends the process. So each call into a plugin checks here first. The marks are
//! plain thread-local cells without a destructor, like those of `plugin_scope`.

use std::cell::Cell;
use std::fmt;

/// How many calls into plugins can be nested on one thread. A call into a module through a declared interface counts
/// twice: in the interface, and in the module.
const DEPTH_LIMIT: u32 = 64;

/// The stack that the host's side of a nested call needs: from here, through a function of the host, to the next check.
/// An unoptimised build takes about 20 KiB for it, and a subscriber of `tracing` may take as much again.
pub(crate) const HOST_STACK: usize = 128 << 10;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// How many calls into plugins began on this thread.
    static BEGUN: Cell<u64> = const { Cell::new(0) };
    /// How many nested calls were refused on this thread.
    static REFUSED: Cell<u64> = const { Cell::new(0) };
    /// Why the last one was.
    static LAST_REFUSAL: Cell<Option<Refusal>> = const { Cell::new(None) };
    /// The lowest and the highest address of the thread's stack, once they were asked for; `(0, 0)` if they are unknown.
    static STACK: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// The reason for which a call into a plugin was refused before any of the plugin's code ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too many calls inside of each other.
    Depth,
    /// The thread's stack is too small for what the call may need.
    Stack { left: usize, needed: usize },
    /// The calls that it is nested in have all the permits that it could get.
    #[cfg(feature = "wasm")]
    Saturated,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Depth => write!(
                f,
                "it would be number {} of calls that host and plugins make inside of each other on this thread: look for \
                 a function of the host that calls the plugin that called it",
                DEPTH_LIMIT + 1
            ),
            Refusal::Stack { left, needed } => write!(
                f,
                "this thread has {left} bytes of stack left, and the call may need {needed}: make it from a thread with a \
                 larger stack, or with fewer calls inside of each other, or give plugins less"
            ),
            #[cfg(feature = "wasm")]
            Refusal::Saturated => f.write_str("the calls that it is inside of have every instance that it could get"),
        }
    }
}

/// The first of the calls that are nested on this thread: there is nothing to check for it, and nothing to count but itself.
pub(crate) struct First(());

impl First {
    /// Begins a call, if no other one is in progress on this thread.
    #[inline]
    pub(crate) fn enter() -> Option<First> {
        if DEPTH.get() != 0 {
            return None;
        }
        DEPTH.set(1);
        BEGUN.set(BEGUN.get().wrapping_add(1));
        // Nobody watches: who does is within a call.
        REFUSED.set(0);
        Some(First(()))
    }

    /// Ends it. What is called between must not unwind.
    #[inline]
    pub(crate) fn leave(self) -> Watch {
        DEPTH.set(0);
        Watch {
            refused: 0,
            #[cfg(feature = "wasm")]
            begun: 0,
        }
    }
}

/// A call into a plugin that is in progress on this thread.
pub(crate) struct Nested(());

impl Nested {
    /// Begins a call that may need so many bytes of the thread's stack, the host's own part included.
    pub(crate) fn enter(needed: usize) -> Result<Nested, Refusal> {
        let depth = DEPTH.get();
        let refusal = if depth >= DEPTH_LIMIT {
            Some(Refusal::Depth)
        } else {
            stack_left().filter(|left| *left < needed).map(|left| Refusal::Stack { left, needed })
        };
        match refusal {
            None => Ok(Nested::begin(depth)),
            Some(refusal) => Err(refuse(refusal)),
        }
    }

    /// Begins a call whose code is a library's, and uses as much stack as it likes. The first call on a thread is up to
    /// the caller, as that of any function is.
    #[inline]
    pub(crate) fn enter_interface() -> Result<Nested, Refusal> {
        if DEPTH.get() != 0 {
            return Nested::enter(HOST_STACK);
        }
        Ok(Nested::begin(0))
    }

    #[inline]
    fn begin(depth: u32) -> Nested {
        DEPTH.set(depth + 1);
        BEGUN.set(BEGUN.get().wrapping_add(1));
        Nested(())
    }
}

impl Drop for Nested {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether a call into a plugin is in progress on this thread.
#[cfg(feature = "wasm")]
pub(crate) fn is_nested() -> bool {
    DEPTH.get() > 0
}

/// Notes a refusal, so that a plugin which fails because of it is not blamed.
pub(crate) fn refuse(refusal: Refusal) -> Refusal {
    REFUSED.set(REFUSED.get() + 1);
    LAST_REFUSAL.set(Some(refusal));
    refusal
}

/// Notices whether a nested call is refused while a plugin's code runs.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    refused: u64,
    #[cfg(feature = "wasm")]
    begun: u64,
}

impl Watch {
    #[inline]
    pub(crate) fn begin() -> Watch {
        Watch {
            refused: REFUSED.get(),
            #[cfg(feature = "wasm")]
            begun: BEGUN.get(),
        }
    }

    /// Returns why the last nested call was refused, if one was since the watch began.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        LAST_REFUSAL.get().filter(|_| REFUSED.get() != self.refused)
    }

    /// Returns whether a call into a plugin began on this thread since the watch did.
    #[cfg(feature = "wasm")]
    pub(crate) fn saw_a_call(self) -> bool {
        BEGUN.get() != self.begun
    }
}

/// Runs what is no part of the call that it interrupts: those who watch that one notice nothing of it.
#[cfg(feature = "wasm")]
pub(crate) fn unwatched<R>(work: impl FnOnce() -> R) -> R {
    let before = (REFUSED.get(), LAST_REFUSAL.get(), BEGUN.get());
    let result = work();
    REFUSED.set(before.0);
    LAST_REFUSAL.set(before.1);
    BEGUN.set(before.2);
    result
}

/// Returns how much of this thread's stack is left, where that can be known: not on a stack that the platform's threads
/// do not know of, such as a fiber's.
fn stack_left() -> Option<usize> {
    let (lowest, highest) = STACK.get().unwrap_or_else(|| {
        let bounds = stack_bounds().unwrap_or((0, 0));
        STACK.set(Some(bounds));
        bounds
    });
    let here = (&raw const lowest).addr();
    (lowest..highest).contains(&here).then(|| here - lowest)
}

#[cfg(all(target_os = "linux", any(feature = "native", feature = "wasm")))]
fn stack_bounds() -> Option<(usize, usize)> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut lowest, mut size, mut guard) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: `pthread_getattr_np` initialises the attributes if it returns 0, and only then they are read, and destroyed
    // once. The other two write to the variables that they are given.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let known = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size) == 0
            && libc::pthread_attr_getguardsize(attributes.as_ptr(), &raw mut guard) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        // Some versions of the C library count the guard as a part of the stack.
        known.then(|| (lowest.addr() + guard, lowest.addr() + size))
    }
}

#[cfg(not(all(target_os = "linux", any(feature = "native", feature = "wasm"))))]
fn stack_bounds() -> Option<(usize, usize)> {
    None
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_LIMIT, Nested, Refusal, Watch, stack_left};

    #[test]
    fn calls_nest_up_to_the_limit_and_a_refusal_is_noticed() {
        let watch = Watch::begin();
        let nested: Vec<_> = (0..DEPTH_LIMIT).map(|_| Nested::enter(0).expect("it is not too deep")).collect();
        assert_eq!(watch.refusal(), None);
        assert_eq!(Nested::enter(0).err(), Some(Refusal::Depth));
        assert_eq!(watch.refusal(), Some(Refusal::Depth));
        drop(nested);
        assert!(Nested::enter(0).is_ok());
        assert_eq!(Watch::begin().refusal(), None);
    }

    #[test]
    fn a_call_that_may_need_more_than_the_thread_has_is_refused() {
        for size in [256 << 10, 2 << 20] {
            let check = move || {
                let Some(left) = stack_left() else { return };
                assert!(left < size + (64 << 10) && left > size / 2, "{left} of {size}");
                assert!(matches!(Nested::enter(left * 2), Err(Refusal::Stack { needed, .. }) if needed == left * 2));
                assert!(matches!(Nested::enter(usize::MAX), Err(Refusal::Stack { .. })));
                assert!(Nested::enter(left / 2).is_ok());
            };
            std::thread::Builder::new().stack_size(size).spawn(check).unwrap().join().unwrap();
        }
    }
}
