//! Builds a slot: everything that is decided before it opens.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Asked, HandOver};
use super::core::Core;
use super::probation::ProbationPolicy;
use super::settings::Settings;
use crate::{Artifact, Backend, BoxError, BusyPolicy, Candidate, Cause, Error, ErrorKind, HotSlot, Stage, VersionRule};

/// Builds a [`HotSlot`]: see [`HotSlot::builder`].
#[must_use = "a builder does nothing until open() is called"]
pub struct Builder<T: ?Sized> {
    backend: Arc<dyn Backend<T>>,
    name: Arc<str>,
    settings: Settings<T>,
}

impl<T: ?Sized + Send + Sync + 'static> HotSlot<T> {
    /// Begins a slot whose plugins `backend` loads. See [`Builder`] for what can be set, and [`Backend`] for an
    /// example.
    pub fn builder(backend: impl Backend<T>) -> Builder<T> {
        Builder::new(Arc::new(backend))
    }
}

impl<T: ?Sized + Send + Sync + 'static> Builder<T> {
    pub(super) fn new(backend: Arc<dyn Backend<T>>) -> Builder<T> {
        Builder { backend, name: Arc::from("plugin"), settings: Settings::default() }
    }

    /// Names the slot in logs, status and events. Default: `"plugin"`.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Keeps this many earlier generations loaded, so that a rollback is one pointer store. Default: 2.
    pub fn keep_previous(mut self, generations: usize) -> Self {
        self.settings.keep_previous = generations;
        self
    }

    /// Adds a hook that sees bytes, configuration and manifest before any plugin code runs: the place to check a
    /// signature.
    pub fn admit<E: Into<BoxError>>(
        mut self,
        hook: impl Fn(&Artifact) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        self.settings.admit.push(Arc::new(move |artifact| hook(artifact).map_err(Into::into)));
        self
    }

    /// Adds a hook that tries the new plugin before anyone else can call it.
    pub fn probe<E: Into<BoxError>>(mut self, hook: impl Fn(&T) -> Result<(), E> + Send + Sync + 'static) -> Self {
        self.settings.probe.push(Arc::new(move |plugin| hook(plugin).map_err(Into::into)));
        self
    }

    /// Sets the hook that takes state from the old plugin (first argument) to the new one (second).
    ///
    /// It runs at commit, so that nothing the old plugin learned while the new one was staged is lost; the old one serves
    /// until it returns, and what it learns from calls during the hook stays with it and is lost, unless
    /// [calls are held](Builder::hold_calls_during_hand_over) meanwhile;
    /// [`Report::leases_during_hand_over`](crate::Report::leases_during_hand_over) counts them. A rollback does not run it: an
    /// earlier generation still has its own state, and one that is loaded anew from its bytes begins without.
    /// [`transfer_state`](crate::transfer_state) is one for plugins that can save and restore.
    pub fn hand_over<E: Into<BoxError>>(
        mut self,
        hook: impl Fn(&T, &T) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        self.settings.hand_over = Some(Arc::new(move |old, new| hook(old, new).map_err(Into::into)));
        self
    }

    /// Holds calls while the [hand-over hook](Builder::hand_over) runs, so that it loses nothing: no lease is handed out, those
    /// that are out are waited for, and then the hook runs and the new plugin is committed. Leases that were asked for
    /// meanwhile get the new plugin. Default: off.
    ///
    /// All of it has to be over within `bound`. If it is not, or if the hook fails, the leases that wait get the old plugin,
    /// and the reload is refused, as [`HoldTimedOut`](ErrorKind::HoldTimedOut) or with the hook's error. Nothing is lost
    /// then, either: what the hook had taken is dropped with the new plugin.
    ///
    /// - [`HotSlot::load`] blocks for up to `bound` while calls are held, and is wait-free at all other times. An executor's
    ///   thread is blocked, too.
    /// - Hold leases for a call, and not across calls: one that is not given back within `bound` refuses the reload.
    /// - A thread that has a lease on the old plugin gets another one at once (where hazards are noted by thread, on Unix, and
    ///   unless that one is a clone or its fifteenth), and so do the plugin's own calls through the host and the hook: they
    ///   would wait for themselves.
    pub fn hold_calls_during_hand_over(mut self, bound: Duration) -> Self {
        self.settings.hold_calls = Some(bound);
        self
    }

    /// Sets the minimum time between two swaps by reload; an earlier reload is refused, with the time that remains. Rollbacks
    /// and the first reload after opening are exempt. Default: zero.
    pub fn min_reload_interval(mut self, interval: Duration) -> Self {
        self.settings.min_reload_interval = interval;
        self
    }

    /// Limits the time of one reload: waiting for its turn, admission, load and hooks together. Default: 30 s.
    ///
    /// After that the caller gets an error and the slot is free for the next transition. What hangs is left to itself on
    /// its thread, counted in [`Status::hung`](crate::Status::hung), and its result is destroyed if it ever comes.
    pub fn reload_timeout(mut self, timeout: Duration) -> Self {
        self.settings.reload_timeout = timeout;
        self
    }

    /// Sets how long a retired generation may have leases out, or its destructor may run, before it is reported as stuck. Calls
    /// into a module that are still in flight then are ended with [`Retired`](crate::host::CallErrorKind::Retired); calls into a
    /// library are not interrupted. Default: 5 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// Limits the size of an artifact, in bytes. Default: 256 MiB.
    pub fn max_artifact_size(mut self, bytes: usize) -> Self {
        self.settings.max_artifact_size = bytes;
        self
    }

    /// Limits the generations that are loaded besides the serving and the warm ones: those that drain or are being
    /// destroyed, those that are staged, and loads that hang. When there are as many, further reloads are refused;
    /// rollbacks to warm ones are not. Default: 64.
    pub fn max_retired(mut self, generations: usize) -> Self {
        self.settings.max_retired = generations;
        self
    }

    /// Sets which versions may follow which. Default: [`VersionRule::NotOlder`].
    pub fn version_rule(mut self, rule: VersionRule) -> Self {
        self.settings.version_rule = rule;
        self
    }

    /// Sets what happens to a transition while another one is in progress. Default: [`BusyPolicy::Queue`].
    pub fn when_busy(mut self, when_busy: BusyPolicy) -> Self {
        self.settings.when_busy = when_busy;
        self
    }

    /// Sets the policy that judges a new generation; if it objects, the slot rolls back. Default:
    /// [`Probation`](crate::Probation) with ten seconds and five failures.
    ///
    /// Failures are what backends and callers [report](crate::Lease::report_failure). For a plugin that runs, a run that
    /// fails within the policy's window is enough. The slot's first generation has nothing to go back to, and is not
    /// judged. One that is condemned and cannot be rolled back raises one alarm, and is named in the status.
    pub fn probation(mut self, policy: impl ProbationPolicy) -> Self {
        self.settings.probation = Arc::new(policy);
        self
    }

    /// Records where every lease was taken, so that [`Status`](crate::Status) can name the oldest one of a generation that
    /// lingers. Each lease then also costs a reading of a coarse clock and a compare-and-swap; a thread records at most eight
    /// leases of one generation at once. Default: off.
    pub fn track_leases(mut self, track: bool) -> Self {
        self.settings.track_leases = track;
        self
    }

    /// Opens the slot with its first plugin, which goes the same way as every later one.
    ///
    /// # Errors
    /// As [`HotSlot::reload`]; then there is no slot. [`Forked`](ErrorKind::Forked) in a process that was forked from one
    /// in which slots were opened.
    pub fn open(self, first: impl Into<Candidate>) -> Result<HotSlot<T>, Error> {
        let asked = Asked::new(first);
        let misuse = |what: &str| Err(Error::new(Stage::Gate, ErrorKind::Misuse(what.to_owned()), None));
        if self.settings.reload_timeout.is_zero() {
            return misuse("a reload_timeout of zero refuses every plugin: give it the time that a load may take");
        }
        if self.settings.hold_calls.is_some_and(|bound| bound.is_zero()) {
            return misuse(
                "calls that are held for no time refuse every hand-over: give it the time that the hook may take",
            );
        }
        if self.settings.max_retired == 0 {
            return misuse("a max_retired of zero refuses every plugin: one that is replaced takes time to go");
        }
        let core =
            Core::start(self.name, self.backend, self.settings).map_err(|kind| Error::new(Stage::Gate, kind, None))?;
        // From here on, dropping the slot ends what was started.
        let slot = HotSlot { core };
        slot.core.stage(asked, Cause::Open)?.commit(HandOver::Required, || None)?;
        Ok(slot)
    }
}
