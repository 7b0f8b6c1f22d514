//! What was tried to change what serves, and what came of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use hotslot::{Outcome, Report, escape_untrusted};
use parking_lot::Mutex;
use serde::Serialize;

use super::Refusal;
use crate::hold::Held;
use crate::json::{millis, moment, unix};
use crate::release::Release;

/// How many attempts are remembered.
const REMEMBERED: usize = 256;

/// What an attempt was made for.
#[derive(Clone, Debug)]
pub enum Trigger {
    Start,
    Upload,
    RuleRequest,
    ModuleFile,
    RuleFile,
    Rollback { reason: String },
    Automatic { reason: String },
}

impl Trigger {
    pub fn name(&self) -> &'static str {
        match self {
            Trigger::Start => "start",
            Trigger::Upload => "upload",
            Trigger::RuleRequest => "rule_request",
            Trigger::ModuleFile => "module_file",
            Trigger::RuleFile => "rule_file",
            Trigger::Rollback { .. } => "rollback",
            Trigger::Automatic { .. } => "automatic_rollback",
        }
    }

    fn reason(self) -> Option<String> {
        match self {
            Trigger::Rollback { reason } | Trigger::Automatic { reason } => Some(reason),
            _ => None,
        }
    }
}

/// One attempt. All figures were measured.
#[derive(Clone, Serialize)]
pub struct Record {
    pub timestamp: String,
    /// The same in seconds since 1970.
    pub at: f64,
    pub trigger: &'static str,
    pub reason: Option<String>,
    pub version: Option<String>,
    pub generation: Option<u64>,
    pub previous_generation: Option<u64>,
    pub digest: String,
    pub rules_digest: String,
    pub size_bytes: usize,
    pub duration_ms: f64,
    pub downtime_ms: f64,
    pub requests_during_reload: u64,
    pub success: bool,
    /// Whether that version served already, so that there was nothing to do.
    pub unchanged: bool,
    pub stage: Option<&'static str>,
    pub error: Option<String>,
}

impl Record {
    /// The first version, before there were requests.
    pub(super) fn of_start(
        at: SystemTime,
        release: &Release,
        took: Duration,
        version: Option<String>,
        generation: u64,
    ) -> Record {
        let record = Record::blank(at, Trigger::Start, release, took, Held::default());
        Record { version, generation: Some(generation), success: true, ..record }
    }

    /// `version` as far as it is known, and what the slot or the node said.
    pub(super) fn of_change(
        at: SystemTime,
        trigger: Trigger,
        release: &Release,
        took: Duration,
        held: Held,
        version: Option<String>,
        outcome: Result<&Report, &Refusal>,
    ) -> Record {
        let record = Record { version, ..Record::blank(at, trigger, release, took, held) };
        match outcome {
            Ok(report) => Record {
                generation: report.generation(),
                previous_generation: match report.outcome {
                    Outcome::Swapped { previous, .. } => previous,
                    _ => None,
                },
                success: true,
                unchanged: !report.is_swap(),
                ..record
            },
            Err(refusal) => Record {
                stage: Some(refusal.stage()),
                error: Some(escape_untrusted(&refusal.to_string()).into_owned()),
                ..record
            },
        }
    }

    fn blank(at: SystemTime, trigger: Trigger, release: &Release, took: Duration, held: Held) -> Record {
        Record {
            timestamp: moment(at),
            at: unix(at),
            trigger: trigger.name(),
            reason: trigger.reason(),
            version: None,
            generation: None,
            previous_generation: None,
            digest: release.module.digest().to_string(),
            rules_digest: release.rules.digest().to_string(),
            size_bytes: release.module.bytes().len(),
            duration_ms: millis(took),
            downtime_ms: millis(held.longest),
            requests_during_reload: held.requests,
            success: false,
            unchanged: false,
            stage: None,
            error: None,
        }
    }
}

/// The attempts, in the order in which they ended: a swap is not added before all that was measured of it is there,
/// and another one may be through by then.
#[derive(Default)]
pub(super) struct History {
    next: AtomicU64,
    records: Mutex<VecDeque<(Place, Record)>>,
}

/// Where in the history an attempt belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl History {
    /// The place of an attempt that ends now. A swap takes it before another one can happen.
    pub(super) fn place(&self) -> Place {
        Place(self.next.fetch_add(1, Relaxed))
    }

    pub(super) fn add(&self, place: Place, record: Record) -> Record {
        let mut records = self.records.lock();
        let index = records.iter().rposition(|(other, _)| *other < place).map_or(0, |before| before + 1);
        records.insert(index, (place, record.clone()));
        if records.len() > REMEMBERED {
            records.pop_front();
        }
        record
    }

    pub(super) fn all(&self) -> Vec<Record> {
        self.records.lock().iter().map(|(_, record)| record.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_stand_in_the_order_in_which_they_ended() {
        let history = History::default();
        let record = |generation| {
            let release = Release::new(&b"module"[..], &b"rules"[..]);
            Record::of_start(SystemTime::UNIX_EPOCH, &release, Duration::ZERO, None, generation)
        };
        let [first, second, third] = [(); 3].map(|()| history.place());
        history.add(second, record(2));
        history.add(third, record(3));
        history.add(first, record(1));
        let generations: Vec<_> = history.all().into_iter().map(|record| record.generation.unwrap()).collect();
        assert_eq!(generations, [1, 2, 3]);
    }
}
