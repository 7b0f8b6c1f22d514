//! Threads for foreign code, started before they are needed.
//!
//! Foreign code may hang, so whoever waits for it does so elsewhere, under a deadline. A thread cannot start while a
//! library's constructors run, which may be for ever, so some have started already, and are [prepared](prepare_with) for
//! what a backend needs: a slot whose own plugins are sound goes on. [`load`] sees to it that they are there before the
//! constructors begin, and while they run none is spawned, and some are kept from work that may need the linker. And a
//! thread on which code of a library ran may owe it destructors of thread-locals, which keep the library mapped; so it ends
//! afterwards, and another one takes its place.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(feature = "native")]
use std::sync::{Condvar, PoisonError};

use crate::detached;
#[cfg(feature = "native")]
use crate::loader_lock::Loading;
use crate::lock::Monitor;

/// How many wait for work while a library is loaded. A reload has use for one, and for another to write the log.
const SPARE: usize = 4;
/// How many wait at other times: one more, on which the next library is loaded, so that nothing has to be spawned first.
const AHEAD: usize = SPARE + 1;
/// How many are left to work that has no use for the linker, while a library is loaded.
const RESERVED: usize = 2;
/// How many are left to work that waits for no other work.
const RESERVED_BY_WAITING: usize = RESERVED + 1;

/// What becomes of a thread when its work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It ends.
    End,
    /// It does something else.
    Stay,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    afterwards: Afterwards,
    /// How many threads have to wait besides the one that takes it, while a library is loaded.
    leaves: usize,
    number: u64,
}

struct Pool {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    idle: usize,
    /// Those among them that have to be prepared once more.
    behind: usize,
    /// Threads that were spawned and have not come to wait yet.
    starting: usize,
    /// Whether there is a slot. None waits for work before.
    is_started: bool,
    /// Threads that are to end, and stay until others can take their place.
    overdue: usize,
    /// Libraries that are being loaded. Until they are, no thread can start, or register a thread-local's destructor.
    loading: usize,
    next_number: u64,
    /// What every thread does once before it waits.
    preparations: Vec<fn()>,
}

static POOL: Monitor<Pool> = Monitor::new(Pool {
    jobs: VecDeque::new(),
    idle: 0,
    behind: 0,
    starting: 0,
    is_started: false,
    overdue: 0,
    loading: 0,
    next_number: 0,
    preparations: Vec::new(),
});

/// Told when every thread that was spawned can take work.
#[cfg(feature = "native")]
static READY: Condvar = Condvar::new();

impl Pool {
    /// Counts a thread that is no longer starting.
    fn started(&mut self) {
        self.starting -= 1;
        self.tell_if_ready();
    }

    /// Counts a thread that no longer waits unprepared.
    fn caught_up(&mut self) {
        self.behind -= 1;
        self.tell_if_ready();
    }

    #[cfg(feature = "native")]
    fn is_ready(&self) -> bool {
        self.starting == 0 && self.behind == 0
    }

    fn tell_if_ready(&self) {
        #[cfg(feature = "native")]
        if self.is_ready() {
            READY.notify_all();
        }
    }

    /// Returns how many threads are to wait, of `spare` that a slot has use for.
    fn wanted(&self, spare: usize) -> usize {
        if self.is_started { spare } else { 0 }
    }

    /// Returns how many threads are to be spawned for `spare` to wait besides those that have work, and counts them as starting.
    fn missing(&mut self, spare: usize) -> usize {
        // Whoever loads the library sees to it afterwards.
        if self.loading > 0 {
            return 0;
        }
        let missing = (self.jobs.len() + self.wanted(spare)).saturating_sub(self.idle + self.starting);
        self.starting += missing;
        missing
    }

    /// Returns the position of the next job that a thread which waits may take.
    fn next_job(&self) -> Option<usize> {
        self.jobs.iter().position(|job| self.loading == 0 || self.idle > job.leaves)
    }
}

/// Has some threads wait for work, from now on.
pub(crate) fn start() -> io::Result<()> {
    POOL.lock().is_started = true;
    replenish(AHEAD)
}

/// Spawns the threads that are missing for `spare` to wait.
fn replenish(spare: usize) -> io::Result<()> {
    let missing = POOL.lock().missing(spare);
    spawn_all(missing)
}

