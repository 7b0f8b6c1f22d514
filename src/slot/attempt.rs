//! One attempt to change the current generation, as a state machine: what a reload, a commit and a rollback go through.
//!
//! ```text
//!  Gate ──▶ Admit ──▶ Load ──▶ Probe ──▶ (staged) ──▶ HandOver ──▶ Commit ──▶ Swapped
//!   │         │         │        │          │ │           │           │
//!   ├─────────┴─────────┴────────┴──────────┼─┴───────────┴───────────┴─────▶ Refused
//!   │                                       └── dropped ────────────────────▶ Discarded
//!   └── the same plugin serves already ─────────────────────────────────────▶ Unchanged
//! ```
//!
//! - An attempt's *base*, which generation it is to replace, in which epoch and of which version, is captured once, with
//!   its turn. Every later question is asked of that: is it the same plugin, is the version older, may it be committed.
//! - It has one deadline, from the call on: the time in the queue counts. A commit that comes later has one of its own.
//! - Foreign code (the backend, hooks) runs in a *leg*, on a thread of its own. A leg that is abandoned at the deadline goes
//!   on by itself and gets no further: its next stage finds that it was abandoned. The attempt may go on without it.
//! - Every way ends in [`Attempt::end`], which writes down the outcome; a generation that will not serve is handed to the
//!   reaper after that, and log lines are written when no lock and no turn is held.
//!
//! A rollback to a generation that is still loaded is only the last step. One to an artifact that is no longer loaded goes
//! through all of them, without the questions that a rollback is not asked: how old its version is, and how long ago the
//! last reload was.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use semver::Version;

use super::core::{Core, HeldCalls};
use super::current::Hold;
use super::deadline::{NoResult, after, left, within};
use super::gate::{BusyPolicy, NoTurn, Turn};
use super::generation::{Generation, GenerationRef, Home, Parts};
use super::lineage::{Base, Change, NotCommitted, NotRolledBack, Target};
use super::probation::Trial;
use super::rollback::{Rollback, To};
use crate::artifact::Request;
use crate::event::Event;
use crate::failures::FailureCounter;
use crate::loader_lock;
use crate::lock::Mutex;
use crate::text::panic_text;
use crate::workers::{self, Afterwards};
use crate::{
    Artifact, ArtifactId, Candidate, Cause, Error, ErrorKind, Lease, LoadContext, Outcome, Payload, Report, Stage,
    StopSignal,
};

/// An attempt that is under way.
pub(super) struct Attempt<T: ?Sized + Send + Sync + 'static> {
    core: Arc<Core<T>>,
    at: SystemTime,
    cause: Cause,
    request: Request,
    version: Option<Version>,
    id: Option<ArtifactId>,
    size: usize,
    leases_before: u64,
    hand_over: HandOverCounts,
    log: Arc<StageLog<T>>,
}

/// A candidate as it was handed in: an attempt is measured from the moment on at which it was asked for.
pub(super) struct Asked {
    candidate: Candidate,
    began: Instant,
    copied: Instant,
}

impl Asked {
    pub(super) fn new(candidate: impl Into<Candidate>) -> Asked {
        let began = Instant::now();
        let candidate = candidate.into();
        Asked { candidate, began, copied: Instant::now() }
    }
}

/// What the report says of a hand-over.
#[derive(Clone, Copy, Default)]
struct HandOverCounts {
    leases: u64,
    held_up: u64,
}

/// An attempt whose plugin is staged, or serves already.
pub(super) struct Pending<T: ?Sized + Send + Sync + 'static> {
    attempt: Attempt<T>,
    prepared: Prepared<T>,
    base: Option<Base>,
    /// The turn of the reload that this is part of, if it is; and what is left of its time. A runner's commit may have
    /// to wait for the old plugin to stop, which is not to be taken from it.
    turn: Option<(Turn, Duration)>,
}

/// An attempt whose hand-over is over.
pub(super) enum Readiness<T: ?Sized + Send + Sync + 'static> {
    Ready(Ready<T>),
    /// The base is the same plugin, and nothing will be done.
    Unchanged(Attempt<T>, Base),
}

/// An attempt that is one store away from its end.
pub(super) struct Ready<T: ?Sized + Send + Sync + 'static> {
    attempt: Attempt<T>,
    generation: GenerationRef<T>,
    base: Option<Base>,
    held: Option<HeldCalls<T>>,
    _turn: Option<(Turn, Duration)>,
}

/// An attempt that came to nothing, before that is written down.
pub(super) struct Refused<T: ?Sized + Send + Sync + 'static> {
    attempt: Attempt<T>,
    generation: Option<GenerationRef<T>>,
    refusal: Refusal,
}

enum Prepared<T: ?Sized> {
    /// A generation that can serve.
    Loaded(GenerationRef<T>),
    /// The base is the same plugin.
    Unchanged(Base),
}

impl<T: ?Sized> Prepared<T> {
    fn into_loaded(self) -> Option<GenerationRef<T>> {
        match self {
            Prepared::Loaded(generation) => Some(generation),
            Prepared::Unchanged(_) => None,
        }
    }
}

/// What a hand-over that fails means for the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// The commit fails too.
    Required,
    /// The new plugin starts without the state: the old one is in no condition to give it.
    BestEffort,
}

/// What is to be replaced, as it was when the attempt got its turn.
struct Captured {
    base: Base,
    version: Option<Version>,
    id: ArtifactId,
}

/// What went wrong, and at which stage.
struct Refusal(Stage, ErrorKind);

/// A refusal, with the generation that was loaded by then.
type Failed<T> = (Refusal, Option<GenerationRef<T>>);

