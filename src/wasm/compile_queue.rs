//! Who compiles next: first come, first served, but no slot keeps another from compiling.
//!
//! Modules are compiled one at a time, as long as each takes little. One that takes long does not hold up the others: they
//! go on beside it, and the slot that it belongs to cannot take all the lanes there are. A slot makes one attempt at a time, so
//! that a compilation which still waits when the slot asks for the next one was abandoned, and is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lock::Monitor;
use crate::{Digest, PluginScope};

/// How many modules are compiled at once, at the most.
pub(super) const LANES: usize = 4;
/// How many of them are of one slot.
const LANES_OF_A_SLOT: usize = 2;
/// How long a compilation may take before another one begins beside it.
const ALONE: Duration = Duration::from_millis(250);

/// The compilations that wait, and those that run.
#[derive(Default)]
pub(super) struct CompileQueue(Monitor<State>);

#[derive(Default)]
struct State {
    next: u64,
    waiting: VecDeque<Ticket>,
    running: Vec<(Ticket, usize, Instant)>,
}

#[derive(Clone, PartialEq, Eq)]
struct Ticket {
    number: u64,
    slot: Option<PluginScope>,
    digest: Digest,
}

/// The turn of one compilation, which ends on drop.
pub(super) struct Turn {
    queue: Arc<CompileQueue>,
    number: u64,
    /// Which of the lanes it has.
    pub(super) lane: usize,
}

/// The compilation was dropped while it waited.
#[derive(Debug, thiserror::Error)]
#[error(
    "the compilation was dropped while it waited for its turn: its attempt is over, and the slot makes another one"
)]
pub(super) struct Dropped;

impl CompileQueue {
    /// Waits for the turn of a module. One without a slot is never taken for abandoned.
    pub(super) fn wait(self: &Arc<Self>, slot: Option<&PluginScope>, digest: Digest) -> Result<Turn, Dropped> {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        if slot.is_some() {
            state.waiting.retain(|ticket| ticket.slot.as_ref() != slot);
            self.0.notify_all();
        }
        state.waiting.push_back(Ticket { number, slot: slot.cloned(), digest });
        loop {
            if !state.waiting.iter().any(|ticket| ticket.number == number) {
                return Err(Dropped);
            }
            let now = Instant::now();
            let wait = match state.lane(now) {
                Ok((first, lane)) if first == number => {
                    state.begin(number, lane, now);
                    // Another one may be able to begin in a while.
                    self.0.notify_all();
                    return Ok(Turn { queue: Arc::clone(self), number, lane });
                }
                Ok(_) => None,
                Err(wait) => wait,
            };
            state = self.0.wait(state, wait.map(|wait| now + wait));
        }
    }
}

impl State {
    /// Returns whose turn it is, in which lane; or how long to wait before it can be anybody's.
    fn lane(&self, now: Instant) -> Result<(u64, usize), Option<Duration>> {
        let free = (0..LANES).find(|lane| !self.running.iter().any(|(_, taken, _)| taken == lane)).ok_or(None)?;
        let latest = self.running.iter().map(|(_, _, began)| *began).max();
        let alone = latest.and_then(|began| (began + ALONE).checked_duration_since(now)).filter(|left| !left.is_zero());
        if let Some(left) = alone {
            return Err(Some(left));
        }
        let may_begin = |ticket: &&Ticket| {
            // The same module is about to be found.
            let is_same = self.running.iter().any(|(running, ..)| running.digest == ticket.digest);
            let of_slot =
                self.running.iter().filter(|(running, ..)| ticket.slot.is_some() && running.slot == ticket.slot);
            !is_same && of_slot.count() < LANES_OF_A_SLOT
        };
        self.waiting.iter().find(may_begin).map(|ticket| (ticket.number, free)).ok_or(None)
    }

    fn begin(&mut self, number: u64, lane: usize, now: Instant) {
        let index = self.waiting.iter().position(|ticket| ticket.number == number).expect("it waits");
        let ticket = self.waiting.remove(index).expect("it is there");
        self.running.push((ticket, lane, now));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.0.lock().running.retain(|(ticket, ..)| ticket.number != self.number);
        self.queue.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::CompileQueue;
    use crate::{Digest, PluginScope};

    #[test]
    fn a_compilation_that_takes_long_holds_up_neither_others_nor_its_slot_for_ever() {
        let queue = Arc::new(CompileQueue::default());
        let (one, other) = (PluginScope::new(), PluginScope::new());
        let bomb = queue.wait(Some(&one), Digest::of(b"bomb")).unwrap();
        let second = queue.wait(Some(&one), Digest::of(b"another bomb")).unwrap();
        // All that one slot gets; the other's goes on.
        let another = queue.wait(Some(&other), Digest::of(b"small")).unwrap();
        assert_eq!((bomb.lane, second.lane, another.lane), (0, 1, 2));
        thread::scope(|scope| {
            let (begun, began) = channel();
            let (queue, one, other) = (&queue, &one, &other);
            scope.spawn(move || {
                let third = queue.wait(Some(one), Digest::of(b"a third")).map(|turn| turn.lane);
                begun.send(third.is_ok()).unwrap();
            });
            while queue.0.lock().waiting.is_empty() {
                thread::yield_now();
            }
            // One that comes later, of another slot, is not behind it.
            drop(queue.wait(Some(other), Digest::of(b"smaller")).unwrap());
            drop(bomb);
            assert!(began.recv().unwrap());
        });
    }

    #[test]
    fn one_that_was_abandoned_while_it_waited_is_dropped_and_the_same_module_waits() {
        let queue = Arc::new(CompileQueue::default());
        let (one, other) = (PluginScope::new(), PluginScope::new());
        let running = queue.wait(Some(&one), Digest::of(b"module")).unwrap();
        thread::scope(|scope| {
            let abandoned = scope.spawn(|| queue.wait(Some(&other), Digest::of(b"module")).is_err());
            while queue.0.lock().waiting.is_empty() {
                thread::yield_now();
            }
            let next = scope.spawn(|| queue.wait(Some(&other), Digest::of(b"module")).is_ok());
            assert!(abandoned.join().unwrap());
            assert!(!next.is_finished());
            drop(running);
            assert!(next.join().unwrap());
        });
    }
}
