//! What there is to see of a trial.

use std::collections::BTreeMap;
use std::time::Duration;

use hotslot::{Digest, ShadowReport, escape_untrusted};
use serde::Serialize;
use waf_interface::Verdict;

use super::change::{self, Change};
use super::mask::Sample;
use super::plan::Mode;
use super::progress::Outcome;
use super::seen::Seen;
use super::{Trial, Tried, VERDICTS, seen_by};
use crate::json::{millis, moment};

/// What was counted of the tried version.
#[derive(Clone, Default, Serialize)]
pub struct Numbers {
    pub calls: u64,
    pub failures: u64,
    /// Calls that failed on the serving version, too.
    pub excused: u64,
    /// Calls that failed while too many others were put to the serving version: they count neither way.
    pub unjudged: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    #[serde(skip)]
    seen: u64,
    /// The requests that a shadow was offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadowed: Option<Shadowed>,
    #[serde(skip)]
    differences: Vec<Difference>,
}

#[derive(Clone, Serialize)]
struct Shadowed {
    offered: u64,
    skipped: u64,
    dropped: u64,
    compared: u64,
    differed: u64,
    /// Those that differed in more ways than are told apart.
    others: u64,
}

/// Requests that the two versions judge differently in one way.
#[derive(Clone, Serialize)]
struct Difference {
    #[serde(flatten)]
    change: Change,
    count: u64,
    sample: Sample,
}

impl Numbers {
    pub(super) fn of(tried: &Tried) -> Numbers {
        Numbers::with(tried, |_| Vec::new())
    }

    /// The same, with the kinds of difference and a sample of each.
    pub(super) fn with_differences(tried: &Tried) -> Numbers {
        Numbers::with(tried, |report| {
            let difference = |found: &hotslot::Difference<_>| Difference {
                change: change::read(&found.what),
                count: found.count,
                sample: Sample::of(&found.sample),
            };
            let mut differences: Vec<_> = report.differences.iter().map(difference).collect();
            differences.sort_by_key(|difference| std::cmp::Reverse(difference.count));
            differences
        })
    }

    fn with(tried: &Tried, differences: impl FnOnce(&ShadowReport<Seen>) -> Vec<Difference>) -> Numbers {
        let calls = tried.calls();
        let quantile = |share| calls.latency_quantile(share).map(millis);
        let report = match tried {
            Tried::Shadow(shadow) => Some(shadow.report()),
            Tried::Canary(_) => None,
        };
        Numbers {
            calls: calls.calls(),
            failures: calls.failed_calls(),
            excused: calls.excused(),
            unjudged: calls.unjudged(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            seen: seen_by(calls),
            shadowed: report.as_ref().map(|report| Shadowed {
                offered: report.offered,
                skipped: report.skipped,
                dropped: report.dropped,
                compared: report.compared,
                differed: report.differed,
                others: report.others,
            }),
            differences: report.as_ref().map(differences).unwrap_or_default(),
        }
    }

    pub(crate) fn differed(&self) -> u64 {
        self.shadowed.as_ref().map_or(0, |shadowed| shadowed.differed)
    }
}

/// A trial, as the API shows it.
#[derive(Serialize)]
pub struct View {
    module: String,
    mode: Mode,
    /// `running`, `paused`, or how it ended.
    state: &'static str,
    /// Why it ended.
    reason: Option<String>,
    version: Option<String>,
    generation: u64,
    digest: String,
    rules_digest: String,
    /// What it is tried beside.
    serving: Beside,
    started_at: String,
    ended_at: Option<String>,
    share: f64,
    /// Whether the steps follow by themselves.
    auto: bool,
    /// The number of its step, the first one being 1.
    step: usize,
    steps: Vec<StepView>,
    step_age_seconds: f64,
    step_calls: u64,
    min_calls_per_step: u64,
    refusals_count: bool,
    #[serde(flatten)]
    numbers: Numbers,
    /// What clients were told since it began, by each of the two versions.
    verdicts: Told,
    differences: Vec<Difference>,
}

#[derive(Serialize)]
struct Beside {
    version: Option<String>,
    generation: u64,
    digest: Digest,
    rules_digest: Option<Digest>,
}

#[derive(Serialize)]
struct StepView {
    share: f64,
    seconds: f64,
}

#[derive(Serialize)]
struct Told {
    serving: BTreeMap<&'static str, u64>,
    tried: BTreeMap<&'static str, u64>,
}

/// What metrics tell of a trial.
pub struct Measured {
    pub share: f64,
    pub calls: u64,
    pub failures: u64,
    pub differences: u64,
}

impl Trial {
    pub fn measured(&self) -> Measured {
        let numbers = self.numbers(Numbers::of);
        let share = if self.is_under_way() { self.progress.now().share } else { 0.0 };
        Measured { share, calls: numbers.calls, failures: numbers.failures, differences: numbers.differed() }
    }

    pub fn view(&self) -> View {
        let about = &self.about;
        let (now, ended) = (self.progress.now(), self.progress.ended());
        let mut numbers = self.numbers(Numbers::with_differences);
        let differences = std::mem::take(&mut numbers.differences);
        let is_over = ended.is_some();
        View {
            module: about.module.to_string(),
            mode: self.plan.mode,
            state: match &ended {
                Some(ended) => ended.outcome.name(),
                None if self.progress.is_paused() => "paused",
                None => "running",
            },
            reason: ended.as_ref().map(|ended| escape_untrusted(&ended.reason).into_owned()),
            version: about.version.clone(),
            generation: about.generation,
            digest: about.release.module.digest().to_string(),
            rules_digest: about.release.rules.digest().to_string(),
            serving: Beside {
                version: about.base_version.clone(),
                generation: about.base,
                digest: about.base_digest,
                rules_digest: about.base_rules,
            },
            started_at: moment(about.started),
            ended_at: ended.as_ref().map(|ended| moment(ended.at)),
            share: match ended.as_ref().map(|ended| ended.outcome) {
                None => now.share,
                Some(Outcome::Promoted) => 1.0,
                Some(_) => 0.0,
            },
            auto: self.plan.auto,
            step: self.plan.steps.iter().filter(|step| step.share <= now.share).count().max(1),
            steps: self
                .plan
                .steps
                .iter()
                .map(|step| StepView { share: step.share, seconds: step.time.as_secs_f64() })
                .collect(),
            step_age_seconds: if is_over { Duration::ZERO } else { now.age }.as_secs_f64(),
            step_calls: numbers.seen.saturating_sub(now.calls_before),
            min_calls_per_step: self.plan.min_calls,
            refusals_count: self.plan.refusals_count,
            numbers,
            verdicts: Told { serving: named(self.told(false)), tried: named(self.told(true)) },
            differences,
        }
    }
}

fn named(counts: [u64; VERDICTS]) -> BTreeMap<&'static str, u64> {
    Verdict::ALL.map(Verdict::name).into_iter().chain(["none"]).zip(counts).collect()
}
