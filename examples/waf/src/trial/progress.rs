//! How far a trial has come: its step, whether somebody holds it there, and how it ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::plan::Plan;
use super::view::Numbers;

/// How often a trial is looked at while nobody touches it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Promoted,
    /// Somebody ended it.
    Aborted,
    /// It did not do well, or something else began to serve.
    Stopped,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Promoted => "promoted",
            Outcome::Aborted => "aborted",
            Outcome::Stopped => "stopped",
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    Wait,
    /// It goes on to this share.
    Step(f64),
    Promote,
}

/// How a trial ended, and why.
#[derive(Clone)]
pub struct Ended {
    pub outcome: Outcome,
    pub reason: String,
    pub at: SystemTime,
}

pub struct Progress {
    is_paused: AtomicBool,
    state: Mutex<State>,
    /// Told when something has changed that whoever looks after the trial has to know.
    changed: Condvar,
}

struct State {
    share: f64,
    since: Instant,
    /// What had been counted when the step began.
    calls_before: u64,
    kept: Numbers,
    ended: Option<Ended>,
}

/// The step that a trial is on.
pub struct StepNow {
    pub share: f64,
    pub age: Duration,
    pub calls_before: u64,
}

impl Progress {
    pub(super) fn new(share: f64) -> Progress {
        let state = State { share, since: Instant::now(), calls_before: 0, kept: Numbers::default(), ended: None };
        Progress { is_paused: AtomicBool::new(false), state: Mutex::new(state), changed: Condvar::new() }
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Holds the trial at its share, or lets it go on: the step begins anew.
    pub fn pause(&self, is_paused: bool) {
        let mut state = self.state.lock();
        if self.is_paused.swap(is_paused, Ordering::Relaxed) && !is_paused {
            state.since = Instant::now();
        }
        self.changed.notify_all();
    }

    pub fn ended(&self) -> Option<Ended> {
        self.state.lock().ended.clone()
    }

    /// Waits a while, or until something changes.
    pub fn wait(&self) {
        let mut state = self.state.lock();
        if state.ended.is_none() {
            self.changed.wait_for(&mut state, LOOK_AGAIN);
        }
    }

    pub(super) fn now(&self) -> StepNow {
        let state = self.state.lock();
        StepNow { share: state.share, age: state.since.elapsed(), calls_before: state.calls_before }
    }

    /// It has another share now, after so many calls.
    pub(super) fn stepped(&self, share: f64, calls: u64) {
        let mut state = self.state.lock();
        (state.share, state.since, state.calls_before) = (share, Instant::now(), calls);
    }

    /// What is to be done after so many calls.
    pub(super) fn turn(&self, plan: &Plan, calls: u64) -> Turn {
        if self.is_paused() {
            return Turn::Wait;
        }
        let now = self.now();
        let time = plan.steps.iter().rfind(|step| step.share <= now.share).map_or(Duration::ZERO, |step| step.time);
        if now.age < time || calls.saturating_sub(now.calls_before) < plan.min_calls {
            return Turn::Wait;
        }
        let next = plan.steps.iter().find(|step| step.share > now.share);
        next.map_or(Turn::Promote, |step| Turn::Step(step.share))
    }

    pub(super) fn keep(&self, numbers: Numbers) {
        self.state.lock().kept = numbers;
    }

    pub(super) fn kept(&self) -> Numbers {
        self.state.lock().kept.clone()
    }

    pub(super) fn end(&self, outcome: Outcome, reason: String) {
        self.state.lock().ended.get_or_insert(Ended { outcome, reason, at: SystemTime::now() });
        self.changed.notify_all();
    }
}
