//! The guard: asks the rules about every request, and decides what happens where they give no verdict.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use hotslot::{HotSlot, Lease, ServingStatus, escape_untrusted};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use waf_interface::{Decision, Reason, Verdict, Waf};

use crate::config::{FailurePolicy, Uninspected};
use crate::hold::{Holds, Waiting};
use crate::json::moment;
use crate::live::Traffic;
use crate::metrics::Metrics;
use crate::readable::Unread;
use crate::rules::{Failure, Inspected, inspect};

/// How many errors are remembered.
const ERRORS: usize = 256;
/// How many generations' calls are remembered.
const TALLIES: usize = 64;

/// What becomes of a request.
pub enum Action {
    Pass,
    Block,
    Challenge,
    /// There is no verdict, and the failure policy does not let it through.
    Unavailable,
}

pub struct Guard {
    slot: HotSlot<dyn Waf>,
    /// Runs the last version that went through its probation, if the failure policy wants it.
    fallback: Option<HotSlot<dyn Waf>>,
    policy: RwLock<FailurePolicy>,
    /// What a fleet's release says of what cannot be inspected, in the place of the configuration.
    uninspected: RwLock<Option<Uninspected>>,
    holds: Holds,
    traffic: Traffic,
    metrics: Metrics,
    errors: Mutex<VecDeque<RuleError>>,
    tallies: Mutex<BTreeMap<u64, Tally>>,
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

/// The calls of one generation since it became current, as far as they were looked at while it was.
#[derive(Clone, Serialize)]
pub struct Tally {
    version: Option<String>,
    generation: u64,
    calls: u64,
    errors: u64,
    error_rate: f64,
    on_probation: bool,
}

impl Tally {
    /// Requests that failed on the version before, too, had no verdict either.
    fn of(serving: ServingStatus) -> Tally {
        let (calls, errors) = (serving.calls + serving.excused, serving.failures + serving.excused);
        Tally {
            version: serving.version.map(|version| version.to_string()),
            generation: serving.generation,
            calls,
            errors,
            error_rate: errors as f64 / calls.max(1) as f64,
            on_probation: serving.on_probation,
        }
    }
}

impl Guard {
    /// Guards requests with what serves in `slot`.
    pub fn new(
        slot: HotSlot<dyn Waf>,
        fallback: Option<HotSlot<dyn Waf>>,
        policy: FailurePolicy,
        metrics: Metrics,
    ) -> Guard {
        Guard {
            slot,
            fallback,
            policy: RwLock::new(policy),
            uninspected: RwLock::default(),
            holds: Holds::default(),
            traffic: Traffic::default(),
            metrics,
            errors: Mutex::default(),
            tallies: Mutex::default(),
        }
    }

    /// Asks the rules about a request. What of it they do not get to see is decided by what the request says about that, if the
    /// rules do not say more.
    pub fn inspect(&self, request: &Inspected<'_>, unread: Option<Unread>, id: &HeaderValue) -> Action {
        let Some(unread) = unread else { return self.inspect_all(request, id) };
        let verdict = request.if_unread;
        let text = |text: &str| text.to_owned();
        let reason = Reason { rule: text("uninspected"), part: text("body"), matched: text(unread.name()), score: 0 };
        let own = Decision { verdict, reason: Some(reason) };
        if verdict == Verdict::Block {
            return self.act(own, id);
        }
        match (self.inspect_all(request, id), self.act(own, id)) {
            (Action::Pass, own) => own,
            (other, _) => other,
        }
    }

    fn inspect_all(&self, request: &Inspected<'_>, id: &HeaderValue) -> Action {
        let waiting = self.holds.ask();
        let rules = self.slot.load();
        match self.ask(&rules, request, waiting) {
            Ok(decision) => self.act(decision, id),
            Err(failure) => {
                self.remember(&rules, &failure, id);
                match *self.policy.read() {
                    FailurePolicy::Closed => Action::Unavailable,
                    FailurePolicy::Open => Action::Pass,
                    FailurePolicy::LastGood => self.ask_last_good(request, id),
                }
            }
        }
    }

    fn ask(&self, rules: &Lease<dyn Waf>, request: &Inspected<'_>, waiting: Waiting) -> Result<Decision, Failure> {
        let leased = waiting.since.elapsed();
        let fault = |result: &Result<Decision, Failure>| result.as_ref().err().and_then(Failure::fault);
        let (result, cost) = Lease::measure_repeatable(rules, fault, |rules| inspect(rules, request));
        waiting.end(leased + cost.waited);
        let took = leased + cost.took;
        self.traffic.called(took, result.is_err());
        self.metrics.called(took);
        result
    }

    fn ask_last_good(&self, request: &Inspected<'_>, id: &HeaderValue) -> Action {
        let result = self.fallback.as_ref().map(|fallback| inspect(&*fallback.load(), request));
        match result {
            Some(Ok(decision)) => self.act(decision, id),
            Some(Err(_)) | None => Action::Unavailable,
        }
    }

    fn act(&self, Decision { verdict, reason }: Decision, id: &HeaderValue) -> Action {
        let Reason { rule, part, matched, .. } = reason.unwrap_or_default();
        if verdict == Verdict::Block {
            self.traffic.blocked();
        }
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

    /// Sets what becomes of requests without a verdict and of what cannot be inspected.
    pub fn set_policies(&self, failure: FailurePolicy, uninspected: Option<Uninspected>) {
        *self.policy.write() = failure;
        *self.uninspected.write() = uninspected;
    }

    /// Returns what becomes of what cannot be inspected, if that is not for the configuration to say.
    pub fn uninspected(&self) -> Option<Uninspected> {
        *self.uninspected.read()
    }

    pub fn slot(&self) -> &HotSlot<dyn Waf> {
        &self.slot
    }

    pub fn fallback(&self) -> Option<&HotSlot<dyn Waf>> {
        self.fallback.as_ref()
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

    /// Notes the calls of what serves. The library forgets them when something else does.
    pub fn take_tally(&self) {
        let Some(serving) = self.slot.status().serving else { return };
        let mut tallies = self.tallies.lock();
        tallies.values_mut().for_each(|tally| tally.on_probation = false);
        if tallies.len() == TALLIES && !tallies.contains_key(&serving.generation) {
            tallies.pop_first();
        }
        tallies.insert(serving.generation, Tally::of(serving));
    }

    /// Returns the calls of the generations that served lately, the latest one first.
    pub fn tallies(&self) -> Vec<Tally> {
        self.take_tally();
        self.tallies.lock().values().rev().cloned().collect()
    }

    /// The latest errors, the latest one last.
    pub fn errors(&self) -> Vec<RuleError> {
        self.errors.lock().iter().cloned().collect()
    }
}
