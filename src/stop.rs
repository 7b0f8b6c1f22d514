//! The stop signal of a generation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells a plugin to wind down. It is a level: raised when the generation is retired, lowered if it serves again.
///
/// Cloning gives another handle to the same signal.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<Flags>);

/// Two plain bytes at a stable address, the first of which is what a C plugin sees.
#[derive(Debug, Default)]
#[repr(C)]
struct Flags {
    stop: AtomicBool,
    overdue: AtomicBool,
}

impl StopSignal {
    /// Creates a signal that is not raised.
    pub fn new() -> StopSignal {
        StopSignal::default()
    }

    /// Returns whether the plugin should stop.
    pub fn is_raised(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// Returns whether the `drain_timeout` has passed since. A backend that can end calls by force does so then.
    pub fn is_overdue(&self) -> bool {
        self.0.overdue.load(Ordering::Acquire)
    }

    /// Tells the plugin to wind down.
    pub fn raise(&self) {
        self.0.stop.store(true, Ordering::Release);
    }

    pub(crate) fn set_overdue(&self) {
        self.0.overdue.store(true, Ordering::Release);
    }

    /// Takes it back: the plugin serves again.
    pub(crate) fn lower(&self) {
        self.0.overdue.store(false, Ordering::Release);
        self.0.stop.store(false, Ordering::Release);
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0.stop
    }

    /// Returns the flag for a plugin behind a C ABI: a `const bool *` that it reads atomically. Valid for as long as
    /// there is a handle to this signal.
    pub fn as_ptr(&self) -> *const AtomicBool {
        &raw const self.0.stop
    }
}