impl<T: ?Sized + Send + Sync + 'static> Core<T> {
    /// Replaces the plugin.
    pub(super) fn reload(self: &Arc<Self>, asked: Asked, cause: Cause) -> Result<Report, Error> {
        self.stage(asked, cause)?.commit(HandOver::Required, || None)
    }

    /// Stages a plugin. The turn is kept until the commit, so that nothing else can come between, unless it is
    /// [ended](Pending::end_turn).
    pub(super) fn stage(self: &Arc<Self>, asked: Asked, cause: Cause) -> Result<Pending<T>, Error> {
        self.and_flush(self.stage_quietly(asked, cause))
    }

    /// The same, where the caller writes the log lines: one that has turns in other slots, and ends those before.
    pub(super) fn stage_quietly(self: &Arc<Self>, asked: Asked, cause: Cause) -> Result<Pending<T>, Error> {
        self.check_caller().map_err(|kind| self.not_begun(Stage::Gate, kind))?;
        Attempt::of(self, self.journal.next_attempt(), cause, &asked).stage(asked.candidate, None)
    }

    /// Writes the log lines of what was refused. A subscriber may hang: nobody's turn is held meanwhile, and nothing frozen.
    fn and_flush<R>(&self, result: Result<R, Error>) -> Result<R, Error> {
        if result.as_ref().is_err_and(|error| !matches!(error.kind(), ErrorKind::Forked)) {
            self.journal.flush();
        }
        result
    }

    /// Does a reload soon, on a thread that is started for it; gives the number of the attempt. One that waits already
    /// makes way. `finish` gets what was staged, outside of the slot's foreign code.
    pub(super) fn reload_soon(
        self: &Arc<Self>,
        asked: Asked,
        finish: impl FnOnce(Pending<T>) + Send + 'static,
    ) -> Result<u64, Error> {
        if self.is_forked() {
            return Err(self.not_begun(Stage::Gate, ErrorKind::Forked));
        }
        let number = self.journal.next_attempt();
        let (core, loser, request) = (Arc::clone(self), Arc::clone(self), asked.candidate.request.clone());
        let began = asked.began;
        let run = move || {
            let attempt = Attempt::of(&core, number, Cause::Reload, &asked);
            if let Ok(pending) = attempt.stage(asked.candidate, None) {
                finish(pending);
            }
        };
        let supersede = move || {
            let mut attempt = Attempt::begin(&loser, number, Cause::Reload, began);
            attempt.request = request;
            attempt.refuse(Refusal(Stage::Gate, ErrorKind::Superseded));
        };
        self.defer(Box::new(run), Box::new(supersede)).map_err(|error| self.not_begun(Stage::Gate, error))?;
        Ok(number)
    }

    /// Goes back, warm or cold. `finish` gets what was staged in the latter case.
    pub(super) fn roll_back_to(
        self: &Arc<Self>,
        rollback: Rollback,
        warm: impl FnOnce(Target, Request) -> Result<Report, Error>,
        cold: impl FnOnce(Pending<T>) -> Result<Report, Error>,
    ) -> Result<Report, Error> {
        self.check_caller().map_err(|kind| self.not_begun(Stage::Commit, kind))?;
        let Rollback { to, request } = rollback;
        match to {
            To::Previous => warm(Target::Previous, request),
            To::Generation(generation) => warm(Target::Generation(generation), request),
            To::Artifact(mut candidate) => {
                candidate.request = request.or(candidate.request);
                let asked = Asked::new(candidate.clone());
                let payload = self.scope.enter(|| candidate.payload());
                let is_wanted = |generation: &Generation<T>| generation.id == payload.id();
                if let Some(generation) = self.lineage.find_warm(is_wanted) {
                    return warm(Target::Generation(generation), candidate.request);
                }
                let attempt = Attempt::of(self, self.journal.next_attempt(), Cause::Rollback, &asked);
                attempt.log.quiet_lap(Stage::Hash, Instant::now());
                cold(self.and_flush(attempt.stage(candidate, Some(payload)))?)
            }
        }
    }

    /// Makes a generation current that is still loaded. `then` is called after the swap and before the attempt is
    /// recorded: it gives the gap between runs. Log lines wait for the next flush.
    pub(super) fn roll_back(
        self: &Arc<Self>,
        target: Target,
        cause: Cause,
        request: Request,
        then: impl FnOnce() -> Option<Duration>,
    ) -> Result<Report, Error> {
        let in_order = self.swapping.lock();
        let result = self.roll_back_in_order(target, cause, request, then);
        drop(in_order);
        self.wake();
        result.map_err(|refused| refused.refuse())
    }

    /// The same, where the caller holds `swapping`, and lets go of it before it wakes the reaper or refuses what comes back.
    pub(super) fn roll_back_in_order(
        self: &Arc<Self>,
        target: Target,
        cause: Cause,
        request: Request,
        then: impl FnOnce() -> Option<Duration>,
    ) -> Result<Report, Box<Refused<T>>> {
        let mut attempt = Attempt::begin(self, self.journal.next_attempt(), cause, Instant::now());
        attempt.request = request;
        let look = |generation: &Generation<T>| (generation.id, generation.manifest.version.clone(), generation.size);
        let result = self.lineage.rollback(target, look);
        attempt.log.lap(Stage::Commit);
        match result {
            Ok((change, (id, version, size))) => {
                (attempt.id, attempt.version, attempt.size) = (Some(id), version, size);
                Ok(attempt.swapped(change, then))
            }
            Err(reason) => {
                let refusal = Refusal(Stage::Commit, reason.into());
                Err(Box::new(Refused { attempt, generation: None, refusal }))
            }
        }
    }

    /// The error of an attempt that did not begin: it has no place in the history.
    pub(super) fn not_begun(&self, stage: Stage, kind: ErrorKind) -> Error {
        let serving = if matches!(kind, ErrorKind::Forked) { None } else { self.serving() };
        Error::new(stage, kind, serving)
    }

    fn defer(
        self: &Arc<Self>,
        run: Box<dyn FnOnce() + Send>,
        supersede: Box<dyn FnOnce() + Send>,
    ) -> Result<(), ErrorKind> {
        let mut deferred = self.deferred.lock();
        if deferred.at_work {
            let before = deferred.next.replace(super::core::DeferredReload { run, supersede });
            drop(deferred);
            if let Some(before) = before {
                (before.supersede)();
            }
            return Ok(());
        }
        let core = Arc::clone(self);
        let body = move || {
            let mut run = run;
            loop {
                run();
                // A subscriber that hangs does not hold up the next one.
                core.journal.flush_elsewhere();
                let mut deferred = core.deferred.lock();
                match deferred.next.take() {
                    Some(next) => run = next.run,
                    None => {
                        deferred.at_work = false;
                        drop(deferred);
                        return core.freed.wake();
                    }
                }
            }
        };
        workers::run_waiting(body).map_err(ErrorKind::NoThread)?;
        deferred.at_work = true;
        Ok(())
    }

    /// Returns whether a [reload](Core::reload_soon) that was put off is being made.
    pub(super) fn is_reloading_soon(&self) -> bool {
        !self.is_forked() && self.deferred.lock().at_work
    }

    /// What can be refused before the artifact is looked at. Waits for destructions that are about to make room.
    fn check_gate(&self, cause: &Cause, deadline: Instant) -> Result<(), ErrorKind> {
        if matches!(cause, Cause::Reload) {
            let since = self.last_reload.lock().map(|last| last.elapsed());
            let wait = since.and_then(|since| self.settings.min_reload_interval.checked_sub(since));
            if let Some(retry_after) = wait.filter(|wait| !wait.is_zero()) {
                return Err(ErrorKind::TooSoon { retry_after });
            }
        }
        let limit = self.settings.max_retired;
        loop {
            let seen = self.freed.count();
            if self.lineage.is_closed() {
                return Err(ErrorKind::Closed);
            }
            let lingering = self.lingering();
            if lingering.sum() < limit {
                return Ok(());
            }
            if lingering.held() >= limit || Instant::now() >= deadline {
                return Err(ErrorKind::TooManyRetired { lingering: lingering.sum(), limit });
            }
            self.freed.wait(seen, deadline);
        }
    }

    fn admit(&self, payload: &Payload, terms: &Terms) -> Result<Artifact, ErrorKind> {
        let mut admission = self.backend.admit(payload).map_err(ErrorKind::Refused)?;
        match (&admission.manifest.version, &terms.version) {
            (Some(own), Some(given)) if own != given => {
                return Err(ErrorKind::Version(format!(
                    "the plugin says that it is version {own}, the caller says {given}: the version in the file wins, \
                     drop the one given"
                )));
            }
            (None, Some(given)) => admission.manifest.version = Some(given.clone()),
            _ => {}
        }
        if let Some(version) = &admission.manifest.version {
            let _ = terms.found.set(version.clone());
        }
        if !terms.is_rollback {
            let (base, new) = (terms.base_version.as_ref(), admission.manifest.version.as_ref());
            if let Some(objection) = self.settings.version_rule.objection(base, new) {
                return Err(ErrorKind::Version(objection));
            }
        }
        let artifact = Artifact::new(payload.clone(), admission);
        self.settings.admit.iter().try_for_each(|admit| admit(&artifact)).map_err(ErrorKind::Refused)?;
        Ok(artifact)
    }

    fn load_generation(self: &Arc<Self>, artifact: &Artifact, stop: StopSignal) -> Result<GenerationRef<T>, ErrorKind> {
        let number = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let home: Weak<dyn Home<T>> = Arc::downgrade(&(Arc::clone(self) as Arc<dyn Home<T>>));
        let trial = Arc::new(Trial::new(Arc::clone(&self.settings.probation), artifact.id()));
        let failures = FailureCounter::new({
            let (trial, home) = (Arc::clone(&trial), home.clone());
            move |what: &str| {
                let verdict = trial.count_failure(what.to_owned());
                if let Some(home) = home.upgrade() {
                    home.heed(number, verdict);
                }
            }
        });
        let context = LoadContext {
            generation: number,
            slot: Arc::clone(&self.name),
            stop: stop.clone(),
            failures: failures.clone(),
            scope: self.scope.clone(),
        };
        let loaded = self.backend.load(artifact, &context).map_err(ErrorKind::Refused)?;
        let track_leases = self.settings.track_leases;
        let parts = Parts { number, stop, failures, trial, home, track_leases };
        let generation = GenerationRef::new(Generation::new(artifact, loaded, parts));
        self.note_staged(&generation);
        Ok(generation)
    }

    /// A panic ends here, so that the plugin is discarded as after any other refusal, and not by the unwinding.
    fn probe(&self, plugin: &T) -> Result<(), ErrorKind> {
        let probes = || self.settings.probe.iter().try_for_each(|probe| probe(plugin));
        match catch_unwind(AssertUnwindSafe(probes)) {
            Ok(result) => result.map_err(ErrorKind::Refused),
            Err(panic) => Err(ErrorKind::Panicked(panic_text(panic))),
        }
    }

    /// Runs foreign code until `deadline`. If it comes back later than that, `discard` gets the result.
    fn within<R: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        work: impl FnOnce() -> R + Send + 'static,
        discard: impl FnOnce(&Arc<Self>, R) + Send + 'static,
    ) -> Result<R, ErrorKind> {
        // What it began before may be caught by the linker. It would be caught there as well, and threads are few meanwhile.
        let is_caught = self.afterwards() == Afterwards::End && self.hung.load(Ordering::Acquire) > 0;
        if is_caught && !loader_lock::wait(deadline) {
            return Err(ErrorKind::TimedOut(self.settings.reload_timeout));
        }
        let (scope, theirs) = (self.scope.clone(), Arc::clone(self));
        let late = move |result: Option<R>| {
            if let Some(result) = result {
                discard(&theirs, result);
            }
            theirs.hung.fetch_sub(1, Ordering::Release);
            theirs.wake();
            theirs.freed.wake();
        };
        let abandon = || {
            self.hung.fetch_add(1, Ordering::Release);
        };
        let (core, span) = (Arc::clone(self), self.journal.trace(tracing::Span::current));
        let work = move || scope.enter(|| core.journal.in_span(&span.unwrap_or_else(tracing::Span::none), work));
        within(deadline, self.afterwards(), work, abandon, late).map_err(|none| match none {
            NoResult::TimedOut => ErrorKind::TimedOut(self.settings.reload_timeout),
            NoResult::Panicked(text) => ErrorKind::Panicked(text),
            NoResult::NoThread(error) => ErrorKind::NoThread(error),
        })
    }
}

