//! The slot: holds the one plugin that serves, and replaces it.

mod answer;
mod attempt;
#[cfg(any(unix, hotslot_loom))]
mod barrier;
mod builder;
mod canary;
mod core;
mod current;
mod deadline;
mod gate;
mod generation;
mod group;
mod journal;
mod lease;
mod lease_count;
mod lease_sites;
mod lineage;
#[cfg(all(test, hotslot_loom))]
mod loom;
mod member;
mod probation;
#[cfg(any(unix, hotslot_loom))]
mod readers;
mod reaper;
mod rollback;
mod runner;
mod settings;
mod shadow;
mod share;
mod staged;
mod supervisor;
mod sync;
mod teardown;
mod upkeep;
mod wakeup;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::attempt::{Asked, HandOver};
pub use self::builder::Builder;
pub use self::canary::Canary;
use self::core::Core;
use self::deadline::after;
pub use self::gate::BusyPolicy;
pub use self::group::{GroupError, GroupLease, GroupReport, GroupStatus, Members, SlotGroup, StagedGroup};
pub use self::lease::Lease;
pub use self::probation::{CallStats, Probation, ProbationPolicy};
pub use self::rollback::Rollback;
pub use self::runner::Runner;
pub use self::shadow::{Difference, Shadow, ShadowBuilder, ShadowReport};
pub use self::staged::Staged;
use crate::{Candidate, Cause, Error, Report, Status, Subscription};

/// Holds exactly one serving plugin, and replaces it while it serves.
///
/// `T` is what the plugin is to its callers: a struct, or a trait object as in `HotSlot<dyn Rules>`, so that
/// plugins of different kinds can take turns. A slot is `Send` and `Sync`; share it by reference or in an `Arc`.
///
/// Dropping it retires the plugin and returns at once; leases that are out stay good, and what they hold is destroyed
/// on a thread of its own when the last one is gone. [`close`](HotSlot::close) waits for that.
///
/// # From inside
/// A transition that is asked for from the slot's own foreign code would wait for itself: from a hook, from the backend,
/// from `create`, from a plugin's run, from a service that the plugin calls, or from a tracing subscriber that the slot
/// logs to. It is refused at once, as [`Misuse`](crate::ErrorKind::Misuse), on every thread that the library started for
/// such code or that calls through its backends. What may be done from there is [`reload_soon`](HotSlot::reload_soon). A
/// consumer of [`subscribe`](HotSlot::subscribe) is not inside.
///
/// # Forks
/// In a process that was forked, the threads that serve the slot are missing. Leases can be taken; transitions are refused
/// as [`Forked`](crate::ErrorKind::Forked), and the status says nothing.
pub struct HotSlot<T: ?Sized + Send + Sync + 'static> {
    core: Arc<Core<T>>,
}

