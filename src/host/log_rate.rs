//! How much a plugin may log: one that logs in a loop would fill the host's disk, and hide what others say.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines of one generation that are written in a second.
pub(super) const LINES: u32 = 500;
const SECOND: Duration = Duration::from_secs(1);

/// Counts the lines of one generation.
#[derive(Default)]
pub(super) struct LogRate(Mutex<Window>);

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    dropped: u64,
}

/// What is to be done with a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is written, after so many that were dropped.
    Write { dropped: u64 },
    /// It is the first one that is dropped.
    DropFirst,
    /// It is dropped, as the one before was.
    Drop,
}

impl LogRate {
    pub(super) fn next(&self, now: Instant) -> Line {
        let mut window = self.0.lock();
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            let dropped = std::mem::take(&mut *window).dropped;
            *window = Window { began: Some(now), written: 1, dropped: 0 };
            return Line::Write { dropped };
        }
        if window.written < LINES {
            window.written += 1;
            return Line::Write { dropped: 0 };
        }
        window.dropped += 1;
        if window.dropped == 1 { Line::DropFirst } else { Line::Drop }
    }

    /// Returns how many were dropped that nobody has been told of.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.0.lock().dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_of_a_second_are_dropped_and_counted() {
        let (rate, now) = (LogRate::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(rate.next(now), Line::Write { dropped: 0 });
        }
        assert_eq!(rate.next(now), Line::DropFirst);
        assert_eq!(rate.next(now + SECOND / 2), Line::Drop);
        assert_eq!(rate.next(now + SECOND), Line::Write { dropped: 2 });
        assert_eq!(rate.next(now + SECOND), Line::Write { dropped: 0 });
        assert_eq!(rate.take_dropped(), 0);
    }
}
