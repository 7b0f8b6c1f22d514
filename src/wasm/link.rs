//! A module's plugin behind the trait of a declared interface.

use std::time::Duration;

use hotslot_plugin::{Answered, Argument, Link, Malformed, Stop, Transport};

use super::call_frame::{Guest, refused};
use super::error::WasmCallError;
use super::limits::CallOptions;
use super::plugin::WasmPlugin;
use crate::host::{CallError, CallErrorKind, Numbers};
use crate::{BoxError, State, Stateful};

/// The way to one plugin.
pub(super) struct WasmLink {
    plugin: WasmPlugin<Guest>,
    /// The plugin's numbers of the host's methods.
    numbers: Numbers,
}

impl WasmLink {
    pub(super) fn new(plugin: WasmPlugin<Guest>, numbers: Numbers) -> WasmLink {
        WasmLink { plugin, numbers }
    }
}

impl Transport for WasmLink {
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Answered<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let Some(&Some(number)) = self.numbers.get(method as usize) else { return Err(CallError::unsupported()) };
        let answer = self.plugin.call(|guest, call| guest.call(call, number, arguments, words, read))?;
        if let Err(error) = &answer
            && error.kind() == CallErrorKind::Malformed
        {
            self.plugin.failures.report_failure(error);
        }
        answer
    }
}

impl Link for WasmLink {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, BoxError> {
        Ok(self.plugin.save()?.map(|State { schema, bytes }| (schema, bytes)))
    }

    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), BoxError> {
        self.plugin.restore(&State { schema: schema.to_owned(), bytes: state.to_vec() })
    }

    /// It takes as long as it takes: the stop signal ends it, and the drain timeout after that.
    fn run(&self, _: &Stop) -> Result<(), BoxError> {
        let forever = CallOptions::new().deadline(Duration::MAX);
        let outcome = self.plugin.call_with(&forever, |guest, call| {
            let refusal = call.run(&guest.run, ())?;
            Ok(refused(call, refusal))
        })?;
        Ok(outcome?)
    }
}

impl From<WasmCallError> for CallError {
    fn from(error: WasmCallError) -> CallError {
        let kind = match &error {
            WasmCallError::Trapped { .. } => CallErrorKind::Panicked,
            WasmCallError::DeadlineExceeded(_) => CallErrorKind::DeadlineExceeded,
            WasmCallError::Retired => CallErrorKind::Retired,
            WasmCallError::Saturated { .. } => CallErrorKind::Saturated,
            WasmCallError::OutOfMemory { .. } | WasmCallError::OutOfTable { .. } => CallErrorKind::OutOfMemory,
            WasmCallError::OutOfBounds { .. } | WasmCallError::Unbound(_) => CallErrorKind::Malformed,
            // What `create` answered, for an instance that had to be made first.
            WasmCallError::Failed(_) => CallErrorKind::Failed,
            _ => CallErrorKind::Unavailable,
        };
        CallError::new(kind, error.to_string())
    }
}
