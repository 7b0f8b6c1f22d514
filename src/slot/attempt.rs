//! The way of an artifact through the stages, and the way back: what a reload, a commit and a rollback do.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use semver::Version;

use super::core::Shared;
use super::deadline::{Lost, after, left, within};
use super::gate::BusyPolicy;
use super::generation::{Generation, GenerationRef};
use super::lineage::{Change, NotCommitted, NotRolledBack, Target};
use super::staged::{Fresh, HandOver, Inner};
use crate::error::Serving;
use crate::event::Event;
use crate::failures::FailureCounter;
use crate::text::panic_text;
use crate::{
    Artifact, Candidate, Cause, Digest, Error, ErrorKind, Lease, LoadContext, Outcome, Payload, Report, Stage, Staged,
    StopSignal,
};

/// An attempt to change the current generation, while it is under way.
pub(super) struct Attempt<T: ?Sized + Send + Sync + 'static> {
    pub(super) shared: Arc<Shared<T>>,
    pub(super) digest: Option<Digest>,
    at: SystemTime,
    began: Instant,
    cause: Cause,
    version: Option<Version>,
    size: usize,
    leases_before: u64,
    itinerary: Arc<StageLog<T>>,
}

/// The stages of one attempt: written by the thread that goes through them, read by the one that waits for it.
struct StageLog<T: ?Sized> {
    shared: Arc<Shared<T>>,
    attempt: u64,
    stops: Mutex<Stops>,
}

#[derive(Default)]
struct Stops {
    done: Vec<(Stage, Duration)>,
    under_way: Option<(Stage, Instant)>,
    /// Nobody waits for the rest any more.
    abandoned: bool,
}

/// What went wrong, and at which stage.
struct Refusal(Stage, ErrorKind);

