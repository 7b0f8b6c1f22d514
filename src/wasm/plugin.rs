//! A loaded plugin: one compiled module, and calls into instances of it.

use super::binder::Call;
use super::error::WasmCallError;
use super::instances::Instances;
use super::limits::{Began, CallOptions};
use crate::failures::FailureCounter;
use crate::{BoxError, Manifest, State, Stateful};

/// A plugin that is a WebAssembly module; `C` is the user's struct of functions, made by the closure that
/// [`Engine::bind`](super::Engine::bind) takes.
///
/// Calls may be made from any thread, also at the same time. They do not wait for each other, unless the backend was given
/// a [`max_wait`](super::WasmBackend::max_wait) or has only a [single](super::InstancePolicy::Single) instance.
pub struct WasmPlugin<C> {
    pub(super) instances: Instances<C>,
    pub(super) manifest: Manifest,
    pub(super) failures: FailureCounter,
}

impl<C: Send + 'static> WasmPlugin<C> {
    /// Runs `work` with an instance of the plugin: it calls the plugin's functions, and copies what it wants to keep out
    /// of the plugin's memory.
    ///
    /// # Errors
    /// Returns the error of `work`, or why there was no instance for it. One that is
    /// [the plugin's fault](WasmCallError::is_fault) is counted by the generation's
    /// [failure counter](crate::FailureCounter).
    ///
    /// # Stack
    /// The plugin's code runs on the caller's stack, and may use as much of it as
    /// [the engine allows](super::EngineBuilder::stack). The thread needs that much, and some more for the functions of
    /// the host.
    pub fn call<R>(
        &self,
        work: impl FnOnce(&C, &mut Call<'_>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        self.call_with(&CallOptions::new(), work)
    }

    /// Runs `work` as [`call`](WasmPlugin::call) does, with a deadline of its own or a way to cancel it.
    ///
    /// # Errors
    /// As for [`call`](WasmPlugin::call).
    pub fn call_with<R>(
        &self,
        options: &CallOptions,
        work: impl FnOnce(&C, &mut Call<'_>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        self.counted(self.instances.call(Began::Now, options, work))
    }

    /// Returns the plugin's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns whether the optimised code serves, for an engine that serves
    /// [baseline code first](super::DangerousEngineBuilder::baseline_first).
    #[cfg(feature = "winch")]
    #[cfg_attr(docsrs, doc(cfg(feature = "winch")))]
    pub fn is_optimised(&self) -> bool {
        self.instances.code.load().is_optimised
    }

    fn counted<R>(&self, result: Result<R, WasmCallError>) -> Result<R, WasmCallError> {
        if let Err(error) = &result
            && error.is_fault()
        {
            self.failures.report_failure(error);
        }
        result
    }
}

/// For [`transfer_state`](crate::transfer_state). The exports that a module needs are [listed here](super#state).
impl<C: Send + 'static> Stateful for WasmPlugin<C> {
    fn save(&self) -> Result<Option<State>, BoxError> {
        let Some(schema) = self.manifest.schema.clone() else { return Ok(None) };
        let bytes = self.counted(self.instances.save())?;
        Ok(Some(State { schema, bytes }))
    }

    fn restore(&self, state: &State) -> Result<(), BoxError> {
        if self.manifest.schema.is_none() {
            return Err("the plugin has no state: its manifest names no schema".into());
        }
        Ok(self.counted(self.instances.restore(state))?)
    }
}

impl<C> std::fmt::Debug for WasmPlugin<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmPlugin").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}
