//! What was tried to change what serves, and what came of it: the slot's reports, with what only the node can measure.

use std::collections::VecDeque;

use hotslot::{Cause, Digest, Outcome, Report, escape_untrusted};
use parking_lot::Mutex;
use serde::Serialize;

use super::Refusal;
use crate::hold::Held;
use crate::json::{millis, moment, unix};
use crate::release::Release;

/// How many attempts are remembered.
const REMEMBERED: usize = 256;

/// Who or what asks for a change.
#[derive(Clone, Copy, Debug)]
pub enum Trigger {
    Upload,
    RuleRequest,
    ModuleFile,
    RuleFile,
    Fleet,
}

impl Trigger {
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Upload => "upload",
            Trigger::RuleRequest => "rule_request",
            Trigger::ModuleFile => "module_file",
            Trigger::RuleFile => "rule_file",
            Trigger::Fleet => "fleet",
        }
    }
}

/// One attempt. All figures were measured.
#[derive(Clone, Serialize)]
pub struct Record {
    pub timestamp: String,
    /// The same in seconds since 1970.
    pub at: f64,
    pub trigger: String,
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
    pub stage: Option<String>,
    pub error: Option<String>,
}

impl From<&Report> for Record {
    fn from(report: &Report) -> Record {
        let digest = |digest: Option<Digest>| digest.map(|digest| digest.to_string()).unwrap_or_default();
        let said = |text: &str| escape_untrusted(text).into_owned();
        let (stage, error) = match &report.outcome {
            Outcome::Refused { stage, error } => (Some(stage.to_string()), Some(said(error))),
            _ => (None, None),
        };
        Record {
            timestamp: moment(report.at),
            at: unix(report.at),
            trigger: trigger(report).to_owned(),
            reason: match &report.cause {
                Cause::Automatic { reason } => Some(said(reason)),
                _ => report.reason.as_deref().map(str::to_owned),
            },
            version: report.version.as_ref().map(ToString::to_string),
            generation: report.generation(),
            previous_generation: match report.outcome {
                Outcome::Swapped { previous, .. } => previous,
                _ => None,
            },
            digest: digest(report.digest),
            rules_digest: digest(report.config_digest),
            size_bytes: report.size,
            duration_ms: millis(report.total),
            downtime_ms: 0.0,
            requests_during_reload: 0,
            success: report.generation().is_some(),
            unchanged: matches!(report.outcome, Outcome::Unchanged { .. }),
            stage,
            error,
        }
    }
}

/// Returns what asked for an attempt.
pub(super) fn trigger(report: &Report) -> &str {
    match report.cause {
        Cause::Automatic { .. } => "automatic_rollback",
        _ => report.requested_by.as_deref().unwrap_or_default(),
    }
}

/// The attempts, in the order in which they ended. One is not shown before all that is measured of it is there, and
/// another one may be through by then.
#[derive(Default)]
pub(super) struct History(Mutex<VecDeque<Entry>>);

struct Entry {
    attempt: u64,
    is_measured: bool,
    record: Record,
}

impl History {
    /// Adds an attempt that has ended, unless it is a rollback that was refused: there may be any number of those, and
    /// whoever asked for one got the answer. Nobody measures what the slot did on its own.
    pub(super) fn add(&self, report: &Report) {
        if matches!((&report.cause, &report.outcome), (Cause::Rollback, Outcome::Refused { .. })) {
            return;
        }
        let is_measured = matches!(report.cause, Cause::Open | Cause::Automatic { .. });
        let mut entries = self.0.lock();
        if entries.len() == REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(Entry { attempt: report.attempt, is_measured, record: report.into() });
    }

    /// Shows an attempt that succeeded, with what was measured of it.
    pub(super) fn succeeded(&self, report: &Report, held: Held) -> Record {
        let mut record = Record::from(report);
        record.note(held);
        self.show(|entry| entry.attempt == report.attempt, |shown| *shown = record.clone());
        record
    }

    /// Shows the reload that was refused, with what was measured of it. There is one reload at a time.
    pub(super) fn refused(&self, refusal: &Refusal, release: &Release, held: Held) {
        let is_reload = |entry: &Entry| !entry.is_measured && !entry.record.success;
        self.show(is_reload, |record| {
            record.note(held);
            // The slot does not hash what it refuses for its size.
            record.digest = release.module.digest().to_string();
            record.rules_digest = release.rules.digest().to_string();
            record.stage = Some(refusal.stage().to_owned());
            record.error = Some(escape_untrusted(&refusal.to_string()).into_owned());
        });
    }

    fn show(&self, which: impl Fn(&Entry) -> bool, complete: impl FnOnce(&mut Record)) {
        if let Some(entry) = self.0.lock().iter_mut().rfind(|entry| which(entry)) {
            entry.is_measured = true;
            complete(&mut entry.record);
        }
    }

    pub(super) fn all(&self) -> Vec<Record> {
        self.0.lock().iter().filter(|entry| entry.is_measured).map(|entry| entry.record.clone()).collect()
    }
}

impl Record {
    fn note(&mut self, held: Held) {
        self.downtime_ms = millis(held.longest);
        self.requests_during_reload = held.requests;
    }
}

#[cfg(test)]
mod tests {
    use hotslot::{Admission, Artifact, Backend, BoxError, Candidate, HotSlot, LoadContext, Loaded, Manifest, Payload};

    use super::*;

    struct Empty;

    impl Backend<()> for Empty {
        fn admit(&self, _: &Payload) -> Result<Admission, BoxError> {
            Ok(Manifest::new("empty").into())
        }

        fn load(&self, _: &Artifact, _: &LoadContext) -> Result<Loaded<()>, BoxError> {
            Ok(Loaded::new(()))
        }
    }

    #[test]
    fn attempts_stand_in_the_order_in_which_they_ended() {
        let slot = HotSlot::builder(Empty).open(b"0").unwrap();
        let history = History::default();
        let shown =
            || history.all().into_iter().map(|record| (record.trigger, record.generation.unwrap())).collect::<Vec<_>>();
        let reload = |bytes: &[u8]| {
            let report = slot.reload(Candidate::new(bytes).requested_by("upload")).unwrap();
            history.add(&report);
            report
        };
        let (first, second) = (reload(b"1"), reload(b"2"));
        assert!(shown().is_empty(), "nothing is measured yet");
        let held = Held { requests: 7, ..Held::default() };
        assert_eq!(history.succeeded(&second, held).requests_during_reload, 7);
        assert_eq!(shown(), [("upload".to_owned(), 3)]);
        history.succeeded(&first, Held::default());
        assert_eq!(shown(), [("upload".to_owned(), 2), ("upload".to_owned(), 3)]);
    }
}
