//! One module: what serves there, and what it says of a request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hotslot::{HotSlot, Lease, ServingStatus, escape_untrusted};
use hyper::header::HeaderValue;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use waf_interface::{Decision, Verdict, Waf};

use super::{Action, Case, NOTHING, stronger};
use crate::chain::Named;
use crate::config::{FailurePolicy, Uninspected};
use crate::hold::{Holds, Waiting};
use crate::json::moment;
use crate::live::Traffic;
use crate::metrics::{ModuleMetrics, Now};
use crate::policy::{Mildness, Mode};
use crate::rules::{Engine, Failure, Inspected, inspect};
use crate::trial::Trial;
use crate::without::Rest;

/// How many errors are remembered.
const ERRORS: usize = 256;
/// How many generations' calls are remembered.
const TALLIES: usize = 64;
/// How many parts of a request can be excepted from rules that match there.
const MILD_PARTS: usize = 8;

pub struct ModuleGuard {
    name: Arc<str>,
    /// Whether its verdicts are enforced, where those of the node are.
    mode: Mode,
    slot: HotSlot<dyn Waf>,
    /// Runs the last version that went through its probation, if the failure policy wants it.
    fallback: Option<HotSlot<dyn Waf>>,
    mild: RwLock<Option<MildRules>>,
    policy: RwLock<FailurePolicy>,
    /// What a fleet's release says of what cannot be inspected, in the place of the configuration.
    uninspected: RwLock<Option<Uninspected>>,
    holds: Holds,
    traffic: Arc<Traffic>,
    metrics: ModuleMetrics,
    errors: Mutex<VecDeque<RuleError>>,
    tallies: Mutex<BTreeMap<u64, Tally>>,
    /// Whether a version is tried, so that requests look at one number only while none is.
    is_trying: AtomicBool,
    /// The trial that is under way, or was the last one.
    trial: RwLock<Option<Arc<Trial>>>,
}

/// What serves, without the rules that are mild somewhere: what it says of a request stands wherever they do not.
pub struct MildRules {
    pub slot: HotSlot<dyn Waf>,
    /// Those that it is without.
    pub left_out: Vec<String>,
}

/// What a guard of a module is made of.
pub struct ModuleParts {
    pub name: Arc<str>,
    pub mode: Mode,
    pub slot: HotSlot<dyn Waf>,
    pub fallback: Option<HotSlot<dyn Waf>>,
    pub policy: FailurePolicy,
    pub traffic: Arc<Traffic>,
    pub metrics: ModuleMetrics,
}

/// What a module says of a request.
pub(super) struct Answer {
    /// What it decided; without that, what becomes of the request.
    pub said: Result<Decision, Action>,
    pub version: Option<String>,
    pub took: Duration,
    /// Whether what serves gave no verdict.
    pub failed: bool,
    /// Whether a version that is being tried was asked.
    pub tried: bool,
}

/// A call of the rules that gave no verdict.
#[derive(Clone, Serialize)]
pub struct RuleError {
    pub timestamp: String,
    module: String,
    version: Option<String>,
    generation: u64,
    kind: &'static str,
    error: String,
    request_id: String,
}

/// The calls of one generation since it became current, as far as they were looked at while it was.
#[derive(Clone, Serialize)]
pub struct Tally {
    module: String,
    version: Option<String>,
    generation: u64,
    calls: u64,
    errors: u64,
    error_rate: f64,
    on_probation: bool,
}

impl Tally {
    /// Requests that failed on the version before, too, had no verdict either.
    fn of(module: &str, serving: ServingStatus) -> Tally {
        let (calls, errors) = (serving.calls + serving.excused, serving.failures + serving.excused);
        Tally {
            module: module.to_owned(),
            version: serving.version.map(|version| version.to_string()),
            generation: serving.generation,
            calls,
            errors,
            error_rate: errors as f64 / calls.max(1) as f64,
            on_probation: serving.on_probation,
        }
    }
}

impl Named for ModuleGuard {
    fn name(&self) -> &str {
        &self.name
    }
}

