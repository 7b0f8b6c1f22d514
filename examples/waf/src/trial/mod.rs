//! A version that is tried on traffic before it serves: in the shadow of the serving one, or as a canary for a share of the
//! clients.
//!
//! This is the trial itself, as requests and readers meet it. What starts and ends one is in [`deploy`](crate::deploy).

mod change;
mod mask;
mod plan;
mod progress;
mod seen;
mod sticky;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use hotslot::{BoxError, CallStats, Canary, Digest, HotSlot, Lease, Shadow, Staged};
use parking_lot::RwLock;
use waf_interface::{Decision, Verdict, Waf};

pub use self::plan::{FIELDS, Mode, Plan, Terms, Wish, read_share};
use self::progress::Progress;
pub use self::progress::{Outcome, Turn};
use self::seen::{Said, Seen};
pub use self::sticky::{Key, Sticky};
use self::view::Numbers;
pub use self::view::{Measured, View};
use crate::guard::MildRules;
use crate::release::Release;
use crate::rules::{Failure, Inspected};

/// How many requests wait for a shadow. Each has at most the part of a body that is inspected.
const WAITING: usize = 128;
/// How many kinds of difference are told apart.
const KINDS: usize = 64;
/// The four verdicts, and none.
const VERDICTS: usize = Verdict::ALL.len() + 1;

/// A version that is tried, or was.
pub struct Trial {
    about: About,
    plan: Plan,
    /// What it is tried with, until it ends.
    tried: RwLock<Option<Tried>>,
    /// The tried version without the rules that are mild somewhere.
    mild: RwLock<Option<MildRules>>,
    progress: Progress,
    /// What clients were told by the serving version, and by the tried one.
    told: [[AtomicU64; VERDICTS]; 2],
}

/// What is tried, and beside what.
#[derive(Clone)]
pub struct About {
    pub module: Arc<str>,
    pub release: Release,
    pub version: Option<String>,
    pub generation: u64,
    /// What served when it began.
    pub base: u64,
    pub base_version: Option<String>,
    pub base_digest: Digest,
    pub base_rules: Option<Digest>,
    pub started: SystemTime,
    /// How long it took to load and prove it.
    pub staging: Duration,
}

/// A version that is loaded, and called.
pub enum Tried {
    Shadow(Shadow<dyn Waf, Seen, Said>),
    Canary(Canary<dyn Waf>),
}

impl Tried {
    /// Begins to try a staged version.
    pub fn begin(slot: &HotSlot<dyn Waf>, staged: Staged<dyn Waf>, plan: &Plan) -> Result<Tried, hotslot::Error> {
        match plan.mode {
            Mode::Shadow => slot
                .shadow(staged, plan.first_share())
                .queue(WAITING)
                .samples(KINDS)
                .start(|rules, seen: &Seen| seen.ask(rules), |_, serving, tried| change::between(serving, tried))
                .map(Tried::Shadow),
            Mode::Canary => staged.serve_share(plan.first_share()).map(Tried::Canary),
        }
    }

    pub fn generation(&self) -> u64 {
        match self {
            Tried::Shadow(shadow) => shadow.generation_number(),
            Tried::Canary(canary) => canary.generation_number(),
        }
    }

    fn calls(&self) -> &CallStats {
        match self {
            Tried::Shadow(shadow) => shadow.calls(),
            Tried::Canary(canary) => canary.calls(),
        }
    }

    /// Makes it serve everybody.
    pub fn promote(self) -> Result<hotslot::Report, hotslot::Error> {
        match self {
            Tried::Shadow(shadow) => shadow.promote(),
            Tried::Canary(canary) => canary.promote(),
        }
    }
}

