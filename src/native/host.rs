//! The host as a library sees it: the table of functions of the C ABI, over a [`PluginHost`].

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use hotslot_plugin::abi::{Buffer, Frame, HostApi, Slice, Status};
use parking_lot::RwLock;

use crate::StopSignal;
use crate::host::{BoundService, Level, PluginHost};
use crate::text::panic_text;

/// What a library's pointers into the host point to. It must outlive the library's code.
pub(super) struct HostContext {
    api: HostApi,
    host: PluginHost,
    /// The services that the plugin asked for, by the numbers that it got.
    bound: RwLock<Vec<Arc<BoundService>>>,
    /// Keeps the flag behind `api.stop` in place.
    _stop: StopSignal,
}

impl HostContext {
    pub(super) fn new(host: PluginHost, stop: &StopSignal) -> Arc<HostContext> {
        Arc::new_cyclic(|own: &Weak<HostContext>| HostContext {
            api: HostApi {
                size: size_of::<HostApi>(),
                context: own.as_ptr().cast(),
                stop: stop.as_ptr(),
                // The bytes are the host's, which is never replaced: they stay in place.
                config: Slice::new(host.config()),
                log,
                send,
                service,
                invoke,
                event,
                log_level,
            },
            host,
            bound: RwLock::default(),
            _stop: stop.clone(),
        })
    }

    /// Returns what the plugin gets to see.
    pub(super) fn api(&self) -> *const HostApi {
        &raw const self.api
    }

    /// Finds a service, and gives it a number for this plugin.
    fn bind(&self, contract: &[u8]) -> Result<u32, String> {
        let bound = self.host.service(contract).map_err(|error| error.to_string())?;
        let mut all = self.bound.write();
        all.push(Arc::new(bound));
        u32::try_from(all.len() - 1).map_err(|_| "the plugin asks for too many services".to_owned())
    }
}

/// Returns the context behind a pointer that came back from the plugin.
///
/// # Safety
/// `context` is the `context` of the [`HostApi`] that this plugin got, as the ABI's rule H1 demands of it.
unsafe fn of<'a>(context: *const c_void) -> &'a HostContext {
    // SAFETY: `HostContext::new` made the pointer from the context's own address. The context is freed once the library
    // is proven to be unmapped (`Mapping::release`), and this is called from the library's code.
    unsafe { &*context.cast::<HostContext>() }
}

/// [`HostApi::log`].
unsafe extern "C" fn log(context: *const c_void, level: u32, target: Slice, message: Slice) {
    // SAFETY: H1 for the context, H2 for the texts, which are lent for the call.
    let (context, target, message) = unsafe { (of(context), target.as_bytes(), message.as_bytes()) };
    context.host.log(Level::of(level), Some(target), message);
}

/// [`HostApi::event`].
unsafe extern "C" fn event(context: *const c_void, level: u32, texts: *const Slice, count: usize) {
    // SAFETY: H1 for the context.
    let context = unsafe { of(context) };
    let texts: Vec<&[u8]> = match texts.is_null() {
        true => Vec::new(),
        // SAFETY: H2: they are lent for the call, and so is what each of them points to.
        false => unsafe { std::slice::from_raw_parts(texts, count).iter().map(|text| text.as_bytes()).collect() },
    };
    context.host.log_event(Level::of(level), &texts);
}

/// [`HostApi::log_level`].
unsafe extern "C" fn log_level(_: *const c_void) -> u32 {
    PluginHost::log_level()
}

/// [`HostApi::send`].
unsafe extern "C" fn send(context: *const c_void, message: Slice) {
    // SAFETY: H1 for the context, H2 for the message, which is lent for the call.
    let (context, message) = unsafe { (of(context), message.as_bytes()) };
    // A handler that panicked is the host's affair, and has been logged.
    let _ = context.host.send(message);
}

/// [`HostApi::service`].
unsafe extern "C" fn service(context: *const c_void, contract: Slice, number: *mut u32, error: *mut Buffer) -> Status {
    // SAFETY: H1 for the context, H2 for the contract, which is lent for the call.
    let (context, contract) = unsafe { (of(context), contract.as_bytes()) };
    let bound = catch_unwind(AssertUnwindSafe(|| context.bind(contract)));
    match bound.unwrap_or_else(|panic| Err(panic_text(panic))) {
        Ok(found) => {
            // SAFETY: H3: the plugin gives a place for the number.
            unsafe { number.write(found) };
            Status::OK
        }
        Err(reason) => {
            // SAFETY: H3: the plugin gives a place for the error.
            unsafe { error.write(Buffer::new(reason.into_bytes())) };
            Status::FAILED
        }
    }
}

/// [`HostApi::invoke`].
unsafe extern "C" fn invoke(context: *const c_void, service: u32, method: u32, frame: *mut Frame) -> Status {
    // SAFETY: H1 for the context; H4 for the frame, which nobody else uses during the call.
    let (context, frame) = unsafe { (of(context), &mut *frame) };
    let Some(bound) = context.bound.read().get(service as usize).cloned() else { return Status::UNSUPPORTED };
    // SAFETY: H4: the plugin filled the frame, and its output is empty.
    unsafe { frame.answer_with(|arguments, words| bound.call(method, arguments, words)) }
}
