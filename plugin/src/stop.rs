//! The stop signal as a plugin sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Says when a plugin has to wind down. It is a level, not an edge: look at it as often as you like.
#[derive(Debug)]
#[repr(transparent)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Makes a signal over a flag.
    pub fn of(flag: &AtomicBool) -> &Stop {
        // SAFETY: `Stop` is a transparent wrapper of the flag.
        unsafe { &*(&raw const *flag).cast::<Stop>() }
    }

    /// Makes a signal over the host's flag.
    ///
    /// # Safety
    /// `flag` must be valid for as long as the result is used.
    pub unsafe fn from_ptr<'a>(flag: *const AtomicBool) -> &'a Stop {
        // SAFETY: valid for as long as the result is used, which is this function's own condition.
        Stop::of(unsafe { &*flag })
    }

    /// Returns the flag, as the ABI passes it on.
    pub fn as_ptr(&self) -> *const AtomicBool {
        &raw const self.0
    }

    /// Returns whether the plugin has been told to stop.
    pub fn is_raised(&self) -> bool {
        #[cfg(target_arch = "wasm32")]
        if wait(0) {
            return true;
        }
        self.0.load(Ordering::Acquire)
    }

    /// Sleeps for `duration`, or less if the signal is raised; returns whether it was. Looks every 5 ms, which is
    /// what the host pays as a gap between two plugins.
    pub fn wait_timeout(&self, duration: Duration) -> bool {
        // A module has no clock and no sleep of its own.
        #[cfg(target_arch = "wasm32")]
        return wait(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        #[cfg(not(target_arch = "wasm32"))]
        self.wait_here(duration)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn wait_here(&self, duration: Duration) -> bool {
        use std::time::Instant;
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let began = Instant::now();
        loop {
            if self.is_raised() {
                return true;
            }
            let left = duration.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

// An import that every host of modules offers.
#[cfg(target_arch = "wasm32")]
#[link(wasm_import_module = "hotslot")]
unsafe extern "C" {
    #[link_name = "wait"]
    fn host_wait(nanoseconds: u64) -> u32;
}

/// Waits, or for no time at all, and says whether the plugin has to stop.
#[cfg(target_arch = "wasm32")]
fn wait(nanoseconds: u64) -> bool {
    // SAFETY: the import takes a number.
    unsafe { host_wait(nanoseconds) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_the_signal_is_raised_however_long_it_was_to_be() {
        let flag = AtomicBool::new(false);
        // SAFETY: the flag outlives the signal.
        let stop = unsafe { Stop::from_ptr(&raw const flag) };
        assert!(!stop.wait_timeout(Duration::ZERO));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait_timeout(Duration::MAX));
            flag.store(true, Ordering::Release);
            assert!(waiting.join().unwrap());
        });
    }
}
