//! What a slot, its staged plugins and its reaper share.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::gate::Gate;
use super::generation::{Generation, GenerationRef};
use super::journal::Journal;
use super::lineage::{Lineage, RetiredView, ServingView};
use super::reaper::{self, Teardown};
use super::settings::Policy;
use super::wakeup::Wakeup;
use crate::error::Serving;
use crate::event::Event;
use crate::status::{Phase, RetiredStatus, ServingStatus, Status};
use crate::{Backend, Lease, PluginScope};

pub(super) struct Shared<T: ?Sized> {
    pub(super) name: Arc<str>,
    /// Marks threads on which foreign code of this slot runs.
    pub(super) scope: PluginScope,
    pub(super) backend: Arc<dyn Backend<T>>,
    pub(super) policy: Policy<T>,
    pub(super) line: Lineage<Generation<T>>,
    pub(super) journal: Journal,
    /// Woken for the reaper.
    pub(super) wakeup: Arc<Wakeup>,
    /// Woken by the reaper when something is gone.
    pub(super) freed: Wakeup,
    /// One stage at a time; a reload keeps its turn until it has committed.
    pub(super) staging: Gate,
    /// One hand-over at a time, also between staged plugins that are committed at once.
    pub(super) handing_over: Gate,
    /// Held from a swap until it is recorded, so that the history has the order of the swaps.
    pub(super) swapping: Mutex<()>,
    pub(super) next_generation: AtomicU64,
    pub(super) last_reload: Mutex<Option<Instant>>,
    /// Work that was abandoned and has not come back.
    pub(super) hung: AtomicUsize,
    pub(super) teardowns: Mutex<Vec<Teardown>>,
    pub(super) tally: Tally,
    /// Told of every swap: how a runner follows.
    pub(super) follower: Mutex<Option<Follower>>,
}

/// Called after each change of the current generation.
pub(super) type Follower = Arc<dyn Fn() + Send + Sync>;

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
}

impl Lingering {
    pub(super) fn sum(self) -> usize {
        self.held + self.free + self.destroying + self.hung
    }

    /// Those that will not go by themselves.
    pub(super) fn held(self) -> usize {
        self.held + self.hung
    }
}

/// Counts leases, but only while somebody wants to know: readers share a flag, not a counter.
#[derive(Default)]
pub(super) struct Tally {
    attempts: AtomicUsize,
    leases: AtomicU64,
}

impl Tally {
    #[inline]
    fn note(&self) {
        if self.attempts.load(Ordering::Relaxed) > 0 {
            self.leases.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to count; gives where the count stands.
    pub(super) fn begin(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.leases.load(Ordering::Relaxed)
    }

    /// Ends what `begin` began; gives the leases since.
    pub(super) fn end(&self, begun_at: u64) -> u64 {
        let leases = self.leases.load(Ordering::Relaxed) - begun_at;
        self.attempts.fetch_sub(1, Ordering::Relaxed);
        leases
    }
}

impl<T: ?Sized + Send + Sync + 'static> Shared<T> {
    /// A slot without a plugin, and its reaper.
    pub(super) fn start(
        name: Arc<str>,
        backend: Arc<dyn Backend<T>>,
        policy: Policy<T>,
    ) -> std::io::Result<Arc<Shared<T>>> {
        let shared = Arc::new(Shared {
            journal: Journal::new(Arc::clone(&name)),
            name,
            scope: PluginScope::new(),
            backend,
            line: Lineage::new(policy.keep_previous),
            policy,
            wakeup: Arc::default(),
            freed: Wakeup::default(),
            staging: Gate::default(),
            handing_over: Gate::default(),
            swapping: Mutex::default(),
            next_generation: AtomicU64::new(1),
            last_reload: Mutex::default(),
            hung: AtomicUsize::new(0),
            teardowns: Mutex::default(),
            tally: Tally::default(),
            follower: Mutex::default(),
        });
        reaper::start(Arc::clone(&shared))?;
        Ok(shared)
    }

    #[inline]
    pub(super) fn load(&self, location: &'static Location<'static>) -> Option<Lease<T>> {
        self.tally.note();
        self.line.load().map(|hold| Lease::new(hold, location))
    }

    /// Retires everything; the reaper ends when all of it is gone.
    pub(super) fn close(&self) {
        self.line.close();
        self.wakeup.wake();
    }

    pub(super) fn serving(&self) -> Option<Serving> {
        self.line.serving(|view| Serving {
            generation: view.generation.number,
            version: view.generation.manifest.version.clone(),
            digest: view.generation.digest,
        })
    }

    /// Hands a generation that will not serve to the reaper.
    pub(super) fn discard(&self, generation: GenerationRef<T>) {
        self.line.discard(generation);
        self.wakeup.wake();
    }

    /// Reports what has had leases out for too long, as `due` sees it.
    pub(super) fn report_stuck(&self, due: impl Fn(&RetiredView<'_, Generation<T>>) -> bool) {
        let events = self.line.mark_stuck(due, |view| {
            view.generation.stop.set_overdue();
            Event::Stuck {
                generation: view.generation.number,
                version: view.generation.manifest.version.clone(),
                age: view.since.elapsed(),
                leases: view.leases,
                oldest_lease: view.generation.call_sites.as_ref().and_then(|sites| sites.oldest()),
            }
        });
        events.iter().for_each(|event| self.journal.stuck(event));
    }

    /// What must not pile up.
    pub(super) fn lingering(&self) -> Lingering {
        // What hung and came back is on the line before it is struck off here: in this order, none is overlooked.
        let hung = self.hung.load(Ordering::Acquire);
        // Held meanwhile, so that none is seen twice on its way from the line to its teardown.
        let teardowns = self.teardowns.lock();
        let held = self.line.retired(|view| (!view.warm).then_some(view.leases > 0));
        let destroying = teardowns.len();
        drop(teardowns);
        let mut lingering = Lingering { destroying, hung, ..Lingering::default() };
        for held in held.into_iter().flatten() {
            if held { lingering.held += 1 } else { lingering.free += 1 }
        }
        lingering
    }

    pub(super) fn status(&self) -> Status {
        let serving = |view: ServingView<'_, Generation<T>>| ServingStatus {
            generation: view.generation.number,
            name: view.generation.manifest.name.clone(),
            version: view.generation.manifest.version.clone(),
            digest: view.generation.digest,
            size: view.generation.size,
            epoch: view.epoch,
            age: view.since.elapsed(),
            loaded_at: view.generation.loaded_at,
            failures: view.generation.failures(),
            last_failure: view.generation.failures.last_failure(),
        };
        let retired = |view: RetiredView<'_, Generation<T>>| RetiredStatus {
            generation: view.generation.number,
            version: view.generation.manifest.version.clone(),
            digest: view.generation.digest,
            size: view.generation.size,
            epoch: view.epoch,
            age: view.since.elapsed(),
            phase: if view.warm { Phase::Warm } else { Phase::Draining },
            leases: view.leases,
            oldest_lease: view.generation.call_sites.as_ref().and_then(|sites| sites.oldest()),
            stuck: view.stuck,
        };
        // In the order of `lingering`, for the same reasons.
        let hung = self.hung.load(Ordering::Acquire);
        let teardowns = self.teardowns.lock();
        let (serving, mut retired) = self.line.all(serving, retired);
        retired.extend(teardowns.iter().map(Teardown::status));
        drop(teardowns);
        Status {
            slot: self.name.to_string(),
            serving,
            retired,
            hung,
            retained: self.journal.retained(),
            counters: self.journal.counters(),
        }
    }
}
