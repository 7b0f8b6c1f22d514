//! What a slot looks like at one moment.

use std::time::{Duration, SystemTime};

use semver::Version;

use crate::Digest;

/// A slot at one moment: see [`HotSlot::status`](crate::HotSlot::status).
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// The name of the slot.
    pub slot: String,
    /// What serves; `None` once the slot is closed.
    pub serving: Option<ServingStatus>,
    /// Every generation that is loaded and was neither committed nor dropped.
    pub staged: Vec<StagedStatus>,
    /// Every generation that was retired and is not gone, the longest retired first.
    pub retired: Vec<RetiredStatus>,
    /// Loads and hooks that were abandoned after `reload_timeout` and still have not come back.
    pub hung: usize,
    /// Generations that were destroyed, but whose code stays in memory.
    pub retained: Retained,
    /// What happened so far.
    pub counters: Counters,
}

/// The generation that serves.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ServingStatus {
    /// Its number.
    pub generation: u64,
    /// The plugin's name, empty if it has none.
    pub name: String,
    /// Its version.
    pub version: Option<Version>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The digest of the [configuration](crate::Candidate::config) that it came with.
    pub config_digest: Option<Digest>,
    /// The size of the artifact in bytes.
    pub size: usize,
    /// What its code is mapped from takes, if its backend says so: the native one does.
    pub footprint: Option<Footprint>,
    /// The epoch: how many times the current generation changed, the first time included.
    pub epoch: u64,
    /// For how long it has been current.
    #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "crate::serialize::millis"))]
    pub age: Duration,
    /// The wall-clock time at which it was loaded.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::time"))]
    pub loaded_at: SystemTime,
    /// [Measured](crate::Lease::measure) calls since it became current.
    pub calls: u64,
    /// Failures since it became current.
    pub failures: u64,
    /// Measured calls that failed on the predecessor, too, and count against neither.
    pub excused: u64,
    /// Repeatable calls that failed while as many second opinions as are allowed were under way; they count neither as
    /// calls nor as failures.
    pub unjudged: u64,
    /// The text of the last failure.
    pub last_failure: Option<String>,
    /// Whether it is watched, and goes if it does not do well.
    pub on_probation: bool,
    /// What the [probation policy](crate::ProbationPolicy) said against it, if it was condemned and could not be rolled
    /// back.
    pub objection: Option<String>,
}

/// A generation that is loaded beside the serving one and waits for its [commit](crate::Staged::commit).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StagedStatus {
    /// Its number.
    pub generation: u64,
    /// Its version.
    pub version: Option<Version>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The digest of the configuration that it came with.
    pub config_digest: Option<Digest>,
    /// The size of the artifact in bytes.
    pub size: usize,
    /// What its code is mapped from takes, if its backend says so: the native one does.
    pub footprint: Option<Footprint>,
    /// How long ago it was loaded.
    #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "crate::serialize::millis"))]
    pub age: Duration,
    /// The share of the callers' keys that it is [served to](crate::Staged::serve_share), from 0 to 1.
    pub share: f64,
    /// [Measured](crate::Lease::measure) calls of those callers.
    pub calls: u64,
    /// Failures in those callers' calls.
    pub failures: u64,
    /// What the [probation policy](crate::ProbationPolicy) said against it, if it was condemned: then it is not served any
    /// more.
    pub objection: Option<String>,
}

/// A generation that is not current.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetiredStatus {
    /// Its number.
    pub generation: u64,
    /// Its version.
    pub version: Option<Version>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The digest of the [configuration](crate::Candidate::config) that it came with.
    pub config_digest: Option<Digest>,
    /// The size of the artifact in bytes.
    pub size: usize,
    /// What its code is mapped from takes, if its backend says so: the native one does.
    pub footprint: Option<Footprint>,
    /// The epoch that began when it was retired.
    pub epoch: u64,
    /// How long ago that was.
    #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "crate::serialize::millis"))]
    pub age: Duration,
    /// What is done with it.
    pub phase: Phase,
    /// How many leases are out.
    pub leases: usize,
    /// The oldest of them, if [leases are tracked](crate::Builder::track_leases).
    pub oldest_lease: Option<LeaseOrigin>,
    /// Whether it still had leases out when its drain timeout ended.
    pub stuck: bool,
}

/// The call site and the age of a lease that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LeaseOrigin {
    /// File, line and column of the call to [`load`](crate::HotSlot::load).
    pub location: String,
    /// For how long it has been out.
    #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "crate::serialize::millis"))]
    pub age: Duration,
}

/// What is done with a retired generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Phase {
    /// Kept, so that a rollback is one pointer store.
    Warm,
    /// Waiting for the last lease.
    Draining,
    /// No lease is out, and its destructor runs.
    Destroying,
}

/// Generations whose code stays in memory after their destruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Retained {
    /// How many.
    pub generations: u64,
    /// The sum of their artifacts' sizes.
    pub bytes: u64,
    /// What the copies take that they are mapped from.
    pub footprint: Footprint,
}

/// What the copy takes that a generation's code is mapped from, beside the bytes that the host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Footprint {
    /// Bytes of a file on a disk. What of it is in memory, the system can drop and read again.
    pub disk: u64,
    /// Bytes of shared memory: a file in memory (a memfd), or in a file system that is memory (a tmpfs). It is charged to
    /// whatever this process's memory is charged to, and little of it is shown as resident.
    pub shared_memory: u64,
}

impl Footprint {
    /// Returns the sum of both.
    pub(crate) fn plus(self, other: Footprint) -> Footprint {
        Footprint { disk: self.disk + other.disk, shared_memory: self.shared_memory + other.shared_memory }
    }
}

/// How often something happened in a slot since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counters {
    /// Attempts that made another generation current, the first one and rollbacks included.
    pub swaps: u64,
    /// Attempts with the bytes that served already.
    pub unchanged: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Staged plugins that were dropped.
    pub discarded: u64,
    /// Rollbacks that a caller asked for.
    pub rollbacks: u64,
    /// Rollbacks that the slot made automatically.
    pub automatic_rollbacks: u64,
    /// Retired generations that were stuck.
    pub stuck: u64,
    /// Generations that were destroyed.
    pub destroyed: u64,
    /// Alarms.
    pub alarms: u64,
}