/// What an artifact is held to, beyond what it is.
struct Terms {
    /// What the caller says of the version.
    version: Option<Version>,
    base_version: Option<Version>,
    is_rollback: bool,
    /// Takes the version as soon as it is known: the report names it, however the attempt ends.
    found: Arc<OnceLock<Version>>,
}

impl<T: ?Sized + Send + Sync + 'static> Attempt<T> {
    /// Begins an attempt to load a candidate.
    fn of(core: &Arc<Core<T>>, number: u64, cause: Cause, asked: &Asked) -> Attempt<T> {
        let attempt = Attempt::begin(core, number, cause, asked.began);
        attempt.log.quiet_lap(Stage::Copy, asked.copied);
        attempt
    }

    fn begin(core: &Arc<Core<T>>, number: u64, cause: Cause, began: Instant) -> Attempt<T> {
        let position = Position { done: Vec::new(), under_way: None, leg: 0, mark: began, told: 0 };
        let log = StageLog { core: Arc::clone(core), attempt: number, position: Mutex::new(position) };
        Attempt {
            core: Arc::clone(core),
            at: SystemTime::now(),
            cause,
            request: Request::default(),
            version: None,
            id: None,
            size: 0,
            leases_before: core.lease_count.begin(),
            hand_over: HandOverCounts::default(),
            log: Arc::new(log),
        }
    }

    /// From the gate to the probe. Log lines wait for the next flush.
    fn stage(mut self, candidate: Candidate, payload: Option<Payload>) -> Result<Pending<T>, Error> {
        self.request = candidate.request.clone();
        self.version = candidate.version.clone();
        self.size = candidate.bytes.len();
        let timeout = self.core.settings.reload_timeout;
        let deadline = after(timeout);
        let turn = self.core.staging.enter(self.core.settings.when_busy, deadline);
        self.log.quiet_lap(Stage::Queue, Instant::now());
        let turn = match turn {
            Ok(turn) => turn,
            Err(none) => {
                let kind = match none {
                    NoTurn::Busy => ErrorKind::Busy,
                    NoTurn::TimedOut => ErrorKind::QueueTimedOut(timeout),
                };
                return Err(self.refuse(Refusal(Stage::Gate, kind)));
            }
        };
        let captured = self.core.lineage.serving(|view| Captured {
            base: Base { generation: view.generation.number, epoch: view.epoch },
            version: view.generation.manifest.version.clone(),
            id: view.generation.id,
        });
        let base = captured.as_ref().map(|captured| captured.base);
        match self.prepare(candidate, payload, captured, deadline) {
            Ok(prepared) => Ok(Pending { attempt: self, prepared, base, turn: Some((turn, left(deadline))) }),
            Err((refusal, generation)) => Err(self.refuse_and_discard(refusal, generation)),
        }
    }

    /// What does not depend on the artifact's insides is checked here and now; the rest is one leg.
    fn prepare(
        &mut self,
        candidate: Candidate,
        payload: Option<Payload>,
        captured: Option<Captured>,
        deadline: Instant,
    ) -> Result<Prepared<T>, Failed<T>> {
        let refused = |stage, kind| (Refusal(stage, kind), None);
        let (size, limit) = (self.size, self.core.settings.max_artifact_size);
        if size > limit {
            return Err(refused(Stage::Admit, ErrorKind::TooLarge { size, limit }));
        }
        let payload = payload.unwrap_or_else(|| {
            let payload = self.core.scope.enter(|| candidate.payload());
            self.log.quiet_lap(Stage::Hash, Instant::now());
            payload
        });
        self.id = Some(payload.id());
        let is_rollback = matches!(self.cause, Cause::Rollback);
        if let Some(serving) = captured.as_ref().filter(|serving| serving.id == payload.id() && !candidate.force) {
            self.version = serving.version.clone();
            return match is_rollback {
                true => Err(refused(Stage::Commit, ErrorKind::AlreadyServing(serving.base.generation))),
                false => Ok(Prepared::Unchanged(serving.base)),
            };
        }
        let open = self.core.check_gate(&self.cause, deadline);
        self.log.lap(Stage::Gate);
        open.map_err(|kind| refused(Stage::Gate, kind))?;

        let base_version = captured.and_then(|captured| captured.version);
        let found = Arc::new(OnceLock::new());
        let terms = Terms { version: candidate.version, base_version, is_rollback, found: Arc::clone(&found) };
        let (core, leg) = (Arc::clone(&self.core), self.log.begin_leg());
        let stop = StopSignal::new();
        let theirs = stop.clone();
        let prepare = move || -> Result<GenerationRef<T>, Failed<T>> {
            let failed = |refusal| (refusal, None);
            let artifact = leg.pass(Stage::Admit, || core.admit(&payload, &terms)).map_err(failed)?;
            let generation = leg.pass(Stage::Load, || core.load_generation(&artifact, theirs)).map_err(failed)?;
            match leg.pass(Stage::Probe, || core.probe(&generation.loaded.plugin)) {
                Ok(()) => Ok(generation),
                Err(refusal) => Err((refusal, Some(generation))),
            }
        };
        let discard = |core: &Arc<Core<T>>, late: Result<GenerationRef<T>, Failed<T>>| {
            if let Ok(generation) | Err((_, Some(generation))) = late {
                core.discard(generation);
            }
        };
        let result = self.core.within(deadline, prepare, discard);
        if result.is_err() {
            // Whatever still goes on in the backend, nobody waits for it.
            stop.raise();
        }
        self.version = found.get().cloned().or(self.version.take());
        let generation = result.map_err(|kind| (self.log.end_leg(Stage::Load, kind), None))??;
        Ok(Prepared::Loaded(generation))
    }

    /// Runs the user's hook, if there is one and anything to take the state from. Calls that were held for it are held until
    /// what is returned is dropped.
    fn hand_over(
        &mut self,
        new: &GenerationRef<T>,
        base: Option<Base>,
        deadline: Instant,
    ) -> Result<Option<HeldCalls<T>>, Refusal> {
        let (Some(hook), Some(base)) = (self.core.settings.hand_over.clone(), base) else { return Ok(None) };
        if matches!(self.cause, Cause::Rollback) {
            return Ok(None);
        }
        let timeout = self.core.settings.reload_timeout;
        let turn = self.core.handing_over.enter(BusyPolicy::Queue, deadline);
        let turn = turn.map_err(|_| Refusal(Stage::HandOver, ErrorKind::QueueTimedOut(timeout)))?;
        let current = self.core.lineage.base();
        let Some(hold) = self.core.lineage.load() else { return Ok(None) };
        let old = Lease::new(hold, Location::caller());
        if current != Some(base) || Lease::generation(&old) != base.generation {
            let (base, current) = (Some(base.generation), Lease::generation(&old));
            return Err(Refusal(Stage::HandOver, ErrorKind::BaseChanged { base, current }));
        }
        let before = *self.core.held_up.lock();
        let (held, _turn) = match self.core.settings.hold_calls {
            Some(bound) => {
                let held = self.core.hold_calls(base, new.number, bound.min(left(deadline)), turn).map_err(|kind| {
                    self.hand_over.held_up = self.core.held_up.lock().waited - before.waited;
                    let is_late = matches!(kind, ErrorKind::HoldTimedOut { .. }) && left(deadline).is_zero();
                    Refusal(Stage::HandOver, if is_late { ErrorKind::TimedOut(timeout) } else { kind })
                })?;
                (Some(held), None)
            }
            None => (None, Some(turn)),
        };
        let exempt_before = self.core.held_up.lock().exempt;
        // The hold of this hand-over is no call.
        let under_way = (self.core.lineage.about_holds_on_serving() as u64).saturating_sub(1);
        let leases_before = self.core.lease_count.so_far();
        let deadline = held.as_ref().map_or(deadline, |held| deadline.min(held.until));
        let (leg, new) = (self.log.begin_leg(), new.clone());
        let work = move || leg.pass(Stage::HandOver, || hook(&old, &new.loaded.plugin).map_err(ErrorKind::Refused));
        let result = self.core.within(deadline, work, |_, _| {});
        let counts = *self.core.held_up.lock();
        self.hand_over = HandOverCounts {
            leases: match &held {
                Some(_) => counts.exempt - exempt_before,
                None => under_way + (self.core.lease_count.so_far() - leases_before),
            },
            held_up: counts.waited - before.waited,
        };
        match result {
            Ok(outcome) => outcome.map(|()| held),
            Err(kind) => {
                let kind = match (&held, kind) {
                    (Some(held), ErrorKind::TimedOut(_)) if deadline == held.until => {
                        ErrorKind::HoldTimedOut { bound: held.bound, leases: 0 }
                    }
                    (_, kind) => kind,
                };
                Err(self.log.end_leg(Stage::HandOver, kind))
            }
        }
    }

    /// Tells everyone of a new current generation, and records the attempt. The caller holds `swapping`, and wakes the reaper when it
    /// has let go of it: the first thing that the reaper does is to ask for it.
    fn swapped(self, change: Change, then: impl FnOnce() -> Option<Duration>) -> Report {
        if let Some(generation) = change.from {
            self.core.journal.emit(&Event::Retired { generation, epoch: change.epoch });
        }
        self.core.let_calls_go();
        let followers = self.core.followers.lock().clone();
        for follow in [followers.runner, followers.group].into_iter().flatten() {
            follow();
        }
        let gap = then();
        self.end(Outcome::Swapped { generation: change.to, previous: change.from }, gap)
    }

    fn refuse(self, Refusal(stage, kind): Refusal) -> Error {
        let error = Error::new(stage, kind, self.core.serving());
        self.end(Outcome::Refused { stage, error: error.reason() }, None);
        error
    }

    /// Records the refusal, then hands what was loaded to the reaper.
    fn refuse_and_discard(self, refusal: Refusal, generation: Option<GenerationRef<T>>) -> Error {
        let core = Arc::clone(&self.core);
        let error = self.refuse(refusal);
        if let Some(generation) = generation {
            core.discard(generation);
        }
        error
    }

    /// Says that nothing has to change, if that is still so.
    pub(super) fn confirm(self, base: Base) -> Result<Report, Box<Refused<T>>> {
        match self.objection_to(base) {
            None => Ok(self.end(Outcome::Unchanged { generation: base.generation }, None)),
            Some(kind) => {
                Err(Box::new(Refused { attempt: self, generation: None, refusal: Refusal(Stage::Commit, kind) }))
            }
        }
    }

    /// What stands against that.
    pub(super) fn objection_to(&self, base: Base) -> Option<ErrorKind> {
        self.core.lineage.check_base(Some(base)).err().map(ErrorKind::from)
    }

    /// Ends it as refused at its last stage, with nothing loaded.
    pub(super) fn refuse_commit(self, kind: ErrorKind) -> Error {
        self.refuse(Refusal(Stage::Commit, kind))
    }

    /// Records how the attempt ended.
    fn end(self, outcome: Outcome, gap: Option<Duration>) -> Report {
        match &outcome {
            // What came after the last stage belongs to the one that refused.
            Outcome::Refused { stage, .. } if self.log.last() != Some(*stage) => self.log.lap(*stage),
            Outcome::Discarded => self.log.lap(Stage::Staged),
            _ => {}
        }
        let stages = self.log.take();
        let report = Report {
            attempt: self.log.attempt,
            at: self.at,
            cause: self.cause,
            requested_by: self.request.requested_by,
            reason: self.request.reason,
            outcome,
            version: self.version,
            digest: self.id.map(|id| id.digest),
            config_digest: self.id.and_then(|id| id.config_digest),
            size: self.size,
            total: stages.iter().map(|(_, duration)| *duration).sum(),
            stages,
            leases_during: self.core.lease_count.end(self.leases_before),
            leases_during_hand_over: self.hand_over.leases,
            leases_held_up: self.hand_over.held_up,
            gap,
        };
        self.core.journal.ended(report.clone());
        report
    }
}

