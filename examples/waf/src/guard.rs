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
use crate::policy::{Mildness, Mode, Policy, Treatment};
use crate::rate::TooMany;
use crate::readable::Unread;
use crate::rules::{Failure, Inspected, inspect};
use crate::without::Rest;

/// How many errors are remembered.
const ERRORS: usize = 256;
/// How many generations' calls are remembered.
const TALLIES: usize = 64;
/// How many parts of a request can be excepted from rules that match there.
const MILD_PARTS: usize = 8;

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pass,
    Block,
    Challenge,
    /// There is no verdict, and the failure policy does not let it through.
    Unavailable,
}

/// What was said of a request, and what becomes of it.
#[derive(Clone)]
pub struct Judgement {
    pub action: Action,
    /// `None` if there is none.
    pub verdict: Option<Verdict>,
    /// The rule that gave it, if it is not to let the request through.
    pub rule: Option<String>,
    /// The version of the rules.
    pub version: Option<String>,
    /// Whether the action is what the verdict asks for.
    pub enforced: bool,
}

pub struct Guard {
    slot: HotSlot<dyn Waf>,
    /// Runs the last version that went through its probation, if the failure policy wants it.
    fallback: Option<HotSlot<dyn Waf>>,
    /// Runs what serves without the rules that are mild somewhere: what it says of a request stands wherever they do not.
    mild: RwLock<Option<HotSlot<dyn Waf>>>,
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

/// Nothing was found.
const NOTHING: Decision = Decision { verdict: Verdict::Allow, reason: None };

/// A decision of the node's own, to block.
fn own(rule: &str, part: &str, matched: &str) -> Decision {
    let [rule, part, matched] = [rule, part, matched].map(str::to_owned);
    Decision { verdict: Verdict::Block, reason: Some(Reason { rule, part, matched, score: 0 }) }
}

/// What a request is judged under.
struct Case<'a> {
    policy: &'a Policy,
    mode: Mode,
    id: &'a HeaderValue,
}

impl Case<'_> {
    /// What is really done, and whether it is what was asked for.
    fn done(&self, action: Action) -> (Action, bool) {
        match self.mode {
            Mode::Enforce => (action, true),
            Mode::Detect => (Action::Pass, action == Action::Pass),
        }
    }

    fn without_verdict(&self, action: Action, version: Option<String>) -> Judgement {
        let (action, enforced) = self.done(action);
        Judgement { action, verdict: None, rule: None, version, enforced }
    }
}