impl<T: ?Sized + Send + Sync + 'static> Shared<T> {
    /// Stages a plugin; its turn ends with this call.
    pub(super) fn stage(self: &Arc<Self>, candidate: Candidate, cause: Cause) -> Result<Staged<T>, Error> {
        let mut staged = self.stage_in_turn(candidate, cause)?;
        staged.end_turn();
        Ok(staged)
    }

    /// Stages a plugin; its turn ends with the commit, so that nothing else can come between.
    pub(super) fn stage_in_turn(self: &Arc<Self>, candidate: Candidate, cause: Cause) -> Result<Staged<T>, Error> {
        let mut attempt = Attempt::begin(self, cause);
        attempt.size = candidate.bytes.len();
        attempt.version = candidate.version.clone();
        let Some(pass) = self.staging.enter(self.policy.when_busy) else {
            return Err(attempt.refuse(Refusal(Stage::Gate, ErrorKind::Busy)));
        };
        let deadline = after(self.policy.reload_timeout);
        let serving = self.serving();
        let base = serving.as_ref().map(|serving| serving.generation);
        match attempt.make_fresh(candidate, serving, deadline) {
            Ok(fresh) => Ok(Staged::new(Inner { attempt, fresh, base, turn: Some((pass, left(deadline))) })),
            Err(refusal) => Err(attempt.refuse(refusal)),
        }
    }

    /// Whether a new plugin can come in at the moment. Waits for destructions that are about to make room.
    fn make_room(&self, deadline: Instant) -> Result<(), ErrorKind> {
        if self.line.is_closed() {
            return Err(ErrorKind::Closed);
        }
        let since = self.last_reload.lock().map(|last| last.elapsed());
        let wait = since.and_then(|since| self.policy.min_reload_interval.checked_sub(since));
        if let Some(retry_after) = wait.filter(|wait| !wait.is_zero()) {
            return Err(ErrorKind::TooSoon { retry_after });
        }
        let limit = self.policy.max_retired;
        loop {
            let lingering = self.lingering();
            if lingering.sum() < limit {
                return Ok(());
            }
            if lingering.held() >= limit || Instant::now() >= deadline {
                return Err(ErrorKind::TooManyRetired { lingering: lingering.sum(), limit });
            }
            self.freed.wait(Some(deadline));
        }
    }

    fn admit(&self, candidate: &Candidate, payload: &Payload) -> Result<Artifact, ErrorKind> {
        let mut admission = self.backend.admit(payload).map_err(ErrorKind::Refused)?;
        match (&admission.manifest.version, &candidate.version) {
            (Some(own), Some(said)) if own != said => {
                return Err(ErrorKind::Version(format!(
                    "the plugin says that it is version {own}, the caller says {said}: let the bytes speak"
                )));
            }
            (None, Some(said)) => admission.manifest.version = Some(said.clone()),
            _ => {}
        }
        let serving = self.serving().and_then(|serving| serving.version);
        if let Some(objection) =
            self.policy.version_rule.objection(serving.as_ref(), admission.manifest.version.as_ref())
        {
            return Err(ErrorKind::Version(objection));
        }
        let artifact = Artifact::new(payload.clone(), admission);
        self.policy.admit.iter().try_for_each(|admit| admit(&artifact)).map_err(ErrorKind::Refused)?;
        Ok(artifact)
    }

    fn load_generation(&self, artifact: &Artifact) -> Result<GenerationRef<T>, ErrorKind> {
        let number = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let wakeup = Arc::clone(&self.wakeup);
        let failures = FailureCounter::new({
            let wakeup = Arc::clone(&wakeup);
            move || wakeup.wake()
        });
        let stop = StopSignal::new();
        let context = LoadContext {
            generation: number,
            slot: Arc::clone(&self.name),
            stop: stop.clone(),
            failures: failures.clone(),
            scope: self.scope.clone(),
        };
        let loaded = self.backend.load(artifact, &context).map_err(ErrorKind::Refused)?;
        let track = self.policy.track_leases;
        Ok(GenerationRef::new(Generation::new(number, artifact, loaded, stop, failures, wakeup, track)))
    }

    /// A panic ends here, so that the plugin is discarded as after any other refusal, and not by the unwinding.
    fn probe(&self, plugin: &T) -> Result<(), ErrorKind> {
        let probes = || self.policy.probe.iter().try_for_each(|probe| probe(plugin));
        match catch_unwind(AssertUnwindSafe(probes)) {
            Ok(result) => result.map_err(ErrorKind::Refused),
            Err(panic) => Err(ErrorKind::Panicked(panic_text(panic))),
        }
    }

    /// Goes back. `then` is called after the swap and before the attempt is recorded: it gives the gap between runs.
    pub(super) fn rollback(
        self: &Arc<Self>,
        target: Target,
        cause: Cause,
        then: impl FnOnce() -> Option<Duration>,
    ) -> Result<Report, Error> {
        let mut attempt = Attempt::begin(self, cause);
        let _in_order = self.swapping.lock();
        let result = attempt.itinerary.pass(Stage::Commit, || {
            let look =
                |generation: &Generation<T>| (generation.digest, generation.manifest.version.clone(), generation.size);
            self.line.rollback(target, look).map_err(ErrorKind::from)
        });
        match result {
            Ok((change, (digest, version, size))) => {
                (attempt.digest, attempt.version, attempt.size) = (Some(digest), version, size);
                Ok(attempt.swapped(change, then))
            }
            Err(refusal) => Err(attempt.refuse(refusal)),
        }
    }

    /// Runs foreign code until `deadline`. If it comes back later than that, `discard` gets the result.
    fn within<R: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        work: impl FnOnce() -> R + Send + 'static,
        discard: impl FnOnce(&Self, R) + Send + 'static,
    ) -> Result<R, ErrorKind> {
        let theirs = Arc::clone(self);
        let late = move |result: Option<R>| {
            if let Some(result) = result {
                discard(&theirs, result);
            }
            theirs.hung.fetch_sub(1, Ordering::Release);
            theirs.wakeup.wake();
            theirs.freed.wake();
        };
        let abandon = || {
            self.hung.fetch_add(1, Ordering::Relaxed);
        };
        within(deadline, "hotslot-stage", work, abandon, late).map_err(|lost| match lost {
            Lost::TimedOut => ErrorKind::TimedOut(self.policy.reload_timeout),
            Lost::Panicked(text) => ErrorKind::Panicked(text),
            Lost::NoThread(error) => ErrorKind::NoThread(error),
        })
    }
}