impl ModuleGuard {
    pub fn new(parts: ModuleParts) -> ModuleGuard {
        let ModuleParts { name, mode, slot, fallback, policy, traffic, metrics } = parts;
        ModuleGuard {
            name,
            mode,
            slot,
            fallback,
            mild: RwLock::default(),
            policy: RwLock::new(policy),
            uninspected: RwLock::default(),
            holds: Holds::default(),
            traffic,
            metrics,
            errors: Mutex::default(),
            tallies: Mutex::default(),
            is_trying: AtomicBool::new(false),
            trial: RwLock::default(),
        }
    }

    /// Asks the module about a request.
    pub(super) fn ask(&self, request: &Inspected<'_>, case: &Case<'_>) -> Answer {
        let waiting = self.holds.ask();
        let trial = self.trial();
        let rules = match &trial {
            Some(trial) => trial.lease(&self.slot, request.key),
            None => self.slot.load(),
        };
        let version = Lease::version(&rules).map(ToString::to_string);
        let tried = trial.as_deref().filter(|trial| trial.is_on(&rules));
        let (result, took) = self.call(&rules, request, waiting, tried);
        if let Some(trial) = &trial {
            trial.saw(request, &result, tried.is_some());
        }
        let by_tried = tried.is_some();
        let answer = |said, version, failed| Answer { said, version, took, failed, tried: by_tried };
        match result {
            Ok(decision) => answer(Ok(self.soften(decision, &rules, request, case, tried)), version, false),
            Err(failure) => {
                self.remember(&rules, &failure, case.id);
                match *self.policy.read() {
                    FailurePolicy::Closed => answer(Err(Action::Unavailable), version, true),
                    FailurePolicy::Open => answer(Err(Action::Pass), version, true),
                    FailurePolicy::LastGood => {
                        let (said, version) = self.ask_last_good(request, case);
                        answer(said, version, true)
                    }
                }
            }
        }
    }

    fn call(
        &self,
        rules: &Lease<dyn Waf>,
        request: &Inspected<'_>,
        waiting: Waiting,
        tried: Option<&Trial>,
    ) -> (Result<Decision, Failure>, Duration) {
        let leased = waiting.since.elapsed();
        let fault = |result: &Result<Decision, Failure>| match result {
            Ok(decision) => tried.and_then(|trial| trial.objects_to(decision)),
            Err(failure) => failure.fault(),
        };
        let (result, cost) = Lease::measure_repeatable(rules, fault, |rules| inspect(rules, request));
        waiting.end(leased + cost.waited);
        let took = leased + cost.took;
        self.metrics.called(took);
        (result, took)
    }

    fn ask_last_good(&self, request: &Inspected<'_>, case: &Case<'_>) -> (Result<Decision, Action>, Option<String>) {
        let rules = self.fallback.as_ref().map(HotSlot::load);
        let version = rules.as_ref().and_then(|rules| Lease::version(rules).map(ToString::to_string));
        let decision = rules.as_ref().and_then(|rules| {
            inspect(&**rules, request).ok().map(|decision| self.soften(decision, rules, request, case, None))
        });
        (decision.ok_or(Action::Unavailable), version)
    }

