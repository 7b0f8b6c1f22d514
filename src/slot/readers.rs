//! What readers hold: a record for each thread, in which it notes without an atomic read-modify-write what it reads.
//!
//! A reader that wants the value in a cell writes the value's address into a *hazard* of its own record, and looks at the
//! cell again. If the value is still there, the hazard protects it until it is cleared, by whatever thread. If the reader
//! was overtaken, or has no hazard left, it counts the value instead, and says for that moment that it is *reading*.
//! A writer that took a value out of its cell makes a [`Survey`] before it frees it.
//!
//! # Why a value that a survey does not find has no reader
//! Let a value have left its cell before the survey began, and not come back before it ended. The survey's
//! [heavy](Barrier::heavy) barrier pairs with the reader's [light](Barrier::light) one: either the reader's load after its
//! barrier sees what the writer stored before its own, or the writer's loads after its barrier see what the reader stored
//! before its own. There are two kinds of readers.
//!
//! 1. One that uses a hazard stores it, passes its barrier, and loads the cell again. If that load still found the value,
//!    then it did not see the writer's store, so the survey sees the hazard, or what was written to it later. Only the end
//!    of the hold writes to it later.
//! 2. One that counts stores `reading`, passes its barrier, and loads the cell. If it found the value, the survey sees
//!    `reading`, and is not exact, or the store that cleared it after the count went up: that is a release, and the survey
//!    acquires, so it sees the count.
//!
//! A hold that is cloned is counted, and the count goes up before the hold that it was made of can end. So a survey that
//! looks at the hazards first and at the counts then misses none: a hazard that it finds cleared was cleared with a release,
//! after which it sees every count that was raised before.
//!
//! A hazard is cleared with a release and acquired when it is used again, so that a survey that finds another address in
//! it has synchronised with the reader before, too.
//!
//! # Threads
//! Nothing here registers a destructor of a thread-local with the dynamic linker, because that takes the linker's lock,
//! which is held while a library's constructors run. A thread gives its record back in the destructor of a pthread key. A
//! lease may outlive its thread, and its hazard stays in use; so records are never freed, and there are as many as there
//! were threads with a lease at the same time.

use std::ptr::{self, NonNull};

use super::barrier::Barrier;
use super::sync::{AtomicBool, AtomicPtr, Ordering};

/// How many holds of one thread need no counting. The record then fills two cache lines.
#[cfg(not(hotslot_loom))]
const HAZARDS: usize = 14;
/// Few, because the models go through what can happen to each.
#[cfg(hotslot_loom)]
const HAZARDS: usize = 2;

/// The records of all threads.
pub(super) struct Readers {
    first: AtomicPtr<Record>,
    barrier: Barrier,
}

/// What one thread holds. Only its thread fills hazards; any thread clears them.
#[repr(align(128))]
pub(super) struct Record {
    hazards: [Hazard; HAZARDS],
    /// Between looking at a cell and counting what was found there.
    reading: AtomicBool,
    /// Whether a thread has it.
    taken: AtomicBool,
    barrier: Barrier,
    /// How many records there were before it; written once, before it is published, as `next` is.
    #[cfg(not(hotslot_loom))]
    number: std::sync::atomic::AtomicU32,
    next: AtomicPtr<Record>,
}

#[cfg(all(target_pointer_width = "64", not(hotslot_loom)))]
const _: () = assert!(size_of::<Record>() == 128, "two cache lines");

/// The address of a value that must not be freed, or null.
pub(super) struct Hazard(AtomicPtr<()>);

impl Hazard {
    /// Ends what it protects.
    #[inline]
    pub(super) fn clear(&self) {
        // Pairs with the acquire in `Survey` and in `is_free`: what was done under the hold comes before the freeing.
        self.0.store(ptr::null_mut(), Ordering::Release);
    }

    #[inline]
    fn is_free(&self) -> bool {
        self.0.load(Ordering::Acquire).is_null()
    }
}

impl Readers {
    #[cfg(not(hotslot_loom))]
    pub(super) const fn new(barrier: Barrier) -> Readers {
        Readers { first: AtomicPtr::new(ptr::null_mut()), barrier }
    }

