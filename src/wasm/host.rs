//! The host as a plugin sees it: the functions that every plugin can import, and what functions of the user's get to
//! know of the caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use semver::Version;
use wasmtime::{Caller, Linker, Memory, Store, UpdateDeadline};

use super::call_frame;
use super::limits::Bounds;
use super::signature::{Offered, Signature};
use crate::escape_untrusted;
use crate::host::{Bound, Config, Services};
use crate::text::panic_text;
use crate::text::plugin_text;

/// The longest log line that is taken from a plugin, in bytes.
const LOG_LIMIT: usize = 8 * 1024;

/// Who calls a function of the host: what a [`Caller`] carries.
pub struct Host {
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

impl Host {
    pub(super) fn new(plugin: Arc<PluginInfo>, offers: Offers, bounds: Bounds) -> Host {
        Host { plugin, offers, bounds, memory: None, bound: Vec::new() }
    }

    /// The plugin that calls.
    pub fn plugin(&self) -> &PluginInfo {
        &self.plugin
    }

    fn log(&self, level: u32, text: &[u8]) {
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
pub fn guest_bytes<'a>(caller: &'a mut Caller<'_, Host>, ptr: u32, len: u32) -> wasmtime::Result<&'a [u8]> {
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
pub(super) fn enforce(store: &mut Store<Host>) {
    store.limiter(|host| &mut host.bounds);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        store.data().bounds.check()?;
        Ok(UpdateDeadline::Continue(1))
    });
}

/// Offers what the table of imports in the module's documentation says.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("hotslot", "log", |mut caller: Caller<'_, Host>, level: u32, ptr: u32, len: u32| {
        // What is beyond the limit is not shown, so it need not be copied.
        let text = guest_bytes(&mut caller, ptr, len)?;
        let text = text[..text.len().min(LOG_LIMIT + 1)].to_vec();
        caller.data().log(level, &text);
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap("hotslot", "wall_clock", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    })?;
    linker.func_wrap("hotslot", "monotonic_clock", || {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    })?;
    linker.func_wrap("hotslot", "send", |mut caller: Caller<'_, Host>, ptr: u32, len: u32| {
        let Some(on_message) = caller.data().offers.on_message.clone() else { return Ok(()) };
        let message = guest_bytes(&mut caller, ptr, len)?.to_vec();
        let plugin = Arc::clone(&caller.data().plugin);
        catch_unwind(AssertUnwindSafe(|| on_message(&plugin, &message)))
            .map_err(|panic| wasmtime::Error::msg(format!("the host's on_message panicked: {}", panic_text(panic))))
    })?;
    linker.func_wrap("hotslot", "panicked", |mut caller: Caller<'_, Host>, ptr: u32, len: u32| {
        let text = plugin_text(guest_bytes(&mut caller, ptr, len)?, LOG_LIMIT);
        caller.data_mut().bounds.note_panic(text);
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap("hotslot", "wait", |caller: Caller<'_, Host>, nanoseconds: u64| {
        Ok(u32::from(caller.data().bounds.wait(Duration::from_nanos(nanoseconds))?))
    })?;
    call_frame::link(linker)
}

/// Everything that a linker offers, for admission to compare with.
pub(super) fn offered(linker: &Linker<Host>, store: &mut Store<Host>) -> Offered {
    let functions: Vec<_> = linker
        .iter(&mut *store)
        .filter_map(|(module, name, item)| Some((module.to_owned(), name.to_owned(), item.into_func()?)))
        .collect();
    functions
        .into_iter()
        .map(|(module, name, function)| {
            let ty = function.ty(&*store);
            ((module, name), Signature::of(ty.params(), ty.results()))
        })
        .collect()
}
