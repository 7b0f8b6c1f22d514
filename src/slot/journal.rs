//! The slot's memory of what happened: history, counters, subscribers, log.
//!
//! What happens is written down, and handed to subscribers of events, in one step under one lock, so that all of them see
//! the order of the swaps. Log lines are the tracing subscriber's code, which may hang, panic or ask for a transition. So
//! they wait in an outbox, in the same order, until whoever made them holds no lock; one thread at a time writes them, as
//! foreign code of the slot.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::{Event, Hub};
use crate::loader_lock;
use crate::lock::Mutex;
use crate::report::{Cause, Outcome, Report};
use crate::status::{Counters, Retained};
use crate::text::{escape_untrusted, panic_text};
use crate::workers::{self, Afterwards};
use crate::{Footprint, PluginScope, Release, Subscription};

/// How many attempts the history keeps.
const HISTORY: usize = 256;
/// How many log lines wait for a subscriber that does not come back. Further ones push the oldest out.
const OUTBOX: usize = 1024;

pub(super) struct Journal {
    slot: Arc<str>,
    next_attempt: AtomicU64,
    records: Mutex<Records>,
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct Records {
    history: VecDeque<Arc<Report>>,
    counters: Counters,
    retained: Retained,
    hub: Hub,
}

struct Outbox {
    slot: Arc<str>,
    scope: PluginScope,
    lines: Mutex<VecDeque<Event>>,
    /// Held by the thread that writes.
    writing: Mutex<()>,
}

/// What is to be written while a library holds up the dynamic linker. A thread that writes may be caught by that: one for all slots
/// is enough.
struct HeldUp {
    is_writing: bool,
    outboxes: Vec<Arc<Outbox>>,
}

static HELD_UP: Mutex<HeldUp> = Mutex::new(HeldUp { is_writing: false, outboxes: Vec::new() });

impl HeldUp {
    /// Writes until nothing waits.
    fn write() {
        loop {
            let mut held_up = HELD_UP.lock();
            let Some(outbox) = held_up.outboxes.pop() else {
                held_up.is_writing = false;
                return;
            };
            drop(held_up);
            outbox.flush();
        }
    }
}

impl Journal {
    pub(super) fn new(slot: Arc<str>, scope: PluginScope) -> Journal {
        let outbox = Outbox { slot: Arc::clone(&slot), scope, lines: Mutex::default(), writing: Mutex::default() };
        Journal { slot, next_attempt: AtomicU64::new(1), records: Mutex::default(), outbox: Arc::new(outbox) }
    }

    pub(super) fn next_attempt(&self) -> u64 {
        self.next_attempt.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn subscribe(&self) -> Subscription {
        self.records.lock().hub.subscribe()
    }

    pub(super) fn history(&self) -> Vec<Report> {
        self.records.lock().history.iter().map(|report| Report::clone(report)).collect()
    }

    pub(super) fn counters(&self) -> Counters {
        self.records.lock().counters
    }

    pub(super) fn retained(&self) -> Retained {
        self.records.lock().retained
    }

    /// Writes down how an attempt ended.
    pub(super) fn ended(&self, report: Report) {
        let report = Arc::new(report);
        let mut records = self.records.lock();
        let counters = &mut records.counters;
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
        if records.history.len() == HISTORY {
            records.history.pop_front();
        }
        records.history.push_back(Arc::clone(&report));
        self.tell(&mut records, Event::Ended(report));
    }

    /// Passes on what has no counter and no line in the log of its own.
    pub(super) fn emit(&self, event: &Event) {
        self.records.lock().hub.emit(event);
    }

    pub(super) fn stuck(&self, event: Event) {
        let mut records = self.records.lock();
        records.counters.stuck += 1;
        self.tell(&mut records, event);
    }

    /// Counts a destruction, before the generation is seen to be gone.
    pub(super) fn count_destroyed(&self, size: usize, footprint: Option<Footprint>, release: &Release) {
        let mut records = self.records.lock();
        records.counters.destroyed += 1;
        if matches!(release, Release::Retained { .. }) {
            records.retained.generations += 1;
            records.retained.bytes += size as u64;
            records.retained.footprint = records.retained.footprint.plus(footprint.unwrap_or_default());
        }
    }

    /// Tells of a destruction, after that.
    pub(super) fn destroyed(&self, generation: u64, release: Release) {
        let alarm = match &release {
            Release::Freed => None,
            Release::Retained { alarm, .. } => alarm.clone(),
        };
        self.tell(&mut self.records.lock(), Event::Destroyed { generation, release });
        if let Some(message) = alarm {
            self.alarm(message);
        }
    }

    pub(super) fn canary(&self, generation: u64, share: f64, objection: Option<String>) {
        self.tell(&mut self.records.lock(), Event::Canary { generation, share, objection });
    }

    pub(super) fn alarm(&self, message: String) {
        let mut records = self.records.lock();
        records.counters.alarms += 1;
        self.tell(&mut records, Event::Alarm { message });
    }

    /// For subscribers now, and for the log later.
    fn tell(&self, records: &mut Records, event: Event) {
        records.hub.emit(&event);
        let mut lines = self.outbox.lines.lock();
        if lines.len() == OUTBOX {
            lines.pop_front();
        }
        lines.push_back(event);
    }

    /// Writes what waits, unless another thread is at it, which then writes this, too. The caller holds no lock.
    pub(super) fn flush(&self) {
        if loader_lock::is_held_up() {
            return self.flush_elsewhere();
        }
        self.outbox.flush();
    }

    /// Runs `work`, which is the tracing subscriber's: as foreign code of the slot, whose panics end here. Not while a
    /// library holds up whoever needs the dynamic linker, as a subscriber may on a thread that is new to it.
    pub(super) fn trace<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        self.outbox.trace(work)
    }

