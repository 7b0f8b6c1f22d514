//! How many leases were taken while somebody wanted to know: an attempt, for its report.
//!
//! Readers share a flag, which is only read, and each counts on its own: in a place of its record's number, which no other thread
//! writes to, so that no cache line goes back and forth, however many threads there are and however long an attempt takes. The
//! places are made when an attempt begins, because a reader must not wait for memory. Threads whose records are newer than that share
//! one counter until the next one begins.

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::{array, ptr};

/// How many threads' places are made at once.
const CHUNK: usize = 32;
/// How many times. Threads beyond that share the one counter.
const CHUNKS: usize = 64;

/// A count that only one thread adds to, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Place(AtomicU64);

type Chunk = [Place; CHUNK];

/// Counts leases, but only while somebody wants to know.
pub(super) struct LeaseCount {
    attempts: AtomicUsize,
    /// Null, or a chunk that lives as long as this.
    chunks: [AtomicPtr<Chunk>; CHUNKS],
    others: AtomicU64,
}

impl Default for LeaseCount {
    fn default() -> LeaseCount {
        LeaseCount {
            attempts: AtomicUsize::new(0),
            chunks: array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            others: AtomicU64::new(0),
        }
    }
}

impl LeaseCount {
    /// Counts one of the calling thread's.
    #[inline]
    pub(super) fn note(&self) {
        if self.attempts.load(Ordering::Relaxed) > 0 {
            self.count_own();
        }
    }

    #[cold]
    fn count_own(&self) {
        self.count(own_number());
    }

    fn count(&self, thread: usize) {
        match self.place(thread) {
            // Only this thread writes to it: see `Record::number`.
            Some(place) => place.0.store(place.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
            None => _ = self.others.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Begins to count; gives where the count stands.
    pub(super) fn begin(&self) -> u64 {
        for chunk in self.chunks.iter().take(threads().div_ceil(CHUNK)) {
            if chunk.load(Ordering::Relaxed).is_null() {
                let made: Box<Chunk> = Box::new(array::from_fn(|_| Place::default()));
                let made = Box::into_raw(made);
                // Pairs with the acquire in `chunk`.
                if chunk.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                    // SAFETY: it was made above, and nobody else has seen it.
                    drop(unsafe { Box::from_raw(made) });
                }
            }
        }
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.so_far()
    }

    /// How many leases were counted so far.
    pub(super) fn so_far(&self) -> u64 {
        let places = self.chunks.iter().filter_map(chunk).flatten();
        let counted = places.map(|place| place.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add);
        counted.wrapping_add(self.others.load(Ordering::Relaxed))
    }

    /// Ends what `begin` began; gives the leases since.
    pub(super) fn end(&self, begun_at: u64) -> u64 {
        // No place is ever counted down, and none is taken away.
        let leases = self.so_far().wrapping_sub(begun_at);
        self.attempts.fetch_sub(1, Ordering::Relaxed);
        leases
    }

    fn place(&self, thread: usize) -> Option<&Place> {
        chunk(self.chunks.get(thread / CHUNK)?)?.get(thread % CHUNK)
    }
}

/// The chunk behind a pointer of [`LeaseCount::chunks`].
#[inline]
fn chunk(pointer: &AtomicPtr<Chunk>) -> Option<&Chunk> {
    // SAFETY: null, or a chunk that was whole when it was put there, which the acquire sees, and lives as long as the count that
    // the pointer is part of.
    unsafe { pointer.load(Ordering::Acquire).as_ref() }
}

impl Drop for LeaseCount {
    fn drop(&mut self) {
        for chunk in &mut self.chunks {
            let chunk = *chunk.get_mut();
            if !chunk.is_null() {
                // SAFETY: it came out of a box, and nobody else has this count any more.
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
    }
}

/// The number of the calling thread's record.
#[cfg(all(unix, not(hotslot_loom)))]
#[inline]
fn own_number() -> usize {
    super::readers::record().number()
}

/// How many records there are.
#[cfg(all(unix, not(hotslot_loom)))]
fn threads() -> usize {
    super::readers::READERS.count()
}

/// Where threads have no records, all count in one place.
#[cfg(any(hotslot_loom, not(unix)))]
fn own_number() -> usize {
    usize::MAX
}

#[cfg(any(hotslot_loom, not(unix)))]
fn threads() -> usize {
    0
}

#[cfg(all(test, unix, not(hotslot_loom)))]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn what_is_counted_are_the_leases_of_all_threads_during_an_attempt() {
        const THREADS: u64 = 40;
        let count = LeaseCount::default();
        count.note();
        let outer = count.begin();
        let (ready, go) = (Barrier::new(THREADS as usize + 1), Barrier::new(THREADS as usize + 1));
        let inner = thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    // Those that come now had no place when the attempt began.
                    (0..100).for_each(|_| count.note());
                    ready.wait();
                    go.wait();
                    (0..1000).for_each(|_| count.note());
                });
            }
            ready.wait();
            let inner = count.begin();
            go.wait();
            inner
        });
        assert_eq!(count.end(inner), THREADS * 1000);
        assert_eq!(count.end(outer), THREADS * 1100);
        count.note();
        let next = count.begin();
        assert_eq!(count.end(next), 0, "only what falls into an attempt counts");
        let counted = count.others.load(Ordering::Relaxed);
        assert!(counted <= THREADS * 100, "{counted} were counted in the place that is shared");
    }

    #[test]
    fn threads_beyond_all_places_are_counted_too() {
        let count = LeaseCount::default();
        let begun = count.begin();
        for thread in [CHUNK * CHUNKS - 1, CHUNK * CHUNKS, usize::MAX] {
            count.count(thread);
        }
        assert_eq!(count.end(begun), 3);
    }
}