impl<T: ?Sized + Send + Sync + 'static> Attempt<T> {
    fn begin(shared: &Arc<Shared<T>>, cause: Cause) -> Attempt<T> {
        let attempt = shared.journal.next_attempt();
        let itinerary = StageLog { shared: Arc::clone(shared), attempt, stops: Mutex::default() };
        Attempt {
            digest: None,
            at: SystemTime::now(),
            began: Instant::now(),
            cause,
            version: None,
            size: 0,
            leases_before: shared.tally.begin(),
            itinerary: Arc::new(itinerary),
            shared: Arc::clone(shared),
        }
    }

    /// Everything up to the probe. What does not depend on the artifact's insides is checked here and now.
    fn make_fresh(
        &mut self,
        candidate: Candidate,
        serving: Option<Serving>,
        deadline: Instant,
    ) -> Result<Fresh<T>, Refusal> {
        let (size, limit) = (self.size, self.shared.policy.max_artifact_size);
        if size > limit {
            return Err(Refusal(Stage::Admit, ErrorKind::TooLarge { size, limit }));
        }
        let mut payload = Payload::new(Arc::clone(&candidate.bytes));
        if let Some(config) = &candidate.config {
            payload = payload.with_config(Arc::clone(config));
        }
        let digest = payload.digest();
        self.digest = Some(digest);
        if let Some(serving) = serving.filter(|serving| serving.digest == digest && !candidate.force) {
            self.version = serving.version;
            return Ok(Fresh::Unchanged(serving.generation));
        }
        self.itinerary.pass(Stage::Gate, || self.shared.make_room(deadline))?;

        let (shared, itinerary) = (Arc::clone(&self.shared), Arc::clone(&self.itinerary));
        let prepare = move || {
            let artifact = itinerary.pass(Stage::Admit, || shared.admit(&candidate, &payload))?;
            let generation = itinerary.pass(Stage::Load, || shared.load_generation(&artifact))?;
            match itinerary.pass(Stage::Probe, || shared.probe(&generation.loaded.plugin)) {
                Ok(()) => Ok(generation),
                Err(refusal) => {
                    shared.discard(generation);
                    Err(refusal)
                }
            }
        };
        let discard = |shared: &Shared<T>, late: Result<GenerationRef<T>, Refusal>| {
            if let Ok(generation) = late {
                shared.discard(generation);
            }
        };
        let generation = self
            .shared
            .within(deadline, prepare, discard)
            .map_err(|kind| self.itinerary.abandon(Stage::Load, kind))??;
        self.version = generation.manifest.version.clone();
        Ok(Fresh::Loaded(generation))
    }

    /// Says that nothing has to change, if that is still so.
    pub(super) fn confirm(self, generation: u64) -> Result<Report, Error> {
        match self.shared.serving() {
            Some(serving) if serving.generation == generation => Ok(self.end(Outcome::Unchanged { generation }, None)),
            Some(serving) => {
                let (base, current) = (Some(generation), serving.generation);
                Err(self.refuse(Refusal(Stage::Commit, ErrorKind::BaseChanged { base, current })))
            }
            None => Err(self.refuse(Refusal(Stage::Commit, ErrorKind::Closed))),
        }
    }

    /// The last two stages. `left` is what is left of the time for the whole reload, if this is part of one.
    pub(super) fn commit(
        self,
        generation: GenerationRef<T>,
        base: Option<u64>,
        hand_over: HandOver,
        left: Option<Duration>,
        then: impl FnOnce() -> Option<Duration>,
    ) -> Result<Report, Error> {
        let handed_over = match (self.hand_over(&generation, base, left), hand_over) {
            (Err(Refusal(stage, kind)), HandOver::BestEffort) => {
                let number = generation.number;
                self.shared.journal.alarm(format!("generation {number} starts without a state: {stage}: {kind}"));
                Ok(())
            }
            (result, _) => result,
        };
        let shared = Arc::clone(&self.shared);
        let _in_order = shared.swapping.lock();
        let committed = handed_over.and_then(|()| {
            self.itinerary.pass(Stage::Commit, || self.shared.line.commit(&generation, base).map_err(ErrorKind::from))
        });
        match committed {
            Ok(change) => {
                *shared.last_reload.lock() = Some(Instant::now());
                Ok(self.swapped(change, then))
            }
            Err(refusal) => {
                shared.discard(generation);
                Err(self.refuse(refusal))
            }
        }
    }

    /// Runs the user's hook, if there is one and anything to take the state from.
    fn hand_over(&self, new: &GenerationRef<T>, base: Option<u64>, left: Option<Duration>) -> Result<(), Refusal> {
        let Some(hook) = self.shared.policy.hand_over.clone() else { return Ok(()) };
        let _turn = self.shared.handing_over.enter(BusyPolicy::Queue);
        let Some(hold) = self.shared.line.load() else { return Ok(()) };
        let old = Lease::new(hold, Location::caller());
        if Some(Lease::generation(&old)) != base {
            let current = Lease::generation(&old);
            return Err(Refusal(Stage::HandOver, ErrorKind::BaseChanged { base, current }));
        }
        let (itinerary, new) = (Arc::clone(&self.itinerary), new.clone());
        let work =
            move || itinerary.pass(Stage::HandOver, || hook(&old, &new.loaded.plugin).map_err(ErrorKind::Refused));
        let deadline = after(left.unwrap_or(self.shared.policy.reload_timeout));
        self.shared.within(deadline, work, |_, _| {}).map_err(|kind| self.itinerary.abandon(Stage::HandOver, kind))?
    }

    /// Tells everyone of a new current generation, and records the attempt.
    fn swapped(self, change: Change, then: impl FnOnce() -> Option<Duration>) -> Report {
        if let Some(generation) = change.from {
            self.shared.journal.emit(&Event::Retired { generation, epoch: change.epoch });
        }
        self.shared.wakeup.wake();
        let follower = self.shared.follower.lock().clone();
        if let Some(follow) = follower {
            follow();
        }
        let gap = then();
        self.end(Outcome::Swapped { generation: change.to, previous: change.from }, gap)
    }

    fn refuse(self, Refusal(stage, kind): Refusal) -> Error {
        let error = Error::new(stage, kind, self.shared.serving());
        self.end(Outcome::Refused { stage, error: error.reason() }, None);
        error
    }

    /// Records how the attempt ended.
    pub(super) fn end(self, outcome: Outcome, gap: Option<Duration>) -> Report {
        let report = Report {
            attempt: self.itinerary.attempt,
            at: self.at,
            cause: self.cause,
            outcome,
            version: self.version,
            digest: self.digest,
            size: self.size,
            stages: std::mem::take(&mut self.itinerary.stops.lock().done),
            total: self.began.elapsed(),
            leases_during: self.shared.tally.end(self.leases_before),
            gap,
        };
        self.shared.journal.ended(report.clone());
        report
    }
}

