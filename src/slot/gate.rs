//! Lets one transition through at a time, first come first served, until a deadline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::lock::Monitor;

/// What happens to a transition while another one is in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusyPolicy {
    /// Waits its turn, within the slot's `reload_timeout`. Turns are given in the order of asking.
    #[default]
    Queue,
    /// Is refused at once, with [`ErrorKind::Busy`](crate::ErrorKind::Busy).
    Refuse,
}

/// A FIFO ticket lock whose waiters can give up.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Monitor<Tickets>>);

#[derive(Default)]
struct Tickets {
    next: u64,
    /// The holder first, then those that wait.
    queue: VecDeque<u64>,
}

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// Somebody else has it, and the policy is not to wait.
    Busy,
    /// It did not come within the deadline.
    TimedOut,
}

impl Gate {
    /// Waits for a turn until `deadline`, or does not wait at all, as `policy` says.
    pub(super) fn enter(&self, policy: BusyPolicy, deadline: Instant) -> Result<Turn, NoTurn> {
        let mut tickets = self.0.lock();
        if policy == BusyPolicy::Refuse && !tickets.queue.is_empty() {
            return Err(NoTurn::Busy);
        }
        let mine = tickets.next;
        tickets.next += 1;
        tickets.queue.push_back(mine);
        let waits = |tickets: &mut Tickets| tickets.queue.front() != Some(&mine);
        let mut tickets = self.0.wait_while_until(tickets, deadline, waits);
        if waits(&mut tickets) {
            tickets.queue.retain(|ticket| *ticket != mine);
            return Err(NoTurn::TimedOut);
        }
        drop(tickets);
        Ok(Turn(self.clone()))
    }
}

/// A turn; it ends when this is dropped.
pub(super) struct Turn(Gate);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.lock().queue.pop_front();
        self.0.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gives_up_is_passed_over() {
        let (gate, now) = (Gate::default(), Instant::now());
        let later = now + std::time::Duration::from_secs(60);
        let Ok(first) = gate.enter(BusyPolicy::Queue, later) else { panic!("nobody has it") };
        assert_eq!(gate.enter(BusyPolicy::Refuse, later).err(), Some(NoTurn::Busy));
        assert_eq!(gate.enter(BusyPolicy::Queue, now).err(), Some(NoTurn::TimedOut), "the wait counts");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| gate.enter(BusyPolicy::Queue, later).is_ok());
            while gate.0.lock().queue.len() < 2 {
                std::thread::yield_now();
            }
            let third = gate.enter(BusyPolicy::Queue, now).err();
            assert_eq!(third, Some(NoTurn::TimedOut), "and takes nobody else's turn along");
            drop(first);
            assert!(second.join().unwrap());
        });
        assert!(gate.enter(BusyPolicy::Refuse, now).is_ok(), "all have left");
    }
}
