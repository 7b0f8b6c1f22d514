//! The guard: asks the rules about every request, and decides what happens where they give no verdict.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use hotslot::{HotSlot, Lease, printable};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use serde::Serialize;

use crate::config::FailurePolicy;
use crate::hold::{Holds, Waiting};
use crate::json::moment;
use crate::live::Traffic;
use crate::metrics::Metrics;
use crate::rules::{Action, Failure, Inspected, Reason, Rules, Verdict};
use crate::trial::Trials;

/// How many errors are remembered.
const ERRORS: usize = 256;

/// What becomes of a request.
pub enum Decision {
    Pass,
    Block,
    Challenge,
    /// There is no verdict, and the failure policy does not let it through.
    Unavailable,
}

/// A generation that is not to serve any longer.
pub struct Condemned {
    pub generation: u64,
    pub objection: String,
}

pub struct Guard {
    slot: HotSlot<Rules>,
    /// Runs the last version that went through its probation, if the failure policy wants it.
    fallback: Option<HotSlot<Rules>>,
    policy: FailurePolicy,
    condemned: Sender<Condemned>,
    trials: Trials,
    holds: Holds,
    traffic: Traffic,
    metrics: Metrics,
    errors: Mutex<VecDeque<RuleError>>,
}

/// A call of the rules that gave no verdict.
#[derive(Clone, Serialize)]
pub struct RuleError {
    timestamp: String,
    version: Option<String>,
    generation: u64,
    kind: &'static str,
    error: String,
    request_id: String,
}

impl Guard {
    /// A guard over what serves in `slot`. Versions that fail in their probation are sent to `condemned`.
    pub fn new(
        slot: HotSlot<Rules>,
        fallback: Option<HotSlot<Rules>>,
        policy: FailurePolicy,
        condemned: Sender<Condemned>,
        trials: Trials,
        metrics: Metrics,
    ) -> Guard {
        Guard {
            slot,
            fallback,
            policy,
            condemned,
            trials,
            holds: Holds::default(),
            traffic: Traffic::default(),
            metrics,
            errors: Mutex::default(),
        }
    }

    /// Asks the rules about a request.
    pub fn inspect(&self, request: &Inspected<'_>, id: &HeaderValue) -> Decision {
        let mut waiting = self.holds.ask();
        let rules = self.slot.load();
        match self.ask(&rules, request, &mut waiting) {
            Ok(verdict) => self.act(verdict, id),
            Err(failure) => {
                self.remember(&rules, &failure, id);
                match self.policy {
                    FailurePolicy::Closed => Decision::Unavailable,
                    FailurePolicy::Open => Decision::Pass,
                    FailurePolicy::LastGood => self.ask_last_good(request, id),
                }
            }
        }
    }

    fn ask(&self, rules: &Lease<Rules>, request: &Inspected<'_>, waiting: &mut Waiting) -> Result<Verdict, Failure> {
        let result = rules.inspect(request, || waiting.end());
        waiting.end();
        let took = waiting.since.elapsed();
        self.traffic.called(took);
        self.metrics.called(took);
        let trial = self.trials.of(rules.generation(), || rules.version().map(ToString::to_string));
        let is_fault = result.as_ref().is_err_and(Failure::is_fault);
        if let Some(objection) = trial.note(is_fault, took) {
            // If nobody listens, the node is about to stop.
            let _ = self.condemned.send(Condemned { generation: rules.generation(), objection });
        }
        result
    }

    fn ask_last_good(&self, request: &Inspected<'_>, id: &HeaderValue) -> Decision {
        let verdict = self.fallback.as_ref().map(|fallback| fallback.load().inspect(request, || {}));
        match verdict {
            Some(Ok(verdict)) => self.act(verdict, id),
            Some(Err(_)) | None => Decision::Unavailable,
        }
    }

    fn act(&self, Verdict { action, reason }: Verdict, id: &HeaderValue) -> Decision {
        self.metrics.verdict(action, (action != Action::Allow).then_some(&reason.rule));
        if action != Action::Allow {
            let Reason { rule, part, matched, .. } = &reason;
            tracing::info!(request = ?id, verdict = action.name(), rule, part, matched);
        }
        match action {
            Action::Allow | Action::Log => Decision::Pass,
            Action::Block => Decision::Block,
            Action::Challenge => Decision::Challenge,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.traffic.answered(status, took);
        self.metrics.answered(status);
    }

    fn remember(&self, rules: &Lease<Rules>, failure: &Failure, id: &HeaderValue) {
        self.metrics.failed(failure.kind());
        let error = RuleError {
            timestamp: moment(SystemTime::now()),
            version: rules.version().map(ToString::to_string),
            generation: rules.generation(),
            kind: failure.kind(),
            error: printable(&failure.to_string()).into_owned(),
            request_id: id.to_str().unwrap_or_default().to_owned(),
        };
        let mut errors = self.errors.lock();
        if errors.len() == ERRORS {
            errors.pop_front();
        }
        errors.push_back(error);
    }

    pub fn slot(&self) -> &HotSlot<Rules> {
        &self.slot
    }

    pub fn fallback(&self) -> Option<&HotSlot<Rules>> {
        self.fallback.as_ref()
    }

    pub fn trials(&self) -> &Trials {
        &self.trials
    }

    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The latest errors, the latest one last.
    pub fn errors(&self) -> Vec<RuleError> {
        self.errors.lock().iter().cloned().collect()
    }
}
