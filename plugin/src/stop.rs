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
