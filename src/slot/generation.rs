//! One loaded plugin, with everything it needs to stay alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use super::lease_sites::CallSites;
use super::lineage::Member;
use super::wakeup::Bell;
use crate::failures::Health;
use crate::{Artifact, Digest, Loaded, Manifest, StopSignal};

/// A counted reference; its count tells the reaper when nobody holds the generation.
pub(crate) type GenerationRef<T> = super::sync::Arc<Generation<T>>;

pub(crate) struct Generation<T: ?Sized> {
    pub(crate) number: u64,
    pub(crate) digest: Digest,
    pub(crate) size: usize,
    pub(crate) manifest: Manifest,
    pub(crate) loaded: Loaded<T>,
    pub(crate) loaded_at: SystemTime,
    pub(crate) stop: StopSignal,
    pub(crate) health: Health,
    /// Failures that no longer count: probation begins anew when it becomes current again.
    forgiven: AtomicU64,
    pub(crate) call_sites: Option<CallSites>,
    /// Rung when a lease of this generation ends after it was retired.
    pub(crate) bell: Arc<Bell>,
    /// What [`Lease::is_retired`](crate::Lease::is_retired) reads. It guards nothing, so relaxed is enough.
    retired: AtomicBool,
}

impl<T: ?Sized> Generation<T> {
    pub(crate) fn new(
        number: u64,
        artifact: &Artifact,
        loaded: Loaded<T>,
        stop: StopSignal,
        health: Health,
        bell: Arc<Bell>,
        track_leases: bool,
    ) -> Generation<T> {
        Generation {
            number,
            digest: artifact.digest(),
            size: artifact.bytes().len(),
            manifest: artifact.manifest().clone(),
            loaded,
            loaded_at: SystemTime::now(),
            stop,
            health,
            forgiven: AtomicU64::new(0),
            call_sites: track_leases.then(CallSites::new),
            bell,
            retired: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Failures since it last became current, or was forgiven.
    pub(crate) fn failures(&self) -> u64 {
        self.health.failures().saturating_sub(self.forgiven.load(Ordering::Relaxed))
    }

    /// Counts failures from here on.
    pub(crate) fn forgive(&self) {
        self.forgiven.store(self.health.failures(), Ordering::Relaxed);
    }
}

impl<T: ?Sized> Member for Generation<T> {
    fn number(&self) -> u64 {
        self.number
    }

    fn install(&self) {
        self.forgive();
        self.retired.store(false, Ordering::Relaxed);
        self.stop.lower();
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.stop.raise();
    }
}
