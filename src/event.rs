//! What happens in a slot, for whoever wants to know.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use semver::Version;

use crate::LeaseOrigin;
use crate::lock::{Monitor, Mutex};
use crate::{Release, Report, Stage};

/// How many events wait for a subscriber that does not fetch them.
const CAPACITY: usize = 1024;

/// Something that happened in a slot.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Event {
    /// An attempt went through a stage.
    Stage {
        /// The number of the attempt.
        attempt: u64,
        /// The stage.
        stage: Stage,
        /// How long it took.
        #[cfg_attr(feature = "serde", serde(rename = "duration_ms", serialize_with = "crate::serialize::millis"))]
        duration: Duration,
    },
    /// An attempt ended: swapped, unchanged, refused or discarded.
    Ended(#[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::through_arc"))] Arc<Report>),
    /// A staged generation is [served to a share](crate::Canary) of the callers from now on, or to nobody any more. That it was
    /// dropped, promoted, or ended by another swap, only the [end](Event::Ended) of that attempt says.
    Canary {
        /// Its number.
        generation: u64,
        /// The share of the keys, from 0 to 1.
        share: f64,
        /// What the probation policy said against it, if that is why the share is 0 now.
        objection: Option<String>,
    },
    /// A generation is no longer current.
    Retired {
        /// Its number.
        generation: u64,
        /// The epoch that began with it.
        epoch: u64,
    },
    /// A retired generation still has leases out after the drain timeout.
    Stuck {
        /// Its number.
        generation: u64,
        /// Its version.
        version: Option<Version>,
        /// How long ago it was retired.
        #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "crate::serialize::millis"))]
        age: Duration,
        /// How many leases are out.
        leases: usize,
        /// The oldest of them, if leases are tracked.
        oldest_lease: Option<LeaseOrigin>,
    },
    /// A generation is gone.
    Destroyed {
        /// Its number.
        generation: u64,
        /// What became of what it lived in.
        release: Release,
    },
    /// Something needs a person's attention.
    Alarm {
        /// What, and what to do about it.
        message: String,
    },
    /// A runner started a generation.
    RunStarted {
        /// Its number.
        generation: u64,
    },
    /// A generation that a runner had started came to its end.
    RunEnded {
        /// Its number.
        generation: u64,
        /// What went wrong, if something did.
        error: Option<String>,
    },
    /// This subscriber was too slow: it missed so many of the oldest events.
    Lagged(u64),
}

/// Hands events to every subscriber.
#[derive(Default)]
pub(crate) struct Hub(Arc<Mutex<Subscribers>>);

/// By the number that each got; one that is dropped is struck off.
#[derive(Default)]
struct Subscribers {
    next: u64,
    queues: BTreeMap<u64, Arc<Queue>>,
}

type Queue = Monitor<QueueState>;

#[derive(Default)]
struct QueueState {
    events: VecDeque<Event>,
    lost: u64,
    ended: bool,
}

impl Hub {
    pub(crate) fn subscribe(&self) -> Subscription {
        let queue = Arc::new(Queue::default());
        let mut subscribers = self.0.lock();
        let number = subscribers.next;
        subscribers.next += 1;
        subscribers.queues.insert(number, Arc::clone(&queue));
        Subscription { queue, number, subscribers: Arc::downgrade(&self.0) }
    }

    pub(crate) fn emit(&self, event: &Event) {
        for queue in self.0.lock().queues.values() {
            let mut state = queue.lock();
            if state.events.len() == CAPACITY {
                state.events.pop_front();
                state.lost += 1;
            }
            state.events.push_back(event.clone());
            queue.notify_all();
        }
    }
}

/// The last event was the last one: nobody waits for more.
impl Drop for Hub {
    fn drop(&mut self) {
        for queue in self.0.lock().queues.values() {
            queue.lock().ended = true;
            queue.notify_all();
        }
    }
}

/// Receives a slot's events from now on; as an iterator, until the slot and all its generations are gone.
///
/// A subscriber that does not keep up misses the oldest events, and finds [`Event::Lagged`] in their place. Once it is
/// dropped, it costs nothing.
pub struct Subscription {
    queue: Arc<Queue>,
    number: u64,
    subscribers: Weak<Mutex<Subscribers>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(subscribers) = self.subscribers.upgrade() {
            subscribers.lock().queues.remove(&self.number);
        }
    }
}

impl Subscription {
    /// Waits for the next event. Returns `None` once the slot is gone and no event is left.
    pub fn recv(&self) -> Option<Event> {
        self.next_until(None)
    }

    /// Waits for the next event for up to `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Event> {
        // A moment too far away to be named is as good as never.
        self.next_until(Instant::now().checked_add(timeout))
    }

    /// Returns the next event if there is one already.
    pub fn try_recv(&self) -> Option<Event> {
        self.queue.lock().take()
    }

    fn next_until(&self, deadline: Option<Instant>) -> Option<Event> {
        let waits = |state: &mut QueueState| state.events.is_empty() && state.lost == 0 && !state.ended;
        let state = self.queue.lock();
        let mut state = match deadline {
            Some(deadline) => self.queue.wait_while_until(state, deadline, waits),
            None => self.queue.wait_while(state, waits),
        };
        state.take()
    }
}

impl QueueState {
    fn take(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.lost) {
            0 => self.events.pop_front(),
            lost => Some(Event::Lagged(lost)),
        }
    }
}

impl Iterator for Subscription {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("waiting", &self.queue.lock().events.len()).finish()
    }
}
