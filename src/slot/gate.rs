//! Lets one transition through at a time, first come first served.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// What a transition does that finds another one under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusyPolicy {
    /// Waits its turn. Turns are given in the order of asking.
    #[default]
    Queue,
    /// Is refused at once, with [`ErrorKind::Busy`](crate::ErrorKind::Busy).
    Refuse,
}

/// Numbered tickets, as at a counter.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Counter>);

#[derive(Default)]
struct Counter {
    tickets: Mutex<Tickets>,
    turn: Condvar,
}

#[derive(Default)]
struct Tickets {
    next: u64,
    serving: u64,
}

impl Gate {
    /// Waits for a turn, or gives `None` if there would be a wait and `when_busy` refuses one.
    pub(super) fn enter(&self, when_busy: BusyPolicy) -> Option<Pass> {
        let mut tickets = self.0.tickets.lock();
        if when_busy == BusyPolicy::Refuse && tickets.next != tickets.serving {
            return None;
        }
        let mine = tickets.next;
        tickets.next += 1;
        while tickets.serving != mine {
            self.0.turn.wait(&mut tickets);
        }
        Some(Pass(self.clone()))
    }
}

/// A turn; it ends when this is dropped.
pub(super) struct Pass(Gate);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.tickets.lock().serving += 1;
        self.0.0.turn.notify_all();
    }
}
