//! What an instance's store holds, and what a function of the host learns of the instance that calls it.

use std::sync::Arc;

use wasmtime::{Caller, Memory, Store, UpdateDeadline};

use super::engine::Engine;
use super::error::Misuse;
use super::limits::Bounds;
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
    /// The services that the instance asked for, by the numbers that it got.
    pub(super) services: Vec<Arc<BoundService>>,
    /// Bytes that a call may need of the thread's stack: what the engine gives the plugin, and what its host needs.
    pub(super) stack: usize,
}

impl StoreData {
    pub(super) fn new(engine: &Engine, host: Arc<PluginHost>, scope: PluginScope, bounds: Bounds) -> StoreData {
        StoreData {
            host,
            scope,
            bounds,
            memory: None,
            memory_name: None,
            services: Vec::new(),
            stack: engine.call_stack(),
        }
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
    store.epoch_deadline_callback(|store| {
        store.data().bounds.check()?;
        Ok(UpdateDeadline::Continue(1))
    });
}
