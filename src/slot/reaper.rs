//! The thread that destroys what nobody holds any more, reports what lingers, and rolls back what was condemned: one for
//! all slots of the process, asleep while none of them has anything for it to do.
//!
//! It runs no foreign code: destructors, and log lines, which are the subscriber's code, have threads of their own.
//!
//! It knows a slot only while there is something to do: whoever has work for it wakes it with a reference to the slot,
//! and it keeps that for as long as a generation of the slot drains or is destroyed. So a slot that is dropped stays until
//! its last generation is gone, and no longer.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::detached;
use crate::lock::Monitor;
use crate::process_id::ProcessId;
use crate::text::panic_text;

/// A slot, as the reaper sees it.
pub(super) trait Tended: Send + Sync {
    /// Tells slots apart.
    fn key(&self) -> usize;
    /// Does what there is to do.
    fn tend(self: Arc<Self>) -> Next;
    /// Drops the reaper's reference, by [`let_go`].
    fn leave(self: Arc<Self>);
}

/// What the reaper does with a slot that it has tended.
pub(super) enum Next {
    /// Nothing until it is woken: whoever has work for it has a reference to the slot.
    Forget,
    /// It waits to be woken, and keeps the slot meanwhile.
    Keep,
    /// The same, and it looks again at this moment.
    LookAt(Instant),
}

struct State {
    /// Whether the thread runs.
    is_running: bool,
    work: Work,
}

struct Work {
    woken: Vec<Arc<dyn Tended>>,
    /// What slots left.
    remains: Vec<Box<dyn Send>>,
}

impl Work {
    const NONE: Work = Work { woken: Vec::new(), remains: Vec::new() };

    fn is_none(&self) -> bool {
        self.woken.is_empty() && self.remains.is_empty()
    }
}

static REAPER: Monitor<State> = Monitor::new(State { is_running: false, work: Work::NONE });

/// Starts the thread, if there is none yet. The caller has [claimed](crate::process_id::ProcessId::claim) the library for this
/// process: in a forked one, the thread that is said to run is not there.
pub(super) fn start() -> io::Result<()> {
    let mut state = REAPER.lock();
    if !state.is_running {
        detached::spawn("hotslot-reaper", run)?;
        state.is_running = true;
    }
    Ok(())
}

/// Has the thread tend a slot.
pub(super) fn wake(slot: Arc<dyn Tended>) {
    REAPER.lock().work.woken.push(slot);
    REAPER.notify_one();
}

fn run() {
    // A thread's first spawn registers a thread-local's destructor, which a library that is being loaded can hold up. Later
    // ones do not.
    let _ = std::thread::spawn(|| ()).join();
    // The slots that have something to wait for, each with the moment of the next look.
    let mut kept: BTreeMap<usize, (Arc<dyn Tended>, Option<Instant>)> = BTreeMap::new();
    loop {
        let next_look = kept.values().filter_map(|(_, at)| *at).min();
        let Work { woken: mut due, remains } = wait_for_work(next_look);
        remains.into_iter().for_each(bury);
        let now = Instant::now();
        due.extend(kept.values().filter(|(_, at)| at.is_some_and(|at| at <= now)).map(|(slot, _)| Arc::clone(slot)));
        for slot in due {
            let key = slot.key();
            // A fault of ours in one slot is no reason to leave the others alone.
            let next = catch_unwind(AssertUnwindSafe(|| Arc::clone(&slot).tend()));
            let before = match next {
                Ok(Next::Forget) | Err(_) => kept.remove(&key),
                Ok(Next::Keep) => kept.insert(key, (Arc::clone(&slot), None)),
                Ok(Next::LookAt(at)) => kept.insert(key, (Arc::clone(&slot), Some(at))),
            };
            slot.leave();
            if let Some((slot, _)) = before {
                slot.leave();
            }
        }
    }
}

fn wait_for_work(next_look: Option<Instant>) -> Work {
    let nothing = |state: &mut State| state.work.is_none();
    let state = REAPER.lock();
    let mut state = match next_look {
        Some(at) => REAPER.wait_while_until(state, at, nothing),
        None => REAPER.wait_while(state, nothing),
    };
    std::mem::replace(&mut state.work, Work::NONE)
}

/// Drops a reference to a slot that its owner does not know of. The last one takes backend and hooks along, which is foreign
/// code: the thread that has it, a caller's or the reaper, does not wait for that. In a forked process there is no reaper, and its
/// lock may be held for ever.
pub(super) fn let_go<S: Send + Sync + 'static>(slot: Arc<S>) {
    if !ProcessId::claim() {
        return;
    }
    // Of those who let go in one instant, one gets it.
    let Some(slot) = Arc::into_inner(slot) else { return };
    REAPER.lock().work.remains.push(Box::new(slot));
    REAPER.notify_one();
}

/// Drops what a slot left, on a thread of its own.
fn bury(remains: Box<dyn Send>) {
    let close = |remains| drop(catch_unwind(AssertUnwindSafe(|| drop(remains))).map_err(panic_text));
    if let Err(remains) = detached::spawn_with("hotslot-close", remains, close) {
        std::mem::forget(remains);
    }
}