impl<T: ?Sized + Send + Sync + 'static> HotSlot<T> {
    /// Takes a lease on the current plugin. No reload, rollback or retirement holds it up: it is wait-free, except that
    /// the first one on a thread allocates that thread's record. In a slot that
    /// [holds calls during a hand-over](Builder::hold_calls_during_hand_over), it waits for the end of that.
    ///
    /// Beyond fourteen leases that a thread holds at once, over all slots, and for clones, leases are counted in memory that all
    /// threads share: that is slower where several threads do it.
    #[inline]
    #[track_caller]
    pub fn load(&self) -> Lease<T> {
        self.core.load(Location::caller()).expect("a slot that is open has a current generation")
    }

    /// Replaces the plugin: [`stage`](HotSlot::stage) and [`commit`](Staged::commit) in one turn.
    ///
    /// The plugin that serves already, the same bytes with the same configuration, is reported as
    /// [`Unchanged`](crate::Outcome::Unchanged), and nothing is done, unless it is [forced](crate::Candidate::force).
    ///
    /// # Errors
    /// The stage that refused and why; the current plugin keeps serving.
    pub fn reload(&self, candidate: impl Into<Candidate>) -> Result<Report, Error> {
        self.core.reload(Asked::new(candidate), Cause::Reload)
    }

    /// Replaces the plugin soon, on a thread that is started for it, and returns at once: for plugins, services and hooks
    /// that ask for a replacement [from inside](HotSlot#from-inside).
    ///
    /// Returns the number of the attempt, under which history and events tell how it ended. If several wait, only the last
    /// one is made; the others end as refused, [superseded](crate::ErrorKind::Superseded).
    ///
    /// # Errors
    /// If no thread can be spawned, or in a forked process.
    pub fn reload_soon(&self, candidate: impl Into<Candidate>) -> Result<u64, Error> {
        self.core
            .reload_soon(Asked::new(candidate), |pending| drop(pending.commit_quietly(HandOver::Required, || None)))
    }

    /// Loads and probes a new plugin beside the serving one: everything that is slow, and nearly everything that can
    /// fail. [`Staged::commit`] makes it serve; dropping it destroys it.
    ///
    /// # Errors
    /// As [`reload`](HotSlot::reload).
    pub fn stage(&self, candidate: impl Into<Candidate>) -> Result<Staged<T>, Error> {
        Ok(Staged::new(self.core.stage(Asked::new(candidate), Cause::Reload)?.end_turn()))
    }

    /// Rolls back to the generation that the current one replaced, with one pointer store. It waits for no load; a reload in
    /// progress then fails at its commit with [`BaseChanged`](crate::ErrorKind::BaseChanged).
    ///
    /// The generation that is left stays among the warm ones, so that
    /// [`rollback_to`](HotSlot::rollback_to) can return to it.
    ///
    /// # Errors
    /// [`NotWarm`](crate::ErrorKind::NotWarm) if there is no such generation any more.
    pub fn rollback(&self) -> Result<Report, Error> {
        self.rollback_to(Rollback::previous())
    }

    /// Rolls back to a generation that is still warm, by its number ([`Status::retired`] lists them), or to a plugin by
    /// its bytes, as a [`Candidate`]: see [`Rollback`].
    ///
    /// A plugin that is no longer loaded goes through all the checks of a reload, and begins without the state of the one
    /// that it replaces. It is exempt from the [version rule](Builder::version_rule) and the
    /// [interval](Builder::min_reload_interval).
    ///
    /// # Errors
    /// [`NotWarm`](crate::ErrorKind::NotWarm) names the generations that are warm;
    /// [`AlreadyServing`](crate::ErrorKind::AlreadyServing); or as [`reload`](HotSlot::reload).
    pub fn rollback_to(&self, rollback: impl Into<Rollback>) -> Result<Report, Error> {
        let warm = |target, request| {
            let result = self.core.roll_back(target, Cause::Rollback, request, || None);
            self.core.journal.flush();
            result
        };
        self.core.roll_back_to(rollback.into(), warm, |pending| pending.commit(HandOver::Required, || None))
    }

    /// Returns what serves, which old generations are still loaded and why, and the counters.
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// Returns the last 256 attempts to change the plugin, oldest first, in the order in which they ended; the refused
    /// ones too.
    pub fn history(&self) -> Vec<Report> {
        if self.core.is_forked() { Vec::new() } else { self.core.journal.history() }
    }

    /// Subscribes to the events of this slot from now on.
    pub fn subscribe(&self) -> Subscription {
        self.core.journal.subscribe()
    }

    /// Closes the slot and waits until all its generations are destroyed, and until a reload that was
    /// [put off](HotSlot::reload_soon) has ended, but not longer than `timeout`. The status says what is left, and who holds it.
    /// Plugins that are staged are for their holders to drop.
    pub fn close(self, timeout: Duration) -> Status {
        let deadline = after(timeout);
        self.core.close();
        loop {
            let seen = self.core.freed.count();
            // Asked first: what it loads is destroyed before it is no longer at work, or is among what the status has.
            let is_at_work = self.core.is_reloading_soon();
            let status = self.status();
            let is_empty = status.retired.is_empty() && status.hung == 0 && !is_at_work;
            if is_empty || Instant::now() >= deadline {
                return status;
            }
            self.core.freed.wait(seen, deadline);
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> Drop for HotSlot<T> {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl<T: ?Sized + Send + Sync + 'static> fmt::Debug for HotSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("HotSlot");
        debug.field("name", &self.core.name);
        if !self.core.is_forked() {
            debug.field("serving", &self.core.serving());
        }
        debug.finish()
    }
}
