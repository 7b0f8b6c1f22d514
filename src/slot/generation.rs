//! One loaded plugin, with everything it needs to stay alive.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::lease_sites::LeaseSites;
use super::lineage::{Member, SecondOpinion};
use super::probation::{Trial, Verdict};
use crate::failures::FailureCounter;
use crate::{Artifact, ArtifactId, Footprint, Loaded, Manifest, StopSignal};

/// A counted reference; its count tells the reaper when nobody holds the generation.
pub(super) type GenerationRef<T> = super::sync::Arc<Generation<T>>;

pub(super) struct Generation<T: ?Sized> {
    pub(super) number: u64,
    pub(super) id: ArtifactId,
    pub(super) size: usize,
    pub(super) footprint: Option<Footprint>,
    pub(super) manifest: Manifest,
    pub(super) loaded: Loaded<T>,
    pub(super) loaded_at: SystemTime,
    pub(super) stop: StopSignal,
    pub(super) failures: FailureCounter,
    pub(super) trial: Arc<Trial>,
    pub(super) lease_sites: Option<LeaseSites>,
    /// The slot that it belongs to. The slot outlives it, except while the last of its callers lets go of the slot.
    pub(super) home: Weak<dyn Home<T>>,
    /// What [`Lease::is_retired`](crate::Lease::is_retired) reads. It guards nothing, so relaxed is enough.
    retired: AtomicBool,
    /// Second opinions that are under way on it.
    consultations: Arc<AtomicUsize>,
    /// Snapshots that keep it.
    pins: Arc<AtomicUsize>,
}

/// The slot, as a generation and its leases see it.
///
/// Whoever asks has a reference for as long as that takes, which may become the last one: each method [lets go] of it.
///
/// [lets go]: super::reaper::let_go
pub(super) trait Home<T: ?Sized>: Send + Sync {
    /// Has the reaper look at the slot.
    fn wake_reaper(self: Arc<Self>);
    /// Does what counting a call of this generation came to.
    fn heed(self: Arc<Self>, generation: u64, verdict: Verdict);
    /// A hold on the generation that a failed call on this one can be put to, counted among its consultations.
    fn second_opinion(self: Arc<Self>, generation: u64) -> SecondOpinion<Generation<T>>;
}

/// What a generation is made of besides the plugin.
pub(super) struct Parts<T: ?Sized> {
    pub(super) number: u64,
    pub(super) stop: StopSignal,
    pub(super) failures: FailureCounter,
    pub(super) trial: Arc<Trial>,
    pub(super) home: Weak<dyn Home<T>>,
    pub(super) track_leases: bool,
}

impl<T: ?Sized> Generation<T> {
    pub(super) fn new(artifact: &Artifact, loaded: Loaded<T>, parts: Parts<T>) -> Generation<T> {
        let Parts { number, stop, failures, trial, home, track_leases } = parts;
        Generation {
            number,
            id: artifact.id(),
            size: artifact.bytes().len(),
            footprint: loaded.keep_alive.as_ref().and_then(|keep_alive| keep_alive.footprint()),
            manifest: artifact.manifest().clone(),
            loaded,
            loaded_at: SystemTime::now(),
            stop,
            failures,
            trial,
            lease_sites: track_leases.then(LeaseSites::new),
            home,
            retired: AtomicBool::new(false),
            consultations: Arc::default(),
            pins: Arc::default(),
        }
    }

    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub(super) fn begin_consultation(&self) {
        self.consultations.fetch_add(1, Ordering::Relaxed);
    }

    /// The count of those that hold it without using it, and count themselves.
    pub(super) fn pin_count(&self) -> &Arc<AtomicUsize> {
        &self.pins
    }

    /// The count that whoever began a consultation counts down when the hold has gone.
    pub(super) fn consultations(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.consultations)
    }
}

impl<T: ?Sized> Member for Generation<T> {
    fn number(&self) -> u64 {
        self.number
    }

    fn install(&self, has_predecessor: bool) {
        self.trial.begin(has_predecessor);
        self.retired.store(false, Ordering::Relaxed);
        self.stop.lower();
    }

    fn try_out(&self) {
        self.retired.store(false, Ordering::Relaxed);
        self.stop.lower();
    }

    fn consultations(&self) -> usize {
        self.consultations.load(Ordering::Acquire)
    }

    fn pins(&self) -> usize {
        self.pins.load(Ordering::Acquire)
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.stop.raise();
    }
}
