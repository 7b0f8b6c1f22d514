//! The slot: the place in a program where exactly one plugin serves at a time.

mod attempt;
mod builder;
mod core;
mod current;
mod deadline;
mod gate;
mod generation;
mod journal;
mod lease;
mod lease_sites;
mod lineage;
#[cfg(all(test, hotslot_loom))]
mod loom;
mod reaper;
mod runner;
mod settings;
mod staged;
mod sync;
mod wakeup;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::builder::Builder;
use self::core::Shared;
use self::deadline::after;
pub use self::gate::BusyPolicy;
pub use self::lease::Lease;
pub use self::lease_sites::LeaseOrigin;
use self::lineage::Target;
pub use self::runner::Runner;
pub use self::staged::Staged;
use crate::{Backend, Candidate, Cause, Error, Report, Status, Subscription};

/// A place where exactly one plugin serves at a time, and can be replaced while it does.
///
/// `T` is what the plugin is to its callers: a struct, or a trait object as in `HotSlot<dyn Rules>`, so that
/// plugins of different kinds can take turns. A slot is `Send` and `Sync`; share it by reference or in an `Arc`.
///
/// Dropping it retires the plugin and returns at once; leases that are out stay good, and what they hold is destroyed
/// on a thread of its own when the last one is gone. [`close`](HotSlot::close) waits for that.
pub struct HotSlot<T: ?Sized + Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
}

impl<T: ?Sized + Send + Sync + 'static> HotSlot<T> {
    /// Begins a slot whose plugins `backend` loads. See [`Builder`] for what can be set, and [`Backend`] for an
    /// example.
    pub fn builder(backend: impl Backend<T>) -> Builder<T> {
        Builder::new(Arc::new(backend))
    }

    /// A lease on the current plugin. Wait-free: no reload, rollback or retirement holds it up.
    #[inline]
    #[track_caller]
    pub fn load(&self) -> Lease<T> {
        self.shared.load(Location::caller()).expect("a slot that is open has a current generation")
    }

    /// Replaces the plugin: [`stage`](HotSlot::stage) and [`commit`](Staged::commit) in one turn.
    ///
    /// The bytes of the plugin that serves already are reported as
    /// [`Unchanged`](crate::Outcome::Unchanged), and nothing is done, unless they are
    /// [forced](crate::Candidate::force).
    ///
    /// # Errors
    /// The stage that refused and why; what served before serves on.
    pub fn reload(&self, candidate: impl Into<Candidate>) -> Result<Report, Error> {
        self.shared.stage_in_turn(candidate.into(), Cause::Reload)?.commit()
    }

    /// Loads and proves a new plugin beside the serving one: everything that is slow, and nearly everything that can
    /// fail. It serves from [`Staged::commit`] on; dropped instead, it is destroyed.
    ///
    /// # Errors
    /// As [`reload`](HotSlot::reload).
    pub fn stage(&self, candidate: impl Into<Candidate>) -> Result<Staged<T>, Error> {
        self.shared.stage(candidate.into(), Cause::Reload)
    }

    /// Goes back to the generation that the current one replaced. One pointer store; a load that is under way does
    /// not hold it up, but finds at its commit that its base has changed.
    ///
    /// The generation that is left stays among the warm ones, so that
    /// [`rollback_to`](HotSlot::rollback_to) can return to it.
    ///
    /// # Errors
    /// [`NotWarm`](crate::ErrorKind::NotWarm) if there is no such generation any more.
    pub fn rollback(&self) -> Result<Report, Error> {
        self.shared.rollback(Target::Previous, Cause::Rollback, || None)
    }

    /// Goes to a generation that is kept: [`Status::retired`] lists them, as warm.
    ///
    /// # Errors
    /// [`NotWarm`](crate::ErrorKind::NotWarm) names those that are.
    pub fn rollback_to(&self, generation: u64) -> Result<Report, Error> {
        self.shared.rollback(Target::Generation(generation), Cause::Rollback, || None)
    }

    /// What serves, what lingers and why, and what happened so far.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The last 256 attempts to change the plugin, oldest first, in the order in which they ended; the refused ones
    /// too.
    pub fn history(&self) -> Vec<Arc<Report>> {
        self.shared.journal.history()
    }

    /// The events of this slot from now on.
    pub fn subscribe(&self) -> Subscription {
        self.shared.journal.subscribe()
    }

    /// Closes the slot and waits until all its generations are destroyed, but not longer than `timeout`. The status
    /// says what is left, and who holds it.
    pub fn close(self, timeout: Duration) -> Status {
        let deadline = after(timeout);
        self.shared.close();
        loop {
            let status = self.status();
            let is_empty = status.retired.is_empty() && status.hung == 0;
            if is_empty || Instant::now() >= deadline {
                return status;
            }
            self.shared.freed.wait(Some(deadline));
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> Drop for HotSlot<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<T: ?Sized + Send + Sync + 'static> fmt::Debug for HotSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotSlot").field("name", &self.shared.name).field("serving", &self.shared.serving()).finish()
    }
}
