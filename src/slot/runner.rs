//! Runs a plugin that is not called but works by itself, and passes the work on when the plugin is replaced.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use super::HotSlot;
use super::answer::{Answer, ask};
use super::attempt::Asked;
use super::rollback::Rollback;
use super::staged::Staged;
use super::supervisor::{Order, Reply, Supervisor};
use crate::{Candidate, Cause, Error, ErrorKind, Report, Runnable, Stage, detached};

/// Runs the current plugin of a slot on a thread of its own.
///
/// [`reload`](Runner::reload) stages the new plugin while the old one runs; then it tells the old one to stop, waits
/// for it up to the slot's `drain_timeout`, lets the slot's [hand-over](crate::Builder::hand_over) take its final
/// state across, and starts the new one. The time in which nothing ran is in the report, as
/// [`gap`](crate::Report::gap).
///
/// - If the new plugin is refused at any point, the old one runs on, or again, with its state.
/// - If it fails, panics or cannot be started within the slot's [probation](crate::Builder::probation), the slot
///   rolls back, and the previous one runs again with the state that it had.
/// - If the old one does not stop, it is reported as stuck and the new one runs beside it.
///
/// ```
/// # use hotslot::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Manifest, Payload, State, Stateful, StopSignal};
/// # use std::sync::atomic::{AtomicU64, Ordering};
/// # struct Counters;
/// # impl Backend<Counter> for Counters {
/// #     fn admit(&self, _: &Payload) -> Result<Admission, BoxError> { Ok(Manifest::new("counter").into()) }
/// #     fn load(&self, _: &Artifact, _: &LoadContext) -> Result<Loaded<Counter>, BoxError> {
/// #         Ok(Loaded::new(Counter(AtomicU64::new(0))))
/// #     }
/// # }
/// # struct Counter(AtomicU64);
/// # impl Stateful for Counter {
/// #     fn save(&self) -> Result<Option<State>, BoxError> {
/// #         Ok(Some(State { schema: "n/1".into(), bytes: self.0.load(Ordering::Relaxed).to_le_bytes().to_vec() }))
/// #     }
/// #     fn restore(&self, state: &State) -> Result<(), BoxError> {
/// #         Ok(self.0.store(u64::from_le_bytes(state.bytes[..].try_into()?), Ordering::Relaxed))
/// #     }
/// # }
/// use hotslot::{HotSlot, Runnable, Runner, transfer_state};
///
/// impl Runnable for Counter {
///     fn run(&self, stop: &StopSignal) -> Result<(), BoxError> {
///         while !stop.is_raised() {
///             self.0.fetch_add(1, Ordering::Relaxed);
///             std::thread::yield_now();
///         }
///         Ok(())
///     }
/// }
///
/// let slot = HotSlot::builder(Counters).hand_over(transfer_state).open(b"one")?;
/// let runner = Runner::start(slot)?;
/// let report = runner.reload(b"two")?; // the second counter counts on from where the first one stopped
/// assert!(report.gap.is_some());
/// let slot = runner.stop();
/// # drop(slot);
/// # Ok::<(), hotslot::Error>(())
/// ```
pub struct Runner<T: ?Sized + Runnable + Send + Sync + 'static> {
    /// Taken by `stop`.
    inner: Option<Inner<T>>,
}

struct Inner<T: ?Sized + Send + Sync + 'static> {
    slot: Arc<HotSlot<T>>,
    orders: Sender<Order<T>>,
    /// There is none: nobody waits any more when the supervisor has ended.
    has_ended: Answer<()>,
}

