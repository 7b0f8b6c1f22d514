//! What became of an attempt to change the serving plugin: what `reload` returns, what the history keeps.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use semver::Version;

use crate::Digest;

/// A stage of the reload pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Stage {
    /// The caller's bytes are copied.
    Copy,
    /// It waits for its turn.
    Queue,
    /// Bytes and configuration are hashed.
    Hash,
    /// The slot checks whether there may be a transition now.
    Gate,
    /// The artifact is checked. No plugin code runs.
    Admit,
    /// The backend makes it a live plugin.
    Load,
    /// The user's hook tries the new plugin.
    Probe,
    /// It waits for its commit, if that is asked for separately, or for the plugin that runs to stop.
    Staged,
    /// State goes from the old plugin to the new one.
    HandOver,
    /// The new plugin becomes current.
    Commit,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Copy => "copy",
            Stage::Queue => "queue",
            Stage::Hash => "hash",
            Stage::Gate => "gate",
            Stage::Admit => "admit",
            Stage::Load => "load",
            Stage::Probe => "probe",
            Stage::Staged => "staged",
            Stage::HandOver => "hand_over",
            Stage::Commit => "commit",
        })
    }
}

/// Why the attempt was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Cause {
    /// The slot's first plugin.
    Open,
    /// A reload, or a stage and a commit.
    Reload,
    /// The caller rolled back.
    Rollback,
    /// The slot rolled back automatically.
    Automatic {
        /// What it saw.
        reason: String,
    },
}

/// How the attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outcome {
    /// Another generation is current now.
    Swapped {
        /// The current generation.
        generation: u64,
        /// The one before; `None` for the first.
        previous: Option<u64>,
    },
    /// The same bytes serve already: nothing was done.
    Unchanged {
        /// The current generation.
        generation: u64,
    },
    /// Nothing changed, for this reason.
    Refused {
        /// The stage that refused.
        stage: Stage,
        /// Why.
        error: String,
    },
    /// It was staged, and dropped before it was committed.
    Discarded,
}

/// One attempt to change the serving plugin. All durations were measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// The number of the attempt in this slot; they begin in this order.
    pub attempt: u64,
    /// The wall-clock time at which it began.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::time"))]
    pub at: SystemTime,
    /// Who or what asked for it, as the [candidate](crate::Candidate::requested_by) or the
    /// [rollback](crate::Rollback::requested_by) said.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::optional_text"))]
    pub requested_by: Option<Arc<str>>,
    /// Why, as they [said](crate::Candidate::reason).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::optional_text"))]
    pub reason: Option<Arc<str>>,
    /// Why it was made.
    pub cause: Cause,
    /// How it ended.
    pub outcome: Outcome,
    /// The plugin's version, as far as it was known.
    pub version: Option<Version>,
    /// The digest of the plugin's bytes, as far as it was known.
    pub digest: Option<Digest>,
    /// The digest of the [configuration](crate::Candidate::config) that it came with.
    pub config_digest: Option<Digest>,
    /// The size of the artifact in bytes.
    pub size: usize,
    /// The stages it went through, with the time each took, hooks included. Each lasts from the end of the one before, the
    /// first from the call: together they are the [total](Report::total).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::stages"))]
    pub stages: Vec<(Stage, Duration)>,
    /// From the call to the end of its last stage, waiting for a turn included: the sum of its stages.
    #[cfg_attr(feature = "serde", serde(rename = "total_ms", serialize_with = "crate::serialize::millis"))]
    pub total: Duration,
    /// How many leases the slot handed out while the attempt was under way.
    pub leases_during: u64,
    /// How many leases on the old plugin were out when the [hand-over hook](crate::Builder::hand_over) began, or were taken
    /// while it ran. What their calls changed in the old plugin may be missing in the new one. 0 if there was no hand-over,
    /// or if [calls were held](crate::Builder::hold_calls_during_hand_over), unless the plugin's own threads took some.
    pub leases_during_hand_over: u64,
    /// How many leases had to wait because [calls were held](crate::Builder::hold_calls_during_hand_over).
    pub leases_held_up: u64,
    /// For a plugin that runs: from the end of the old one's run to the start of the new one's. `None` if nothing ran
    /// before, or if the old one had not stopped.
    #[cfg_attr(feature = "serde", serde(rename = "gap_ms", serialize_with = "crate::serialize::optional_millis"))]
    pub gap: Option<Duration>,
}

impl Report {
    /// Returns whether this attempt made another generation current.
    pub fn is_swap(&self) -> bool {
        matches!(self.outcome, Outcome::Swapped { .. })
    }

    /// Returns the generation that was current at the end of the attempt, if it succeeded.
    pub fn generation(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Swapped { generation, .. } | Outcome::Unchanged { generation } => Some(generation),
            Outcome::Refused { .. } | Outcome::Discarded => None,
        }
    }

    /// Returns how long a stage took, if the attempt went through it.
    pub fn duration_of(&self, stage: Stage) -> Option<Duration> {
        self.stages.iter().find(|(own, _)| *own == stage).map(|(_, duration)| *duration)
    }
}
