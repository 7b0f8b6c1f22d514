//! Limits of one call: time, memory, tables. The stack is limited by the [engine](super::EngineBuilder::stack).

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{FrameInfo, ResourceLimiter, Trap, WasmBacktrace};

use super::account::Account;
use super::engine::{OverBudget, Ticks};
use super::error::{HostFailure, Misuse, TEXT_LIMIT, WasmCallError};
use crate::StopSignal;
use crate::nesting::Watch;
use crate::text::plugin_text;

/// Limits of one call.
///
/// ```
/// use std::time::Duration;
/// use hotslot::wasm::CallLimits;
///
/// let limits = CallLimits { deadline: Duration::from_millis(50), ..CallLimits::default() };
/// assert_eq!(limits.memory, 32 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Time from before the instance is made until the caller's closure returns, or the answer is read. 1 s by default.
    ///
    /// It is checked every [tick](super::EngineBuilder::tick) while the plugin's code runs, but not inside a function of
    /// the host.
    pub deadline: Duration,
    /// Bytes of memory of one instance; growing beyond them fails inside the plugin. 32 MiB by default.
    ///
    /// A single instruction can work on all of it, and is not interrupted: `memory.copy` for instance, which is slowest in
    /// memory that was never touched. Of the default that takes 26 ms of a processor's time, as
    /// `tests/it/wasm/bulk.rs` measured once. With more memory a call can overrun its deadline by as much more.
    pub memory: usize,
    /// Elements of each table, at most 100,000. 10,000 by default.
    pub table_elements: usize,
    /// Bytes of the answer of a declared interface's method. 32 MiB by default. What they become when they are read, as
    /// values of serde, is limited, too: to four times their length and 64 MiB.
    pub answer: usize,
}

impl Default for CallLimits {
    fn default() -> CallLimits {
        CallLimits { deadline: Duration::from_secs(1), memory: 32 << 20, table_elements: 10_000, answer: 32 << 20 }
    }
}

/// Options of a single call.
///
/// ```
/// use std::time::Duration;
/// use hotslot::StopSignal;
/// use hotslot::wasm::CallOptions;
///
/// let cancel = StopSignal::new();
/// let options = CallOptions::new().deadline(Duration::from_millis(20)).cancel(&cancel);
/// // From any thread, for instance when the client disconnects:
/// cancel.raise();
/// # let _ = options;
/// ```
#[derive(Clone, Default)]
pub struct CallOptions {
    deadline: Option<Duration>,
    cancel: Option<StopSignal>,
    pub(super) state: Option<Arc<dyn Any + Send + Sync>>,
}

impl CallOptions {
    /// Keeps the limits of the backend, without a way to cancel.
    pub fn new() -> CallOptions {
        CallOptions::default()
    }

    /// Sets a deadline in place of [`CallLimits::deadline`].
    pub fn deadline(mut self, deadline: Duration) -> CallOptions {
        self.deadline = Some(deadline);
        self
    }

    /// Ends the call with [`WasmCallError::Cancelled`] when `signal` is raised: within one tick, while the plugin's code
    /// runs.
    pub fn cancel(mut self, signal: &StopSignal) -> CallOptions {
        self.cancel = Some(signal.clone());
        self
    }

    /// Brings something along for the functions of the host that the plugin calls meanwhile: they find it as
    /// [`StoreData::call_state`](super::StoreData::call_state). It is let go when the call ends.
    pub fn state<S: Send + Sync + 'static>(mut self, state: Arc<S>) -> CallOptions {
        self.state = Some(state);
        self
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallOptions { deadline, cancel, state } = self;
        let mut options = f.debug_struct("CallOptions");
        options.field("deadline", deadline).field("cancel", cancel).field("state", &state.is_some()).finish()
    }
}

/// The reason for which a call was ended from outside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Interruption {
    Deadline(Duration),
    Cancelled,
    Retired,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted: {self:?}")
    }
}

impl std::error::Error for Interruption {}

/// A growth that was refused to a plugin.
#[derive(Clone, Debug)]
pub(super) enum Denied {
    Memory { limit: usize },
    Table { limit: usize },
    Budget(OverBudget),
}

/// What helps to explain a trap.
#[derive(Clone, Debug, Default)]
pub(super) struct Clues {
    /// The last refusal, which is the most likely cause.
    pub(super) denied: Option<Denied>,
    /// What the plugin reported through `panicked`.
    pub(super) panic: Option<String>,
}

/// The limits of the call in progress in an instance.
pub(super) struct Bounds {
    memory: usize,
    answer: usize,
    table_elements: usize,
    /// Of the generation.
    stop: StopSignal,
    cancel: Option<StopSignal>,
    /// When the call has to be over; `None` as long as that is not known.
    until: Option<Instant>,
    /// The tick in which the call began.
    tick: u64,
    ticks: Arc<Ticks>,
    deadline: Duration,
    clues: Clues,
    account: Account,
}

