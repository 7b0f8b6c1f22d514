//! How a call through an interface fails, whatever carries it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A call through an [interface](macro@crate::interface) that gave no answer.
///
/// It is the same for a library, for wasm and in-process. What of it reaches the host is up to the method: one that
/// returns `Result<_, E>` with `E: From<CallError>` returns it; one with `#[on_error(value)]` gives that value; every
/// other unwinds with it, quietly, to the next [`CallError::catch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    kind: CallErrorKind,
    message: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The plugin panicked, or trapped.
    Panicked,
    /// The plugin returned an error: see [`CallError::failed`].
    Failed,
    /// The plugin does not have this method.
    Unsupported,
    /// Arguments or an answer that are not what the types say.
    Malformed,
    /// The call took longer than it may.
    DeadlineExceeded,
    /// The plugin wanted more memory than it may have.
    OutOfMemory,
    /// Too many calls are under way: try again later.
    Saturated,
    /// The plugin was replaced, and the call outlasted its drain timeout: take a new lease.
    Retired,
    /// The call was not made, or its answer not waited for, for a reason on the host's side.
    Unavailable,
}

impl CallErrorKind {
    /// Returns whether it speaks against the plugin, and not against its load, its caller or its host. A host counts
    /// these against the generation.
    pub fn is_fault(self) -> bool {
        use CallErrorKind::{DeadlineExceeded, Malformed, OutOfMemory, Panicked};
        matches!(self, Panicked | Malformed | DeadlineExceeded | OutOfMemory)
    }
}

impl CallError {
    /// Makes an error of this kind.
    pub fn new(kind: CallErrorKind, message: impl Into<String>) -> CallError {
        CallError { kind, message: message.into() }
    }

    /// Makes an error of the plugin's own, for methods that return `Result<_, CallError>`.
    pub fn failed(error: impl fmt::Display) -> CallError {
        CallError::new(CallErrorKind::Failed, error.to_string())
    }

    #[doc(hidden)]
    pub fn unsupported() -> CallError {
        CallError::new(CallErrorKind::Unsupported, "the plugin does not support this")
    }

    pub(crate) fn malformed(message: &str) -> CallError {
        CallError::new(CallErrorKind::Malformed, message)
    }

    /// Returns what went wrong.
    pub fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// Unwinds with this error. The panic hook is not called: nothing is printed.
    pub fn unwind(self) -> ! {
        resume_unwind(Box::new(self))
    }

    /// Runs `call`, and returns the error that a method in it [unwound](CallError::unwind) with.
    ///
    /// # Errors
    /// That error. Any other panic goes on.
    ///
    /// ```
    /// # use hotslot_plugin::{CallError, CallErrorKind};
    /// let answer = CallError::catch(|| 42);
    /// assert_eq!(answer, Ok(42));
    /// let answer: Result<(), _> = CallError::catch(|| CallError::failed("no such symbol").unwind());
    /// assert_eq!(answer.unwrap_err().kind(), CallErrorKind::Failed);
    /// ```
    pub fn catch<R>(call: impl FnOnce() -> R) -> Result<R, CallError> {
        // What the closure has half done is the caller's to see: it is the same with every error that it returns early.
        catch_unwind(AssertUnwindSafe(call)).map_err(|payload: Box<dyn Any + Send>| match payload.downcast() {
            Ok(error) => *error,
            Err(other) => resume_unwind(other),
        })
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}

/// Bytes or words that are not what the type should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for CallError {
    fn from(malformed: Malformed) -> CallError {
        CallError::malformed(malformed.0)
    }
}