    /// [Runs](Journal::trace) `work` on another thread.
    pub(super) fn trace_elsewhere(&self, work: impl FnOnce() + Send + 'static) {
        let outbox = Arc::clone(&self.outbox);
        let _ = workers::run(Afterwards::Stay, move || {
            let _ = outbox.trace(work);
        });
    }

    /// Runs `work` inside a span. To enter and to leave it is the subscriber's code, also while `work` unwinds.
    pub(super) fn in_span<R>(&self, span: &tracing::Span, work: impl FnOnce() -> R) -> R {
        let entered = self.trace(|| span.enter());
        let result = catch_unwind(AssertUnwindSafe(work));
        self.trace(|| drop(entered));
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// [Writes](Journal::flush) on another thread, if there is anything to write.
    pub(super) fn flush_elsewhere(&self) {
        if self.outbox.lines.lock().is_empty() {
            return;
        }
        let outbox = Arc::clone(&self.outbox);
        // Without a thread the lines wait for the next one who writes.
        if !loader_lock::is_held_up() {
            let _ = workers::run(Afterwards::Stay, move || outbox.flush());
            return;
        }
        let mut held_up = HELD_UP.lock();
        if !held_up.outboxes.iter().any(|known| Arc::ptr_eq(known, &outbox)) {
            held_up.outboxes.push(outbox);
        }
        if !held_up.is_writing && workers::run(Afterwards::Stay, HeldUp::write).is_ok() {
            held_up.is_writing = true;
        }
    }

    /// A span for a stage of an attempt, in the caller's.
    pub(super) fn span(&self, attempt: u64, stage: crate::Stage) -> tracing::Span {
        let span = self.trace(|| tracing::info_span!("hotslot", slot = &*self.slot, attempt, %stage));
        span.unwrap_or_else(tracing::Span::none)
    }
}

impl Outbox {
    fn flush(&self) {
        loop {
            let Some(writing) = self.writing.try_lock() else { return };
            while let Some(event) = self.next() {
                let _ =
                    self.scope.enter(|| catch_unwind(AssertUnwindSafe(|| log(&self.slot, &event)))).map_err(panic_text);
            }
            drop(writing);
            // What came after the last look and before this, its author left to us.
            if self.lines.lock().is_empty() {
                return;
            }
        }
    }

    fn next(&self) -> Option<Event> {
        self.lines.lock().pop_front()
    }

    fn trace<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        if loader_lock::is_held_up() {
            return None;
        }
        self.scope.enter(|| catch_unwind(AssertUnwindSafe(work))).map_err(panic_text).ok()
    }
}

/// Writes one line.
fn log(slot: &str, event: &Event) {
    match event {
        Event::Ended(report) => log_end(slot, report),
        Event::Stuck { generation, age, leases, oldest_lease, .. } => {
            let held_at = oldest_lease.as_ref().map(|held| tracing::field::display(&held.location));
            tracing::warn!(slot, generation, ?age, leases, held_at, "stuck");
        }
        Event::Destroyed { generation, release } => tracing::debug!(slot, generation, ?release, "destroyed"),
        Event::Alarm { message } => tracing::error!(slot, %message, "alarm"),
        Event::RunEnded { generation, error: Some(error) } => {
            tracing::error!(slot, generation, %error, "the run failed");
        }
        Event::Canary { generation, share, objection: None } => {
            tracing::info!(slot, generation, share, "served to a share of the callers");
        }
        Event::Canary { generation, objection: Some(objection), .. } => {
            tracing::error!(slot, generation, %objection, "no longer served to a share of the callers");
        }
        Event::Stage { .. }
        | Event::Retired { .. }
        | Event::RunStarted { .. }
        | Event::RunEnded { error: None, .. }
        | Event::Lagged(_) => {}
    }
}

fn log_end(slot: &str, report: &Report) {
    let attempt = report.attempt;
    let version = report.version.as_ref().map(tracing::field::display);
    // Written by people and plugins.
    let said = |text: &Option<Arc<str>>| {
        text.as_deref().map(|text| tracing::field::display(escape_untrusted(text).into_owned()))
    };
    let (requested_by, reason) = (said(&report.requested_by), said(&report.reason));
    match (&report.outcome, &report.cause) {
        (Outcome::Swapped { generation, previous }, Cause::Automatic { reason }) => tracing::error!(
            slot, attempt, generation, previous, version, %reason, "rolled back automatically"
        ),
        (Outcome::Swapped { generation, previous }, _) => {
            let total = report.total;
            tracing::info!(slot, attempt, generation, previous, version, requested_by, reason, ?total, "swapped");
        }
        (Outcome::Unchanged { generation }, _) => {
            tracing::info!(slot, attempt, generation, requested_by, reason, "unchanged");
        }
        (Outcome::Refused { stage, error }, _) => {
            let error = escape_untrusted(error);
            tracing::warn!(slot, attempt, %stage, %error, version, requested_by, reason, "refused");
        }
        (Outcome::Discarded, _) => tracing::info!(slot, attempt, version, requested_by, reason, "discarded"),
    }
}

impl Journal {
    /// Tells of a run's end, in the log if it failed.
    pub(super) fn run_ended(&self, generation: u64, error: Option<String>) {
        self.tell(&mut self.records.lock(), Event::RunEnded { generation, error });
    }
}
