//! Runs a plugin that is not called but works by itself, and passes the work on when the plugin is replaced.
//!
//! One supervisor thread takes every decision, so that stops, starts and swaps cannot overtake each other; each run
//! has a thread of its own, which may hang without holding anything up.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::lineage::Target;
use super::staged::HandOver;
use crate::event::Event;
use crate::text::panic_text;
use crate::{Candidate, Cause, Error, ErrorKind, HotSlot, Lease, Report, Runnable, Stage, Staged};

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
    supervisor: JoinHandle<()>,
}

/// What the supervisor is told.
enum Order<T: ?Sized + Send + Sync + 'static> {
    /// Stop the old one, commit this one, start it.
    Switch(Box<Staged<T>>, Reply),
    /// Stop the current one, go back, start what is current then.
    Rollback(Target, Reply),
    /// The current generation may have changed without an order.
    Follow,
    /// This run came to its end.
    Ended(u64),
    /// Stop the current one, and end.
    Quit,
}

type Reply = Sender<Result<Report, Error>>;

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
        *slot.shared.follower.lock() = Some(Arc::new(move || drop(follow.send(Order::Follow))));
        let mut supervisor = Supervisor {
            slot: Arc::clone(&slot),
            inbox,
            notices: orders.clone(),
            running: None,
            stuck: Vec::new(),
            runs: 0,
        };
        supervisor.start_current().map_err(|error| no_thread(&slot, error))?;
        let supervisor = std::thread::Builder::new()
            .name("hotslot-runner".to_owned())
            .spawn(move || supervisor.serve())
            .map_err(|error| no_thread(&slot, error))?;
        Ok(Runner { inner: Some(Inner { slot, orders, supervisor }) })
    }

    /// Replaces the running plugin. The old one runs until the new one is loaded and proven.
    ///
    /// # Errors
    /// As [`HotSlot::reload`]; the old plugin runs on, or again.
    pub fn reload(&self, candidate: impl Into<Candidate>) -> Result<Report, Error> {
        let staged = self.slot().shared.stage_in_turn(candidate.into(), Cause::Reload)?;
        self.order(|reply| Order::Switch(Box::new(staged), reply))
    }

    /// Replaces the running plugin by one that was [staged](HotSlot::stage) before.
    ///
    /// # Errors
    /// As [`Staged::commit`]; the old plugin runs on, or again. One that was staged in another slot is refused as
    /// [`Misuse`](crate::ErrorKind::Misuse).
    pub fn commit(&self, staged: Staged<T>) -> Result<Report, Error> {
        let shared = &self.slot().shared;
        if !staged.is_of(shared) {
            let misuse = ErrorKind::Misuse("it was staged in another slot than the one that runs".to_owned());
            return Err(Error::new(Stage::Commit, misuse, shared.serving()));
        }
        self.order(|reply| Order::Switch(Box::new(staged), reply))
    }

    /// Stops the running plugin and runs the one before it again, with the state that that one had.
    ///
    /// # Errors
    /// As [`HotSlot::rollback`]; the plugin that ran runs on, or again.
    pub fn rollback(&self) -> Result<Report, Error> {
        self.order(|reply| Order::Rollback(Target::Previous, reply))
    }

    /// Stops the running plugin and runs another one that is kept.
    ///
    /// # Errors
    /// As [`HotSlot::rollback_to`]; the plugin that ran runs on, or again.
    pub fn rollback_to(&self, generation: u64) -> Result<Report, Error> {
        self.order(|reply| Order::Rollback(Target::Generation(generation), reply))
    }

    /// The slot: status, history, events. A swap that is made there directly is followed: what became current runs.
    pub fn slot(&self) -> &HotSlot<T> {
        &self.inner().slot
    }

    /// Stops the plugin, waiting for it up to the slot's `drain_timeout`, and gives the slot back. The current
    /// plugin's stop signal stays raised until something starts it again.
    pub fn stop(mut self) -> HotSlot<T> {
        let Inner { slot, orders, supervisor } = self.inner.take().expect("only stop takes it, and it consumes self");
        // If the supervisor is gone already, there is nothing left to stop.
        let _ = orders.send(Order::Quit);
        let _ = supervisor.join();
        Arc::into_inner(slot).expect("the supervisor had the only other handle, and it has ended")
    }

    fn order(&self, order: impl FnOnce(Reply) -> Order<T>) -> Result<Report, Error> {
        let (reply, answer) = channel();
        let _ = self.inner().orders.send(order(reply));
        answer.recv().unwrap_or_else(|_| {
            let panicked = ErrorKind::Panicked("the runner's supervisor ended".to_owned());
            Err(Error::new(Stage::Commit, panicked, self.slot().shared.serving()))
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
    Error::new(Stage::Commit, ErrorKind::NoThread(error), slot.shared.serving())
}

struct Supervisor<T: ?Sized + Runnable + Send + Sync + 'static> {
    slot: Arc<HotSlot<T>>,
    inbox: Receiver<Order<T>>,
    notices: Sender<Order<T>>,
    running: Option<Run<T>>,
    /// Those that were told to stop and have not.
    stuck: Vec<Run<T>>,
    /// How many runs there were: their numbers.
    runs: u64,
}

/// A plugin that runs.
struct Run<T: ?Sized + Send + Sync + 'static> {
    number: u64,
    lease: Lease<T>,
    /// The one in which it was started: in any other, the plugin was told to stop in between.
    epoch: u64,
    /// Whether it was told to stop by the runner.
    halted: bool,
    started: Instant,
    end: Receiver<RunEnd>,
    thread: JoinHandle<()>,
}

