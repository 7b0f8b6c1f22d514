//! What a slot was told before it opened: limits, rules and hooks.

use std::sync::Arc;
use std::time::Duration;

use crate::{Artifact, BoxError, BusyPolicy, VersionRule};

type AdmitHook = Arc<dyn Fn(&Artifact) -> Result<(), BoxError> + Send + Sync>;
type ProbeHook<T> = Arc<dyn Fn(&T) -> Result<(), BoxError> + Send + Sync>;
type HandOverHook<T> = Arc<dyn Fn(&T, &T) -> Result<(), BoxError> + Send + Sync>;

/// What the builder sets.
pub(super) struct Policy<T: ?Sized> {
    pub(super) keep_previous: usize,
    pub(super) min_reload_interval: Duration,
    pub(super) reload_timeout: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) max_artifact_size: usize,
    pub(super) max_retired: usize,
    pub(super) version_rule: VersionRule,
    pub(super) when_busy: BusyPolicy,
    pub(super) probation: Probation,
    pub(super) track_leases: bool,
    pub(super) admit: Vec<AdmitHook>,
    pub(super) probe: Vec<ProbeHook<T>>,
    pub(super) hand_over: Option<HandOverHook<T>>,
}

/// For how long a new generation is watched, and how many failures it may have.
#[derive(Clone, Copy)]
pub(super) struct Probation {
    pub(super) window: Duration,
    pub(super) max_failures: u64,
}
