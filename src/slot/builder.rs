//! How a slot is to behave: everything that is decided before it opens.

use std::sync::Arc;
use std::time::Duration;

use super::core::Shared;
use super::settings::{Policy, Probation};
use crate::{Artifact, Backend, BoxError, BusyPolicy, Candidate, Cause, Error, ErrorKind, HotSlot, Stage, VersionRule};

/// Builds a [`HotSlot`]: see [`HotSlot::builder`].
#[must_use = "a builder does nothing until open() is called"]
pub struct Builder<T: ?Sized> {
    backend: Arc<dyn Backend<T>>,
    name: Arc<str>,
    policy: Policy<T>,
}

impl<T: ?Sized + Send + Sync + 'static> Builder<T> {
    pub(super) fn new(backend: Arc<dyn Backend<T>>) -> Builder<T> {
        let policy = Policy {
            keep_previous: 2,
            min_reload_interval: Duration::ZERO,
            reload_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            max_artifact_size: 256 << 20,
            max_retired: 64,
            version_rule: VersionRule::default(),
            when_busy: BusyPolicy::default(),
            probation: Probation { window: Duration::from_secs(10), max_failures: 5 },
            track_leases: false,
            admit: Vec::new(),
            probe: Vec::new(),
            hand_over: None,
        };
        Builder { backend, name: Arc::from("plugin"), policy }
    }

    /// The slot's name in logs, status and events. `"plugin"` if not set.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How many earlier generations stay loaded, so that a rollback is one pointer store. 2 if not set.
    pub fn keep_previous(mut self, generations: usize) -> Self {
        self.policy.keep_previous = generations;
        self
    }

    /// Adds a hook that sees bytes and manifest before any plugin code runs: the place to check a signature.
    pub fn admit<E: Into<BoxError>>(
        mut self,
        hook: impl Fn(&Artifact) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        self.policy.admit.push(Arc::new(move |artifact| hook(artifact).map_err(Into::into)));
        self
    }

    /// Adds a hook that tries the new plugin before anyone else can call it.
    pub fn probe<E: Into<BoxError>>(mut self, hook: impl Fn(&T) -> Result<(), E> + Send + Sync + 'static) -> Self {
        self.policy.probe.push(Arc::new(move |plugin| hook(plugin).map_err(Into::into)));
        self
    }

    /// Sets the hook that takes state from the old plugin (first argument) to the new one (second).
    ///
    /// It runs at commit, so that nothing the old plugin learned while the new one was staged is lost; the old one
    /// serves until it returns. A rollback does not run it: the earlier generation still has its own state.
    /// [`transfer_state`](crate::transfer_state) is one for plugins that can save and restore.
    pub fn hand_over<E: Into<BoxError>>(
        mut self,
        hook: impl Fn(&T, &T) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        self.policy.hand_over = Some(Arc::new(move |old, new| hook(old, new).map_err(Into::into)));
        self
    }

    /// The least time between two swaps by reload; earlier ones are refused, with the time to wait. Rollbacks are
    /// never held up. Zero if not set.
    pub fn min_reload_interval(mut self, interval: Duration) -> Self {
        self.policy.min_reload_interval = interval;
        self
    }

    /// How long admission, load and hooks of one reload may take together. 30 s if not set.
    ///
    /// After that the caller has an error and the slot is free for the next transition; what hangs is left to itself
    /// on its thread, counted in [`Status::hung`](crate::Status::hung), and its result destroyed if it ever comes.
    pub fn reload_timeout(mut self, timeout: Duration) -> Self {
        self.policy.reload_timeout = timeout;
        self
    }

    /// How long a retired generation may have leases out before it is reported as stuck. 5 s if not set.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.policy.drain_timeout = timeout;
        self
    }

    /// The size in bytes that an artifact may have. 256 MiB if not set.
    pub fn max_artifact_size(mut self, bytes: usize) -> Self {
        self.policy.max_artifact_size = bytes;
        self
    }

    /// How many retired generations (warm ones not counted) and hung loads there may be before further reloads are
    /// refused. 64 if not set. Rollbacks are not.
    pub fn max_retired(mut self, generations: usize) -> Self {
        self.policy.max_retired = generations;
        self
    }

    /// Which versions may follow which. [`VersionRule::NotOlder`] if not set.
    pub fn version_rule(mut self, rule: VersionRule) -> Self {
        self.policy.version_rule = rule;
        self
    }

    /// What a transition does that finds another one under way. [`BusyPolicy::Queue`] if not set.
    pub fn when_busy(mut self, when_busy: BusyPolicy) -> Self {
        self.policy.when_busy = when_busy;
        self
    }

    /// For how long a new generation is watched, and how many failures it may have in that time: one more, and the
    /// slot goes back to the generation before by itself. 10 s and 5 if not set.
    ///
    /// Failures are what backends and callers [report](crate::Lease::report_failure). For a plugin that runs, a run
    /// that fails in that time is enough.
    pub fn probation(mut self, window: Duration, max_failures: u64) -> Self {
        self.policy.probation = Probation { window, max_failures };
        self
    }

    /// Notes where every lease was taken, for [`Status`](crate::Status) to name the oldest one of a generation that
    /// lingers. Costs a clock reading and two atomic operations a lease. Off if not set.
    pub fn track_leases(mut self, track: bool) -> Self {
        self.policy.track_leases = track;
        self
    }

    /// Opens the slot with its first plugin, which goes the same way as every later one.
    ///
    /// # Errors
    /// As [`HotSlot::reload`]; then there is no slot.
    pub fn open(self, first: impl Into<Candidate>) -> Result<HotSlot<T>, Error> {
        if self.policy.reload_timeout.is_zero() {
            return Err(misuse("a reload_timeout of zero refuses every plugin: give it the time that a load may take"));
        }
        if self.policy.max_retired == 0 {
            return Err(misuse("a max_retired of zero refuses every plugin: one that is replaced takes time to go"));
        }
        let shared = Shared::start(self.name, self.backend, self.policy)
            .map_err(|error| Error::new(Stage::Gate, ErrorKind::NoThread(error), None))?;
        // From here on, dropping the slot ends what was started.
        let slot = HotSlot { shared };
        slot.shared.stage(first.into(), Cause::Open)?.commit()?;
        Ok(slot)
    }
}

fn misuse(what: &str) -> Error {
    Error::new(Stage::Gate, ErrorKind::Misuse(what.to_owned()), None)
}