/// How and when a run ended.
struct RunEnd {
    at: Instant,
    error: Option<String>,
}

/// What became of the run that had to make way.
#[derive(Clone, Copy)]
enum Halted {
    /// Nothing ran.
    Idle,
    /// It stopped, at this moment.
    Stopped(Instant),
    /// This generation did not.
    Stuck(u64),
}

impl<T: ?Sized + Runnable + Send + Sync + 'static> Supervisor<T> {
    fn serve(mut self) {
        while let Ok(order) = self.inbox.recv() {
            match order {
                Order::Switch(staged, reply) => {
                    let result = self.switch(*staged);
                    // The caller may have gone; what was done stays done.
                    let _ = reply.send(result);
                }
                Order::Rollback(target, reply) => {
                    let halted = self.halt();
                    let result = self.go_back(target, Cause::Rollback, halted);
                    let _ = reply.send(result);
                }
                Order::Follow => self.follow(),
                Order::Ended(number) => self.ended(number),
                Order::Quit => break,
            }
        }
        *self.slot.shared.follower.lock() = None;
        self.halt();
    }

    /// Puts a staged plugin in the place of the running one.
    fn switch(&mut self, staged: Staged<T>) -> Result<Report, Error> {
        if staged.is_unchanged() {
            return staged.commit();
        }
        let halted = self.halt();
        let hand_over = match halted {
            Halted::Stuck(_) => HandOver::BestEffort,
            Halted::Idle | Halted::Stopped(_) => HandOver::Required,
        };
        let stopped = halted.at();
        let result = staged.commit_with(hand_over, || self.start_after(stopped));
        self.settle(halted, result.is_ok());
        result
    }

    /// Rolls the slot back and runs what is current then.
    fn go_back(&mut self, target: Target, cause: Cause, halted: Halted) -> Result<Report, Error> {
        let slot = Arc::clone(&self.slot);
        let stopped = halted.at();
        let result = slot.shared.rollback(target, cause, || self.start_after(stopped));
        self.settle(halted, result.is_ok());
        result
    }

    /// After a swap, reports a run that is stuck. Without one, what was halted goes on.
    fn settle(&mut self, halted: Halted, swapped: bool) {
        match (halted, swapped) {
            (Halted::Stuck(number), true) => {
                self.slot.shared.report_stuck(|view| view.generation.number == number);
            }
            (Halted::Stuck(_) | Halted::Stopped(_), false) => self.start_loudly(),
            (Halted::Stopped(_), true) | (Halted::Idle, _) => {}
        }
    }

    /// Starts the current plugin; gives the time since the one before stopped.
    fn start_after(&mut self, stopped: Option<Instant>) -> Option<Duration> {
        self.start_loudly();
        let started = self.running.as_ref()?.started;
        stopped.map(|stopped| started.saturating_duration_since(stopped))
    }

    /// Starts the current plugin, or says why not.
    fn start_loudly(&mut self) {
        if let Err(error) = self.start_current() {
            let generation = Lease::generation(&self.slot.load());
            self.slot.shared.journal.alarm(format!("generation {generation} does not run: no thread: {error}"));
        }
    }

    fn start_current(&mut self) -> std::io::Result<()> {
        let current = self.slot.shared.line.serving(|view| {
            // It may have been told to stop by an attempt to replace it that came to nothing.
            view.generation.stop.lower();
            (self.slot.load(), view.epoch)
        });
        let (lease, epoch) = current.expect("a slot that is open has a current generation");
        let generation = Lease::generation(&lease);
        if let Some(at) = self.stuck.iter().position(|run| Lease::generation(&run.lease) == generation) {
            // It never stopped; should it still do so, it starts again.
            self.running = Some(Run { epoch, ..self.stuck.swap_remove(at) });
            return Ok(());
        }
        self.runs += 1;
        let number = self.runs;
        let (say_started, has_started) = channel();
        let (say_ended, end) = channel();
        let (notices, theirs) = (self.notices.clone(), lease.clone());
        let body = move || {
            let _ = say_started.send(Instant::now());
            let result = catch_unwind(AssertUnwindSafe(|| theirs.run(Lease::stop_signal(&theirs))));
            let at = Instant::now();
            let error = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(format!("a panic: {}", panic_text(panic))),
            };
            let _ = say_ended.send(RunEnd { at, error });
            let _ = notices.send(Order::Ended(number));
        };
        let thread = std::thread::Builder::new().name("hotslot-run".to_owned()).spawn(body)?;
        let started = has_started.recv().expect("it is the first thing that the thread does");
        self.slot.shared.journal.emit(&Event::RunStarted { generation });
        self.running = Some(Run { number, lease, epoch, halted: false, started, end, thread });
        Ok(())
    }

    /// Tells the running plugin to stop, and waits for it for as long as it has.
    fn halt(&mut self) -> Halted {
        let Some(mut run) = self.running.take() else { return Halted::Idle };
        run.halted = true;
        Lease::stop_signal(&run.lease).raise();
        match run.end.recv_timeout(self.slot.shared.policy.drain_timeout) {
            Ok(end) => Halted::Stopped(self.finish(run, &end)),
            Err(_) => {
                let generation = Lease::generation(&run.lease);
                let waited = self.slot.shared.policy.drain_timeout;
                tracing::error!(slot = &*self.slot.shared.name, generation, ?waited, "does not stop");
                self.stuck.push(run);
                Halted::Stuck(generation)
            }
        }
    }

    /// Lets go of a run that has ended, once its thread has.
    fn finish(&self, run: Run<T>, end: &RunEnd) -> Instant {
        // What the plugin left to the thread's own destructors runs before the lease goes.
        let _ = run.thread.join();
        let generation = Lease::generation(&run.lease);
        if let Some(error) = &end.error {
            tracing::error!(slot = &*self.slot.shared.name, generation, %error, "the run failed");
        }
        self.slot.shared.journal.emit(&Event::RunEnded { generation, error: end.error.clone() });
        end.at
    }

    /// A run ended by itself: within its probation with an error, the one before runs again.
    fn ended(&mut self, number: u64) {
        if let Some(at) = self.stuck.iter().position(|run| run.number == number) {
            let run = self.stuck.swap_remove(at);
            if let Ok(end) = run.end.recv() {
                self.finish(run, &end);
            }
            return;
        }
        // Any other number is of a run that had to make way, and was dealt with there.
        let Some(run) = self.running.take_if(|run| run.number == number) else { return };
        let Ok(end) = run.end.recv() else { return };
        let (generation, lived) = (Lease::generation(&run.lease), end.at.saturating_duration_since(run.started));
        let told_to_stop = run.halted || Some(run.epoch) != self.epoch();
        let stopped = self.finish(run, &end);
        if told_to_stop {
            return self.start_loudly();
        }
        let Some(error) = end.error else { return };
        if lived >= self.slot.shared.policy.probation.window {
            return self.slot.shared.journal.alarm(format!(
                "generation {generation} failed after {lived:?}, and nothing runs until the next reload or rollback: \
                 {error}"
            ));
        }
        let cause = Cause::Automatic { reason: format!("its run failed after {lived:?}: {error}") };
        let shared = Arc::clone(&self.slot.shared);
        if let Err(refusal) = shared.rollback(Target::PreviousOf(generation), cause, || self.start_after(Some(stopped)))
        {
            shared.journal.alarm(format!("generation {generation} failed, and nothing runs: {error} ({refusal})"));
        }
    }

    /// Runs what is current, if something else does.
    fn follow(&mut self) {
        if self.running.as_ref().map(|run| run.epoch) != self.epoch() {
            let halted = self.halt();
            self.start_loudly();
            self.settle(halted, true);
        }
    }

    fn epoch(&self) -> Option<u64> {
        self.slot.shared.line.serving(|view| view.epoch)
    }
}

impl Halted {
    /// When it stopped.
    fn at(&self) -> Option<Instant> {
        match self {
            Halted::Stopped(at) => Some(*at),
            Halted::Idle | Halted::Stuck(_) => None,
        }
    }
}
