//! A slot as one of a group: what a group does with each of them, whatever their plugins are.

use std::sync::{Arc, MutexGuard};

use super::attempt::{Asked, HandOver, Readiness, Refused};
use super::core::{Core, Follower};
use super::lineage::Target;
use super::staged::Staged;
use crate::artifact::Request;
use crate::{Cause, Error, ErrorKind, Report, Stage};

/// A slot whose swaps are part of a group's.
pub(super) trait Member: Send + Sync {
    fn name(&self) -> &str;
    /// Tells it from all others: several are frozen in this order.
    fn key(&self) -> usize;
    fn join(&self, follower: Follower) -> Result<(), Error>;
    fn leave(&self);
    fn check_caller(&self) -> Result<(), Error>;
    /// How many warm generations there may be.
    fn keep_previous(&self) -> usize;
    /// Stages a plugin. The turn is kept until it is committed or dropped, or not at all. As for all that ends here, log lines
    /// wait until the member is settled.
    fn stage(&self, asked: Asked, keeps_turn: bool) -> Result<Box<dyn StagedMember>, Error>;
    /// Holds up every swap. No foreign code runs meanwhile.
    fn freeze(&self) -> MutexGuard<'_, ()>;
    /// The number of the current generation.
    fn generation(&self) -> Option<u64>;
    /// Whether a warm generation could be made current.
    fn check_warm(&self, generation: u64) -> Result<(), ErrorKind>;
    /// Makes a warm generation current. The slot is frozen, and no longer when an error is refused.
    fn roll_back(&self, generation: u64, cause: Cause, request: Request) -> Result<Report, Box<dyn Refusal>>;
    /// The error of what did not begin.
    fn not_begun(&self, kind: ErrorKind) -> Error;
    /// Has the reaper look, and writes log lines that wait, as after every swap. Nothing is frozen.
    fn settle(&self);
    /// The same, with the log lines on another thread.
    fn settle_elsewhere(&self);
    fn is_forked(&self) -> bool;
}

/// A plugin that is staged in a member, or serves there already.
pub(super) trait StagedMember: Send {
    /// Hands the state over.
    fn make_ready(self: Box<Self>) -> Result<Box<dyn ReadyMember>, Error>;
    fn refuse(self: Box<Self>, kind: ErrorKind) -> Error;
}

/// A member that is one store away from its end.
pub(super) trait ReadyMember: Send {
    /// What stands against the swap. The slot is frozen, so nothing new comes up.
    fn objection(&self) -> Option<ErrorKind>;
    /// The slot is frozen, and no longer when an error is refused.
    fn swap(self: Box<Self>) -> Result<Report, Box<dyn Refusal>>;
    fn refuse(self: Box<Self>, kind: ErrorKind) -> Error;
}

/// An attempt that came to nothing, before that is written down.
pub(super) trait Refusal {
    fn refuse(self: Box<Self>) -> Error;
}

impl<T: ?Sized + Send + Sync + 'static> Member for Arc<Core<T>> {
    fn name(&self) -> &str {
        &self.name
    }

    fn key(&self) -> usize {
        Arc::as_ptr(self).addr()
    }

    fn join(&self, follower: Follower) -> Result<(), Error> {
        let misuse = |what: &str| Err(Member::not_begun(self, ErrorKind::Misuse(what.to_owned())));
        if self.settings.hold_calls.is_some() {
            return misuse(
                "a slot that holds calls during a hand-over does not see those that go through a group: build it without \
                 hold_calls_during_hand_over",
            );
        }
        let mut followers = self.followers.lock();
        if followers.group.is_some() {
            drop(followers);
            return misuse("the slot is a member of a group already, and changes with that one");
        }
        followers.group = Some(follower);
        Ok(())
    }

    fn leave(&self) {
        let _left = self.followers.lock().group.take();
    }

    fn check_caller(&self) -> Result<(), Error> {
        Core::check_caller(self).map_err(|kind| Member::not_begun(self, kind))
    }

    fn keep_previous(&self) -> usize {
        self.settings.keep_previous
    }

    fn stage(&self, asked: Asked, keeps_turn: bool) -> Result<Box<dyn StagedMember>, Error> {
        let pending = Core::stage_quietly(self, asked, Cause::Reload)?;
        Ok(Box::new(Staged::new(if keeps_turn { pending } else { pending.end_turn() })))
    }

    fn freeze(&self) -> MutexGuard<'_, ()> {
        self.swapping.lock()
    }

    fn generation(&self) -> Option<u64> {
        Some(self.lineage.base()?.generation)
    }

    fn check_warm(&self, generation: u64) -> Result<(), ErrorKind> {
        Ok(self.lineage.look_back(Target::Generation(generation), |_| ())?)
    }

    fn roll_back(&self, generation: u64, cause: Cause, request: Request) -> Result<Report, Box<dyn Refusal>> {
        let result = self.roll_back_in_order(Target::Generation(generation), cause, request, || None);
        result.map_err(|refused| refused as Box<dyn Refusal>)
    }

    fn not_begun(&self, kind: ErrorKind) -> Error {
        Core::not_begun(self, Stage::Commit, kind)
    }

    fn settle(&self) {
        Core::wake(self);
        self.journal.flush();
    }

    fn settle_elsewhere(&self) {
        Core::wake(self);
        self.journal.flush_elsewhere();
    }

    fn is_forked(&self) -> bool {
        Core::is_forked(self)
    }
}

impl<T: ?Sized + Send + Sync + 'static> StagedMember for Staged<T> {
    fn make_ready(self: Box<Self>) -> Result<Box<dyn ReadyMember>, Error> {
        self.pending().note_wait();
        Ok(Box::new(self.into_pending().make_ready(HandOver::Required)?))
    }

    fn refuse(self: Box<Self>, kind: ErrorKind) -> Error {
        self.into_pending().refuse_quietly(kind)
    }
}

impl<T: ?Sized + Send + Sync + 'static> ReadyMember for Readiness<T> {
    fn objection(&self) -> Option<ErrorKind> {
        match self {
            Readiness::Ready(ready) => ready.objection(),
            Readiness::Unchanged(attempt, base) => attempt.objection_to(*base),
        }
    }

    fn swap(self: Box<Self>) -> Result<Report, Box<dyn Refusal>> {
        let result = match *self {
            Readiness::Ready(ready) => {
                ready.note_wait();
                ready.swap(|| None)
            }
            Readiness::Unchanged(attempt, base) => attempt.confirm(base),
        };
        result.map_err(|refused| refused as Box<dyn Refusal>)
    }

    fn refuse(self: Box<Self>, kind: ErrorKind) -> Error {
        match *self {
            Readiness::Ready(ready) => ready.refuse(kind),
            Readiness::Unchanged(attempt, _) => attempt.refuse_commit(kind),
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> Refusal for Refused<T> {
    fn refuse(self: Box<Self>) -> Error {
        Refused::refuse(self)
    }
}
