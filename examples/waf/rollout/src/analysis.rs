//! Whether the nodes of a wave do as well as the rest.

use std::collections::BTreeMap;

use crate::{Analysis, NodeId, ReleaseId, Report};

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
    /// neither, and counts of different boots have no difference.
    pub(crate) fn add(&mut self, report: &Report) {
        let last = self.last.insert(report.node.clone(), report.clone());
        let Some(last) = last.filter(|last| last.boot == report.boot && last.serving == report.serving) else { return };
        let Some(release) = report.serving else { return };
        let (before, now) = (last.traffic, report.traffic);
        for tallies in [&mut self.since_start, &mut self.since_wave] {
            let tally = tallies.entry(release).or_default();
            tally.calls = tally.calls.saturating_add(now.calls.saturating_sub(before.calls));
            tally.errors = tally.errors.saturating_add(now.errors.saturating_sub(before.errors));
            tally.blocked = tally.blocked.saturating_add(now.blocked.saturating_sub(before.blocked));
        }
    }

    /// Compares what serves `target` with what serves `stable`. If nobody is left with `stable`, what was served with it
    /// since the rollout began stands for it; if there is nothing at all, a release without errors does.
    pub(crate) fn compare(&self, target: ReleaseId, stable: Option<ReleaseId>, limits: &Analysis) -> Comparison {
        let wave = self.since_wave.get(&target).copied().unwrap_or_default();
        if wave.calls < limits.min_calls {
            return Comparison::TooFewCalls;
        }
        let enough = |tally: &&Tally| tally.calls >= limits.min_calls.max(1);
        let rest = stable.filter(|stable| *stable != target).and_then(|stable| {
            self.since_wave.get(&stable).filter(enough).or_else(|| self.since_start.get(&stable).filter(enough))
        });
        let normal = rest.map_or(0.0, Tally::errors_per_mille);
        if wave.errors_per_mille() - normal > f64::from(limits.max_error_increase_per_mille) {
            return Comparison::Worse(Finding::Errors);
        }
        let shift = rest.map_or(0.0, |rest| (wave.blocked_per_mille() - rest.blocked_per_mille()).abs());
        if shift > f64::from(limits.max_blocked_shift_per_mille) {
            return Comparison::Worse(Finding::Verdicts);
        }
        match (self.p99(target), stable.and_then(|stable| self.p99(stable))) {
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
    fn p99(&self, release: ReleaseId) -> Option<u64> {
        let serving = self.last.values().filter(|report| report.serving == Some(release) && report.traffic.calls > 0);
        let mut values: Vec<u64> = serving.map(|report| report.traffic.p99_us).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    }
}
