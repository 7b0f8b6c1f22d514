//! The stop signal as a plugin sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Says when a plugin has to wind down. It is a level, not an edge: look at it as often as you like.
#[derive(Debug)]
#[repr(transparent)]
pub struct Stop(AtomicBool);

impl Stop {
    /// A signal over the host's flag.
    ///
    /// # Safety
    /// `flag` must be valid for as long as the result is used.
    pub unsafe fn from_ptr<'a>(flag: *const AtomicBool) -> &'a Stop {
        // SAFETY: the caller's promise; `Stop` is a transparent wrapper.
        unsafe { &*flag.cast::<Stop>() }
    }

    /// Whether the plugin has been told to stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sleeps for `duration`, or less if the signal is raised; returns whether it was. Looks every 5 ms, which is
    /// what the host pays as a gap between two plugins.
    pub fn wait_timeout(&self, duration: Duration) -> bool {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let until = Instant::now() + duration;
        loop {
            if self.is_raised() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}