impl<T: ?Sized + Runnable + Send + Sync + 'static> Runner<T> {
    /// Takes the slot over and starts its current plugin.
    ///
    /// # Errors
    /// If the system gives no thread. That the plugin's run fails is no error here but an
    /// [event](crate::Event::RunEnded): nothing came before it that could run instead.
    pub fn start(slot: HotSlot<T>) -> Result<Runner<T>, Error> {
        let slot = Arc::new(slot);
        let (orders, inbox) = channel();
        // Before anything runs, so that no swap is missed.
        let follow = orders.clone();
        slot.core.followers.lock().runner = Some(Arc::new(move || drop(follow.send(Order::Follow))));
        let mut supervisor = Supervisor::new(Arc::clone(&slot), inbox, orders.clone());
        supervisor.start_current().map_err(|error| no_thread(&slot, error))?;
        let (serving, has_ended) = ask();
        let serve = move || {
            let _serving = serving;
            supervisor.serve();
        };
        detached::spawn("hotslot-runner", serve).map_err(|error| no_thread(&slot, error))?;
        Ok(Runner { inner: Some(Inner { slot, orders, has_ended }) })
    }

    /// Replaces the running plugin. The old one runs until the new one is loaded and proven.
    ///
    /// # Errors
    /// As [`HotSlot::reload`]; the old plugin runs on, or again.
    pub fn reload(&self, candidate: impl Into<Candidate>) -> Result<Report, Error> {
        let pending = self.slot().core.stage(Asked::new(candidate), Cause::Reload)?;
        self.switch(Staged::new(pending))
    }

    /// Replaces the running plugin soon, as [`HotSlot::reload_soon`] does: for a plugin that asks for its own replacement.
    ///
    /// # Errors
    /// As [`HotSlot::reload_soon`].
    pub fn reload_soon(&self, candidate: impl Into<Candidate>) -> Result<u64, Error> {
        let orders = self.inner().orders.clone();
        self.slot().core.reload_soon(Asked::new(candidate), move |pending| {
            let (reply, answer) = ask();
            let _ = orders.send(Order::Switch(Box::new(Staged::new(pending)), reply));
            // The next one waits for this one; how it ended is in the history.
            drop(answer.wait());
        })
    }

    /// Replaces the running plugin by one that was [staged](HotSlot::stage) before.
    ///
    /// # Errors
    /// As [`Staged::commit`]; the old plugin runs on, or again. One that was staged in another slot is refused as
    /// [`Misuse`](crate::ErrorKind::Misuse).
    pub fn commit(&self, staged: Staged<T>) -> Result<Report, Error> {
        let core = &self.slot().core;
        core.check_caller().map_err(|kind| core.not_begun(Stage::Commit, kind))?;
        if !staged.pending().is_of(core) {
            let misuse = ErrorKind::Misuse("it was staged in another slot than the one that runs".to_owned());
            return Err(core.not_begun(Stage::Commit, misuse));
        }
        self.switch(staged)
    }

    /// Stops the running plugin and runs the one before it again, with the state that that one had.
    ///
    /// # Errors
    /// As [`HotSlot::rollback`]; the plugin that ran runs on, or again.
    pub fn rollback(&self) -> Result<Report, Error> {
        self.rollback_to(Rollback::previous())
    }

    /// Stops the running plugin and runs another one: one that is still warm, with the state that it had, or one that is
    /// loaded from its bytes, without any. See [`Rollback`].
    ///
    /// # Errors
    /// As [`HotSlot::rollback_to`]; the plugin that ran runs on, or again.
    pub fn rollback_to(&self, rollback: impl Into<Rollback>) -> Result<Report, Error> {
        let warm = |target, request| self.order(|reply| Order::Rollback(target, request, reply));
        self.slot().core.roll_back_to(rollback.into(), warm, |pending| self.switch(Staged::new(pending)))
    }

    /// Returns the slot: status, history, events. A swap that is made there directly is followed: what became current runs.
    pub fn slot(&self) -> &HotSlot<T> {
        &self.inner().slot
    }

    /// Stops the plugin, waiting for it up to the slot's `drain_timeout`, and gives the slot back. The current
    /// plugin's stop signal stays raised until something starts it again.
    pub fn stop(mut self) -> HotSlot<T> {
        let Inner { slot, orders, has_ended } = self.inner.take().expect("only stop takes it, and it consumes self");
        // If the supervisor is gone already, there is nothing left to stop.
        let _ = orders.send(Order::Quit);
        has_ended.wait();
        Arc::into_inner(slot).expect("the supervisor had the only other handle, and it has ended")
    }

    fn switch(&self, staged: Staged<T>) -> Result<Report, Error> {
        self.order(|reply| Order::Switch(Box::new(staged), reply))
    }

    fn order(&self, order: impl FnOnce(Reply) -> Order<T>) -> Result<Report, Error> {
        let (reply, answer) = ask();
        let _ = self.inner().orders.send(order(reply));
        answer.wait().unwrap_or_else(|| {
            let panicked = ErrorKind::Panicked("the runner's supervisor ended".to_owned());
            Err(Error::new(Stage::Commit, panicked, self.slot().core.serving()))
        })
    }

    fn inner(&self) -> &Inner<T> {
        self.inner.as_ref().expect("only stop takes it, and it consumes self")
    }
}

/// Tells the plugin to stop, and does not wait for it.
impl<T: ?Sized + Runnable + Send + Sync + 'static> Drop for Runner<T> {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            let _ = inner.orders.send(Order::Quit);
        }
    }
}

impl<T: ?Sized + Runnable + Send + Sync + 'static> fmt::Debug for Runner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("slot", self.slot()).finish_non_exhaustive()
    }
}

fn no_thread<T: ?Sized + Send + Sync + 'static>(slot: &HotSlot<T>, error: std::io::Error) -> Error {
    Error::new(Stage::Commit, ErrorKind::NoThread(error), slot.core.serving())
}
