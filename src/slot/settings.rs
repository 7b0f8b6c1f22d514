//! Limits, rules and hooks: everything that is decided before a slot opens.

use std::sync::Arc;
use std::time::Duration;

use super::gate::BusyPolicy;
use super::probation::{Probation, ProbationPolicy};
use crate::{Artifact, BoxError, VersionRule};

type AdmitHook = Arc<dyn Fn(&Artifact) -> Result<(), BoxError> + Send + Sync>;
type ProbeHook<T> = Arc<dyn Fn(&T) -> Result<(), BoxError> + Send + Sync>;
type HandOverHook<T> = Arc<dyn Fn(&T, &T) -> Result<(), BoxError> + Send + Sync>;

/// What the builder sets.
pub(super) struct Settings<T: ?Sized> {
    pub(super) keep_previous: usize,
    pub(super) min_reload_interval: Duration,
    pub(super) reload_timeout: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) max_artifact_size: usize,
    pub(super) max_retired: usize,
    pub(super) version_rule: VersionRule,
    pub(super) when_busy: BusyPolicy,
    pub(super) probation: Arc<dyn ProbationPolicy>,
    pub(super) track_leases: bool,
    pub(super) admit: Vec<AdmitHook>,
    pub(super) probe: Vec<ProbeHook<T>>,
    pub(super) hand_over: Option<HandOverHook<T>>,
    /// For how long calls may be held while it runs.
    pub(super) hold_calls: Option<Duration>,
}

impl<T: ?Sized> Default for Settings<T> {
    fn default() -> Settings<T> {
        Settings {
            keep_previous: 2,
            min_reload_interval: Duration::ZERO,
            reload_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            max_artifact_size: 256 << 20,
            max_retired: 64,
            version_rule: VersionRule::default(),
            when_busy: BusyPolicy::default(),
            probation: Arc::new(Probation::default()),
            track_leases: false,
            admit: Vec::new(),
            probe: Vec::new(),
            hand_over: None,
            hold_calls: None,
        }
    }
}
