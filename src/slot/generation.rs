//! One loaded plugin, with everything it needs to stay alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use super::lease_sites::CallSites;
use super::lineage::Member;
use super::wakeup::Wakeup;
use crate::failures::FailureCounter;
use crate::{Artifact, Digest, Loaded, Manifest, StopSignal};

/// A counted reference; its count tells the reaper when nobody holds the generation.
pub(super) type GenerationRef<T> = super::sync::Arc<Generation<T>>;

pub(super) struct Generation<T: ?Sized> {
    pub(super) number: u64,
    pub(super) digest: Digest,
    pub(super) size: usize,
    pub(super) manifest: Manifest,
    pub(super) loaded: Loaded<T>,
    pub(super) loaded_at: SystemTime,
    pub(super) stop: StopSignal,
    pub(super) failures: FailureCounter,
    /// Failures that no longer count: probation begins anew when it becomes current again.
    failures_before: AtomicU64,
    pub(super) call_sites: Option<CallSites>,
    /// Woken when a lease of this generation ends after it was retired.
    pub(super) wakeup: Arc<Wakeup>,
    /// What [`Lease::is_retired`](crate::Lease::is_retired) reads. It guards nothing, so relaxed is enough.
    retired: AtomicBool,
}

impl<T: ?Sized> Generation<T> {
    pub(super) fn new(
        number: u64,
        artifact: &Artifact,
        loaded: Loaded<T>,
        stop: StopSignal,
        failures: FailureCounter,
        wakeup: Arc<Wakeup>,
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
            failures,
            failures_before: AtomicU64::new(0),
            call_sites: track_leases.then(CallSites::new),
            wakeup,
            retired: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Failures since it last became current, or was failures_before.
    pub(super) fn failures(&self) -> u64 {
        self.failures.failures().saturating_sub(self.failures_before.load(Ordering::Relaxed))
    }

    /// Counts failures from here on.
    pub(super) fn reset_failures(&self) {
        self.failures_before.store(self.failures.failures(), Ordering::Relaxed);
    }
}

impl<T: ?Sized> Member for Generation<T> {
    fn number(&self) -> u64 {
        self.number
    }

    fn install(&self) {
        self.reset_failures();
        self.retired.store(false, Ordering::Relaxed);
        self.stop.lower();
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.stop.raise();
    }
}
