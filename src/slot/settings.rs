//! What a slot was told before it opened: limits, rules and hooks.

use std::sync::Arc;
use std::time::Duration;

use crate::{Artifact, BoxError, VersionRule, WhenBusy};

type AdmitHook = Arc<dyn Fn(&Artifact) -> Result<(), BoxError> + Send + Sync>;
type ProbeHook<T> = Arc<dyn Fn(&T) -> Result<(), BoxError> + Send + Sync>;
type HandOverHook<T> = Arc<dyn Fn(&T, &T) -> Result<(), BoxError> + Send + Sync>;

/// What the builder sets.
pub(crate) struct Policy<T: ?Sized> {
    pub(crate) keep_previous: usize,
    pub(crate) min_reload_interval: Duration,
    pub(crate) reload_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) max_artifact_size: usize,
    pub(crate) max_retired: usize,
    pub(crate) version_rule: VersionRule,
    pub(crate) when_busy: WhenBusy,
    pub(crate) probation: Probation,
    pub(crate) track_leases: bool,
    pub(crate) admit: Vec<AdmitHook>,
    pub(crate) probe: Vec<ProbeHook<T>>,
    pub(crate) hand_over: Option<HandOverHook<T>>,
}

/// For how long a new generation is watched, and how many failures it may have.
#[derive(Clone, Copy)]
pub(crate) struct Probation {
    pub(crate) window: Duration,
    pub(crate) max_failures: u64,
}
