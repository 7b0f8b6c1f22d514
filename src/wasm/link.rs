//! A module's plugin behind the trait of a declared interface.

use std::time::Duration;

use super::call_frame::Guest;
use super::error::WasmCallError;
use super::limits::CallOptions;
use super::plugin::WasmPlugin;
use crate::BoxError;
use crate::host::{Argument, CallError, CallErrorKind, InterfacePlugin, Malformed, Reply, Stop};

impl InterfacePlugin for WasmPlugin<Guest> {
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        // Not through `WasmPlugin::call`: the link counts what is the plugin's fault.
        let invoke = |guest: &Guest, call: &mut super::Call<'_>| guest.call(call, method, arguments, words, read);
        self.instances.call(self.instances.begin, &CallOptions::new(), invoke)?
    }

    /// No deadline of a call applies: the stop signal ends the run, and after it the drain timeout.
    fn run(&self, _: &Stop) -> Result<(), BoxError> {
        let forever = CallOptions::new().deadline(Duration::MAX);
        Ok(self.call_with(&forever, Guest::run)??)
    }
}

impl From<WasmCallError> for CallError {
    fn from(error: WasmCallError) -> CallError {
        let kind = match &error {
            WasmCallError::Trapped { .. } | WasmCallError::NotCreated(_) => CallErrorKind::Panicked,
            WasmCallError::DeadlineExceeded(_) => CallErrorKind::DeadlineExceeded,
            WasmCallError::Retired => CallErrorKind::Retired,
            WasmCallError::Saturated { .. } | WasmCallError::OverBudget { .. } => CallErrorKind::Saturated,
            WasmCallError::OutOfMemory { .. } | WasmCallError::OutOfTable { .. } => CallErrorKind::OutOfMemory,
            WasmCallError::OutOfBounds { .. } | WasmCallError::AnswerTooLarge { .. } | WasmCallError::Unbound(_) => {
                CallErrorKind::Malformed
            }
            WasmCallError::Failed(_) => CallErrorKind::Failed,
            WasmCallError::Host(failure) if failure.is_misuse() => CallErrorKind::Malformed,
            _ => CallErrorKind::Unavailable,
        };
        let call_error = CallError::new(kind, error.to_string());
        match &error {
            WasmCallError::Trapped { frames, .. } if !frames.is_empty() => {
                call_error.with_source(&Backtrace(format!("backtrace: {}", frames.join(" < "))))
            }
            WasmCallError::Failed(failed) => match failed.source() {
                Some(source) => call_error.with_source(source),
                None => call_error,
            },
            _ => call_error,
        }
    }
}

/// The functions that were being called when a plugin trapped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Backtrace(String);

#[cfg(test)]
mod tests {
    use super::super::error::HostFailure;
    use super::*;

    #[test]
    fn what_is_the_plugins_fault_stays_it_behind_an_interface() {
        for error in [
            WasmCallError::Trapped { reason: String::new(), site: None, frames: Vec::new() },
            WasmCallError::DeadlineExceeded(Duration::ZERO),
            WasmCallError::Cancelled,
            WasmCallError::Retired,
            WasmCallError::Saturated { what: "", limit: 0, holders: String::new() },
            WasmCallError::OverBudget { limit: 0, holders: String::new() },
            WasmCallError::OutOfMemory { limit: 0 },
            WasmCallError::OutOfTable { limit: 0 },
            WasmCallError::InputTooLarge { len: 0, capacity: 0 },
            WasmCallError::OutOfBounds { ptr: 0, len: 0 },
            WasmCallError::AnswerTooLarge { len: 0, limit: 0 },
            WasmCallError::Unbound(String::new()),
            WasmCallError::NoInstance(String::new()),
            WasmCallError::NestedTooDeep(String::new()),
            WasmCallError::StackTooSmall { left: 0, needed: 0 },
            WasmCallError::Host(HostFailure { text: String::new(), is_misuse: false }),
            WasmCallError::Host(HostFailure { text: String::new(), is_misuse: true }),
            WasmCallError::NotCreated(String::new()),
            WasmCallError::failed("no"),
        ] {
            let (is_fault, shown) = (error.is_fault(), format!("{error:?}"));
            assert_eq!(CallError::from(error).kind().is_fault(), is_fault, "{shown}");
        }
    }
}
