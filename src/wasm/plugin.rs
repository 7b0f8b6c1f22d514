//! A live plugin: one compiled module, and calls into instances of it.

use super::binder::Call;
use super::error::WasmCallError;
use super::instances::Instances;
use super::limits::CallOptions;
use crate::failures::FailureCounter;
use crate::{BoxError, Manifest, State, Stateful};

/// A plugin that is a WebAssembly module; `C` is the user's struct of functions, made by the
/// [binder](super::Engine::plugins).
///
/// Calls may be made from any thread, at the same time, and do not wait for each other, unless there is only a
/// [single](super::InstancePolicy::Single) instance.
pub struct WasmPlugin<C> {
    pub(super) instances: Instances<C>,
    pub(super) manifest: Manifest,
    pub(super) failures: FailureCounter,
}

impl<C: Send + 'static> WasmPlugin<C> {
    /// Runs `work` with an instance of the plugin: it calls the plugin's functions, and takes what it wants to keep out
    /// of the plugin's memory.
    ///
    /// # Errors
    /// What `work` returns, or why there was no instance for it. If it [is the plugin's fault](WasmCallError::is_fault), it
    /// is counted in the generation's health.
    ///
    /// # Stack
    /// The plugin's code runs on the caller's stack, of which it may use as much as
    /// [the engine allows](super::EngineBuilder::stack); the thread needs that much, and some for the host's functions.
    pub fn call<R>(
        &self,
        work: impl FnOnce(&C, &mut Call<'_>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        self.call_with(&CallOptions::new(), work)
    }

    /// The same, with a deadline of its own or a way to cancel it.
    ///
    /// # Errors
    /// As [`call`](WasmPlugin::call).
    pub fn call_with<R>(
        &self,
        options: &CallOptions,
        work: impl FnOnce(&C, &mut Call<'_>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        self.watched(self.instances.call(options, work))
    }

    /// What the plugin says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the optimised code serves by now, for an engine that serves
    /// [baseline code first](super::EngineBuilder::baseline_first).
    #[cfg(feature = "winch")]
    #[cfg_attr(docsrs, doc(cfg(feature = "winch")))]
    pub fn is_optimised(&self) -> bool {
        self.instances.code.load().is_optimised
    }

    fn watched<R>(&self, result: Result<R, WasmCallError>) -> Result<R, WasmCallError> {
        if let Err(error) = &result
            && error.is_fault()
        {
            self.failures.report_failure(error);
        }
        result
    }
}

/// What [`transfer_state`](crate::transfer_state) needs. The module's exports for it are listed in the
/// [module's documentation](super#state).
impl<C: Send + 'static> Stateful for WasmPlugin<C> {
    fn save(&self) -> Result<Option<State>, BoxError> {
        let Some(schema) = self.manifest.schema.clone() else { return Ok(None) };
        let bytes = self.watched(self.instances.save())?;
        Ok(Some(State { schema, bytes }))
    }

    fn restore(&self, state: &State) -> Result<(), BoxError> {
        if self.manifest.schema.is_none() {
            return Err("the plugin has no state: its manifest names no schema".into());
        }
        Ok(self.watched(self.instances.restore(state))?)
    }
}

impl<C> std::fmt::Debug for WasmPlugin<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmPlugin").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}
