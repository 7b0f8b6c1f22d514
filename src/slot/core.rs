//! What a slot, its staged plugins and its generations share.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use super::current::Hold;
use super::deadline::after;
use super::gate::{Gate, Turn};
use super::generation::{Generation, GenerationRef, Home};
use super::journal::Journal;
use super::lease_count::LeaseCount;
use super::lineage::{Base, Lineage, Pause, RetiredView, SecondOpinion, ServingView, Slow};
use super::probation::{Trial, Verdict};
use super::reaper;
use super::settings::Settings;
use super::teardown::Teardown;
use super::wakeup::Wakeup;
use crate::error::Serving;
use crate::event::Event;
use crate::lock::{Monitor, Mutex};
use crate::process_id::ProcessId;
use crate::status::{Phase, RetiredStatus, ServingStatus, StagedStatus, Status};
use crate::workers::{self, Afterwards};
use crate::{Backend, ErrorKind, Lease, PluginScope};

pub(super) struct Core<T: ?Sized> {
    pub(super) name: Arc<str>,
    /// Marks threads on which foreign code of this slot runs.
    pub(super) scope: PluginScope,
    pub(super) backend: Arc<dyn Backend<T>>,
    pub(super) settings: Settings<T>,
    pub(super) lineage: Lineage<Generation<T>>,
    pub(super) journal: Journal,
    /// Whether the reaper has been asked to look and has not begun to.
    pub(super) woken: AtomicBool,
    /// Woken by the reaper when something is gone.
    pub(super) freed: Wakeup,
    /// One stage at a time; a reload keeps its turn until it has committed.
    pub(super) staging: Gate,
    /// One hand-over at a time, also between staged plugins that are committed at once.
    pub(super) handing_over: Gate,
    /// Held from a swap until it is recorded, so that the history has the order of the swaps, and while what can be
    /// destroyed is taken off the lineage, so that its end comes after its swap. No foreign code runs under it.
    pub(super) swapping: Mutex<()>,
    pub(super) next_generation: AtomicU64,
    pub(super) last_reload: Mutex<Option<Instant>>,
    /// Work that was abandoned and has not come back.
    pub(super) hung: AtomicUsize,
    /// Generations beside the serving one that were not committed yet.
    pub(super) staged: Mutex<BTreeMap<u64, StagedEntry>>,
    pub(super) teardowns: Mutex<Vec<Teardown>>,
    pub(super) lease_count: LeaseCount,
    /// Readers that found calls held. Taken before the lineage's lock, never after it.
    pub(super) held_up: Monitor<HeldUp>,
    /// Told of every swap.
    pub(super) followers: Mutex<Followers>,
    /// What [`reload_soon`](crate::HotSlot::reload_soon) is to do.
    pub(super) deferred: Mutex<Deferred>,
    /// The process in which the slot was opened.
    process: ProcessId,
}

/// Counts readers that found calls held.
#[derive(Clone, Copy, Default)]
pub(super) struct HeldUp {
    /// How many waited.
    pub(super) waited: u64,
    /// How many could not wait, because it would have been for themselves.
    pub(super) exempt: u64,
    /// How often holding has ended.
    ends: u64,
}

/// Calls that are held: no lease is handed out but to those that cannot wait. They go on when this is dropped, to whatever
/// is current then.
pub(super) struct HeldCalls<T: ?Sized + Send + Sync + 'static> {
    core: Arc<Core<T>>,
    pub(super) pause: Pause,
    pub(super) bound: Duration,
    pub(super) until: Instant,
    /// The next hand-over waits until calls go on: before that, it would find nobody to take the state from.
    _turn: Turn,
}

impl<T: ?Sized + Send + Sync + 'static> Drop for HeldCalls<T> {
    fn drop(&mut self) {
        self.core.lineage.resume(self.pause);
        self.core.let_calls_go();
    }
}

/// Called after each change of the current generation.
pub(super) type Follower = Arc<dyn Fn() + Send + Sync>;

/// What follows the changes of a slot.
#[derive(Clone, Default)]
pub(super) struct Followers {
    pub(super) runner: Option<Follower>,
    /// Every slot is in one group at most.
    pub(super) group: Option<Follower>,
}

/// A staged generation, as the status shows it.
pub(super) struct StagedEntry {
    /// What does not change.
    status: StagedStatus,
    since: Instant,
    trial: Arc<Trial>,
}

impl StagedEntry {
    fn status(&self, canary: Option<u64>) -> StagedStatus {
        let Trial { stats, share, .. } = &*self.trial;
        StagedStatus {
            age: self.since.elapsed(),
            share: if canary == Some(self.status.generation) { share.get() } else { 0.0 },
            calls: stats.calls(),
            failures: stats.failures(),
            objection: self.trial.objection(),
            ..self.status.clone()
        }
    }
}