    #[cfg(hotslot_loom)]
    pub(super) fn new(barrier: Barrier) -> Readers {
        Readers { first: AtomicPtr::new(ptr::null_mut()), barrier }
    }

    /// A record for the calling thread, until it is [released](Record::release).
    pub(super) fn claim(&self) -> &'static Record {
        let free = self
            .records()
            .find(|record| record.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok());
        free.unwrap_or_else(|| self.add())
    }

    fn add(&self) -> &'static Record {
        let record: &'static Record = Box::leak(Box::new(Record {
            hazards: std::array::from_fn(|_| Hazard(AtomicPtr::new(ptr::null_mut()))),
            reading: AtomicBool::new(false),
            taken: AtomicBool::new(true),
            barrier: self.barrier,
            next: AtomicPtr::new(ptr::null_mut()),
            #[cfg(not(hotslot_loom))]
            number: std::sync::atomic::AtomicU32::new(0),
        }));
        let mut first = self.first.load(Ordering::Acquire);
        loop {
            record.next.store(first, Ordering::Relaxed);
            #[cfg(not(hotslot_loom))]
            {
                // SAFETY: null, or a record: see `records`.
                let before =
                    unsafe { first.as_ref() }.map_or(0, |first: &Record| first.number.load(Ordering::Relaxed) + 1);
                record.number.store(before, Ordering::Relaxed);
            }
            let new = ptr::from_ref(record).cast_mut();
            // Pairs with the acquire in `records`.
            match self.first.compare_exchange_weak(first, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return record,
                Err(other) => first = other,
            }
        }
    }

    /// How many records there are.
    #[cfg(not(hotslot_loom))]
    pub(super) fn count(&self) -> usize {
        self.records().next().map_or(0, |last| last.number() + 1)
    }

    fn records(&self) -> impl Iterator<Item = &'static Record> {
        let mut next = self.first.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: a record is published whole, with the release that the load of `first` acquired, and never freed.
            let record: &'static Record = unsafe { next.as_ref() }?;
            next = record.next.load(Ordering::Relaxed);
            Some(record)
        })
    }

    /// What is held at the moment; a hold that is taken or ends meanwhile may be missed.
    pub(super) fn glance(&self) -> Survey {
        self.look().0
    }

    /// What is held of everything that left its cell before. `None` if a reader cannot be seen through at the moment.
    pub(super) fn survey(&self) -> Option<Survey> {
        if !self.barrier.heavy() {
            return None;
        }
        let (survey, is_exact) = self.look();
        is_exact.then_some(survey)
    }

    /// The hazards, and whether no reader was about to count instead.
    fn look(&self) -> (Survey, bool) {
        let (mut held, mut is_exact) = (Vec::new(), true);
        for record in self.records() {
            // Pairs with the release in `hold_by_count`.
            is_exact &= !record.reading.load(Ordering::Acquire);
            // Pairs with the release in `Hazard::clear`, and in `hold`, where a hazard is used again.
            held.extend(
                record.hazards.iter().map(|hazard| hazard.0.load(Ordering::Acquire)).filter(|at| !at.is_null()),
            );
        }
        (Survey { held }, is_exact)
    }
}

impl Record {
    /// Holds the value in the cell, if there is one: by a hazard, or else by what `count` does.
    ///
    /// The value must be whole when it is in the cell, and must not be freed before a [`Survey`] that was made after it
    /// left the cell finds no hold on it, and its count shows none.
    #[inline]
    pub(super) fn hold<G>(
        &'static self,
        cell: &AtomicPtr<G>,
        count: impl FnOnce(NonNull<G>),
    ) -> Option<(NonNull<G>, Option<&'static Hazard>)> {
        let seen = NonNull::new(cell.load(Ordering::Relaxed))?;
        if let Some(hazard) = self.hazards.iter().find(|hazard| hazard.is_free()) {
            hazard.0.store(seen.as_ptr().cast(), Ordering::Release);
            self.barrier.light();
            // Pairs with the release that filled the cell.
            if cell.load(Ordering::Acquire) == seen.as_ptr() {
                return Some((seen, Some(hazard)));
            }
            hazard.clear();
        }
        self.hold_by_count(cell, count).map(|value| (value, None))
    }

