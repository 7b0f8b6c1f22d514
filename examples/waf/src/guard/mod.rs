//! The guard: asks the modules about every request, one after another, and decides what happens where they give no verdict.
//!
//! The first module that has a request refused ends the run. What only looks like that does not: a verdict that is not enforced,
//! one that is only logged, a challenge that the client has been through, and a module without a verdict that the failure policy
//! lets through all leave the next module its say. The strongest of what they said is what the request is counted as.

mod module;

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use waf_interface::{Decision, Reason, Verdict};

pub use self::module::{MildRules, ModuleGuard, ModuleParts, RuleError, Tally};
use crate::chain::Chain;
use crate::config::Uninspected;
use crate::live::Traffic;
use crate::metrics::Metrics;
use crate::policy::{Mildness, Mode, Policy, Treatment};
use crate::rate::TooMany;
use crate::readable::Unread;
use crate::rules::Inspected;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The module that said so, if it is not to let the request through; `None` if it was the node.
    pub module: Option<Arc<str>>,
    /// The rule that gave it, if it is not to let the request through.
    pub rule: Option<String>,
    /// The version of the module.
    pub version: Option<String>,
    /// Whether the action is what the verdict asks for.
    pub enforced: bool,
    /// Whether a version that is being tried said so.
    pub tried: bool,
}

impl Judgement {
    /// Returns whether no other module is asked.
    fn ends_the_run(&self, passed_challenge: bool) -> bool {
        match self.action {
            Action::Pass => false,
            Action::Challenge => !passed_challenge,
            Action::Block | Action::Unavailable => true,
        }
    }

    /// How much there is to tell of it.
    fn weight(&self) -> u8 {
        match self.verdict {
            Some(Verdict::Allow) => 0,
            None => 1,
            Some(Verdict::Log) => 2,
            Some(Verdict::Challenge) => 3,
            Some(Verdict::Block) => 4,
        }
    }
}

pub struct Guard {
    modules: Chain<ModuleGuard>,
    traffic: Arc<Traffic>,
    metrics: Arc<Metrics>,
}

/// Nothing was found.
const NOTHING: Decision = Decision { verdict: Verdict::Allow, reason: None };

/// A decision of the node's own, to block.
fn own(rule: &str, part: &str, matched: &str) -> Decision {
    let [rule, part, matched] = [rule, part, matched].map(str::to_owned);
    Decision { verdict: Verdict::Block, reason: Some(Reason { rule, part, matched, score: 0 }) }
}

/// How a request is judged.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    pub policy: &'a Policy,
    pub id: &'a HeaderValue,
    /// Whether its client has been through the challenge.
    pub passed_challenge: bool,
}

/// What a request is judged under.
struct Case<'a> {
    policy: &'a Policy,
    mode: Mode,
    id: &'a HeaderValue,
    passed_challenge: bool,
}

/// The stronger one of two decisions.
fn stronger(one: Decision, other: Decision) -> Decision {
    if other.verdict > one.verdict { other } else { one }
}

/// What is really done, and whether it is what was asked for.
fn done(mode: Mode, action: Action) -> (Action, bool) {
    match mode {
        Mode::Enforce => (action, true),
        Mode::Detect => (Action::Pass, action == Action::Pass),
    }
}

impl Guard {
    /// Guards requests with modules, in their order.
    pub fn new(modules: Chain<ModuleGuard>, traffic: Arc<Traffic>, metrics: Arc<Metrics>) -> Guard {
        Guard { modules, traffic, metrics }
    }

    /// Asks the modules about a request, and says what becomes of it. What of it they do not get to see is decided by what the
    /// request says about that, if they do not say more.
    pub fn inspect(&self, request: &Inspected<'_>, unread: Option<Unread>, terms: Terms<'_>) -> Judgement {
        let Terms { policy, id, passed_challenge } = terms;
        let treatment = policy.treatment(request.subject());
        let mode = match treatment {
            Treatment::Verdicts(mode) | Treatment::Denied(mode) => mode,
            Treatment::Unseen => Mode::Enforce,
        };
        let case = Case { policy, mode, id, passed_challenge };
        if treatment == Treatment::Unseen {
            return self.decide(NOTHING, &case);
        }
        if matches!(treatment, Treatment::Denied(_)) {
            return self.decide(own("denied", "client", &request.client.to_string()), &case);
        }
        let Some(unread) = unread else { return self.run(request, &case) };
        let verdict = request.if_unread;
        let text = |text: &str| text.to_owned();
        let reason = Reason { rule: text("uninspected"), part: text("body"), matched: text(unread.name()), score: 0 };
        let own = Decision { verdict, reason: Some(reason) };
        let own = match policy.mildness(request.subject(), "uninspected", "body") {
            Mildness::None => self.decide(own, &case),
            Mildness::Logged => self.decide(Decision { verdict: Verdict::Log, ..own }, &case),
            Mildness::Excepted => self.decide(NOTHING, &case),
        };
        if own.action == Action::Block {
            return own;
        }
        match self.run(request, &case) {
            Judgement { action: Action::Pass, .. } => own,
            other => other,
        }
    }

