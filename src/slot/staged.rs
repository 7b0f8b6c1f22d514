//! A plugin that is loaded and proven, and serves as soon as it is committed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::core::Shared;
use super::gate::Pass;
use super::generation::{Generation, GenerationRef};
use crate::{Digest, Error, Manifest, Outcome, Report};

/// A plugin beside the serving one, one [`commit`](Staged::commit) away from taking its place.
///
/// Dropped instead of committed, it is destroyed by the slot's reaper, and recorded as
/// [`Discarded`](crate::Outcome::Discarded).
#[must_use = "a staged plugin that is dropped is destroyed: commit() makes it serve"]
pub struct Staged<T: ?Sized + Send + Sync + 'static> {
    /// Taken when it is committed.
    inner: Option<Inner<T>>,
}

pub(super) struct Inner<T: ?Sized + Send + Sync + 'static> {
    pub(super) attempt: Attempt<T>,
    pub(super) fresh: Fresh<T>,
    /// The generation that served when this was staged.
    pub(super) base: Option<u64>,
    /// The turn of the reload that this is part of, if it is; and what is left of its time. A runner's commit may have
    /// to wait for the old plugin to stop, which is not to be taken from it.
    pub(super) turn: Option<(Pass, Duration)>,
}

/// What came out of staging.
pub(super) enum Fresh<T: ?Sized> {
    /// A generation that can serve.
    Loaded(GenerationRef<T>),
    /// These bytes serve already, as this generation.
    Unchanged(u64),
}

impl<T: ?Sized + Send + Sync + 'static> Staged<T> {
    pub(super) fn new(inner: Inner<T>) -> Staged<T> {
        Staged { inner: Some(inner) }
    }

    /// Whether `shared` is the slot that it was staged in.
    pub(super) fn is_of(&self, shared: &Arc<Shared<T>>) -> bool {
        Arc::ptr_eq(&self.inner().attempt.shared, shared)
    }

    /// Lets the next transition in before this one is committed.
    pub(super) fn end_turn(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.turn = None;
        }
    }

    /// Makes it the current plugin: the hand-over hook, if there is one, and a pointer store.
    ///
    /// # Errors
    /// [`BaseChanged`](crate::ErrorKind::BaseChanged) if another plugin became current since it was staged, and what
    /// the hand-over answered. Then this one is destroyed, and what served before serves on.
    pub fn commit(self) -> Result<Report, Error> {
        self.commit_with(HandOver::Required, || None)
    }

    /// Commits, then calls `then` before the attempt is recorded: it gives the gap between two runs.
    pub(super) fn commit_with(
        mut self,
        hand_over: HandOver,
        then: impl FnOnce() -> Option<Duration>,
    ) -> Result<Report, Error> {
        let inner = self.inner.take().expect("only a commit takes it, and it consumes self");
        match inner.fresh {
            Fresh::Unchanged(generation) => inner.attempt.confirm(generation),
            Fresh::Loaded(generation) => {
                let left = inner.turn.as_ref().map(|(_, left)| *left);
                inner.attempt.commit(generation, inner.base, hand_over, left, then)
            }
        }
    }

    /// Whether these bytes serve already, so that a commit will change nothing.
    pub fn is_unchanged(&self) -> bool {
        matches!(self.inner().fresh, Fresh::Unchanged(_))
    }

    /// The plugin, to try it out; `None` if these bytes serve already.
    pub fn plugin(&self) -> Option<&T> {
        self.generation().map(|generation| &*generation.loaded.plugin)
    }

    /// What the plugin says of itself; `None` if these bytes serve already.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.generation().map(|generation| &generation.manifest)
    }

    /// The identity of the bytes that were staged.
    pub fn digest(&self) -> Digest {
        self.inner().attempt.digest.expect("an attempt that was staged has a digest")
    }

    /// The number of the generation that it will be; `None` if these bytes serve already.
    pub fn generation_number(&self) -> Option<u64> {
        self.generation().map(|generation| generation.number)
    }

    fn generation(&self) -> Option<&Generation<T>> {
        match &self.inner().fresh {
            Fresh::Loaded(generation) => Some(generation),
            Fresh::Unchanged(_) => None,
        }
    }

    fn inner(&self) -> &Inner<T> {
        self.inner.as_ref().expect("only a commit takes it, and it consumes self")
    }
}

/// What a hand-over that fails means for the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// The commit fails too.
    Required,
    /// The new plugin starts without the state: the old one is in no condition to give it.
    BestEffort,
}

impl<T: ?Sized + Send + Sync + 'static> Drop for Staged<T> {
    fn drop(&mut self) {
        if let Some(Inner { attempt, fresh, .. }) = self.inner.take() {
            if let Fresh::Loaded(generation) = fresh {
                attempt.shared.discard(generation);
            }
            attempt.end(Outcome::Discarded, None);
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> fmt::Debug for Staged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged")
            .field("generation", &self.generation_number())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}