    #[cold]
    fn hold_by_count<G>(&self, cell: &AtomicPtr<G>, count: impl FnOnce(NonNull<G>)) -> Option<NonNull<G>> {
        self.reading.store(true, Ordering::Relaxed);
        self.barrier.light();
        let seen = NonNull::new(cell.load(Ordering::Acquire));
        if let Some(seen) = seen {
            count(seen);
        }
        self.reading.store(false, Ordering::Release);
        seen
    }

    /// Its place among all records. No two threads have a record at the same time, and what one did with it comes before what the
    /// next one does: giving it back is a release, and taking it an acquire.
    #[cfg(not(hotslot_loom))]
    #[inline]
    pub(super) fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed) as usize
    }

    /// Whether one of the hazards is on a value. A lease that was moved to another thread still counts here.
    #[cfg(not(hotslot_loom))]
    pub(super) fn has<G>(&self, value: *const G) -> bool {
        self.hazards.iter().any(|hazard| ptr::addr_eq(hazard.0.load(Ordering::Relaxed), value))
    }

    /// Leaves no hazard free.
    #[cfg(hotslot_loom)]
    pub(super) fn use_up(&self) {
        for hazard in &self.hazards {
            hazard.0.store(NonNull::<()>::dangling().as_ptr(), Ordering::Relaxed);
        }
    }

    /// Gives the record back. Hazards that are in use stay so.
    pub(super) fn release(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

/// What readers held by hazards when it was made.
pub(super) struct Survey {
    held: Vec<*mut ()>,
}

impl Survey {
    /// How many hazards there are on a value.
    pub(super) fn count<G>(&self, value: *const G) -> usize {
        self.held.iter().filter(|held| ptr::addr_eq(**held, value)).count()
    }
}

#[cfg(all(unix, not(hotslot_loom)))]
pub(super) use this_thread::{READERS, record};

/// The record of the calling thread.
#[cfg(all(unix, not(hotslot_loom)))]
mod this_thread {
    use std::cell::Cell;
    use std::ffi::c_void;
    use std::ptr;
    use std::sync::{LazyLock, OnceLock};

    use super::{Barrier, Readers, Record};

    pub(in crate::slot) static READERS: LazyLock<Readers> = LazyLock::new(|| Readers::new(Barrier::of_this_process()));

    thread_local! {
        /// Without a destructor, which would have to be registered.
        static RECORD: Cell<Option<&'static Record>> = const { Cell::new(None) };
    }

    #[inline]
    pub(in crate::slot) fn record() -> &'static Record {
        RECORD.get().unwrap_or_else(claim)
    }

    #[cold]
    fn claim() -> &'static Record {
        static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
        let key = *KEY.get_or_init(|| {
            let mut key = 0;
            // SAFETY: `key` is ours to write to, and `leave` takes what is set below.
            let result = unsafe { libc::pthread_key_create(&mut key, Some(leave)) };
            (result == 0).then_some(key)
        });
        let record = READERS.claim();
        RECORD.set(Some(record));
        if let Some(key) = key {
            // SAFETY: the key was created. Where this fails, or there is no key, the record stays taken: it is lost, and
            // nothing else is.
            unsafe { libc::pthread_setspecific(key, ptr::from_ref(record).cast()) };
        }
        record
    }

    /// Gives the record back at the thread's end. If a lease is taken after that, by another key's destructor, the thread
    /// claims one again, and is called again.
    extern "C" fn leave(record: *mut c_void) {
        RECORD.set(None);
        // SAFETY: it is what `claim` set, a record, which is never freed.
        unsafe { &*record.cast::<Record>() }.release();
    }
}

#[cfg(all(test, unix, not(hotslot_loom)))]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn threads_that_end_give_their_records_back() {
        let own = || std::thread::spawn(|| ptr::from_ref(record()).addr()).join().expect("it ends");
        let records: HashSet<usize> = (0..64).map(|_| own()).collect();
        // Tests beside this one claim some, too.
        assert!(records.len() < 32, "{} threads, one after the other, had {} records", 64, records.len());
    }
}
