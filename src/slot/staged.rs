//! A plugin that is loaded and proven, and serves as soon as it is committed.

use std::fmt;

use super::attempt::{HandOver, Pending};
use crate::{ArtifactId, Digest, Error, Manifest, Report};

/// A plugin beside the serving one, one [`commit`](Staged::commit) away from taking its place.
///
/// It counts towards [`max_retired`](crate::Builder::max_retired) until then. Dropped instead of committed, it is
/// destroyed by the reaper, and recorded as [`Discarded`](crate::Outcome::Discarded).
#[must_use = "a staged plugin that is dropped is destroyed: commit() makes it serve"]
pub struct Staged<T: ?Sized + Send + Sync + 'static> {
    /// Taken when it is committed.
    pending: Option<Pending<T>>,
}

impl<T: ?Sized + Send + Sync + 'static> Staged<T> {
    pub(super) fn new(pending: Pending<T>) -> Staged<T> {
        Staged { pending: Some(pending) }
    }

    pub(super) fn into_pending(mut self) -> Pending<T> {
        self.pending.take().expect("it is taken once, and that consumes self")
    }

    /// Makes it the current plugin: the hand-over hook, if there is one, and a pointer store.
    ///
    /// # Errors
    /// [`BaseChanged`](crate::ErrorKind::BaseChanged) if another plugin became current since it was staged, also if the
    /// one from then is current again; and the error of the hand-over. Then this one is destroyed, and the current plugin
    /// keeps serving.
    pub fn commit(self) -> Result<Report, Error> {
        self.into_pending().commit(HandOver::Required, || None)
    }

    /// Returns whether the same plugin serves already, so that a commit will change nothing.
    pub fn is_unchanged(&self) -> bool {
        self.pending().generation().is_none()
    }

    /// Returns the plugin, to try it out; `None` if it serves already.
    pub fn plugin(&self) -> Option<&T> {
        self.pending().generation().map(|generation| &*generation.loaded.plugin)
    }

    /// Returns what the plugin says of itself; `None` if it serves already.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.pending().generation().map(|generation| &generation.manifest)
    }

    /// Returns the digest of the bytes that were staged.
    pub fn digest(&self) -> Digest {
        self.id().digest
    }

    /// Returns what makes it the same as another plugin.
    pub fn id(&self) -> ArtifactId {
        self.pending().id()
    }

    /// Returns the number of the generation that it will be; `None` if it serves already.
    pub fn generation_number(&self) -> Option<u64> {
        self.pending().generation().map(|generation| generation.number)
    }

    pub(super) fn pending(&self) -> &Pending<T> {
        self.pending.as_ref().expect("it is taken once, and that consumes self")
    }
}

impl<T: ?Sized + Send + Sync + 'static> Drop for Staged<T> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            pending.discard();
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> fmt::Debug for Staged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged")
            .field("generation", &self.generation_number())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
