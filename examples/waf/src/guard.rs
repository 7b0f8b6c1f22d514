//! The guard: asks the rules about every request, and decides what happens where they give no verdict.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use hotslot::{HotSlot, Lease, escape_untrusted};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use serde::Serialize;
use waf_interface::{Decision, Reason, Verdict, Waf};

use crate::config::FailurePolicy;
use crate::hold::{Holds, Waiting};
use crate::json::moment;
use crate::live::Traffic;
use crate::metrics::Metrics;
use crate::rules::{Failure, Inspected, inspect};
use crate::trial::Trials;

/// How many errors are remembered.
const ERRORS: usize = 256;

/// What becomes of a request.
pub enum Action {
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
    slot: HotSlot<dyn Waf>,
    /// Runs the last version that went through its probation, if the failure policy wants it.
    fallback: Option<HotSlot<dyn Waf>>,
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
        slot: HotSlot<dyn Waf>,
        fallback: Option<HotSlot<dyn Waf>>,
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
    pub fn inspect(&self, request: &Inspected<'_>, id: &HeaderValue) -> Action {
        let waiting = self.holds.ask();
        let rules = self.slot.load();
        match self.ask(&rules, request, waiting) {
            Ok(decision) => self.act(decision, id),
            Err(failure) => {
                self.remember(&rules, &failure, id);
                match self.policy {
                    FailurePolicy::Closed => Action::Unavailable,
                    FailurePolicy::Open => Action::Pass,
                    FailurePolicy::LastGood => self.ask_last_good(request, id),
                }
            }
        }
    }

    fn ask(&self, rules: &Lease<dyn Waf>, request: &Inspected<'_>, waiting: Waiting) -> Result<Decision, Failure> {
        let (since, leased) = (waiting.since, waiting.since.elapsed());
        let (result, waited) = inspect(&**rules, request);
        waiting.end(leased + waited);
        let took = since.elapsed();
        self.traffic.called(took);
        self.metrics.called(took);
        let trial = self.trials.of(Lease::generation(rules), || Lease::version(rules).map(ToString::to_string));
        let is_fault = result.as_ref().is_err_and(Failure::is_fault);
        if let Some(objection) = trial.note(is_fault, took) {
            // If nobody listens, the node is about to stop.
            let _ = self.condemned.send(Condemned { generation: Lease::generation(rules), objection });
        }
        result
    }

    fn ask_last_good(&self, request: &Inspected<'_>, id: &HeaderValue) -> Action {
        let result = self.fallback.as_ref().map(|fallback| inspect(&*fallback.load(), request).0);
        match result {
            Some(Ok(decision)) => self.act(decision, id),
            Some(Err(_)) | None => Action::Unavailable,
        }
    }

    fn act(&self, Decision { verdict, reason }: Decision, id: &HeaderValue) -> Action {
        let Reason { rule, part, matched, .. } = reason.unwrap_or_default();
        self.metrics.verdict(verdict, (verdict != Verdict::Allow).then_some(&rule));
        if verdict != Verdict::Allow {
            tracing::info!(request = ?id, verdict = verdict.name(), rule, part, matched);
        }
        match verdict {
            Verdict::Allow | Verdict::Log => Action::Pass,
            Verdict::Block => Action::Block,
            Verdict::Challenge => Action::Challenge,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.traffic.answered(status, took);
        self.metrics.answered(status);
    }

    fn remember(&self, rules: &Lease<dyn Waf>, failure: &Failure, id: &HeaderValue) {
        self.metrics.failed(failure.kind());
        let error = RuleError {
            timestamp: moment(SystemTime::now()),
            version: Lease::version(rules).map(ToString::to_string),
            generation: Lease::generation(rules),
            kind: failure.kind(),
            error: escape_untrusted(&failure.to_string()).into_owned(),
            request_id: id.to_str().unwrap_or_default().to_owned(),
        };
        let mut errors = self.errors.lock();
        if errors.len() == ERRORS {
            errors.pop_front();
        }
        errors.push_back(error);
    }

    pub fn slot(&self) -> &HotSlot<dyn Waf> {
        &self.slot
    }

    pub fn fallback(&self) -> Option<&HotSlot<dyn Waf>> {
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