/// The stronger one of two decisions.
fn stronger(one: Decision, other: Decision) -> Decision {
    if other.verdict > one.verdict { other } else { one }
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
            mild: RwLock::default(),
            policy: RwLock::new(policy),
            uninspected: RwLock::default(),
            holds: Holds::default(),
            traffic: Traffic::default(),
            metrics,
            errors: Mutex::default(),
            tallies: Mutex::default(),
        }
    }

    /// Asks the rules about a request, and says what becomes of it under a policy. What of it the rules do not get to see is
    /// decided by what the request says about that, if they do not say more.
    pub fn inspect(
        &self,
        request: &Inspected<'_>,
        unread: Option<Unread>,
        policy: &Policy,
        id: &HeaderValue,
    ) -> Judgement {
        let treatment = policy.treatment(request.subject());
        let mode = match treatment {
            Treatment::Verdicts(mode) | Treatment::Denied(mode) => mode,
            Treatment::Unseen => Mode::Enforce,
        };
        let case = Case { policy, mode, id };
        if treatment == Treatment::Unseen {
            return self.act(NOTHING, None, &case);
        }
        if matches!(treatment, Treatment::Denied(_)) {
            return self.act(own("denied", "client", &request.client.to_string()), None, &case);
        }
        let Some(unread) = unread else { return self.inspect_all(request, &case) };
        let verdict = request.if_unread;
        let text = |text: &str| text.to_owned();
        let reason = Reason { rule: text("uninspected"), part: text("body"), matched: text(unread.name()), score: 0 };
        let own = Decision { verdict, reason: Some(reason) };
        let own = match policy.mildness(request.subject(), "uninspected", "body") {
            Mildness::None => self.act(own, None, &case),
            Mildness::Logged => self.act(Decision { verdict: Verdict::Log, ..own }, None, &case),
            Mildness::Excepted => self.act(NOTHING, None, &case),
        };
        if own.action == Action::Block {
            return own;
        }
        match self.inspect_all(request, &case) {
            Judgement { action: Action::Pass, .. } => own,
            other => other,
        }
    }

    fn inspect_all(&self, request: &Inspected<'_>, case: &Case<'_>) -> Judgement {
        let waiting = self.holds.ask();
        let rules = self.slot.load();
        let version = Lease::version(&rules).map(ToString::to_string);
        match self.ask(&rules, request, waiting) {
            Ok(decision) => {
                let decision = self.soften(decision, &rules, request, case);
                self.act(decision, version, case)
            }
            Err(failure) => {
                self.remember(&rules, &failure, case.id);
                match *self.policy.read() {
                    FailurePolicy::Closed => case.without_verdict(Action::Unavailable, version),
                    FailurePolicy::Open => case.without_verdict(Action::Pass, version),
                    FailurePolicy::LastGood => self.ask_last_good(request, case),
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

    fn ask_last_good(&self, request: &Inspected<'_>, case: &Case<'_>) -> Judgement {
        let rules = self.fallback.as_ref().map(HotSlot::load);
        let version = rules.as_ref().and_then(|rules| Lease::version(rules).map(ToString::to_string));
        let decision = rules.as_ref().and_then(|rules| {
            inspect(&**rules, request).ok().map(|decision| self.soften(decision, rules, request, case))
        });
        match decision {
            Some(decision) => self.act(decision, version, case),
            None => case.without_verdict(Action::Unavailable, version),
        }
    }

    /// What a decision comes to where its rule is mild. It may stand in front of another one, so the rules are asked again: all
    /// but the mild ones about the whole request, and all of them about what is left without the part that it is about.
    fn soften(&self, decision: Decision, rules: &Lease<dyn Waf>, request: &Inspected<'_>, case: &Case<'_>) -> Decision {
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
        let others = self.mild.read().as_ref().map(|mild| inspect(&*mild.load(), request));
        let Some(Ok(others)) = others else { return decision };
        let mut mildest = match first {
            Mildness::Logged => Decision { verdict: Verdict::Log, ..decision.clone() },
            _ => NOTHING,
        };
        let mut rest =
            Rest { target: request.target.clone(), headers: request.headers.clone(), body: request.body.to_vec() };
        let mut seen = decision.clone();
        for _ in 0..MILD_PARTS {
            let part = seen.reason.as_ref().map(|reason| reason.part.clone()).unwrap_or_default();
            if !rest.remove(&part) {
                // What the mild rules find elsewhere stays hidden, so they have to be mild in all parts of this request.
                let all = policy.mild_rules();
                let all_mild = all.iter().all(|rule| policy.is_mild_throughout(request.subject(), rule));
                return if all_mild { stronger(mildest, others) } else { decision };
            }
            let left = Inspected { target: &rest.target, headers: &rest.headers, body: &rest.body, ..*request };
            seen = match inspect(&**rules, &left) {
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

    /// Has the rules without the mild ones run in this slot, or in none.
    pub fn set_mild(&self, mild: Option<HotSlot<dyn Waf>>) {
        *self.mild.write() = mild;
    }

    fn act(&self, Decision { verdict, reason }: Decision, version: Option<String>, case: &Case<'_>) -> Judgement {
        let Reason { rule, part, matched, .. } = reason.unwrap_or_default();
        let (action, enforced) = case.done(match verdict {
            Verdict::Allow | Verdict::Log => Action::Pass,
            Verdict::Block => Action::Block,
            Verdict::Challenge => Action::Challenge,
        });
        if action == Action::Block {
            self.traffic.blocked();
        }
        self.metrics.verdict(verdict, (verdict != Verdict::Allow).then_some(&rule), enforced);
        if verdict != Verdict::Allow {
            tracing::info!(target: "waf::decision", request = case.id.to_str().unwrap_or_default(), verdict = verdict.name(), enforced, rule, part, matched);
        }
        let rule = (verdict != Verdict::Allow).then_some(rule);
        Judgement { action, verdict: Some(verdict), rule, version, enforced }
    }

    /// Counts a request that is one too many. Returns whether it is refused: what is only watched is not.
    pub fn limited(&self, too_many: &TooMany, treatment: Treatment, id: &HeaderValue) -> bool {
        let enforced = !matches!(treatment, Treatment::Verdicts(Mode::Detect) | Treatment::Denied(Mode::Detect));
        self.metrics.limited(&too_many.limit);
        let request = id.to_str().unwrap_or_default();
        tracing::info!(target: "waf::decision", request, verdict = "limit", enforced, rule = too_many.limit);
        enforced
    }

    /// Counts an answer.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.traffic.answered(status, took);
        self.metrics.answered(status, took);
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
