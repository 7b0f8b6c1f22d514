//! How a call through an interface fails, whatever carries it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A call through an [interface](macro@crate::interface) that gave no answer.
///
/// It is the same for a library, for wasm and in-process. What of it reaches the host is up to the method: one that
/// returns `Result<_, E>` with `E: From<CallError>` returns it; one with `#[on_error(value)]` gives that value; every
/// other unwinds with it, quietly, to the next [`CallError::catch`].
///
/// An error of the plugin's that has sources keeps them, if it was made [from it](CallError::from_error): the messages of all
/// of them cross, and [`source`](std::error::Error::source) works on the other side as it would have in the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError(Box<Inner>);

/// Behind a pointer, because what every call returns is an answer or this: with an error of five words each answer would go
/// through memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: CallErrorKind,
    message: String,
    source: Option<Box<Cause>>,
}

/// What lies below an error: text, because the error itself does not cross.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    message: String,
    source: Option<Box<Cause>>,
}

/// Stands, in the text of a method's error, between its message and those of its sources. A control character of text, the
/// record separator, that messages have no use for.
pub const SOURCE_SEPARATOR: u8 = 0x1e;

/// The most sources that an error keeps.
const CAUSES: usize = 16;

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
        CallError::boxed(kind, message.into())
    }

    // Once, because the size of a module matters, and never in the way of a call that is answered.
    #[cold]
    #[inline(never)]
    fn boxed(kind: CallErrorKind, message: String) -> CallError {
        CallError(Box::new(Inner { kind, message, source: None }))
    }

    /// Makes an error of the plugin's own from another error, with its sources. [`failed`](CallError::failed) takes a text.
    ///
    /// ```
    /// # use hotslot_plugin::CallError;
    /// fn parse(text: &str) -> Result<f64, CallError> {
    ///     text.parse::<f64>().map_err(CallError::from_error)
    /// }
    /// assert_eq!(parse("much").unwrap_err().to_string(), "invalid float literal");
    /// ```
    pub fn from_error(error: impl Into<crate::Error>) -> CallError {
        let error = error.into();
        let failed = CallError::failed(&error);
        match error.source() {
            Some(source) => failed.with_source(source),
            None => failed,
        }
    }

    /// Adds an error, with its sources, below those that this one has.
    pub fn with_source(mut self, source: &(dyn std::error::Error + 'static)) -> CallError {
        let mut next = Some(source);
        while let Some(error) = next {
            self = self.with_cause(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds a message below those that there are, up to a limit.
    pub(crate) fn with_cause(mut self, message: String) -> CallError {
        let (mut place, mut depth) = (&mut self.0.source, 0);
        while let Some(cause) = place {
            (place, depth) = (&mut cause.source, depth + 1);
        }
        if depth < CAUSES {
            *place = Some(Box::new(Cause { message, source: None }));
        }
        self
    }

    /// Returns the text that crosses: the message, and those of the sources behind
    /// [separators](crate::abi::SOURCE_SEPARATOR).
    #[doc(hidden)]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (mut message, mut next) = (&self.0.message, &self.0.source);
        loop {
            let sound = message.bytes().map(|byte| if byte == SOURCE_SEPARATOR { b' ' } else { byte });
            bytes.extend(sound);
            let Some(cause) = next else { return bytes };
            bytes.push(SOURCE_SEPARATOR);
            (message, next) = (&cause.message, &cause.source);
        }
    }

    /// Makes the error that crossed; `text` makes a message of bytes.
    pub(crate) fn from_wire(kind: CallErrorKind, bytes: &[u8], text: impl Fn(&[u8]) -> String) -> CallError {
        let mut messages = bytes.split(|&byte| byte == SOURCE_SEPARATOR);
        let error = CallError::new(kind, messages.next().map(&text).unwrap_or_default());
        messages.take(CAUSES).fold(error, |error, message| error.with_cause(text(message)))
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
        self.0.kind
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
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|cause| &**cause as _)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|cause| &**cause as _)
    }
}

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
