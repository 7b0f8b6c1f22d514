//! What one call may take: time, memory, tables. The stack is the [engine](super::EngineBuilder::stack)'s.

use std::fmt;
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, Trap, WasmBacktrace};

use super::error::{TEXT_LIMIT, WasmCallError};
use crate::StopSignal;
use crate::text::plugin_text;

/// What one call may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Time, from before the instance is made until the caller's work with it is done. 1 s.
    ///
    /// It is noticed within one [tick](super::EngineBuilder::tick), and only while the plugin's code runs, not inside a
    /// function of the host.
    pub deadline: Duration,
    /// Bytes of memory of one instance; growing beyond them fails inside the plugin. 64 MiB.
    pub memory: usize,
    /// Elements of each table, 100,000 at the most. 10,000.
    pub table_elements: usize,
}

impl Default for CallLimits {
    fn default() -> CallLimits {
        CallLimits { deadline: Duration::from_secs(1), memory: 64 << 20, table_elements: 10_000 }
    }
}

/// What differs from call to call.
///
/// ```
/// use std::time::Duration;
/// use hotslot::StopSignal;
/// use hotslot::wasm::CallOptions;
///
/// let cancel = StopSignal::new();
/// let options = CallOptions::new().deadline(Duration::from_millis(20)).cancel(&cancel);
/// // From any thread, for instance when the client has gone:
/// cancel.raise();
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    deadline: Option<Duration>,
    cancel: Option<StopSignal>,
}

impl CallOptions {
    /// The plugin's own limits, and nobody cancels.
    pub fn new() -> CallOptions {
        CallOptions::default()
    }

    /// Another deadline than [`CallLimits::deadline`].
    pub fn deadline(mut self, deadline: Duration) -> CallOptions {
        self.deadline = Some(deadline);
        self
    }

    /// Ends the call with [`WasmCallError::Cancelled`] within one tick of `signal` being raised.
    pub fn cancel(mut self, signal: &StopSignal) -> CallOptions {
        self.cancel = Some(signal.clone());
        self
    }
}

/// Why a call was ended from outside.
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

/// What a plugin wanted and did not get.
#[derive(Clone, Copy, Debug)]
pub(super) enum Denied {
    Memory { limit: usize },
    Table { limit: usize },
}

/// What is known of a call that ended in a trap, beside the trap.
#[derive(Clone, Debug, Default)]
pub(super) struct Clues {
    /// The last thing that was refused: the trap is most likely because of it.
    pub(super) denied: Option<Denied>,
    /// What the plugin said of it.
    pub(super) panic: Option<String>,
}

/// The bounds of the call that is under way in an instance.
pub(super) struct Bounds {
    memory: usize,
    table_elements: usize,
    /// The generation's.
    stop: StopSignal,
    cancel: Option<StopSignal>,
    until: Instant,
    deadline: Duration,
    clues: Clues,
}

impl Bounds {
    pub(super) fn new(limits: &CallLimits, stop: StopSignal) -> Bounds {
        let CallLimits { deadline, memory, table_elements } = *limits;
        Bounds { memory, table_elements, stop, cancel: None, until: Instant::now(), deadline, clues: Clues::default() }
    }

    /// Sets out for a call that began at `began`, unless it has been ended already.
    pub(super) fn begin(
        &mut self,
        began: Instant,
        limits: &CallLimits,
        options: &CallOptions,
    ) -> Result<(), WasmCallError> {
        self.deadline = options.deadline.unwrap_or(limits.deadline);
        self.until = began.checked_add(self.deadline).unwrap_or(began + Duration::from_secs(1 << 32));
        self.cancel.clone_from(&options.cancel);
        self.clues = Clues::default();
        self.check().map_err(|interruption| WasmCallError::from_call(&interruption.into(), &self.clues))
    }

    pub(super) fn clues(&self) -> &Clues {
        &self.clues
    }

    pub(super) fn note_panic(&mut self, text: String) {
        self.clues.panic = Some(text);
    }

    /// Waits for a plugin that has nothing to do, and says whether it has to stop. The limits of the call hold.
    pub(super) fn wait(&self, duration: Duration) -> Result<bool, Interruption> {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let began = Instant::now();
        loop {
            self.check()?;
            let left = duration.saturating_sub(began.elapsed());
            if self.stop.is_raised() || left.is_zero() {
                return Ok(self.stop.is_raised());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    pub(super) fn check(&self) -> Result<(), Interruption> {
        if self.stop.is_overdue() {
            return Err(Interruption::Retired);
        }
        if self.cancel.as_ref().is_some_and(StopSignal::is_raised) {
            return Err(Interruption::Cancelled);
        }
        if Instant::now() >= self.until {
            return Err(Interruption::Deadline(self.deadline));
        }
        Ok(())
    }
}

/// A refusal is an answer that the plugin's allocator sees; what the plugin makes of it is up to the plugin.
impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory;
        if !fits {
            self.clues.denied = Some(Denied::Memory { limit: self.memory });
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.table_elements;
        if !fits {
            self.clues.denied = Some(Denied::Table { limit: self.table_elements });
        }
        Ok(fits)
    }
}

impl WasmCallError {
    /// What came out of a call into the plugin, with what its limits noted in the meantime.
    pub(super) fn from_call(error: &wasmtime::Error, clues: &Clues) -> WasmCallError {
        if let Some(interruption) = error.downcast_ref::<Interruption>() {
            return match *interruption {
                Interruption::Deadline(deadline) => WasmCallError::DeadlineExceeded(deadline),
                Interruption::Cancelled => WasmCallError::Cancelled,
                Interruption::Retired => WasmCallError::Retired,
            };
        }
        let Clues { denied, panic } = clues;
        match (error.downcast_ref::<Trap>(), denied) {
            (Some(_), Some(Denied::Memory { limit })) => WasmCallError::OutOfMemory { limit: *limit },
            (Some(_), Some(Denied::Table { limit })) => WasmCallError::OutOfTable { limit: *limit },
            (Some(trap), None) => match panic {
                Some(panic) => WasmCallError::Trapped { reason: panic.clone(), site: None },
                None => WasmCallError::Trapped { reason: trap.to_string(), site: site(error) },
            },
            (None, _) => WasmCallError::Host(plugin_text(error.root_cause().to_string().as_bytes(), TEXT_LIMIT)),
        }
    }
}

/// The innermost function of a trap, as a person can find it.
fn site(error: &wasmtime::Error) -> Option<String> {
    let frame = error.downcast_ref::<WasmBacktrace>()?.frames().first()?;
    let name = frame.func_name().map(|name| format!(" `{}`", plugin_text(name.as_bytes(), 256))).unwrap_or_default();
    let offset = frame.module_offset().map(|offset| format!(" at offset {offset:#x}")).unwrap_or_default();
    Some(format!("function {}{name}{offset}", frame.func_index()))
}