impl Bounds {
    pub(super) fn new(limits: &CallLimits, stop: StopSignal, ticks: Arc<Ticks>, account: Account) -> Bounds {
        let CallLimits { deadline, memory, table_elements, answer } = *limits;
        Bounds {
            memory,
            answer,
            table_elements,
            stop,
            cancel: None,
            until: None,
            tick: ticks.count(),
            ticks,
            deadline,
            clues: Clues::default(),
            account,
        }
    }

    /// Has the instance obey another stop signal; returns the one before.
    pub(super) fn replace_stop(&mut self, stop: StopSignal) -> StopSignal {
        std::mem::replace(&mut self.stop, stop)
    }

    /// Sets the limits for a call.
    ///
    /// # Errors
    /// The call is over already: cancelled, retired, or past its deadline.
    pub(super) fn begin(
        &mut self,
        began: Began,
        limits: &CallLimits,
        options: &CallOptions,
    ) -> Result<(), WasmCallError> {
        self.deadline = options.deadline.unwrap_or(limits.deadline);
        self.tick = self.ticks.count();
        self.until = match began {
            Began::At(began) => Some(after(began, self.deadline)),
            Began::ThisTick if self.deadline > self.ticks.period => None,
            Began::Now | Began::ThisTick => Some(after(Instant::now(), self.deadline)),
        };
        self.cancel.clone_from(&options.cancel);
        self.clues = Clues::default();
        self.check_time()
    }

    /// Checks, outside of the plugin's code, whether the call may go on.
    pub(super) fn check_time(&mut self) -> Result<(), WasmCallError> {
        match self.check() {
            Ok(()) => Ok(()),
            Err(interruption) => Err(WasmCallError::from_call(&interruption.into(), &self.clues, Watch::begin())),
        }
    }

    pub(super) fn check_answer(&self, len: usize) -> Result<(), WasmCallError> {
        match len <= self.answer {
            true => Ok(()),
            false => Err(WasmCallError::AnswerTooLarge { len, limit: self.answer }),
        }
    }

    pub(super) fn clues(&self) -> &Clues {
        &self.clues
    }

    pub(super) fn note_panic(&mut self, text: String) {
        self.clues.panic = Some(text);
    }

    /// Sleeps on behalf of a plugin that has nothing to do, and returns whether it has to stop. The limits of the call
    /// apply.
    pub(super) fn wait(&mut self, duration: Duration) -> Result<bool, Interruption> {
        const POLL_INTERVAL: Duration = Duration::from_millis(5);
        let began = Instant::now();
        // In a forked process nothing ticks.
        self.settle()?;
        loop {
            self.check()?;
            let left = duration.saturating_sub(began.elapsed());
            if self.stop.is_raised() || left.is_zero() {
                return Ok(self.stop.is_raised());
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }

    #[inline]
    pub(super) fn check(&mut self) -> Result<(), Interruption> {
        if self.stop.is_overdue() {
            return Err(Interruption::Retired);
        }
        if self.cancel.as_ref().is_some_and(StopSignal::is_raised) {
            return Err(Interruption::Cancelled);
        }
        // A call that is over within the tick in which it began needs no clock.
        if self.until.is_none() && self.ticks.count() == self.tick {
            return Ok(());
        }
        self.settle()
    }

    /// Returns when the time of a call is over that has been measured in ticks so far.
    fn by_clock(&self, now: Instant) -> Instant {
        // It began before the first of these ticks, and at most a tick before: so much of its time has passed, and it is given
        // the rest.
        let between = self.ticks.count().wrapping_sub(self.tick).saturating_sub(1);
        let passed = self.ticks.period.saturating_mul(u32::try_from(between).unwrap_or(u32::MAX));
        after(now, self.deadline.saturating_sub(passed))
    }

    /// Checks the deadline by the clock, and has it run by the clock from here on: something of the host's begins, and no tick
    /// is looked at before it ends.
    #[cold]
    pub(super) fn settle(&mut self) -> Result<(), Interruption> {
        let now = Instant::now();
        let until = self.until.unwrap_or_else(|| self.by_clock(now));
        self.until = Some(until);
        if now >= until { Err(Interruption::Deadline(self.deadline)) } else { Ok(()) }
    }
}

/// When a call began.
#[derive(Clone, Copy, Debug)]
pub(super) enum Began {
    /// At this moment.
    At(Instant),
    /// When its limits are set.
    Now,
    /// The same, within the accuracy of a tick: its deadline is over up to a tick later, and most calls need no clock. For
    /// those that are nothing but the plugin's code, which is looked at in ticks, too. A function of the host that may take
    /// long [settles](Bounds::settle) the time first.
    ThisTick,
}

fn after(began: Instant, time: Duration) -> Instant {
    began.checked_add(time).unwrap_or(began + Duration::from_secs(1 << 32))
}

impl Bounds {
    fn take(&mut self, bytes: u64) -> Result<(), Denied> {
        let mut saving = Duration::ZERO;
        let taken = self.account.take(bytes, &mut saving);
        // That the state of others was saved is not the plugin's time.
        if !saving.is_zero() {
            let until = self.until.unwrap_or_else(|| self.by_clock(Instant::now()));
            self.until = Some(after(until, saving));
        }
        taken.map_err(Denied::Budget)
    }
}

/// Bytes that an element of a table counts as.
const TABLE_ELEMENT: u64 = 8;

/// The plugin's allocator sees a refusal as a failed growth; what becomes of that is up to the plugin.
impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = match desired <= self.memory {
            true => self.take((desired - current) as u64),
            false => Err(Denied::Memory { limit: self.memory }),
        };
        // A plugin that got less afterwards has found a way.
        self.clues.denied = fits.err();
        Ok(self.clues.denied.is_none())
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!("a memory could not grow: {error:#}");
        self.account.undo();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = match desired <= self.table_elements {
            true => self.take((desired - current) as u64 * TABLE_ELEMENT),
            false => Err(Denied::Table { limit: self.table_elements }),
        };
        self.clues.denied = fits.err();
        Ok(self.clues.denied.is_none())
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!("a table could not grow: {error:#}");
        self.account.undo();
        Ok(())
    }
}

