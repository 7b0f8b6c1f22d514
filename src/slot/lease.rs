//! A caller's hold on the generation that was current when it asked.

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;

use semver::Version;

use super::current::Hold;
use super::generation::Generation;
use super::wakeup::Bell;
use crate::{Digest, Manifest, StopSignal};

/// A hold on one generation: it dereferences to the plugin, which lives at least as long as the lease.
///
/// Taking one is wait-free. A lease is `Send` and `Sync`, and may be held across an await; but a lease that is held
/// for ever keeps its generation in memory for ever, and [`Status`](crate::Status) will say so. A long computation
/// can ask [`is_retired`](Lease::is_retired) now and then and take a new lease.
pub struct Lease<T: ?Sized> {
    // Fields are dropped in this order: the reaper is woken when the hold has gone.
    hold: Hold<Generation<T>>,
    parting: Parting,
    /// The cell in the generation's call sites, if they are tracked and there was room.
    note: Option<usize>,
}

/// Rings when it is dropped, if it was told to.
#[derive(Default)]
struct Parting(Option<Arc<Bell>>);

impl Drop for Parting {
    #[inline]
    fn drop(&mut self) {
        if let Some(bell) = &self.0 {
            bell.ring();
        }
    }
}

impl<T: ?Sized> Lease<T> {
    #[inline]
    pub(super) fn new(hold: Hold<Generation<T>>, location: &'static Location<'static>) -> Lease<T> {
        let note = hold.call_sites.as_ref().and_then(|sites| sites.note(location));
        Lease { hold, parting: Parting(None), note }
    }

    /// The number of the generation.
    pub fn generation(&self) -> u64 {
        self.hold.number
    }

    /// The plugin's version, if it has one.
    pub fn version(&self) -> Option<&Version> {
        self.hold.manifest.version.as_ref()
    }

    /// The identity of the plugin.
    pub fn digest(&self) -> Digest {
        self.hold.digest
    }

    /// What the plugin says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.hold.manifest
    }

    /// Whether another generation is current by now. Costs one relaxed load.
    pub fn is_retired(&self) -> bool {
        self.hold.is_retired()
    }

    /// The generation's stop signal.
    pub fn stop_signal(&self) -> &StopSignal {
        &self.hold.stop
    }

    /// Counts a failed call against this generation; too many of them during its
    /// [probation](crate::Builder::probation) roll it back. Backends report panics and traps by themselves.
    pub fn report_failure(&self, what: impl fmt::Display) {
        self.hold.health.report_failure(what);
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
            self.parting.0 = Some(Arc::clone(&self.hold.bell));
        }
    }
}

impl<T: ?Sized> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("generation", &self.generation())
            .field("version", &self.version().map(ToString::to_string))
            .field("digest", &self.digest())
            .field("is_retired", &self.is_retired())
            .finish()
    }
}