impl<T: ?Sized + Send + Sync + 'static> Pending<T> {
    /// Whether `core` is that of the slot that it was staged in.
    pub(super) fn is_of(&self, core: &Arc<Core<T>>) -> bool {
        Arc::ptr_eq(&self.attempt.core, core)
    }

    /// Lets the next transition in before this one is committed.
    pub(super) fn end_turn(mut self) -> Pending<T> {
        self.turn = None;
        self
    }

    /// The generation that is staged; `None` if the same plugin serves already.
    pub(super) fn generation(&self) -> Option<&Generation<T>> {
        match &self.prepared {
            Prepared::Loaded(generation) => Some(generation),
            Prepared::Unchanged(_) => None,
        }
    }

    /// Ends the time for which the plugin was staged: what follows belongs to the commit.
    pub(super) fn note_wait(&self) {
        self.attempt.log.lap(Stage::Staged);
    }

    pub(super) fn id(&self) -> ArtifactId {
        self.attempt.id.expect("an attempt that was staged knows what it staged")
    }

    /// A lease on the generation that is staged.
    pub(super) fn lease(&self) -> Result<Lease<T>, ErrorKind> {
        Ok(Lease::new(Hold::of(self.loaded()?), Location::caller()))
    }

    /// The generation that is staged, where something can be done with it.
    fn loaded(&self) -> Result<&GenerationRef<T>, ErrorKind> {
        if self.attempt.core.is_forked() {
            return Err(ErrorKind::Forked);
        }
        match &self.prepared {
            Prepared::Loaded(generation) => Ok(generation),
            Prepared::Unchanged(base) => Err(ErrorKind::AlreadyServing(base.generation)),
        }
    }

    /// Serves what is staged to a share of the callers.
    pub(super) fn begin_canary(&self, share: f64) -> Result<(), ErrorKind> {
        let (core, generation) = (&self.attempt.core, self.loaded()?);
        generation.trial.begin_staged();
        generation.trial.share.set(share);
        core.lineage.begin_canary(generation, self.base)?;
        self.set_canary_share(share)
    }

    /// Serves it to another share.
    pub(super) fn set_canary_share(&self, share: f64) -> Result<(), ErrorKind> {
        let (core, generation) = (&self.attempt.core, self.loaded()?);
        let set = || {
            generation.trial.share.set(share);
            core.journal.canary(generation.number, share, None);
        };
        // One that was condemned before it was the canary is not served, either.
        let objection = || generation.trial.objection();
        if objection().is_none() && core.lineage.while_canary(generation.number, set) {
            core.wake();
            return Ok(());
        }
        core.lineage.check_base(self.base)?;
        self.end_canary();
        Err(ErrorKind::CanaryFailed(objection().unwrap_or_else(|| "it was ended meanwhile".to_owned())))
    }

    pub(super) fn canary_share(&self) -> f64 {
        let (core, generation) = (&self.attempt.core, self.generation().expect("it is a canary"));
        let is_served = !core.is_forked() && core.lineage.canary() == Some(generation.number);
        if is_served { generation.trial.share.get() } else { 0.0 }
    }

    /// Serves it to nobody any more.
    pub(super) fn end_canary(&self) {
        let (core, generation) = (&self.attempt.core, self.generation().expect("it is a canary"));
        let tell = || core.journal.canary(generation.number, 0.0, None);
        if !core.is_forked() && core.lineage.end_canary(generation.number, tell) {
            core.wake();
        }
    }

    /// The error of something that was asked for and leaves it as it is.
    pub(super) fn not_now(&self, kind: ErrorKind) -> Error {
        self.attempt.core.not_begun(Stage::Staged, kind)
    }

    /// The last two stages. `then` is called after the swap and before the attempt is recorded: it gives the gap between
    /// two runs.
    pub(super) fn commit(self, hand_over: HandOver, then: impl FnOnce() -> Option<Duration>) -> Result<Report, Error> {
        let core = Arc::clone(&self.attempt.core);
        let result = self.commit_quietly(hand_over, then);
        if !core.is_forked() {
            core.journal.flush();
        }
        result
    }

    /// The same, where the caller has the log lines written.
    pub(super) fn commit_quietly(
        self,
        hand_over: HandOver,
        then: impl FnOnce() -> Option<Duration>,
    ) -> Result<Report, Error> {
        match self.attempt.core.check_caller() {
            Err(kind) => Err(self.refuse_quietly(kind)),
            Ok(()) => self.try_commit(hand_over, then),
        }
    }

    fn try_commit(self, hand_over: HandOver, then: impl FnOnce() -> Option<Duration>) -> Result<Report, Error> {
        let core = Arc::clone(&self.attempt.core);
        if self.turn.is_none() {
            self.note_wait();
        }
        match self.make_ready(hand_over)? {
            Readiness::Unchanged(attempt, base) => attempt.confirm(base).map_err(|refused| refused.refuse()),
            Readiness::Ready(ready) => {
                let span = ready.span();
                let in_order = core.swapping.lock();
                let result = ready.swap(then);
                drop(in_order);
                core.wake();
                let result = result.map_err(|refused| refused.refuse());
                core.journal.trace(|| drop(span));
                result
            }
        }
    }

    /// Hands the state over. What is left of the commit is one store.
    pub(super) fn make_ready(self, hand_over: HandOver) -> Result<Readiness<T>, Error> {
        let Pending { mut attempt, prepared, base, turn } = self;
        let generation = match prepared {
            Prepared::Unchanged(base) => return Ok(Readiness::Unchanged(attempt, base)),
            Prepared::Loaded(generation) => generation,
        };
        let core = Arc::clone(&attempt.core);
        let time = turn.as_ref().map_or(core.settings.reload_timeout, |(_, left)| *left);
        let held = match (attempt.hand_over(&generation, base, after(time)), hand_over) {
            (Ok(held), _) => held,
            (Err(Refusal(stage, kind)), HandOver::BestEffort) if !matches!(kind, ErrorKind::BaseChanged { .. }) => {
                let number = generation.number;
                core.journal.alarm(format!("generation {number} starts without a state: {stage}: {kind}"));
                None
            }
            (Err(refusal), _) => return Err(attempt.refuse_and_discard(refusal, Some(generation))),
        };
        Ok(Readiness::Ready(Ready { attempt, generation, base, held, _turn: turn }))
    }

    /// Ends the attempt as refused, and drops what was staged.
    pub(super) fn refuse(self, kind: ErrorKind) -> Error {
        let core = Arc::clone(&self.attempt.core);
        let error = self.refuse_quietly(kind);
        if !core.is_forked() {
            core.journal.flush();
        }
        error
    }

    /// The same, where the caller writes the log lines.
    pub(super) fn refuse_quietly(self, kind: ErrorKind) -> Error {
        let core = Arc::clone(&self.attempt.core);
        if core.is_forked() {
            // What it is made of takes locks that a thread which is not here may hold.
            std::mem::forget(self);
            return core.not_begun(Stage::Commit, ErrorKind::Forked);
        }
        let Pending { attempt, prepared, .. } = self;
        attempt.refuse_and_discard(Refusal(Stage::Commit, kind), prepared.into_loaded())
    }

    /// Drops what was staged.
    pub(super) fn discard(self) {
        let core = Arc::clone(&self.attempt.core);
        if core.is_forked() {
            return std::mem::forget(self);
        }
        let Pending { attempt, prepared, turn, .. } = self;
        attempt.end(Outcome::Discarded, None);
        if let Some(generation) = prepared.into_loaded() {
            core.discard(generation);
        }
        drop(turn);
        core.journal.flush();
    }
}