    /// Asks one module after another.
    fn run(&self, request: &Inspected<'_>, case: &Case<'_>) -> Judgement {
        let (mut took, mut failed) = (Duration::ZERO, false);
        let mut strongest: Option<Judgement> = None;
        for module in self.modules.iter() {
            let answer = module.ask(request, case);
            took += answer.took;
            failed |= answer.failed;
            let mode = if module.mode() == Mode::Detect { Mode::Detect } else { case.mode };
            let mut judgement = match answer.said {
                Ok(decision) => {
                    module.metrics().verdict(decision.verdict);
                    self.judge(decision, Some(module), answer.version, mode, case.id)
                }
                Err(action) => {
                    let (action, enforced) = done(mode, action);
                    let module = Some(module.shared_name());
                    Judgement {
                        action,
                        verdict: None,
                        module,
                        rule: None,
                        version: answer.version,
                        enforced,
                        tried: false,
                    }
                }
            };
            judgement.tried = answer.tried;
            if judgement.ends_the_run(case.passed_challenge) {
                strongest = Some(judgement);
                break;
            }
            // Of two that say as much, the earlier one.
            if strongest.as_ref().is_none_or(|strongest| judgement.weight() > strongest.weight()) {
                strongest = Some(judgement);
            }
        }
        self.traffic.called(took, failed);
        self.metrics.called(took);
        self.count(strongest.expect("a node has a module"))
    }

    /// What a decision of the node's own comes to.
    fn decide(&self, decision: Decision, case: &Case<'_>) -> Judgement {
        self.count(self.judge(decision, None, None, case.mode, case.id))
    }

    /// What a decision comes to. It is written down, unless it is to let the request through.
    fn judge(
        &self,
        Decision { verdict, reason }: Decision,
        module: Option<&Arc<ModuleGuard>>,
        version: Option<String>,
        mode: Mode,
        id: &HeaderValue,
    ) -> Judgement {
        let Reason { rule, part, matched, .. } = reason.unwrap_or_default();
        let (action, enforced) = done(
            mode,
            match verdict {
                Verdict::Allow | Verdict::Log => Action::Pass,
                Verdict::Block => Action::Block,
                Verdict::Challenge => Action::Challenge,
            },
        );
        if verdict == Verdict::Allow {
            return Judgement {
                action,
                verdict: Some(verdict),
                module: None,
                rule: None,
                version,
                enforced,
                tried: false,
            };
        }
        self.metrics.matched(&rule);
        let module = module.map(|module| module.shared_name());
        tracing::info!(target: "waf::decision", request = id.to_str().unwrap_or_default(), verdict = verdict.name(), enforced, module = module.as_deref(), rule, part, matched);
        Judgement { action, verdict: Some(verdict), module, rule: Some(rule), version, enforced, tried: false }
    }

    /// Counts what a request came to.
    fn count(&self, judgement: Judgement) -> Judgement {
        if judgement.action == Action::Block {
            self.traffic.blocked();
        }
        if let Some(verdict) = judgement.verdict {
            self.metrics.verdict(verdict, judgement.enforced);
        }
        judgement
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

    /// Ends a second.
    pub fn tick(&self) {
        self.traffic.tick();
        self.modules.iter().for_each(|module| module.take_tally());
    }

    /// Returns what becomes of what cannot be inspected, if that is not for the configuration to say. A fleet says it, and its
    /// nodes have one module.
    pub fn uninspected(&self) -> Option<Uninspected> {
        self.modules.first().uninspected()
    }

    /// Returns the first module that does not serve, if there is one.
    pub fn not_serving(&self) -> Option<&ModuleGuard> {
        self.modules.iter().map(|module| &**module).find(|module| module.slot().status().serving.is_none())
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
