//! Threads for foreign code, started before they are needed.
//!
//! Foreign code may hang, so whoever waits for it does so elsewhere, under a deadline. A thread cannot start while a
//! library's constructors run, which may be for ever, so some have started already, and are [prepared](prepare_with) for
//! what a backend needs: a slot whose own plugins are sound goes on. A library is loaded only once they are
//! [ready](wait_until_ready), and none is spawned until it is [loaded](replenish). And a thread on which code of a library
//! ran may owe it destructors of thread-locals, which keep the library mapped; so it ends afterwards, and another one takes
//! its place.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(feature = "native")]
use std::sync::{Condvar, PoisonError};

use crate::loader_lock;
use crate::lock::Monitor;

/// How many wait for work. A reload has use for one, and for another to write the log.
const SPARE: usize = 4;

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
    number: u64,
}

struct Pool {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job, prepared.
    idle: usize,
    /// Threads that were spawned and have not come to wait yet, or have to be prepared once more.
    starting: usize,
    /// How many are to wait for work: none before there is a slot.
    spare: usize,
    next_number: u64,
    /// What every thread does once before it waits.
    preparations: Vec<fn()>,
}

static POOL: Monitor<Pool> = Monitor::new(Pool {
    jobs: VecDeque::new(),
    idle: 0,
    starting: 0,
    spare: 0,
    next_number: 0,
    preparations: Vec::new(),
});

/// Told when a thread has come to wait, or will not come.
#[cfg(feature = "native")]
static NONE_STARTING: Condvar = Condvar::new();

impl Pool {
    /// Counts a thread that is no longer starting.
    fn started(&mut self) {
        self.starting -= 1;
        #[cfg(feature = "native")]
        if self.starting == 0 {
            NONE_STARTING.notify_all();
        }
    }
}

/// Has some threads wait for work, from now on.
pub(crate) fn start() -> io::Result<()> {
    POOL.lock().spare = SPARE;
    replenish()
}

/// Spawns the threads that are missing, unless a library is being loaded: whoever loads it does so afterwards.
pub(crate) fn replenish() -> io::Result<()> {
    loop {
        let mut pool = POOL.lock();
        let wanted = pool.jobs.len().max(pool.spare);
        if pool.idle + pool.starting >= wanted || loader_lock::is_held() {
            return Ok(());
        }
        pool.starting += 1;
        drop(pool);
        spawn()?;
    }
}

/// Waits until every thread that was spawned can take work. Whoever is about to load a library has announced it before,
/// with [`Loading`](loader_lock::Loading), so that no more are spawned.
#[cfg(feature = "native")]
pub(crate) fn wait_until_ready() {
    let pool = POOL.lock();
    drop(NONE_STARTING.wait_while(pool, |pool| pool.starting > 0).unwrap_or_else(PoisonError::into_inner));
}

/// Has every thread do this once, those that wait already now: for what registers a thread-local's destructor.
#[cfg(feature = "wasm")]
pub(crate) fn prepare_with(preparation: fn()) {
    let mut pool = POOL.lock();
    if !pool.preparations.iter().any(|known| std::ptr::fn_addr_eq(*known, preparation)) {
        pool.preparations.push(preparation);
        pool.starting += std::mem::take(&mut pool.idle);
        POOL.notify_all();
    }
}

/// Runs `work` soon, on one of the threads, and ends what panics in it.
///
/// # Errors
/// If no thread waits for work and none can be spawned; then `work` is dropped.
pub(crate) fn run(afterwards: Afterwards, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut pool = POOL.lock();
    let number = pool.next_number;
    pool.next_number += 1;
    pool.jobs.push_back(Job { work: Box::new(work), afterwards, number });
    // To spawn a thread would hold up this one, too, while a library's constructors run: the work waits for its turn.
    if pool.idle + pool.starting >= pool.jobs.len() || loader_lock::is_held() {
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

/// Spawns a thread that was counted as starting.
fn spawn() -> io::Result<()> {
    let spawned = std::thread::Builder::new().name("hotslot-worker".to_owned()).spawn(serve);
    if spawned.is_err() {
        POOL.lock().started();
    }
    spawned.map(drop)
}

fn serve() {
    let mut prepared = 0;
    let mut pool = POOL.lock();
    loop {
        // Counted as starting.
        while let Some(prepare) = pool.preparations.get(prepared).copied() {
            drop(pool);
            prepare();
            prepared += 1;
            pool = POOL.lock();
        }
        pool.started();
        pool.idle += 1;
        pool = POOL.wait_while(pool, |pool| pool.jobs.is_empty() && pool.preparations.len() == prepared);
        if pool.preparations.len() > prepared {
            continue;
        }
        let Some(Job { work, afterwards, .. }) = pool.jobs.pop_front() else { unreachable!("it waited for one") };
        pool.idle -= 1;
        drop(pool);
        // The panic hook has told of it.
        let _ = catch_unwind(AssertUnwindSafe(work)).map_err(crate::text::panic_text);
        pool = POOL.lock();
        match afterwards {
            // Those that are starting may be held up.
            Afterwards::Stay if pool.idle < SPARE => pool.starting += 1,
            Afterwards::Stay => return,
            Afterwards::End => {
                drop(pool);
                // Another one takes its place; without it there is one less that waits.
                let _ = replenish();
                return;
            }
        }
    }
}