/// Loads a library, whose constructors may never end. Enough threads wait for work before it begins: other slots go on with
/// those.
#[cfg(feature = "native")]
pub(crate) fn load<R>(open: impl FnOnce() -> R) -> R {
    let mut pool = POOL.lock();
    let mut can_spawn = true;
    loop {
        let missing = if can_spawn { pool.missing(SPARE) } else { 0 };
        if missing > 0 {
            drop(pool);
            // If the system has no more, fewer slots go on.
            can_spawn = spawn_all(missing).is_ok();
            pool = POOL.lock();
        } else if pool.loading > 0 || pool.is_ready() {
            break;
        } else {
            pool = READY.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }
    pool.loading += 1;
    drop(pool);
    let loading = Loading::begin();
    let opened = open();
    drop(loading);
    let mut pool = POOL.lock();
    pool.loading -= 1;
    let is_waited_for = !pool.jobs.is_empty() || pool.behind > 0 || pool.overdue > 0;
    drop(pool);
    // For work, for preparations and for ends that had to wait.
    if is_waited_for {
        POOL.notify_all();
    }
    // The one for the next load is spawned when this one's work is done, and whoever waits for it goes on.
    let _ = replenish(SPARE);
    opened
}

/// Has every thread do this once, those that wait already now, or once no library is being loaded: for what registers a
/// thread-local's destructor.
#[cfg(feature = "wasm")]
pub(crate) fn prepare_with(preparation: fn()) {
    let mut pool = POOL.lock();
    if !pool.preparations.iter().any(|known| std::ptr::fn_addr_eq(*known, preparation)) {
        pool.preparations.push(preparation);
        pool.behind = pool.idle;
        POOL.notify_all();
    }
}

/// Runs `work` soon, on one of the threads, and ends what panics in it.
///
/// # Errors
/// If no thread waits for work and none can be spawned; then `work` is dropped.
pub(crate) fn run(afterwards: Afterwards, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // What a library's code ran on needs the linker as it ends.
    let leaves = if afterwards == Afterwards::End { RESERVED } else { 0 };
    submit(afterwards, leaves, Box::new(work))
}

/// The same for work that waits for other work here: while a library is loaded, there is always a thread for that.
///
/// # Errors
/// As above.
pub(crate) fn run_waiting(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    submit(Afterwards::Stay, RESERVED_BY_WAITING, Box::new(work))
}

fn submit(afterwards: Afterwards, leaves: usize, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let mut pool = POOL.lock();
    let number = pool.next_number;
    pool.next_number += 1;
    pool.jobs.push_back(Job { work, afterwards, leaves, number });
    // To spawn a thread would hold up this one, too, while a library's constructors run: the work waits for its turn.
    if pool.loading > 0 || pool.idle + pool.starting >= pool.jobs.len() {
        drop(pool);
        POOL.notify_one();
        return Ok(());
    }
    pool.starting += 1;
    drop(pool);
    let Err(error) = spawn() else { return Ok(()) };
    let mut pool = POOL.lock();
    // Unless it was taken by a thread that had something else to do.
    let at = pool.jobs.iter().position(|job| job.number == number);
    let job = at.and_then(|at| pool.jobs.remove(at));
    drop(pool);
    match job {
        Some(_never_done) => Err(error),
        None => Ok(()),
    }
}

/// Spawns threads that were counted as starting. All are counted before the first one finds work.
fn spawn_all(threads: usize) -> io::Result<()> {
    (0..threads).map(|_| spawn()).fold(Ok(()), io::Result::and)
}

/// Spawns a thread that was counted as starting.
fn spawn() -> io::Result<()> {
    let spawned = detached::spawn("hotslot-worker", serve);
    if spawned.is_err() {
        POOL.lock().started();
    }
    spawned
}

fn serve() {
    let mut prepared = 0;
    let mut is_overdue = false;
    let mut pool = POOL.lock();
    loop {
        // It counts as starting, and no library is loaded before it waits; unless one is already, and it comes back from work.
        while pool.loading == 0
            && let Some(prepare) = pool.preparations.get(prepared).copied()
        {
            drop(pool);
            prepare();
            prepared += 1;
            pool = POOL.lock();
        }
        pool.idle += 1;
        pool.behind += usize::from(pool.preparations.len() > prepared);
        pool.started();
        let can_prepare = |pool: &Pool| pool.loading == 0 && pool.preparations.len() > prepared;
        let can_end = |pool: &Pool| pool.loading == 0 && is_overdue;
        pool = POOL.wait_while(pool, |pool| !can_end(pool) && !can_prepare(pool) && pool.next_job().is_none());
        let ends = can_end(&pool);
        let job = if ends {
            pool.overdue -= 1;
            is_overdue = false;
            None
        } else if can_prepare(&pool) {
            // Before the counts of those that wait: no library is loaded in between.
            pool.starting += 1;
            None
        } else {
            pool.next_job().and_then(|at| pool.jobs.remove(at))
        };
        pool.idle -= 1;
        if pool.preparations.len() > prepared {
            pool.caught_up();
        }
        if ends {
            drop(pool);
            if replenish(AHEAD).is_ok() {
                return;
            }
            pool = POOL.lock();
            pool.starting += 1;
        }
        let Some(Job { work, afterwards, .. }) = job else { continue };
        drop(pool);
        // The panic hook has told of it.
        let _ = catch_unwind(AssertUnwindSafe(work)).map_err(crate::text::panic_text);
        // Without another one in its place it is better that it stays: for good, or until there can be one.
        let can_be_replaced = POOL.lock().loading == 0;
        let ends = afterwards == Afterwards::End && can_be_replaced && replenish(AHEAD).is_ok();
        pool = POOL.lock();
        // Those that are starting do not count: on a busy machine they take their time.
        if ends || pool.idle >= pool.wanted(AHEAD).max(pool.jobs.len()) {
            pool.overdue -= usize::from(is_overdue);
            return;
        }
        if afterwards == Afterwards::End && !can_be_replaced && !is_overdue {
            is_overdue = true;
            pool.overdue += 1;
        }
        pool.starting += 1;
    }
}