impl<T: ?Sized + Send + Sync + 'static> Ready<T> {
    /// The span of the last stage.
    pub(super) fn span(&self) -> tracing::Span {
        self.attempt.core.journal.span(self.attempt.log.attempt, Stage::Commit)
    }

    /// What stands against the swap of what was no canary. Nothing new comes up while the caller holds `swapping`.
    pub(super) fn objection(&self) -> Option<ErrorKind> {
        self.attempt.core.lineage.check_base(self.base).err().map(ErrorKind::from)
    }

    /// Ends the time for which it waited for others.
    pub(super) fn note_wait(&self) {
        self.attempt.log.lap(Stage::Staged);
    }

    /// Makes the generation current. The caller holds `swapping`, and lets go of it before it wakes the reaper or refuses what comes
    /// back.
    pub(super) fn swap(self, then: impl FnOnce() -> Option<Duration>) -> Result<Report, Box<Refused<T>>> {
        let Ready { attempt, generation, base, held, _turn } = self;
        let core = Arc::clone(&attempt.core);
        // It may have been condemned during the hand-over.
        if let Some(objection) = generation.trial.objection_to_canary() {
            let refusal = Refusal(Stage::Commit, ErrorKind::CanaryFailed(objection));
            return Err(Box::new(Refused { attempt, generation: Some(generation), refusal }));
        }
        let result = core.lineage.commit(&generation, base, held.as_ref().map(|held| held.pause));
        let bound = held.as_ref().map(|held| held.bound);
        drop(held);
        attempt.log.lap(Stage::Commit);
        match result {
            Ok(change) => {
                core.staged.lock().remove(&change.to);
                if matches!(attempt.cause, Cause::Reload) {
                    *core.last_reload.lock() = Some(Instant::now());
                }
                drop(generation);
                Ok(attempt.swapped(change, then))
            }
            Err(reason) => {
                let refusal = match (reason, bound) {
                    (NotCommitted::PauseEnded, Some(bound)) => {
                        Refusal(Stage::HandOver, ErrorKind::HoldTimedOut { bound, leases: 0 })
                    }
                    (reason, _) => Refusal(Stage::Commit, reason.into()),
                };
                Err(Box::new(Refused { attempt, generation: Some(generation), refusal }))
            }
        }
    }

    /// Ends the attempt as refused, and drops what was staged. The caller does not hold `swapping`.
    pub(super) fn refuse(self, kind: ErrorKind) -> Error {
        let Ready { attempt, generation, .. } = self;
        attempt.refuse_and_discard(Refusal(Stage::Commit, kind), Some(generation))
    }
}

