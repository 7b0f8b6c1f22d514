//! Calls of a declared interface as they went over, kept to be made again on another plugin.

use std::fmt;
use std::sync::Arc;

use hotslot_plugin::{Argument, CallError, CallErrorKind, Link};

/// A call of a method that is marked `#[repeatable]`, as a [shadow](crate::Shadow) copied it.
///
/// ```
/// # fn show(call: &hotslot::host::RecordedCall) {
/// println!("{}: {} arguments", call.method(), call.arguments().len());
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RecordedCall {
    number: u32,
    method: Arc<str>,
    arguments: Vec<RecordedValue>,
    /// How many words an answer has room for.
    words: usize,
}

/// A value that went over: a machine word, or bytes. A plain struct is several words; text is UTF-8; every other type is in
/// postcard's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedValue {
    /// A number, a flag, or a part of a plain struct.
    Word(u64),
    /// Text, bytes, or a value of another type.
    Bytes(Vec<u8>),
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedAnswer {
    /// Words and bytes of the answer, or why there is none.
    pub result: Result<(Vec<u64>, Vec<u8>), CallError>,
}

impl RecordedCall {
    pub(crate) fn new(number: u32, method: Arc<str>, arguments: &[Argument<'_>], words: usize) -> RecordedCall {
        let arguments = arguments.iter().map(RecordedValue::of).collect();
        RecordedCall { number, method, arguments, words }
    }

    /// Returns the name of the method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the arguments, as they went over.
    pub fn arguments(&self) -> &[RecordedValue] {
        &self.arguments
    }

    /// Makes the call again, on the plugin behind this link.
    pub(crate) fn repeat(&self, link: Option<&dyn Link>) -> RecordedAnswer {
        let Some(link) = link else { return RecordedAnswer { result: Err(CallError::unsupported()) } };
        let arguments: Vec<_> = self.arguments.iter().map(RecordedValue::lend).collect();
        let mut words = vec![0; self.words];
        let result = link.repeat(self.number, &arguments, &mut words);
        RecordedAnswer { result: result.map(|bytes| (words, bytes)) }
    }
}

impl RecordedValue {
    fn of(argument: &Argument<'_>) -> RecordedValue {
        match argument.as_word() {
            Some(word) => RecordedValue::Word(word),
            None => RecordedValue::Bytes(argument.as_bytes().unwrap_or_default().to_vec()),
        }
    }

    fn lend(&self) -> Argument<'_> {
        match self {
            RecordedValue::Word(word) => Argument::word(*word),
            RecordedValue::Bytes(bytes) => Argument::bytes(bytes),
        }
    }
}

impl RecordedAnswer {
    pub(crate) fn new(result: Result<(&[u64], &[u8]), &CallError>) -> RecordedAnswer {
        RecordedAnswer { result: result.map(|(words, bytes)| (words.to_vec(), bytes.to_vec())).map_err(Clone::clone) }
    }

    /// Says how two answers to a call differ, if they do: in what was answered, or in the kind of failure. For
    /// [`start_on_calls`](crate::ShadowBuilder::start_on_calls).
    ///
    /// A call that the host did not make or cut off, because there were too many for instance, says nothing about a plugin, nor does a
    /// method that one of them does not have: those are no differences. Answers are compared as they came over, and
    /// not read.
    pub fn difference(call: &RecordedCall, serving: &RecordedAnswer, staged: &RecordedAnswer) -> Option<String> {
        let method = call.method();
        let is_beside_the_point = |answer: &RecordedAnswer| {
            use CallErrorKind::{Retired, Saturated, Unavailable, Unsupported};
            let kind = answer.result.as_ref().err().map(CallError::kind);
            matches!(kind, Some(Retired | Saturated | Unavailable | Unsupported))
        };
        if is_beside_the_point(serving) || is_beside_the_point(staged) {
            return None;
        }
        match (&serving.result, &staged.result) {
            (Ok(one), Ok(other)) if one == other => None,
            (Err(one), Err(other)) if one.kind() == other.kind() => None,
            (Ok(_), Ok(_)) => Some(format!("{method}: another answer")),
            (Ok(_), Err(error)) => Some(format!("{method}: no answer: {error}")),
            (Err(_), Ok(_)) => Some(format!("{method}: an answer, where the serving plugin has none")),
            (Err(_), Err(error)) => Some(format!("{method}: another failure: {error}")),
        }
    }
}

/// Shows no more than the sizes: arguments may be secret.
impl fmt::Debug for RecordedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedCall")
            .field("method", &self.method)
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}
