//! What an instance's store holds, and what a function of the host learns of the instance that calls it.

use std::any::Any;
use std::sync::Arc;

use wasmtime::{Caller, Memory, Store, UpdateDeadline};

use super::engine::Engine;
use super::error::{Misuse, WasmCallError};
use super::limits::{Began, Bounds, CallLimits, CallOptions};
use crate::PluginScope;
use crate::host::{BoundService, PluginHost, PluginInfo};

/// The data of an instance's store: what a [`Caller`] gives a function of the host.
pub struct StoreData {
    pub(super) host: Arc<PluginHost>,
    pub(super) scope: PluginScope,
    pub(super) bounds: Bounds,
    /// The instance's memory, once there is an instance, and the name that it is exported under.
    pub(super) memory: Option<Memory>,
    pub(super) memory_name: Option<Arc<str>>,
    pub(super) given: Given,
    /// Bytes that a call may need of the thread's stack: what the engine gives the plugin, and what its host needs.
    pub(super) stack: usize,
    /// The user's.
    pub(super) instance_state: Option<Box<dyn Any + Send>>,
    call_state: Option<Arc<dyn Any + Send + Sync>>,
}

/// What an instance has been given on the host's side when it is set up. It goes into instances that are made from a snapshot.
#[derive(Clone, Default)]
pub(super) struct Given {
    /// The services that it asked for, by the numbers that it got.
    pub(super) services: Vec<Arc<BoundService>>,
    /// The address and the size of the room for calls that it has given.
    pub(super) room: (u32, u32),
}

impl StoreData {
    pub(super) fn new(engine: &Engine, host: Arc<PluginHost>, scope: PluginScope, bounds: Bounds) -> StoreData {
        StoreData {
            host,
            scope,
            bounds,
            memory: None,
            memory_name: None,
            given: Given::default(),
            stack: engine.call_stack(),
            instance_state: None,
            call_state: None,
        }
    }

    /// Begins a call: see [`Bounds::begin`].
    pub(super) fn begin(
        &mut self,
        began: Began,
        limits: &CallLimits,
        options: &CallOptions,
    ) -> Result<(), WasmCallError> {
        self.bounds.begin(began, limits, options)?;
        self.call_state.clone_from(&options.state);
        Ok(())
    }

    /// Ends a call: what it brought along is not kept by an instance that is idle.
    pub(super) fn end(&mut self) {
        self.call_state = None;
    }

    /// Returns the state of the instance that calls, as [`WasmBackend::instance_state`](super::WasmBackend::instance_state)
    /// made it; nothing if that made none, or one of another type.
    pub fn instance_state<S: 'static>(&self) -> Option<&S> {
        self.instance_state.as_ref()?.downcast_ref()
    }

    /// Returns the same to change it.
    pub fn instance_state_mut<S: 'static>(&mut self) -> Option<&mut S> {
        self.instance_state.as_mut()?.downcast_mut()
    }

    /// Returns what the call in progress [brought along](CallOptions::state); nothing if that is nothing, or of another type.
    pub fn call_state<S: 'static>(&self) -> Option<&S> {
        self.call_state.as_ref()?.downcast_ref()
    }

    /// Returns which plugin calls.
    pub fn plugin(&self) -> &PluginInfo {
        self.host.plugin()
    }
}

impl std::fmt::Debug for StoreData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreData").field("plugin", self.plugin()).finish_non_exhaustive()
    }
}

/// Returns the bytes that a plugin passes to a function of the host, by address and length.
///
/// # Errors
/// They are outside the plugin's memory. Returned from the host's function, the error ends the call as the plugin's fault.
pub fn guest_bytes<'a>(caller: &'a mut Caller<'_, StoreData>, ptr: u32, len: u32) -> wasmtime::Result<&'a [u8]> {
    let bytes = memory(caller).and_then(|memory| slice(memory.data(&*caller), ptr, len));
    bytes.ok_or_else(|| Misuse::error(format!("{len} bytes at {ptr:#x} are outside the plugin's memory")))
}

/// Returns the text that a plugin passes to a function of the host, by address and length.
///
/// # Errors
/// It is outside the plugin's memory, or not UTF-8. Returned from the host's function, the error ends the call as the
/// plugin's fault.
pub fn guest_str<'a>(caller: &'a mut Caller<'_, StoreData>, ptr: u32, len: u32) -> wasmtime::Result<&'a str> {
    std::str::from_utf8(guest_bytes(caller, ptr, len)?)
        .map_err(|error| Misuse::error(format!("the text of {len} bytes at {ptr:#x} is not UTF-8: {error}")))
}

/// Returns the memory of the plugin that calls.
pub(super) fn memory(caller: &mut Caller<'_, StoreData>) -> Option<Memory> {
    let StoreData { memory, memory_name, .. } = caller.data();
    match (memory, memory_name.clone()) {
        (Some(memory), _) => Some(*memory),
        // `start` runs before the instance is known.
        (None, Some(name)) => caller.get_export(&name).and_then(wasmtime::Extern::into_memory),
        (None, None) => None,
    }
}

/// Returns a part of a memory, unless it reaches beyond its end.
pub(super) fn slice(memory: &[u8], ptr: u32, len: u32) -> Option<&[u8]> {
    memory.get(ptr as usize..)?.get(..len as usize)
}

/// Makes a store obey its bounds: growth is checked against them, and at every tick of the engine so is the time.
///
/// Every store checks its own call, so that ending one call, or the calls of one generation, affects no other.
pub(super) fn enforce(store: &mut Store<StoreData>) {
    store.limiter(|data| &mut data.bounds);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        store.data_mut().bounds.check()?;
        Ok(UpdateDeadline::Continue(1))
    });
}