impl<T: ?Sized + Send + Sync + 'static> Refused<T> {
    pub(super) fn refuse(self: Box<Self>) -> Error {
        self.attempt.refuse_and_discard(self.refusal, self.generation)
    }
}

/// The stages of one attempt: written by the threads that go through them, read by the one that waits for them.
struct StageLog<T: ?Sized> {
    core: Arc<Core<T>>,
    attempt: u64,
    position: Mutex<Position>,
}

struct Position {
    done: Vec<(Stage, Duration)>,
    under_way: Option<Stage>,
    /// The leg that may go on. One that was abandoned has another number.
    leg: u64,
    /// Where the last stage ended, and the next one begins: so no time is lost between two.
    mark: Instant,
    /// How many of those that are done subscribers have been told of.
    told: usize,
}

impl Position {
    /// Ends a stage.
    fn lap(&mut self, stage: Stage, now: Instant) -> Duration {
        let duration = now.saturating_duration_since(self.mark);
        self.mark += duration;
        self.done.push((stage, duration));
        duration
    }

    /// Takes those that subscribers have not been told of.
    fn untold(&mut self) -> Vec<(Stage, Duration)> {
        let told = std::mem::replace(&mut self.told, self.done.len());
        self.done[told..].to_vec()
    }
}

/// A run through some stages on a thread of its own.
struct Leg<T: ?Sized> {
    log: Arc<StageLog<T>>,
    number: u64,
}

