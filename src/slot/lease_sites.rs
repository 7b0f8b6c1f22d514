//! Where the leases that are out were taken: a diagnostic that can be switched on.

use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::LeaseOrigin;
use crate::lock::Mutex;

/// How many leases of one generation are noted at once. Further ones are served, but not noted.
const CELLS: usize = 256;
/// How many cells a lease tries before it goes without a note: the bound that keeps `load` wait-free.
const TRIES: usize = 8;

/// The notes of one generation.
pub(super) struct LeaseSites {
    cells: Box<[Mutex<Option<Note>>]>,
    next: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Note {
    location: &'static Location<'static>,
    since: Instant,
}

impl LeaseSites {
    pub(super) fn new() -> LeaseSites {
        LeaseSites { cells: (0..CELLS).map(|_| Mutex::new(None)).collect(), next: AtomicUsize::new(0) }
    }

    /// Notes a lease, if a free cell turns up within a few tries; gives the cell. Never waits for a lock.
    pub(super) fn note(&self, location: &'static Location<'static>) -> Option<usize> {
        let note = Note { location, since: Instant::now() };
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (first..first + TRIES).map(|at| at % CELLS).find(|&at| {
            let Some(mut cell) = self.cells[at].try_lock() else { return false };
            let free = cell.is_none();
            if free {
                *cell = Some(note);
            }
            free
        })
    }

    /// Frees the cell of a lease that is gone. The lock is only ever held for a copy.
    pub(super) fn forget(&self, cell: usize) {
        *self.cells[cell].lock() = None;
    }

    /// The lease that has been out for the longest time.
    pub(super) fn oldest(&self) -> Option<LeaseOrigin> {
        let note = self.cells.iter().filter_map(|cell| *cell.lock()).min_by_key(|note| note.since)?;
        Some(LeaseOrigin { location: note.location.to_string(), age: note.since.elapsed() })
    }
}
