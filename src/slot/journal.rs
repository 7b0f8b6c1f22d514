//! The slot's memory of what happened: history, counters, subscribers, log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::event::{Event, Hub};
use crate::report::{Cause, Outcome, Report};
use crate::status::{Counters, Retained};
use crate::{Release, Subscription};

/// How many attempts the history keeps.
const HISTORY: usize = 256;

pub(super) struct Journal {
    slot: Arc<str>,
    next_attempt: AtomicU64,
    hub: Hub,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    history: VecDeque<Arc<Report>>,
    counters: Counters,
    retained: Retained,
}

impl Journal {
    pub(super) fn new(slot: Arc<str>) -> Journal {
        Journal { slot, next_attempt: AtomicU64::new(1), hub: Hub::default(), pages: Mutex::default() }
    }

    pub(super) fn next_attempt(&self) -> u64 {
        self.next_attempt.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn subscribe(&self) -> Subscription {
        self.hub.subscribe()
    }

    pub(super) fn history(&self) -> Vec<Arc<Report>> {
        self.pages.lock().history.iter().cloned().collect()
    }

    pub(super) fn counters(&self) -> Counters {
        self.pages.lock().counters
    }

    pub(super) fn retained(&self) -> Retained {
        self.pages.lock().retained
    }

    /// Writes down how an attempt ended.
    pub(super) fn ended(&self, report: Report) -> Arc<Report> {
        self.log(&report);
        let report = Arc::new(report);
        {
            let mut pages = self.pages.lock();
            let counters = &mut pages.counters;
            match (&report.outcome, &report.cause) {
                (Outcome::Unchanged { .. }, _) => counters.unchanged += 1,
                (Outcome::Refused { .. }, _) => counters.refused += 1,
                (Outcome::Discarded, _) => counters.discarded += 1,
                (Outcome::Swapped { .. }, cause) => {
                    counters.swaps += 1;
                    match cause {
                        Cause::Rollback => counters.rollbacks += 1,
                        Cause::Automatic { .. } => counters.automatic_rollbacks += 1,
                        Cause::Open | Cause::Reload => {}
                    }
                }
            }
            if pages.history.len() == HISTORY {
                pages.history.pop_front();
            }
            pages.history.push_back(Arc::clone(&report));
        }
        self.hub.emit(&Event::Ended(Arc::clone(&report)));
        report
    }

    fn log(&self, report: &Report) {
        let (slot, attempt) = (&*self.slot, report.attempt);
        let version = report.version.as_ref().map(tracing::field::display);
        match (&report.outcome, &report.cause) {
            (Outcome::Swapped { generation, previous }, Cause::Automatic { reason }) => tracing::error!(
                slot, attempt, generation, previous, version, %reason, "rolled back automatically"
            ),
            (Outcome::Swapped { generation, previous }, _) => {
                tracing::info!(slot, attempt, generation, previous, version, total = ?report.total, "swapped");
            }
            (Outcome::Unchanged { generation }, _) => tracing::info!(slot, attempt, generation, "unchanged"),
            (Outcome::Refused { stage, error }, _) => {
                tracing::warn!(slot, attempt, %stage, %error, version, "refused");
            }
            (Outcome::Discarded, _) => tracing::info!(slot, attempt, version, "discarded"),
        }
    }

    /// Passes on what has no counter and no line in the log of its own.
    pub(super) fn emit(&self, event: &Event) {
        self.hub.emit(event);
    }

    pub(super) fn stuck(&self, event: &Event) {
        if let Event::Stuck { generation, age, leases, oldest_lease, .. } = event {
            let held_at = oldest_lease.as_ref().map(|held| tracing::field::display(&held.location));
            tracing::warn!(slot = &*self.slot, generation, ?age, leases, held_at, "stuck");
        }
        self.pages.lock().counters.stuck += 1;
        self.hub.emit(event);
    }

    /// Counts a destruction, before the generation is seen to be gone.
    pub(super) fn count_destroyed(&self, size: usize, release: &Release) {
        let mut pages = self.pages.lock();
        pages.counters.destroyed += 1;
        if matches!(release, Release::Retained { .. }) {
            pages.retained.generations += 1;
            pages.retained.bytes += size as u64;
        }
    }

    /// Tells of a destruction, after that.
    pub(super) fn destroyed(&self, generation: u64, release: Release) {
        let alarm = match &release {
            Release::Freed => None,
            Release::Retained { alarm, .. } => alarm.clone(),
        };
        tracing::debug!(slot = &*self.slot, generation, ?release, "destroyed");
        self.hub.emit(&Event::Destroyed { generation, release });
        if let Some(message) = alarm {
            self.alarm(message);
        }
    }

    pub(super) fn alarm(&self, message: String) {
        tracing::error!(slot = &*self.slot, %message, "alarm");
        self.pages.lock().counters.alarms += 1;
        self.hub.emit(&Event::Alarm { message });
    }
}
