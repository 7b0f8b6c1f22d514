//! A caller's hold on the generation that was current when it asked.

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;

use semver::Version;

use super::current::Hold;
use super::generation::Generation;
use super::wakeup::Wakeup;
use crate::{Digest, Manifest, StopSignal};

/// A hold on one generation: it dereferences to the plugin, which lives at least as long as the lease.
///
/// Taking one is wait-free. A lease is `Send` and `Sync`, and may be held across an await; but a lease that is held
/// for ever keeps its generation in memory for ever, and [`Status`](crate::Status) will say so. A long computation
/// can ask [`is_retired`](Lease::is_retired) now and then and take a new lease.
pub struct Lease<T: ?Sized> {
    // Fields are dropped in this order: the reaper is woken when the hold has gone.
    hold: Hold<Generation<T>>,
    parting: NotifyOnDrop,
    /// The cell in the generation's call sites, if they are tracked and there was room.
    note: Option<usize>,
}

/// Rings when it is dropped, if it was told to.
#[derive(Default)]
struct NotifyOnDrop(Option<Arc<Wakeup>>);

impl Drop for NotifyOnDrop {
    #[inline]
    fn drop(&mut self) {
        if let Some(wakeup) = &self.0 {
            wakeup.wake();
        }
    }
}

impl<T: ?Sized> Lease<T> {
    #[inline]
    pub(super) fn new(hold: Hold<Generation<T>>, location: &'static Location<'static>) -> Lease<T> {
        let note = hold.call_sites.as_ref().and_then(|sites| sites.note(location));
        Lease { hold, parting: NotifyOnDrop(None), note }
    }

    /// The number of the generation.
    pub fn generation(lease: &Self) -> u64 {
        lease.hold.number
    }

    /// The plugin's version, if it has one.
    pub fn version(lease: &Self) -> Option<&Version> {
        lease.hold.manifest.version.as_ref()
    }

    /// The identity of the plugin.
    pub fn digest(lease: &Self) -> Digest {
        lease.hold.digest
    }

    /// What the plugin says of itself.
    pub fn manifest(lease: &Self) -> &Manifest {
        &lease.hold.manifest
    }

    /// Whether another generation is current by now. Costs one relaxed load.
    pub fn is_retired(lease: &Self) -> bool {
        lease.hold.is_retired()
    }

    /// The generation's stop signal.
    pub fn stop_signal(lease: &Self) -> &StopSignal {
        &lease.hold.stop
    }

    /// Counts a failed call against this generation; too many of them during its
    /// [probation](crate::Builder::probation) roll it back. Backends report panics and traps by themselves.
    pub fn report_failure(lease: &Self, what: impl fmt::Display) {
        lease.hold.failures.report_failure(what);
    }
}

impl<T: ?Sized> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.hold.loaded.plugin
    }
}

/// A second lease on the same generation, whether or not it is still current.
impl<T: ?Sized> Clone for Lease<T> {
    #[track_caller]
    fn clone(&self) -> Lease<T> {
        Lease::new(self.hold.clone(), Location::caller())
    }
}

impl<T: ?Sized> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(cell), Some(sites)) = (self.note, &self.hold.call_sites) {
            sites.forget(cell);
        }
        // A retirement that begins after this look is not missed: the reaper looks again by itself while it waits.
        if self.hold.is_retired() {
            self.parting.0 = Some(Arc::clone(&self.hold.wakeup));
        }
    }
}

impl<T: ?Sized> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("generation", &Lease::generation(self))
            .field("version", &Lease::version(self).map(ToString::to_string))
            .field("digest", &Lease::digest(self))
            .field("is_retired", &Lease::is_retired(self))
            .finish()
    }
}
