//! The host as a plugin sees it: where its log lines, its messages and its questions arrive.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use hotslot_plugin::abi::{Buffer, Frame, HostApi, Slice, Status};
use parking_lot::RwLock;
use semver::Version;

use crate::host::{Bound, Config, Services};
use crate::text::panic_text;
pub(super) use crate::text::plugin_text;
use crate::{LoadContext, Manifest, StopSignal, escape_untrusted};

/// Which plugin a message comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sender {
    /// The name of the slot.
    pub slot: Arc<str>,
    /// The generation's number.
    pub generation: u64,
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub version: Option<Version>,
}

/// What the user does with messages.
pub(super) type OnMessage = Arc<dyn Fn(&Sender, &[u8]) + Send + Sync>;

/// What a backend's user offers to its plugins.
#[derive(Clone, Default)]
pub(super) struct Offers {
    pub(super) config: Config,
    pub(super) on_message: Option<OnMessage>,
    /// `None` in a rehearsal, which has no services: every one is found there, and has no methods.
    pub(super) services: Option<Services>,
}

/// What a plugin's pointers into the host point to. It must outlive the plugin's code.
pub(super) struct HostContext {
    api: HostApi,
    sender: Sender,
    on_message: Option<OnMessage>,
    services: Option<Services>,
    /// The services that the plugin asked for, by the numbers that it got.
    bound: RwLock<Vec<Arc<Bound>>>,
    /// Keeps the flag behind `api.stop` in place.
    _stop: StopSignal,
    /// Keeps the bytes behind `api.config` in place.
    _config: Arc<[u8]>,
}

impl HostContext {
    pub(super) fn new(context: &LoadContext, manifest: &Manifest, offers: &Offers) -> Arc<HostContext> {
        let Offers { config, on_message, services } = offers.clone();
        let config = config.bytes();
        let sender = Sender {
            slot: context.slot.clone(),
            generation: context.generation,
            plugin: manifest.name.clone(),
            version: manifest.version.clone(),
        };
        Arc::new_cyclic(|own: &Weak<HostContext>| HostContext {
            api: HostApi {
                size: size_of::<HostApi>(),
                context: own.as_ptr().cast(),
                stop: context.stop.as_ptr(),
                config: Slice::new(&config),
                log,
                send,
                service,
                invoke,
            },
            sender,
            on_message,
            services,
            bound: RwLock::default(),
            _stop: context.stop.clone(),
            _config: config,
        })
    }

    /// What the plugin gets to see.
    pub(super) fn api(&self) -> *const HostApi {
        &raw const self.api
    }

    fn log(&self, level: u32, target: &[u8], message: &[u8]) {
        let (target, message) = (plugin_text(target, 256), plugin_text(message, LOG_LIMIT));
        let Sender { slot, generation, plugin, .. } = &self.sender;
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    target: "hotslot::plugin",
                    tracing::Level::$level,
                    slot = %escape_untrusted(slot),
                    generation,
                    plugin,
                    plugin_target = target,
                    "{message}"
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

    fn receive(&self, message: &[u8]) {
        let Some(on_message) = &self.on_message else { return };
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| on_message(&self.sender, message))) else { return };
        let what = panic_text(panic);
        tracing::error!(
            generation = self.sender.generation,
            plugin = self.sender.plugin,
            "the host's on_message panicked on a message of {} bytes: {what}",
            message.len()
        );
    }
}

impl HostContext {
    /// Finds a service, and gives it a number for this plugin.
    fn bind(&self, contract: &[u8]) -> Result<u32, String> {
        let Some(services) = &self.services else { return Ok(u32::MAX) };
        let bound = Arc::new(services.bind(contract).map_err(|error| error.to_string())?);
        let mut all = self.bound.write();
        all.push(bound);
        u32::try_from(all.len() - 1).map_err(|_| "the plugin asks for too many services".to_owned())
    }
}

/// The longest log line that is taken from a plugin, in bytes.
const LOG_LIMIT: usize = 8 * 1024;

/// [`HostApi::log`].
unsafe extern "C" fn log(context: *const c_void, level: u32, target: Slice, message: Slice) {
    // SAFETY: the plugin hands back the `context` of its API, which is the `HostContext` that the API is part of and
    // which lives as long as the plugin's code; the texts are lent for the call.
    let (host, target, message) = unsafe { (&*context.cast::<HostContext>(), target.as_bytes(), message.as_bytes()) };
    // A subscriber that panics must not unwind into the plugin, and there is nowhere left to say so.
    let _ = catch_unwind(AssertUnwindSafe(|| host.log(level, target, message)));
}

/// [`HostApi::send`].
unsafe extern "C" fn send(context: *const c_void, message: Slice) {
    // SAFETY: as in `log`.
    let (host, message) = unsafe { (&*context.cast::<HostContext>(), message.as_bytes()) };
    let _ = catch_unwind(AssertUnwindSafe(|| host.receive(message)));
}

/// [`HostApi::service`].
unsafe extern "C" fn service(context: *const c_void, contract: Slice, number: *mut u32, error: *mut Buffer) -> Status {
    // SAFETY: as in `log`; the plugin gives a place for the number and one for the error.
    unsafe {
        let host = &*context.cast::<HostContext>();
        let bound = catch_unwind(AssertUnwindSafe(|| host.bind(contract.as_bytes())));
        match bound.unwrap_or_else(|panic| Err(panic_text(panic))) {
            Ok(found) => {
                number.write(found);
                Status::OK
            }
            Err(reason) => {
                error.write(Buffer::new(reason.into_bytes()));
                Status::FAILED
            }
        }
    }
}

/// [`HostApi::invoke`].
unsafe extern "C" fn invoke(context: *const c_void, service: u32, method: u32, frame: *mut Frame) -> Status {
    // SAFETY: as in `log`; the frame is lent for the call, and nobody else has it.
    let (host, frame) = unsafe { (&*context.cast::<HostContext>(), &mut *frame) };
    let Some(bound) = host.bound.read().get(service as usize).cloned() else { return Status::UNSUPPORTED };
    // SAFETY: as above.
    unsafe { frame.answer_with(|arguments, words| bound.call(method, arguments, words)) }
}