impl<T: ?Sized + Send + Sync + 'static> StageLog<T> {
    fn begin_leg(self: &Arc<Self>) -> Leg<T> {
        Leg { log: Arc::clone(self), number: self.position.lock().leg }
    }

    /// Ends a leg that gave no result: it goes no further, whatever its thread still does. It failed at the stage under
    /// way, or at `otherwise` if it had not entered one.
    fn end_leg(&self, otherwise: Stage, kind: ErrorKind) -> Refusal {
        let mut position = self.position.lock();
        position.leg += 1;
        let stage = match position.under_way.take() {
            Some(stage) => {
                position.lap(stage, Instant::now());
                stage
            }
            None => otherwise,
        };
        Refusal(stage, kind)
    }

    /// Ends a stage that ran on the caller's thread.
    fn lap(&self, stage: Stage) {
        let untold = {
            let mut position = self.position.lock();
            position.lap(stage, Instant::now());
            position.untold()
        };
        self.tell(untold);
    }

    /// Ends a stage before the gate. Subscribers are told of it when that has been passed: an attempt that changes nothing, as
    /// the same bytes again do, is one event and not four.
    fn quiet_lap(&self, stage: Stage, now: Instant) {
        self.position.lock().lap(stage, now);
    }

    fn tell(&self, stages: Vec<(Stage, Duration)>) {
        for (stage, duration) in stages {
            self.core.journal.emit(&Event::Stage { attempt: self.attempt, stage, duration });
        }
    }

    fn last(&self) -> Option<Stage> {
        self.position.lock().done.last().map(|(stage, _)| *stage)
    }

    fn take(&self) -> Vec<(Stage, Duration)> {
        std::mem::take(&mut self.position.lock().done)
    }
}

