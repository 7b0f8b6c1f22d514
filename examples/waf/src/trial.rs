//! How each version does: its calls and failures, and whether a new one keeps within the limits of its probation.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::config::Probation;

/// How many versions are remembered.
const REMEMBERED: usize = 64;
/// What 99 of 100 calls stay below, one of 100 may exceed.
const SLOW_SHARE: f64 = 0.01;

/// The calls of one generation.
pub struct Trial {
    pub generation: u64,
    pub version: Option<String>,
    since: Instant,
    probation: Probation,
    calls: AtomicU64,
    failures: AtomicU64,
    slow: AtomicU64,
    condemned: AtomicBool,
}

impl Trial {
    fn new(generation: u64, version: Option<String>, probation: Probation) -> Trial {
        Trial {
            generation,
            version,
            since: Instant::now(),
            probation,
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            condemned: AtomicBool::new(false),
        }
    }

    /// Counts a call. Says what speaks against this version, once, if it is on probation and that is too much.
    pub fn note(&self, failed: bool, took: Duration) -> Option<String> {
        let calls = self.calls.fetch_add(1, Relaxed) + 1;
        let slow = took > self.probation.max_latency.0;
        if failed {
            self.failures.fetch_add(1, Relaxed);
        }
        if slow {
            self.slow.fetch_add(1, Relaxed);
        }
        if !(failed || slow) || calls < self.probation.min_calls || !self.is_on_probation() {
            return None;
        }
        let objection = self.objection(calls)?;
        (!self.condemned.swap(true, Relaxed)).then_some(objection)
    }

    fn objection(&self, calls: u64) -> Option<String> {
        let Probation { max_error_rate, max_latency, .. } = self.probation;
        let share = |count: u64| count as f64 / calls as f64;
        let (failures, slow) = (self.failures(), self.slow.load(Relaxed));
        if share(failures) > max_error_rate.0 {
            let (percent, limit) = (share(failures) * 100.0, max_error_rate.0 * 100.0);
            return Some(format!("{failures} of {calls} calls failed: {percent:.1} % with a limit of {limit:.1} %"));
        }
        (share(slow) > SLOW_SHARE).then(|| format!("{slow} of {calls} calls took longer than {:?}", max_latency.0))
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub fn is_on_probation(&self) -> bool {
        self.since.elapsed() < self.probation.window.0
    }

    /// Whether it is through its probation, with nothing to be said against it.
    pub fn is_passed(&self) -> bool {
        !self.is_on_probation() && !self.condemned.load(Relaxed)
    }
}

/// The trials of the generations that served lately, the latest one last.
pub struct Trials {
    probation: Probation,
    trials: RwLock<VecDeque<Arc<Trial>>>,
}

impl Trials {
    pub fn new(probation: Probation) -> Trials {
        Trials { probation, trials: RwLock::default() }
    }

    /// The trial of a generation; it begins with the first call.
    pub fn of(&self, generation: u64, version: impl FnOnce() -> Option<String>) -> Arc<Trial> {
        if let Some(trial) = self.find(generation) {
            return trial;
        }
        let mut trials = self.trials.write();
        if let Some(trial) = trials.iter().rfind(|trial| trial.generation == generation) {
            return Arc::clone(trial);
        }
        if trials.len() == REMEMBERED {
            trials.pop_front();
        }
        let trial = Arc::new(Trial::new(generation, version(), self.probation));
        trials.push_back(Arc::clone(&trial));
        trial
    }

    pub fn find(&self, generation: u64) -> Option<Arc<Trial>> {
        self.trials.read().iter().rfind(|trial| trial.generation == generation).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Trial>> {
        self.trials.read().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Trials};
    use crate::config::Probation;

    const FAST: Duration = Duration::from_micros(10);
    const SLOW: Duration = Duration::from_secs(10);

    fn trials() -> Trials {
        Trials::new(Probation::default())
    }

    #[test]
    fn a_version_that_fails_too_often_is_condemned_once() {
        let trial = trials().of(1, || None);
        assert!((0..19).all(|_| trial.note(true, FAST).is_none()), "too few calls to judge");
        let objection = trial.note(true, FAST).unwrap();
        assert!(objection.contains("20 of 20 calls failed"), "{objection}");
        assert_eq!(trial.note(true, FAST), None);
        assert!(!trial.is_passed());
    }

    #[test]
    fn a_slow_version_is_condemned() {
        let trial = trials().of(1, || None);
        assert!((0..200).all(|_| trial.note(false, FAST).is_none()));
        assert!(trial.note(false, SLOW).is_none() && trial.note(false, SLOW).is_none());
        assert!(trial.note(false, SLOW).unwrap().contains("took longer"));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let trials = trials();
        (1..=100).for_each(|generation| drop(trials.of(generation, || None)));
        assert_eq!(trials.all().len(), 64);
        assert!(trials.find(36).is_none() && trials.find(37).is_some());
    }
}
