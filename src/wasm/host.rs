//! The host as a plugin sees it: the functions that every plugin can import, and what functions of the user's get to
//! know of the caller.

use std::sync::Arc;

use semver::Version;
use wasmtime::{Caller, Memory, Store, UpdateDeadline};

use super::limits::Bounds;
use crate::escape_untrusted;
use crate::host::{Bound, Config, Services};
use crate::text::plugin_text;

/// The longest log line that is taken from a plugin, in bytes.
pub(super) const LOG_LIMIT: usize = 8 * 1024;

/// Who calls a function of the host: what a [`Caller`] carries.
pub struct StoreData {
    pub(super) plugin: Arc<PluginInfo>,
    pub(super) offers: Offers,
    pub(super) bounds: Bounds,
    /// The instance's memory, once there is an instance.
    pub(super) memory: Option<Memory>,
    /// The services that the instance asked for, by the numbers that it got.
    pub(super) bound: Vec<Arc<Bound>>,
}

/// What the user does with messages.
type OnMessage = Arc<dyn Fn(&PluginInfo, &[u8]) + Send + Sync>;

/// What a backend's user offers to its plugins.
#[derive(Clone, Default)]
pub(super) struct Offers {
    pub(super) config: Config,
    pub(super) on_message: Option<OnMessage>,
    pub(super) services: Services,
}

/// Which plugin, in which generation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginInfo {
    /// The name of the slot.
    pub slot: Arc<str>,
    /// The generation's number.
    pub generation: u64,
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: Option<Version>,
}

impl StoreData {
    pub(super) fn new(plugin: Arc<PluginInfo>, offers: Offers, bounds: Bounds) -> StoreData {
        StoreData { plugin, offers, bounds, memory: None, bound: Vec::new() }
    }

    /// The plugin that calls.
    pub fn plugin(&self) -> &PluginInfo {
        &self.plugin
    }

    pub(super) fn log(&self, level: u32, text: &[u8]) {
        let text = plugin_text(text, LOG_LIMIT);
        let PluginInfo { slot, generation, name, version } = &*self.plugin;
        let version = version.as_ref().map(tracing::field::display);
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    target: "hotslot::plugin",
                    tracing::Level::$level,
                    slot = %escape_untrusted(slot),
                    generation,
                    plugin = name,
                    version,
                    "{text}"
                )
            };
        }
        match level {
            0 | 1 => line!(ERROR),
            2 => line!(WARN),
            3 => line!(INFO),
            4 => line!(DEBUG),
            _ => line!(TRACE),
        }
    }
}

/// The bytes that a plugin passes to a function of the host, by address and length.
///
/// # Errors
/// They are not in the plugin's memory. Returned from the host's function, the error ends the call.
pub fn guest_bytes<'a>(caller: &'a mut Caller<'_, StoreData>, ptr: u32, len: u32) -> wasmtime::Result<&'a [u8]> {
    let memory = match caller.data().memory {
        Some(memory) => Some(memory),
        // A function that is called by `start` comes before the instance is known.
        None => caller.get_export("memory").and_then(wasmtime::Extern::into_memory),
    };
    let bytes = memory.and_then(|memory| slice(memory.data(&*caller), ptr, len));
    bytes.ok_or_else(|| wasmtime::Error::msg(format!("{len} bytes at {ptr:#x} are not in the plugin's memory")))
}

/// A part of a memory, if it is in it.
pub(super) fn slice(memory: &[u8], ptr: u32, len: u32) -> Option<&[u8]> {
    memory.get(ptr as usize..)?.get(..len as usize)
}

/// Makes a store obey its bounds: growth is asked for, and at every tick of the engine the call is looked at.
///
/// Every store looks at its own call's bounds, so that ending one call, or the calls of one generation, has nothing to
/// do with any other.
pub(super) fn enforce(store: &mut Store<StoreData>) {
    store.limiter(|host| &mut host.bounds);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        store.data().bounds.check()?;
        Ok(UpdateDeadline::Continue(1))
    });
}