impl<T: ?Sized + Send + Sync + 'static> StageLog<T> {
    /// Goes through a stage: measured, in a span, an event for subscribers.
    fn pass<R>(&self, stage: Stage, work: impl FnOnce() -> Result<R, ErrorKind>) -> Result<R, Refusal> {
        let began = Instant::now();
        {
            let mut stops = self.stops.lock();
            if stops.abandoned {
                return Err(Refusal(stage, ErrorKind::TimedOut(self.shared.policy.reload_timeout)));
            }
            stops.under_way = Some((stage, began));
        }
        let span = tracing::info_span!("hotslot", slot = &*self.shared.name, attempt = self.attempt, %stage);
        let result = span.in_scope(work);
        let duration = began.elapsed();
        let mut stops = self.stops.lock();
        if !stops.abandoned {
            stops.under_way = None;
            stops.done.push((stage, duration));
            drop(stops);
            self.shared.journal.emit(&Event::Stage { attempt: self.attempt, stage, duration });
        }
        result.map_err(|kind| Refusal(stage, kind))
    }

    /// Ends the journey where it is: at the stage under way, or at `otherwise` if none was entered.
    fn abandon(&self, otherwise: Stage, kind: ErrorKind) -> Refusal {
        let mut stops = self.stops.lock();
        stops.abandoned = true;
        let stage = match stops.under_way.take() {
            Some((stage, began)) => {
                stops.done.push((stage, began.elapsed()));
                stage
            }
            None => otherwise,
        };
        Refusal(stage, kind)
    }
}

impl From<NotCommitted> for ErrorKind {
    fn from(reason: NotCommitted) -> ErrorKind {
        match reason {
            NotCommitted::BaseChanged { base, current } => ErrorKind::BaseChanged { base, current },
            NotCommitted::Closed => ErrorKind::Closed,
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
