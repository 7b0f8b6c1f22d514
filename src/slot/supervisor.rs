//! The runner's thread: it takes every decision, so that stops, starts and swaps cannot overtake each other; each run has
//! a thread of its own, which may hang without holding anything up.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::HotSlot;
use super::answer::{self, Answer, ask};
use super::attempt::HandOver;
use super::lease::Lease;
use super::lineage::{Base, Target};
use super::staged::Staged;
use crate::artifact::Request;
use crate::event::Event;
use crate::text::panic_text;
use crate::workers::{self, Afterwards};
use crate::{Cause, Error, Report, Runnable, detached, loader_lock};

/// What the supervisor is told.
pub(super) enum Order<T: ?Sized + Send + Sync + 'static> {
    /// Stop the old one, commit this one, start it.
    Switch(Box<Staged<T>>, Reply),
    /// Stop the current one, go back, start what is current then.
    Rollback(Target, Request, Reply),
    /// The current generation may have changed without an order.
    Follow,
    /// This run came to its end.
    Ended(u64),
    /// Stop the current one, and end.
    Quit,
}

pub(super) type Reply = answer::Reply<Result<Report, Error>>;

pub(super) struct Supervisor<T: ?Sized + Runnable + Send + Sync + 'static> {
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
    /// One that runs nothing yet; `notices` leads to `inbox`.
    pub(super) fn new(slot: Arc<HotSlot<T>>, inbox: Receiver<Order<T>>, notices: Sender<Order<T>>) -> Supervisor<T> {
        Supervisor { slot, inbox, notices, running: None, stuck: Vec::new(), runs: 0 }
    }

    pub(super) fn serve(mut self) {
        while let Ok(order) = self.inbox.recv() {
            match order {
                Order::Switch(staged, reply) => {
                    let result = self.switch(*staged);
                    reply.give(result);
                }
                Order::Rollback(target, request, reply) => {
                    let halted = self.halt();
                    let result = self.go_back(target, request, halted);
                    reply.give(result);
                }
                Order::Follow => self.follow(),
                Order::Ended(number) => self.ended(number),
                Order::Quit => break,
            }
            // A subscriber that hangs does not hold up the next order.
            self.slot.core.journal.flush_elsewhere();
        }
        self.slot.core.followers.lock().runner = None;
        self.halt();
        for run in self.stuck.drain(..) {
            detached::let_go(run.thread);
        }
        self.slot.core.journal.flush_elsewhere();
    }

    /// Puts a staged plugin in the place of the running one.
    fn switch(&mut self, staged: Staged<T>) -> Result<Report, Error> {
        if staged.is_unchanged() {
            return staged.into_pending().commit_quietly(HandOver::Required, || None);
        }
        let halted = self.halt();
        let hand_over = match halted {
            Halted::Stuck(_) => HandOver::BestEffort,
            Halted::Idle | Halted::Stopped(_) => HandOver::Required,
        };
        let stopped = halted.at();
        staged.pending().note_wait();
        let result = staged.into_pending().commit_quietly(hand_over, || self.start_after(stopped));
        self.settle(halted, result.is_ok());
        result
    }

    /// Rolls the slot back and runs what is current then.
    fn go_back(&mut self, target: Target, request: Request, halted: Halted) -> Result<Report, Error> {
        let slot = Arc::clone(&self.slot);
        let stopped = halted.at();
        let result = slot.core.roll_back(target, Cause::Rollback, request, || self.start_after(stopped));
        self.settle(halted, result.is_ok());
        result
    }

    /// After a swap, reports a run that is stuck. Without one, what was halted goes on.
    fn settle(&mut self, halted: Halted, swapped: bool) {
        match (halted, swapped) {
            (Halted::Stuck(number), true) => {
                self.slot.core.report_stuck(|view| view.generation.number == number);
            }
            (Halted::Stuck(_) | Halted::Stopped(_), false) => _ = self.start_loudly(),
            (Halted::Stopped(_), true) | (Halted::Idle, _) => {}
        }
    }

    /// Starts the current plugin; gives the time since the one before stopped, unless it has not begun yet.
    fn start_after(&mut self, stopped: Option<Instant>) -> Option<Duration> {
        let began = self.start_loudly()?;
        stopped.map(|stopped| began.saturating_duration_since(stopped))
    }

    /// Starts the current plugin, or says why not. Returns when it began.
    fn start_loudly(&mut self) -> Option<Instant> {
        self.start_current().unwrap_or_else(|error| {
            let generation = Lease::generation(&self.slot.load());
            let alarm = format!("generation {generation} does not run: could not spawn a thread: {error}");
            self.slot.core.journal.alarm(alarm);
            None
        })
    }

    /// Starts the current plugin. Returns when it began, if it has: the swap is not recorded before this returns, so it does not
    /// wait for a thread that cannot begin.
    pub(super) fn start_current(&mut self) -> std::io::Result<Option<Instant>> {
        let current = self.slot.core.lineage.hold_serving(|view| {
            // It may have been told to stop by an attempt to replace it that came to nothing.
            view.generation.stop.lower();
            view.epoch
        });
        let (hold, epoch) = current.expect("a slot that is open has a current generation");
        let lease = Lease::new(hold, Location::caller());
        let generation = Lease::generation(&lease);
        if let Some(at) = self.stuck.iter().position(|run| Lease::generation(&run.lease) == generation) {
            // It never stopped; should it still do so, it starts again.
            let run = Run { epoch, ..self.stuck.swap_remove(at) };
            let began = run.started;
            self.running = Some(run);
            return Ok(Some(began));
        }
        self.runs += 1;
        let number = self.runs;
        let (say_started, has_started) = ask();
        let (say_ended, end) = channel();
        let (notices, theirs, scope) = (self.notices.clone(), lease.clone(), self.slot.core.scope.clone());
        let body = move || {
            say_started.give(Instant::now());
            let run = || theirs.run(Lease::stop_signal(&theirs));
            let result = scope.enter(|| catch_unwind(AssertUnwindSafe(run)));
            let at = Instant::now();
            let error = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(format!("a panic: {}", panic_text(panic))),
            };
            let _ = say_ended.send(RunEnd { at, error });
            let _ = notices.send(Order::Ended(number));
        };
        let thread =
            std::thread::Builder::new().name("hotslot-run".to_owned()).spawn(|| detached::on_clean_stack(body))?;
        let began = wait_for_start(&has_started);
        let started = began.unwrap_or_else(Instant::now);
        self.slot.core.journal.emit(&Event::RunStarted { generation });
        self.running = Some(Run { number, lease, epoch, halted: false, started, end, thread });
        Ok(began)
    }

    /// Tells the running plugin to stop, and waits for it for as long as it has.
    fn halt(&mut self) -> Halted {
        let Some(mut run) = self.running.take() else { return Halted::Idle };
        run.halted = true;
        Lease::stop_signal(&run.lease).raise();
        match run.end.recv_timeout(self.slot.core.settings.drain_timeout) {
            Ok(end) => Halted::Stopped(self.finish(run, &end)),
            Err(_) => {
                let generation = Lease::generation(&run.lease);
                let waited = self.slot.core.settings.drain_timeout;
                let slot = Arc::clone(&self.slot.core.name);
                let line = move || tracing::error!(slot = &*slot, generation, ?waited, "does not stop");
                self.slot.core.journal.trace_elsewhere(line);
                self.stuck.push(run);
                Halted::Stuck(generation)
            }
        }
    }

    /// Lets go of a run that has ended, once its thread has: what the plugin left to the thread's own destructors runs before the
    /// lease goes. If one of them hangs, thread and lease are left to themselves, and the generation is reported as stuck.
    fn finish(&self, run: Run<T>, end: &RunEnd) -> Instant {
        let Run { lease, thread, .. } = run;
        let generation = Lease::generation(&lease);
        let (give_back, back) = channel();
        let join = move |(thread, lease): (JoinHandle<()>, _)| {
            let _ = thread.join();
            // Or it goes here, if nobody waits any more.
            let _ = give_back.send(lease);
        };
        let joining = detached::run_with((thread, lease), join, |work| workers::run(Afterwards::Stay, work));
        let lease = match joining {
            Ok(()) => back.recv_timeout(self.slot.core.settings.drain_timeout).ok(),
            // There is no other thread to wait on.
            Err(((thread, lease), _)) => {
                let _ = thread.join();
                Some(lease)
            }
        };
        // Before what may be destroyed then.
        self.slot.core.journal.run_ended(generation, end.error.clone());
        drop(lease);
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
        let run_epoch = run.epoch;
        let told_to_stop = run.halted || Some(run_epoch) != self.epoch();
        let stopped = self.finish(run, &end);
        if told_to_stop {
            self.start_loudly();
            return;
        }
        let Some(error) = end.error else { return };
        if lived >= self.slot.core.settings.probation.window() {
            return self.slot.core.journal.alarm(format!(
                "generation {generation} failed after {lived:?}, and nothing runs until the next reload or rollback: \
                 {error}"
            ));
        }
        let cause = Cause::Automatic { reason: format!("its run failed after {lived:?}: {error}") };
        let core = Arc::clone(&self.slot.core);
        let target = Target::PreviousOf(Base { generation, epoch: run_epoch });
        let result = core.roll_back(target, cause, Request::default(), || self.start_after(Some(stopped)));
        if let Err(refusal) = result {
            core.journal.alarm(format!("generation {generation} failed, and nothing runs: {error} ({refusal})"));
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
        self.slot.core.lineage.serving(|view| view.epoch)
    }
}

/// Returns when a run's thread began. `None` if it does not: no thread can while a library's constructors run.
fn wait_for_start(has_started: &Answer<Instant>) -> Option<Instant> {
    /// A busy machine may take its time.
    const PATIENCE: Duration = Duration::from_secs(1);
    const LOOK_AGAIN: Duration = Duration::from_millis(5);
    let asked = Instant::now();
    loop {
        let began = has_started.wait_until(Instant::now() + LOOK_AGAIN);
        if began.is_some() || loader_lock::is_held_up() || asked.elapsed() >= PATIENCE {
            return began;
        }
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