/// At most one reload that is to be done soon, and whether a thread is at it.
#[derive(Default)]
pub(super) struct Deferred {
    pub(super) next: Option<DeferredReload>,
    pub(super) at_work: bool,
}

/// A reload that is done later, or is refused because another one took its place.
pub(super) struct DeferredReload {
    pub(super) run: Box<dyn FnOnce() + Send>,
    pub(super) supersede: Box<dyn FnOnce() + Send>,
}

/// How many generations linger in memory without being of use, and why.
#[derive(Clone, Copy, Default)]
pub(super) struct Lingering {
    /// Somebody has a lease.
    held: usize,
    /// The reaper has not come to them yet.
    free: usize,
    destroying: usize,
    /// Loads and hooks that were abandoned.
    hung: usize,
    /// Loaded, and neither committed nor dropped.
    staged: usize,
}

impl Lingering {
    pub(super) fn sum(self) -> usize {
        self.held + self.free + self.destroying + self.hung + self.staged
    }

    /// Those that will not go without somebody's doing.
    pub(super) fn held(self) -> usize {
        self.held + self.hung + self.staged
    }
}

impl<T: ?Sized + Send + Sync + 'static> Core<T> {
    /// A slot without a plugin. The reaper runs when this returns.
    pub(super) fn start(
        name: Arc<str>,
        backend: Arc<dyn Backend<T>>,
        settings: Settings<T>,
    ) -> Result<Arc<Core<T>>, ErrorKind> {
        // Before any lock, which a thread may have held when this process was forked.
        if !ProcessId::claim() {
            return Err(ErrorKind::Forked);
        }
        workers::start().and_then(|()| reaper::start()).map_err(ErrorKind::NoThread)?;
        let scope = PluginScope::new();
        Ok(Arc::new(Core {
            journal: Journal::new(Arc::clone(&name), scope.clone()),
            name,
            scope,
            backend,
            lineage: Lineage::new(settings.keep_previous),
            settings,
            woken: AtomicBool::new(false),
            freed: Wakeup::default(),
            staging: Gate::default(),
            handing_over: Gate::default(),
            swapping: Mutex::default(),
            next_generation: AtomicU64::new(1),
            last_reload: Mutex::default(),
            hung: AtomicUsize::new(0),
            staged: Mutex::default(),
            teardowns: Mutex::default(),
            lease_count: LeaseCount::default(),
            held_up: Monitor::default(),
            followers: Mutex::default(),
            deferred: Mutex::default(),
            process: ProcessId::current(),
        }))
    }

    #[inline]
    pub(super) fn load(&self, location: &'static Location<'static>) -> Option<Lease<T>> {
        Some(Lease::new(self.hold(|hold| hold)?, location))
    }

    /// A hold on the current generation; `after_wait` may have another one if calls were held meanwhile.
    #[inline]
    fn hold(&self, after_wait: impl FnOnce(Hold<Generation<T>>) -> Hold<Generation<T>>) -> Option<Hold<Generation<T>>> {
        self.lease_count.note();
        match self.lineage.load() {
            Some(hold) => Some(hold),
            None => self.load_slowly().map(after_wait),
        }
    }

    /// The lease for the holder of a key: on the canary, if the key is among its share.
    #[inline]
    pub(super) fn load_for(&self, key: &[u8], location: &'static Location<'static>) -> Option<Lease<T>> {
        let canary = || self.lineage.load_canary().filter(|hold| hold.trial.share.contains(key));
        if let Some(hold) = canary() {
            return Some(Lease::new(hold, location));
        }
        // Pairs with the release with which the canary left its cell: it was in the other one before.
        fence(Ordering::Acquire);
        // Calls that were held may go on without a swap.
        let hold = self.hold(|hold| canary().unwrap_or(hold))?;
        Some(Lease::new(hold, location))
    }

    /// Waits until calls are no longer held.
    #[cold]
    fn load_slowly(&self) -> Option<Hold<Generation<T>>> {
        let is_exempt = self.scope.is_entered();
        let mut held_up = self.held_up.lock();
        let mut has_waited = false;
        loop {
            match self.lineage.load_slowly(is_exempt) {
                Slow::Nothing => return None,
                Slow::Hold(hold) => return Some(hold),
                Slow::Exempt(hold) => {
                    held_up.exempt += 1;
                    return Some(hold);
                }
                Slow::Wait(until) => {
                    held_up.waited += u64::from(!std::mem::replace(&mut has_waited, true));
                    let ends = held_up.ends;
                    held_up = self.held_up.wait_while_until(held_up, until, |held_up| held_up.ends == ends);
                }
            }
        }
    }

    /// Holds calls, and waits until none is under way on `base`, of which the caller has one lease, nor on `new`, which may
    /// be a canary. The hand-over has to be over within `bound` of now.
    pub(super) fn hold_calls(
        self: &Arc<Self>,
        base: Base,
        new: u64,
        bound: Duration,
        turn: Turn,
    ) -> Result<HeldCalls<T>, ErrorKind> {
        /// How long to look away between two looks. A lease that ends tells nobody: that would be paid for by all of them.
        const SHORTEST: Duration = Duration::from_micros(20);
        const LONGEST: Duration = Duration::from_millis(2);
        let until = after(bound);
        let Some(pause) = self.lineage.pause(base, until) else {
            let current = self.lineage.base().ok_or(ErrorKind::Closed)?;
            return Err(ErrorKind::BaseChanged { base: Some(base.generation), current: current.generation });
        };
        let held = HeldCalls { core: Arc::clone(self), pause, bound, until, _turn: turn };
        let mut nap = SHORTEST;
        loop {
            let leases = self.lineage.holds_on_serving();
            let leases = leases.zip(self.lineage.calls_on_canary(new)).map(|(old, new)| old + new);
            if leases.is_some_and(|leases| leases <= 1) {
                return Ok(held);
            }
            if Instant::now() >= until {
                let leases = leases.unwrap_or_else(|| self.lineage.about_holds_on_serving());
                return Err(ErrorKind::HoldTimedOut { bound, leases: leases.saturating_sub(1) });
            }
            std::thread::sleep(nap);
            nap = LONGEST.min(nap * 2);
        }
    }

    /// Wakes the readers that wait because calls were held.
    pub(super) fn let_calls_go(&self) {
        if self.settings.hold_calls.is_some() {
            self.held_up.lock().ends += 1;
            self.held_up.notify_all();
        }
    }

    /// Whether a transition may be asked for from here: not in a process that was forked from the slot's, where its
    /// threads are missing, and not from the slot's own foreign code, where it would wait for itself.
    ///
    /// Takes no lock and logs nothing: a lock may have been held by a thread that the fork left behind, and a tracing
    /// subscriber that asks for a transition would be asked to log that.
    pub(super) fn check_caller(&self) -> Result<(), ErrorKind> {
        if self.is_forked() {
            return Err(ErrorKind::Forked);
        }
        if self.scope.is_entered() {
            return Err(ErrorKind::Misuse(format!(
                "a transition of the slot `{}` was asked for from inside of it: from a hook, the backend, its plugin, a \
                 service that the plugin calls, or a tracing subscriber that it logs to; it would wait for itself. Use \
                 reload_soon, or ask on another thread",
                self.name
            )));
        }
        Ok(())
    }

    /// What becomes of a thread that ran the slot's foreign code.
    pub(super) fn afterwards(&self) -> Afterwards {
        if self.backend.taints_threads() { Afterwards::End } else { Afterwards::Stay }
    }

    pub(super) fn is_forked(&self) -> bool {
        !self.process.is_current()
    }

    /// Has the reaper look at this slot. In a forked process there is none, and its lock may be held for ever.
    pub(super) fn wake(self: &Arc<Self>) {
        if self.is_forked() {
            return;
        }
        if !self.woken.swap(true, Ordering::AcqRel) {
            reaper::wake(Arc::clone(self) as Arc<dyn reaper::Tended>);
        }
    }

    /// Retires everything; the reaper lets go of the slot when all of it is gone.
    pub(super) fn close(self: &Arc<Self>) {
        if self.is_forked() {
            return;
        }
        {
            let _in_order = self.swapping.lock();
            self.lineage.close();
        }
        self.let_calls_go();
        self.wake();
    }

    pub(super) fn serving(&self) -> Option<Serving> {
        self.lineage.serving(|view| Serving {
            generation: view.generation.number,
            version: view.generation.manifest.version.clone(),
            digest: view.generation.id.digest,
            config_digest: view.generation.id.config_digest,
        })
    }

    /// Hands a generation that will not serve to the reaper.
    pub(super) fn discard(self: &Arc<Self>, generation: GenerationRef<T>) {
        // Seen as retired before it is no longer seen as staged, so that nobody overlooks it.
        let number = generation.number;
        self.lineage.discard(generation);
        self.staged.lock().remove(&number);
        self.wake();
    }

    /// Notes that a generation was loaded and waits for its commit.
    pub(super) fn note_staged(&self, generation: &Generation<T>) {
        let status = StagedStatus {
            generation: generation.number,
            version: generation.manifest.version.clone(),
            digest: generation.id.digest,
            config_digest: generation.id.config_digest,
            size: generation.size,
            footprint: generation.footprint,
            age: Duration::ZERO,
            share: 0.0,
            calls: 0,
            failures: 0,
            objection: None,
        };
        let entry = StagedEntry { status, since: Instant::now(), trial: Arc::clone(&generation.trial) };
        self.staged.lock().insert(generation.number, entry);
    }

    /// Reports what has had leases out for too long, as `due` sees it.
    pub(super) fn report_stuck(&self, due: impl Fn(&RetiredView<'_, Generation<T>>) -> bool) {
        let events = self.lineage.mark_stuck(due, |view| {
            view.generation.stop.set_overdue();
            Event::Stuck {
                generation: view.generation.number,
                version: view.generation.manifest.version.clone(),
                age: view.since.elapsed(),
                leases: view.leases,
                oldest_lease: view.generation.lease_sites.as_ref().and_then(|sites| sites.oldest()),
            }
        });
        events.into_iter().for_each(|event| self.journal.stuck(event));
    }

    /// What must not pile up.
    pub(super) fn lingering(&self) -> Lingering {
        // What hung and came back, and what was staged and dropped, is on the lineage before it is struck off here: in
        // this order, none is overlooked.
        let hung = self.hung.load(Ordering::Acquire);
        let staged = self.staged.lock().len();
        // Held meanwhile, so that none is seen twice on its way from the lineage to its teardown.
        let teardowns = self.teardowns.lock();
        let held = self.lineage.retired(|view| (!view.warm).then_some(view.leases > 0));
        let destroying = teardowns.len();
        drop(teardowns);
        let mut lingering = Lingering { destroying, hung, staged, ..Lingering::default() };
        for held in held.into_iter().flatten() {
            if held { lingering.held += 1 } else { lingering.free += 1 }
        }
        lingering
    }

    pub(super) fn status(&self) -> Status {
        if self.is_forked() {
            // A lock may have been held by a thread that the fork left behind.
            return Status { slot: self.name.to_string(), ..Status::default() };
        }
        let serving = |view: ServingView<'_, Generation<T>>| {
            let (generation, stats) = (view.generation, &view.generation.trial.stats);
            ServingStatus {
                generation: generation.number,
                name: generation.manifest.name.clone(),
                version: generation.manifest.version.clone(),
                digest: generation.id.digest,
                config_digest: generation.id.config_digest,
                size: generation.size,
                footprint: generation.footprint,
                epoch: view.epoch,
                age: view.since.elapsed(),
                loaded_at: generation.loaded_at,
                calls: stats.calls(),
                failures: stats.failures(),
                excused: stats.excused(),
                unjudged: stats.unjudged(),
                last_failure: generation.failures.last_failure(),
                on_probation: generation.trial.is_on_probation(),
                objection: generation.trial.objection(),
            }
        };
        let retired = |view: RetiredView<'_, Generation<T>>| RetiredStatus {
            generation: view.generation.number,
            version: view.generation.manifest.version.clone(),
            digest: view.generation.id.digest,
            config_digest: view.generation.id.config_digest,
            size: view.generation.size,
            footprint: view.generation.footprint,
            epoch: view.epoch,
            age: view.since.elapsed(),
            phase: if view.warm { Phase::Warm } else { Phase::Draining },
            leases: view.leases,
            oldest_lease: view.generation.lease_sites.as_ref().and_then(|sites| sites.oldest()),
            stuck: view.stuck,
        };
        // In the order of `lingering`, for the same reasons.
        let hung = self.hung.load(Ordering::Acquire);
        let canary = self.lineage.canary();
        let staged = self.staged.lock().values().map(|entry| entry.status(canary)).collect();
        let teardowns = self.teardowns.lock();
        let (serving, mut retired) = self.lineage.all(serving, retired);
        retired.extend(teardowns.iter().map(Teardown::status));
        drop(teardowns);
        Status {
            slot: self.name.to_string(),
            serving,
            staged,
            retired,
            hung,
            retained: self.journal.retained(),
            counters: self.journal.counters(),
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> Home<T> for Core<T> {
    fn wake_reaper(self: Arc<Self>) {
        Core::wake(&self);
        reaper::let_go(self);
    }

    fn heed(self: Arc<Self>, generation: u64, verdict: Verdict) {
        match verdict {
            Verdict::Stays => {}
            Verdict::Condemned if self.is_forked() => {}
            Verdict::Condemned => {
                let staged = self.staged.lock().get(&generation).map(|entry| Arc::clone(&entry.trial));
                if let Some(trial) = staged {
                    self.lineage.end_canary(generation, || self.journal.canary(generation, 0.0, trial.objection()));
                }
                // It rolls the generation back, if that is current, and writes the log.
                Core::wake(&self);
            }
            Verdict::PolicyPanicked(what) => {
                self.journal.alarm(format!("the probation policy panicked over generation {generation}: {what}"));
                self.journal.flush();
            }
        }
        reaper::let_go(self);
    }

    fn second_opinion(self: Arc<Self>, generation: u64) -> SecondOpinion<Generation<T>> {
        let opinion = self.lineage.second_opinion(generation, Generation::begin_consultation);
        reaper::let_go(self);
        opinion
    }
}
