//! How a rollout proceeds: waves, deadlines, limits.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// How a rollout proceeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The waves, in their order. After the last one of them everybody commits, so a plan without waves is one commit.
    pub waves: Vec<WavePlan>,
    /// Whether the rollout pauses when its first wave opens: until somebody promotes it, or resumes it, and then it goes on as
    /// planned. Without waves it does not pause.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub canary_only: bool,
    /// How long everybody has served the target before the rollout is done.
    pub bake: Millis,
    /// How long nodes may take to stage. Then the rollout goes on with those that have, if they are enough, or is aborted.
    pub stage_deadline: Millis,
    /// How long a wave may take beyond its bake time, which begins when all of it serves. Then it is aborted; the last one is done if enough nodes serve.
    pub commit_deadline: Millis,
    /// Aborts the rollout if more of the nodes that it has reached fail, in thousandths. 1000 never aborts.
    pub max_failed_per_mille: u32,
    /// How many of the known nodes must be present for a rollout to go on, in thousandths.
    pub min_present_per_mille: u32,
    /// How the nodes of a wave are compared with the rest.
    pub analysis: Analysis,
}

/// A part of the fleet that changes before the rest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WavePlan {
    /// How many nodes it has, those of the waves before it included. A wave always has at least one node more than the
    /// one before, if there is one left.
    pub size: WaveSize,
    /// How long all of it has served the target before the next one may open.
    pub bake: Millis,
}

/// How many nodes a wave has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveSize {
    /// This many.
    Nodes(u32),
    /// This many of a thousand of the nodes that are present, rounded up.
    PerMille(u32),
}

impl WaveSize {
    /// Returns the number of nodes out of `present`, at least one.
    pub(crate) fn of(self, present: usize) -> usize {
        match self {
            Self::Nodes(nodes) => nodes as usize,
            Self::PerMille(share) => (present * share as usize).div_ceil(1000),
        }
        .max(1)
    }
}

/// When the nodes of a wave do worse than the rest.
///
/// Rates are of the calls since the wave opened, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Analysis {
    /// Below so many calls on the nodes of the wave nothing is known, and no wave opens. 0 asks for no traffic.
    pub min_calls: u64,
    /// By how much their share of failed calls may exceed that of the rest, in thousandths of the calls.
    pub max_error_increase_per_mille: u32,
    /// How many times the rest's 99th percentile theirs may be, in percent.
    pub max_p99_percent: u32,
    /// Increases of the 99th percentile up to this are never held against them, in microseconds.
    pub p99_tolerance_us: u64,
    /// By how much their share of blocked requests may differ from that of the rest, in thousandths of the calls.
    pub max_blocked_shift_per_mille: u32,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            min_calls: 100,
            max_error_increase_per_mille: 10,
            max_p99_percent: 200,
            p99_tolerance_us: 5_000,
            max_blocked_shift_per_mille: 200,
        }
    }
}

impl Analysis {
    /// Compares nothing: a wave only has to serve for its bake time without a failed probation.
    pub const NONE: Self = Self {
        min_calls: 0,
        max_error_increase_per_mille: 1000,
        max_p99_percent: u32::MAX,
        p99_tolerance_us: u64::MAX,
        max_blocked_shift_per_mille: 1000,
    };
}

/// One canary for five minutes, a tenth of the fleet for two, then everybody, and five minutes more.
impl Default for Plan {
    fn default() -> Self {
        const MINUTE: Millis = 60_000;
        Self {
            waves: vec![
                WavePlan { size: WaveSize::Nodes(1), bake: 5 * MINUTE },
                WavePlan { size: WaveSize::PerMille(100), bake: 2 * MINUTE },
            ],
            canary_only: false,
            bake: 5 * MINUTE,
            stage_deadline: 2 * MINUTE,
            commit_deadline: MINUTE,
            max_failed_per_mille: 50,
            min_present_per_mille: 500,
            analysis: Analysis::default(),
        }
    }
}

impl Plan {
    /// Returns the plan for rules from outside: one canary for ten seconds, then everybody.
    pub fn rules() -> Self {
        const SECOND: Millis = 1_000;
        Self {
            waves: vec![WavePlan { size: WaveSize::Nodes(1), bake: 10 * SECOND }],
            bake: 0,
            stage_deadline: 30 * SECOND,
            commit_deadline: 30 * SECOND,
            analysis: Analysis { min_calls: 0, ..Analysis::default() },
            ..Self::default()
        }
    }

    /// Returns the plan of a rollback and of a sync: everybody at once, without a bake time; who cannot does not hold up
    /// the others, for there is nothing better to go back to.
    pub fn at_once() -> Self {
        Self {
            waves: Vec::new(),
            canary_only: false,
            bake: 0,
            stage_deadline: 30_000,
            commit_deadline: 30_000,
            max_failed_per_mille: 1000,
            min_present_per_mille: 0,
            analysis: Analysis::NONE,
        }
    }
}