impl WasmCallError {
    /// Translates the error of a call into the plugin, with the help of what its limits noted meanwhile, and of whether
    /// a call that it made through the host was refused.
    pub(super) fn from_call(error: &wasmtime::Error, clues: &Clues, watch: Watch) -> WasmCallError {
        if let Some(interruption) = error.downcast_ref::<Interruption>() {
            return match *interruption {
                Interruption::Deadline(deadline) => WasmCallError::DeadlineExceeded(deadline),
                Interruption::Cancelled => WasmCallError::Cancelled,
                Interruption::Retired => WasmCallError::Retired,
            };
        }
        if let Some(refusal) = watch.refusal() {
            return WasmCallError::NestedTooDeep(refusal.to_string());
        }
        let Clues { denied, panic } = clues;
        // What an allocator makes of a refusal, and not what has nothing to do with it.
        let allocating = |trap: &Trap| {
            matches!(
                trap,
                Trap::UnreachableCodeReached
                    | Trap::MemoryOutOfBounds
                    | Trap::HeapMisaligned
                    | Trap::TableOutOfBounds
                    | Trap::IndirectCallToNull
            )
        };
        let trap = error.downcast_ref::<Trap>();
        let denied = denied.as_ref().filter(|_| trap.is_some_and(allocating));
        match (trap, denied) {
            (Some(_), Some(Denied::Memory { limit })) => WasmCallError::OutOfMemory { limit: *limit },
            (Some(_), Some(Denied::Table { limit })) => WasmCallError::OutOfTable { limit: *limit },
            (Some(_), Some(Denied::Budget(OverBudget { limit, holders }))) => {
                WasmCallError::OverBudget { limit: *limit, holders: holders.clone() }
            }
            (Some(trap), None) => match panic {
                Some(panic) => WasmCallError::Trapped { reason: panic.clone(), site: None, frames: frames(error) },
                None => WasmCallError::Trapped { reason: trap.to_string(), site: site(error), frames: frames(error) },
            },
            (None, _) => WasmCallError::Host(HostFailure {
                text: plugin_text(error.root_cause().to_string().as_bytes(), TEXT_LIMIT),
                is_misuse: error.downcast_ref::<Misuse>().is_some(),
            }),
        }
    }
}

/// Names the functions of a trap, from the innermost.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let frames = backtrace.frames().iter().take(super::config::FRAMES);
    let name = |frame: &FrameInfo| match frame.func_name() {
        Some(name) => plugin_text(demangled(name).as_bytes(), 256),
        None => format!("function {}", frame.func_index()),
    };
    frames.map(name).collect()
}

/// Returns a symbol without the hash that Rust's compiler ends it with.
fn demangled(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => path,
        _ => name,
    }
}

/// Describes the innermost function of a trap by index, name and offset.
fn site(error: &wasmtime::Error) -> Option<String> {
    let frame = error.downcast_ref::<WasmBacktrace>()?.frames().first()?;
    let name = frame.func_name().map(|name| format!(" `{}`", plugin_text(name.as_bytes(), 256))).unwrap_or_default();
    let offset = frame.module_offset().map(|offset| format!(" at offset {offset:#x}")).unwrap_or_default();
    Some(format!("function {}{name}{offset}", frame.func_index()))
}