impl Trial {
    pub fn new(about: About, plan: Plan, tried: Tried, mild: Option<MildRules>) -> Trial {
        let progress = Progress::new(plan.first_share());
        Trial {
            about,
            plan,
            tried: RwLock::new(Some(tried)),
            mild: RwLock::new(mild),
            progress,
            told: Default::default(),
        }
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub fn is_under_way(&self) -> bool {
        self.progress.ended().is_none()
    }

    /// Takes a lease on the version that judges a request: always the same one for a client.
    pub fn lease(&self, slot: &HotSlot<dyn Waf>, key: &Key) -> Lease<dyn Waf> {
        match self.plan.mode {
            Mode::Canary => slot.load_for(key.bytes()),
            Mode::Shadow => slot.load(),
        }
    }

    /// Returns whether a lease is on the version that is tried.
    pub fn is_on(&self, rules: &Lease<dyn Waf>) -> bool {
        Lease::generation(rules) == self.about.generation
    }

    /// Returns what speaks against the tried version when it decides like this on a request that the serving one can be asked
    /// about, too.
    pub fn objects_to(&self, decision: &Decision) -> Option<String> {
        let refuses = matches!(decision.verdict, Verdict::Block | Verdict::Challenge);
        (self.plan.refusals_count && refuses).then(|| {
            let rule = decision.reason.as_ref().map(|reason| reason.rule.as_str()).unwrap_or_default();
            format!("{} by {rule}, where the serving version lets it through", decision.verdict.name())
        })
    }

    /// Takes note of what a version said of a request.
    pub fn saw(&self, request: &Inspected<'_>, result: &Result<Decision, Failure>, by_tried: bool) {
        let verdict = result.as_ref().map_or(VERDICTS - 1, |decision| decision.verdict as usize);
        self.told[usize::from(by_tried)][verdict].fetch_add(1, Relaxed);
        if self.plan.mode == Mode::Canary || self.progress.is_paused() {
            return;
        }
        if let Some(Tried::Shadow(shadow)) = &*self.tried.read() {
            shadow.offer_with(|| (Seen::of(request), Said::of(result)));
        }
    }

    /// Asks the tried version without the mild rules, and says which those are.
    pub fn ask_mild<R>(&self, ask: impl FnOnce(&MildRules) -> R) -> Option<R> {
        self.mild.read().as_ref().map(ask)
    }

    /// Has it run like this where rules are mild.
    pub fn set_mild(&self, mild: Option<MildRules>) {
        let before = std::mem::replace(&mut *self.mild.write(), mild);
        drop(before);
    }

    /// Serves it to another share of the clients.
    pub fn set_share(&self, share: f64) -> Result<(), BoxError> {
        match &*self.tried.read() {
            Some(Tried::Canary(canary)) => {
                canary.set_share(share)?;
                self.progress.stepped(share, seen_by(canary.calls()));
                Ok(())
            }
            Some(Tried::Shadow(_)) => {
                Err("the share of a shadow stays as it began: abort it, and start another one".into())
            }
            None => Err("the trial has ended".into()),
        }
    }

    /// Returns what the probation policy says against it, if it does.
    pub fn objection(&self) -> Option<String> {
        match &*self.tried.read() {
            Some(Tried::Canary(canary)) => canary.objection(),
            _ => None,
        }
    }

    /// Returns what is to be done now.
    pub fn turn(&self) -> Turn {
        let tried = self.tried.read();
        match &*tried {
            Some(Tried::Canary(canary)) if self.plan.auto => self.progress.turn(&self.plan, seen_by(canary.calls())),
            _ => Turn::Wait,
        }
    }

    /// Ends the trial for requests, and gives what was tried, to whoever comes first.
    pub fn take(&self) -> Option<Tried> {
        let mut tried = self.tried.write();
        if let Some(tried) = &*tried {
            self.progress.keep(Numbers::with_differences(tried));
        }
        tried.take()
    }

    /// Says what came of it.
    pub fn end(&self, outcome: Outcome, reason: String) {
        self.set_mild(None);
        self.progress.end(outcome, reason);
    }

    fn numbers(&self, of: fn(&Tried) -> Numbers) -> Numbers {
        let tried = self.tried.read();
        tried.as_ref().map_or_else(|| self.progress.kept(), of)
    }

    fn told(&self, by_tried: bool) -> [u64; VERDICTS] {
        self.told[usize::from(by_tried)].each_ref().map(|count| count.load(Relaxed))
    }
}

/// How many calls were looked at, those that no version can bear included.
fn seen_by(calls: &CallStats) -> u64 {
    calls.calls() + calls.excused()
}
