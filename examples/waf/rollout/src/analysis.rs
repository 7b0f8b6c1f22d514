//! Whether the nodes of a wave do as well as the rest.

use std::collections::BTreeMap;

use crate::{Desired, NodeId, ReleaseId, Report};

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// There were too few calls to know.
    TooFewCalls,
    /// The wave does as well as the rest, within the limits.
    AsGood,
    /// It does worse.
    Worse(Finding),
}

/// In what a wave does worse than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// More calls fail.
    Errors,
    /// Calls take longer.
    Latency,
    /// Other requests are blocked.
    Verdicts,
}

/// Counts what was served with which release, from the differences between a node's reports.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    last: BTreeMap<NodeId, Report>,
    /// Since the rollout began.
    since_start: BTreeMap<ReleaseId, Tally>,
    /// Since the wave opened.
    since_wave: BTreeMap<ReleaseId, Tally>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    calls: u64,
    errors: u64,
    blocked: u64,
}

impl Tally {
    /// Adds up what was served with any of these releases.
    fn of(tallies: &BTreeMap<ReleaseId, Tally>, releases: &[ReleaseId]) -> Tally {
        let found = tallies.iter().filter(|(release, _)| releases.contains(release));
        found.fold(Tally::default(), |sum, (_, tally)| sum.plus(*tally))
    }

    fn plus(self, other: Tally) -> Tally {
        Tally {
            calls: self.calls.saturating_add(other.calls),
            errors: self.errors.saturating_add(other.errors),
            blocked: self.blocked.saturating_add(other.blocked),
        }
    }

    fn errors_per_mille(&self) -> f64 {
        per_mille(self.errors, self.calls)
    }

    fn blocked_per_mille(&self) -> f64 {
        per_mille(self.blocked, self.calls)
    }
}

fn per_mille(part: u64, whole: u64) -> f64 {
    1000.0 * part as f64 / whole.max(1) as f64
}

impl Ledger {
    pub(crate) fn rollout_began(&mut self) {
        self.since_start.clear();
        self.since_wave.clear();
    }

    pub(crate) fn wave_opened(&mut self) {
        self.since_wave.clear();
    }

    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.last.remove(node);
    }

    /// Adds what `report` says beyond the last one of this node. What was served while the release changed belongs to
    /// neither, and counts of different boots have no difference. Nodes that `document` is not for are not counted: they may
    /// serve the same release to other visitors.
    pub(crate) fn add(&mut self, report: &Report, document: Option<&Desired>) {
        let last = self.last.insert(report.node.clone(), report.clone());
        let Some(last) = last.filter(|last| last.boot == report.boot && last.serving == report.serving) else { return };
        let Some(release) = report.serving else { return };
        if document.is_some_and(|document| document.target_for(&report.labels).is_none()) {
            return;
        }
        let (before, now) = (last.traffic, report.traffic);
        for tallies in [&mut self.since_start, &mut self.since_wave] {
            let tally = tallies.entry(release).or_default();
            *tally = tally.plus(Tally {
                calls: now.calls.saturating_sub(before.calls),
                errors: now.errors.saturating_sub(before.errors),
                blocked: now.blocked.saturating_sub(before.blocked),
            });
        }
    }

    /// Compares what serves the target of `document` with what serves its stable release, on the nodes that it is for. If nobody
    /// is left with the stable release, what was served with it since the rollout began stands for it; if there is nothing at
    /// all, a release without errors does. Where each group has its own target, they are compared all together.
    pub(crate) fn compare(&self, document: &Desired) -> Comparison {
        let limits = &document.plan.analysis;
        let (targets, mut stables) = (document.targets(), document.stables());
        stables.retain(|stable| !targets.contains(stable));
        let wave = Tally::of(&self.since_wave, &targets);
        if wave.calls < limits.min_calls {
            return Comparison::TooFewCalls;
        }
        let rest = [&self.since_wave, &self.since_start].map(|tallies| Tally::of(tallies, &stables));
        let rest = rest.iter().find(|tally| tally.calls >= limits.min_calls.max(1));
        let normal = rest.map_or(0.0, Tally::errors_per_mille);
        if wave.errors_per_mille() - normal > f64::from(limits.max_error_increase_per_mille) {
            return Comparison::Worse(Finding::Errors);
        }
        let shift = rest.map_or(0.0, |rest| (wave.blocked_per_mille() - rest.blocked_per_mille()).abs());
        if shift > f64::from(limits.max_blocked_shift_per_mille) {
            return Comparison::Worse(Finding::Verdicts);
        }
        match (self.p99(document, &targets), self.p99(document, &stables)) {
            (Some(wave), Some(rest))
                if wave.saturating_sub(rest) > limits.p99_tolerance_us
                    && u128::from(wave) * 100 > u128::from(rest) * u128::from(limits.max_p99_percent) =>
            {
                Comparison::Worse(Finding::Latency)
            }
            _ => Comparison::AsGood,
        }
    }

    /// Returns the median of the nodes' 99th percentiles: one node on a slow machine is not the release's fault.
    fn p99(&self, document: &Desired, releases: &[ReleaseId]) -> Option<u64> {
        let serves = |report: &&Report| {
            report.serving.is_some_and(|release| releases.contains(&release))
                && report.traffic.calls > 0
                && document.target_for(&report.labels).is_some()
        };
        let mut values: Vec<u64> = self.last.values().filter(serves).map(|report| report.traffic.p99_us).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    }
}
