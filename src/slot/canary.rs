//! A staged generation that a share of the callers gets, before it is committed or dropped.

use std::fmt;
use std::panic::Location;

use super::HotSlot;
use super::attempt::HandOver;
use super::generation::Generation;
use super::lease::Lease;
use super::probation::CallStats;
use super::share;
use super::staged::Staged;
use crate::{ArtifactId, Error, ErrorKind, Manifest, Report};

/// A staged plugin that serves the callers of a share of [keys](HotSlot::load_for), beside the current one.
///
/// Once it is no longer served, its leases say that they are [retired](Lease::is_retired), and its stop signal is raised.
///
/// It is judged by the slot's [probation policy](crate::Builder::probation) for as long as it is served, whatever the policy's
/// window; what counts are its own calls. Once the policy objects, no further key gets it, an [event](crate::Event::Canary)
/// says so, and it can no longer be promoted. Other swaps of the slot, and the slot's end, end it, too: then every key gets
/// what is current, and [`promote`](Canary::promote) is refused.
///
/// Its state is its own, and begins with nothing. The [hand-over](crate::Builder::hand_over) runs when it is promoted.
///
/// Dropped instead of promoted, it is no longer served, and recorded as [`Discarded`](crate::Outcome::Discarded); calls that
/// are under way on it end there.
///
/// ```
/// # use hotslot::{Admission, Artifact, Backend, BoxError, HotSlot, LoadContext, Loaded, Manifest, Payload};
/// # struct Text;
/// # impl Backend<String> for Text {
/// #     fn admit(&self, _: &Payload) -> Result<Admission, BoxError> { Ok(Manifest::new("text").into()) }
/// #     fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<String>, BoxError> {
/// #         Ok(Loaded::new(String::from_utf8(artifact.bytes().to_vec())?))
/// #     }
/// # }
/// let slot = HotSlot::builder(Text).open(b"old")?;
/// let canary = slot.stage(b"new")?.serve_share(0.05)?;
///
/// let clients = (0..1000).map(|client| format!("client {client}"));
/// let new = clients.filter(|client| *slot.load_for(client) == "new").count();
/// assert!((20..100).contains(&new)); // about fifty of the thousand clients, and always the same ones
/// assert_eq!(*slot.load(), "old"); // whoever has no key gets what is current
///
/// canary.set_share(0.5)?; // those fifty are among them
/// canary.promote()?;
/// assert_eq!(*slot.load(), "new");
/// # Ok::<(), hotslot::Error>(())
/// ```
#[must_use = "a canary that is dropped is no longer served: promote() makes it serve everyone"]
pub struct Canary<T: ?Sized + Send + Sync + 'static> {
    staged: Staged<T>,
}

impl<T: ?Sized + Send + Sync + 'static> HotSlot<T> {
    /// Takes a lease for the holder of a key: on the [canary](Canary), if there is one and the key is among its share, and on
    /// the current plugin otherwise.
    ///
    /// A key is what should always be answered by the same plugin: a client, a session, an account. It is hashed (with BLAKE3,
    /// together with the [identity](crate::ArtifactId) of the canary), so any bytes will do, and all processes in which the same
    /// plugin is a canary agree on whose it is. Without a canary this is [`load`](HotSlot::load) and a look at one more
    /// cell; with one, the hash comes on top. Leases on the canary are not among those that reports count.
    #[inline]
    #[track_caller]
    pub fn load_for(&self, key: impl AsRef<[u8]>) -> Lease<T> {
        let lease = self.core.load_for(key.as_ref(), Location::caller());
        lease.expect("a slot that is open has a current generation")
    }
}

impl<T: ?Sized + Send + Sync + 'static> Staged<T> {
    /// Serves it to the callers of a share of all [keys](HotSlot::load_for), from 0 to 1, beside the current plugin.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if the share is no share; [`AlreadyServing`](ErrorKind::AlreadyServing) if there is nothing
    /// to try; [`CanaryUnderWay`](ErrorKind::CanaryUnderWay) if the slot has one;
    /// [`BaseChanged`](ErrorKind::BaseChanged) if another plugin became current since it was staged. In all of them the staged
    /// plugin is dropped.
    pub fn serve_share(self, share: f64) -> Result<Canary<T>, Error> {
        match share::check(share).and_then(|()| self.pending().begin_canary(share)) {
            Ok(()) => Ok(Canary { staged: self }),
            Err(kind) => Err(self.into_pending().refuse(kind)),
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> Canary<T> {
    /// Changes the share of the keys whose callers get it, from 0 to 1. Keys that are among a share are among every larger
    /// one.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if the share is no share; [`CanaryFailed`](ErrorKind::CanaryFailed) if the policy objects to
    /// it; [`BaseChanged`](ErrorKind::BaseChanged) or [`Closed`](ErrorKind::Closed) if the slot changed otherwise.
    pub fn set_share(&self, share: f64) -> Result<(), Error> {
        let pending = self.staged.pending();
        let set = share::check(share).and_then(|()| pending.set_canary_share(share));
        set.map_err(|kind| pending.not_now(kind))
    }

    /// Returns the share of the keys whose callers get it: 0 once it is no longer served.
    pub fn share(&self) -> f64 {
        self.staged.pending().canary_share()
    }

    /// Returns what was counted of its calls. Only [measured](Lease::measure) calls are known in number and time.
    pub fn calls(&self) -> &CallStats {
        &self.generation().trial.stats
    }

    /// Returns what the probation policy said against it, if that is why it is no longer served.
    pub fn objection(&self) -> Option<String> {
        self.generation().trial.objection()
    }

    /// Returns the plugin.
    pub fn plugin(&self) -> &T {
        &self.generation().loaded.plugin
    }

    /// Returns what the plugin says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.generation().manifest
    }

    /// Returns what makes it the same as another plugin.
    pub fn id(&self) -> ArtifactId {
        self.generation().id
    }

    /// Returns the number of its generation.
    pub fn generation_number(&self) -> u64 {
        self.generation().number
    }

    /// Makes it the current plugin: see [`Staged::commit`]. Until then it serves its share.
    ///
    /// # Errors
    /// [`CanaryFailed`](ErrorKind::CanaryFailed) if the policy objects to it; or as [`Staged::commit`]. Then it is dropped.
    pub fn promote(self) -> Result<Report, Error> {
        match self.objection() {
            Some(objection) => Err(self.staged.into_pending().refuse(ErrorKind::CanaryFailed(objection))),
            None => self.staged.into_pending().commit(HandOver::Required, || None),
        }
    }

    /// Stops serving it, and keeps it staged: for [`Runner::commit`](crate::Runner::commit), for instance.
    pub fn into_staged(self) -> Staged<T> {
        self.staged.pending().end_canary();
        self.staged
    }

    fn generation(&self) -> &Generation<T> {
        self.staged.pending().generation().expect("what serves already is no canary")
    }
}

impl<T: ?Sized + Send + Sync + 'static> fmt::Debug for Canary<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canary")
            .field("generation", &self.generation_number())
            .field("id", &self.id())
            .field("share", &self.share())
            .field("calls", self.calls())
            .field("objection", &self.objection())
            .finish_non_exhaustive()
    }
}