    /// What a decision comes to where its rule is mild. It may stand in front of another one, so the rules are asked again: all
    /// but the mild ones about the whole request, and all of them about what is left without the part that it is about.
    ///
    /// A version that is tried has mild rules of its own: none of another version has a say in what it says.
    fn soften(
        &self,
        decision: Decision,
        rules: &Lease<dyn Waf>,
        request: &Inspected<'_>,
        case: &Case<'_>,
        tried: Option<&Trial>,
    ) -> Decision {
        let policy = case.policy;
        let mildness = |decision: &Decision| match &decision.reason {
            Some(reason) if decision.verdict != Verdict::Allow => {
                policy.mildness(request.subject(), &reason.rule, &reason.part)
            }
            _ => Mildness::None,
        };
        let first = mildness(&decision);
        if first == Mildness::None {
            return decision;
        }
        let ask = |mild: &MildRules| (inspect(&*mild.slot.load(), request), mild.left_out.clone());
        let asked = match tried {
            Some(trial) => trial.ask_mild(ask),
            None => self.mild.read().as_ref().map(ask),
        };
        let Some((Ok(others), left_out)) = asked else { return decision };
        let mut mildest = match first {
            Mildness::Logged => Decision { verdict: Verdict::Log, ..decision.clone() },
            _ => NOTHING,
        };
        let mut rest =
            Rest { target: request.target.clone(), headers: request.headers.clone(), body: request.body.to_vec() };
        let mut seen = decision.clone();
        let mut gone = Vec::new();
        for _ in 0..MILD_PARTS {
            let part = seen.reason.as_ref().map(|reason| reason.part.clone()).unwrap_or_default();
            if !rest.remove(&part) {
                // What the mild rules find elsewhere stays hidden, so they have to be mild in all parts of this request. Those of
                // other modules hide nothing here.
                let all_mild = left_out.iter().all(|rule| policy.is_mild_throughout(request.subject(), rule));
                return if all_mild { stronger(mildest, others) } else { decision };
            }
            if part.starts_with("header:") {
                gone.push(part);
            }
            let left = Inspected { target: &rest.target, headers: &rest.headers, body: &rest.body, ..*request };
            seen = match inspect(&**rules, &left) {
                // A header is there no more: what is said of that is our own doing.
                Ok(Decision { reason: Some(reason), .. }) if gone.contains(&reason.part) => NOTHING,
                Ok(seen) => seen,
                Err(failure) => {
                    self.remember(rules, &failure, case.id);
                    return decision;
                }
            };
            match mildness(&seen) {
                Mildness::None => return stronger(stronger(mildest, others), seen),
                Mildness::Logged => mildest = stronger(mildest, Decision { verdict: Verdict::Log, ..seen.clone() }),
                Mildness::Excepted => {}
            }
        }
        decision
    }

    /// Returns the trial that is under way.
    fn trial(&self) -> Option<Arc<Trial>> {
        self.is_trying.load(Ordering::Acquire).then(|| self.trial.read().clone()).flatten()
    }

    /// Returns the trial that is under way, or was the last one.
    pub fn last_trial(&self) -> Option<Arc<Trial>> {
        self.trial.read().clone()
    }

    /// Has requests take part in a trial.
    pub fn set_trial(&self, trial: Arc<Trial>) {
        *self.trial.write() = Some(trial);
        self.is_trying.store(true, Ordering::Release);
    }

    /// Has them take part in none.
    pub fn clear_trial(&self) {
        self.is_trying.store(false, Ordering::Release);
    }

    /// Has the rules without the mild ones run like this, or not at all.
    pub fn set_mild(&self, mild: Option<MildRules>) {
        *self.mild.write() = mild;
    }

    fn remember(&self, rules: &Lease<dyn Waf>, failure: &Failure, id: &HeaderValue) {
        self.metrics.failed(failure.kind());
        let error = RuleError {
            timestamp: moment(SystemTime::now()),
            module: self.name.to_string(),
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
    pub(super) fn uninspected(&self) -> Option<Uninspected> {
        *self.uninspected.read()
    }

    /// Returns the module's name, for what outlives this borrow.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
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

    /// Returns the node's traffic.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub fn metrics(&self) -> &ModuleMetrics {
        &self.metrics
    }

    /// Has the metrics say how the module is now.
    pub fn note_state(&self, engine: &Engine) {
        let status = self.slot.status();
        let generation = status.serving.map_or(0, |serving| serving.generation);
        self.metrics.is_now(Now {
            generation,
            retired: status.retired.len(),
            instances: engine.instances(),
            snapshot_size: engine.snapshot_size(&status.slot, generation).unwrap_or_default(),
        });
        if let Some(trial) = self.last_trial() {
            self.metrics.tried(&trial.measured());
        }
    }

    /// Notes the calls of what serves. The library forgets them when something else does.
    pub fn take_tally(&self) {
        let Some(serving) = self.slot.status().serving else { return };
        let mut tallies = self.tallies.lock();
        tallies.values_mut().for_each(|tally| tally.on_probation = false);
        if tallies.len() == TALLIES && !tallies.contains_key(&serving.generation) {
            tallies.pop_first();
        }
        tallies.insert(serving.generation, Tally::of(&self.name, serving));
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