impl<T: ?Sized + Send + Sync + 'static> Leg<T> {
    /// Goes through a stage: measured, in a span, an event for subscribers.
    fn pass<R>(&self, stage: Stage, work: impl FnOnce() -> Result<R, ErrorKind>) -> Result<R, Refusal> {
        let StageLog { core, attempt, position } = &*self.log;
        {
            let mut position = position.lock();
            if position.leg != self.number {
                return Err(Refusal(stage, ErrorKind::TimedOut(core.settings.reload_timeout)));
            }
            position.under_way = Some(stage);
        }
        let span = core.journal.span(*attempt, stage);
        let result = core.journal.in_span(&span, work);
        core.journal.trace(|| drop(span));
        let mut position = position.lock();
        if position.leg == self.number {
            position.under_way = None;
            position.lap(stage, Instant::now());
            let untold = position.untold();
            drop(position);
            self.log.tell(untold);
        }
        result.map_err(|kind| Refusal(stage, kind))
    }
}

impl From<NotCommitted> for ErrorKind {
    fn from(reason: NotCommitted) -> ErrorKind {
        match reason {
            NotCommitted::BaseChanged { base, current } => ErrorKind::BaseChanged { base, current },
            NotCommitted::Closed => ErrorKind::Closed,
            // Only said to whoever paused, who knows for how long.
            NotCommitted::PauseEnded => ErrorKind::HoldTimedOut { bound: Duration::ZERO, leases: 0 },
            NotCommitted::CanaryUnderWay(generation) => ErrorKind::CanaryUnderWay(generation),
        }
    }
}

impl From<NotRolledBack> for ErrorKind {
    fn from(reason: NotRolledBack) -> ErrorKind {
        match reason {
            NotRolledBack::NotWarm { wanted, warm } => ErrorKind::NotWarm { wanted, warm },
            NotRolledBack::BaseChanged { base, current } => ErrorKind::BaseChanged { base: Some(base), current },
            NotRolledBack::AlreadyServing(generation) => ErrorKind::AlreadyServing(generation),
            NotRolledBack::Closed => ErrorKind::Closed,
        }
    }
}
