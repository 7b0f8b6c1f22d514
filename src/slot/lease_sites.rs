//! Where the leases that are out were taken: a diagnostic that can be switched on.

use std::cell::Cell as ThreadCell;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::LeaseOrigin;

/// How many leases of one generation are noted at once, by all threads. Further ones are served, but not noted.
const CELLS: usize = 256;
/// How many cells a lease tries before it goes without a note: the bound that keeps `load` wait-free, and how many leases of a
/// generation one thread notes at once.
const TRIES: usize = 8;

/// The notes of one generation.
pub(super) struct LeaseSites {
    cells: Box<[Cell]>,
}

/// A cache line for a note, so that threads do not get in each other's way.
#[repr(align(64))]
struct Cell {
    /// When the lease was taken, on the [clock](now); 0 if the cell is free. Whoever sets it has the cell.
    since: AtomicU64,
    /// Null until it is written.
    location: AtomicPtr<Location<'static>>,
}

impl LeaseSites {
    pub(super) fn new() -> LeaseSites {
        let cell = || Cell { since: AtomicU64::new(0), location: AtomicPtr::new(ptr::null_mut()) };
        LeaseSites { cells: (0..CELLS).map(|_| cell()).collect() }
    }

    /// Notes a lease, if a free cell turns up within a few tries; gives the cell. Each thread begins at cells of its own.
    pub(super) fn note(&self, location: &'static Location<'static>) -> Option<usize> {
        let (now, first) = (now(), first_cell());
        (first..first + TRIES).map(|at| at % CELLS).find(|&at| {
            let cell = &self.cells[at];
            let taken = cell.since.load(Ordering::Relaxed) == 0
                && cell.since.compare_exchange(0, now, Ordering::Acquire, Ordering::Relaxed).is_ok();
            if taken {
                cell.location.store(ptr::from_ref(location).cast_mut(), Ordering::Release);
            }
            taken
        })
    }

    /// Frees the cell of a lease that is gone.
    pub(super) fn forget(&self, cell: usize) {
        let cell = &self.cells[cell];
        cell.location.store(ptr::null_mut(), Ordering::Relaxed);
        // Pairs with the acquire of whoever takes the cell next: its location is written after this one is gone.
        cell.since.store(0, Ordering::Release);
    }

    /// The lease that has been out for the longest time.
    pub(super) fn oldest(&self) -> Option<LeaseOrigin> {
        let (since, location) = self.cells.iter().filter_map(Cell::read).min_by_key(|(since, _)| *since)?;
        Some(LeaseOrigin { location: location.to_string(), age: Duration::from_nanos(now().saturating_sub(since)) })
    }
}

impl Cell {
    fn read(&self) -> Option<(u64, &'static Location<'static>)> {
        let since = self.since.load(Ordering::Acquire);
        // SAFETY: it is null, or was made of a reference that is good for ever.
        let location = unsafe { self.location.load(Ordering::Acquire).as_ref() }?;
        // Otherwise the lease has gone meanwhile.
        (since != 0 && self.since.load(Ordering::Relaxed) == since).then_some((since, location))
    }
}

/// Where the calling thread begins to look: threads are spread over the cells as they come.
fn first_cell() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local! {
        /// Without a destructor: see `readers`.
        static FIRST: ThreadCell<usize> = const { ThreadCell::new(0) };
    }
    match FIRST.get() {
        0 => {
            let first = NEXT.fetch_add(1, Ordering::Relaxed) * TRIES;
            FIRST.set(first);
            first
        }
        first => first,
    }
}

/// A clock that does not jump, in nanoseconds, never 0. Where there is one that is quick and good to a few milliseconds, it is
/// that one.
#[cfg(target_os = "linux")]
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a value of this function; the clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    (time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()).max(1)
}

#[cfg(not(target_os = "linux"))]
fn now() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let nanos = START.get_or_init(std::time::Instant::now).elapsed().as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_note_is_found_and_goes_with_its_lease() {
        let sites = LeaseSites::new();
        assert!(sites.oldest().is_none());
        let (first, second) = (Location::caller(), Location::caller());
        let old = sites.note(first).unwrap();
        sites.cells[old].since.fetch_sub(1, Ordering::Relaxed);
        let new = sites.note(second).unwrap();
        assert_ne!(old, new);
        assert!(sites.oldest().unwrap().location.ends_with(&first.to_string()));
        sites.forget(old);
        assert_eq!(sites.oldest().unwrap().location, second.to_string());
        sites.forget(new);
        assert!(sites.oldest().is_none());
    }

    #[test]
    fn a_thread_notes_so_many_leases_and_no_more() {
        let sites = LeaseSites::new();
        let cells: Vec<_> = (0..2 * TRIES).map(|_| sites.note(Location::caller())).collect();
        assert_eq!(cells.iter().flatten().count(), TRIES);
    }

    /// Over more than a second, because the clock counts those apart.
    #[test]
    fn the_age_of_a_note_is_the_time_since() {
        const COARSE: Duration = Duration::from_millis(20);
        let sites = LeaseSites::new();
        let began = std::time::Instant::now();
        let cell = sites.note(Location::caller()).unwrap();
        let noted = std::time::Instant::now();
        std::thread::sleep(Duration::from_millis(1100));
        let at_least = noted.elapsed();
        let age = sites.oldest().unwrap().age;
        let at_most = began.elapsed();
        assert!(at_least - COARSE <= age && age <= at_most + COARSE, "{at_least:?}, {age:?}, {at_most:?}");
        sites.forget(cell);
    }
}
