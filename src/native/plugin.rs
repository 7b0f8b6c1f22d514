//! A live plugin behind the C ABI, as safe Rust.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use hotslot_plugin::abi::{Buffer, Descriptor, Frame, Identity, Invoke, Method, Slice, Status};

use super::descriptor::{self, DescriptorError};
use super::entries;
use super::host::HostContext;
use super::library::Library;
use crate::failures::FailureCounter;
use crate::host::{
    Argument, CallError, CallErrorKind, DirectMethod, InterfacePlugin, Malformed, MethodNumbers, Reply, Stop,
    plugin_text, unsound_buffer,
};
use crate::{BoxError, Manifest, Runnable, State, Stateful, StopSignal};

/// One instance of a plugin that exports a [descriptor](hotslot_plugin::abi::Descriptor).
///
/// All methods may be called from any thread, at the same time. They run on the caller's thread; a panic in the plugin
/// comes back as an error.
pub struct NativePlugin {
    descriptor: *const Descriptor,
    instance: *mut c_void,
    manifest: Manifest,
    failures: FailureCounter,
    /// Keeps what the pointers above point to mapped.
    _library: Arc<Library>,
}

// SAFETY: P2 and P3: an instance may be called, and destroyed, from any thread. The descriptor is constant, and the rest is
// `Send`.
unsafe impl Send for NativePlugin {}
// SAFETY: P2: an instance may be called from several threads at a time. The descriptor is constant, and the rest is
// `Sync`.
unsafe impl Sync for NativePlugin {}

/// The longest error text that is taken from a plugin, in bytes.
const ERROR_LIMIT: usize = 8 * 1024;

impl NativePlugin {
    /// Makes an instance of the plugin in `library`, whose file showed `admitted`.
    ///
    /// `host` has to live for as long as the library is mapped: see [`Mapping`](super::unload::Mapping).
    pub(super) fn create(
        library: Arc<Library>,
        admitted: &Identity,
        manifest: Manifest,
        host: &HostContext,
        failures: FailureCounter,
    ) -> Result<NativePlugin, BoxError> {
        // SAFETY: the address of a variable is a pointer to it; it is not kept beyond `library`.
        let descriptor: *const Descriptor = unsafe { library.get(hotslot_plugin::abi::DESCRIPTOR_SYMBOL)? };
        if !descriptor.is_aligned() {
            return Err(DescriptorError::Misaligned { what: "the descriptor" }.into());
        }
        // SAFETY: admission saw a whole descriptor at this symbol, it is aligned, and every bit pattern is an `Identity`.
        descriptor::same_as_loaded(admitted, unsafe { &(*descriptor).identity })?;
        // SAFETY: the same descriptor, which is constant from here on.
        unsafe { entries::check(descriptor)? };
        let mut plugin = NativePlugin { descriptor, instance: ptr::null_mut(), manifest, failures, _library: library };
        let create = plugin.descriptor().create;
        let mut instance = ptr::null_mut();
        let created = plugin.enter(|error| {
            // SAFETY: P1: `host` lives for as long as the code is mapped, which this function demands; the others live
            // for the call.
            unsafe { create(host.api(), &raw mut instance, error) }
        });
        if let Err(error) = created {
            // There is no instance to destroy.
            plugin.descriptor = ptr::null();
            return Err(error.into());
        }
        plugin.instance = instance;
        Ok(plugin)
    }

    /// Makes one call: a method number and bytes, whose meaning the interface defines.
    pub fn call(&self, method: u32, input: &[u8]) -> Result<Vec<u8>, CallError> {
        let call = self.descriptor().call;
        // SAFETY: P2: the instance lives. P5: input and output are lent for the call.
        self.enter(|output| unsafe { call(self.instance, method, Slice::new(input), output) })
    }

    fn run_until(&self, stop: &Stop) -> Result<(), CallError> {
        let run = self.descriptor().run;
        // SAFETY: P2: the instance lives. P5: the flag and the error are lent for the call.
        self.enter(|error| unsafe { run(self.instance, stop.as_ptr(), error) }).map(drop)
    }

    /// Returns what the plugin says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the instance, to be passed to the interface's own [functions](NativePlugin::function).
    pub fn instance(&self) -> *const c_void {
        self.instance
    }

    /// Returns the interface's function number `index`, in the order of [`export!`](hotslot_plugin::export), as the function
    /// pointer type `F`: `unsafe extern "C" fn(*const c_void, …, *mut R) -> Status`. `None` if the plugin has fewer.
    ///
    /// Resolve it once, in a probe or behind a lease, and call it as long as this plugin is held. A panic in it is
    /// caught and comes back as [`Status::PANICKED`], with nothing written to the result; whether it counts is for the
    /// caller to say, with [`Lease::report_failure`](crate::Lease::report_failure).
    ///
    /// # Safety
    /// `F` must be the function's type, and the result must not be called after this plugin was dropped.
    pub unsafe fn function<F: Copy>(&self, index: usize) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*const c_void>(), "F must be a function pointer") };
        let descriptor = self.descriptor();
        if index >= descriptor.identity.function_count as usize {
            return None;
        }
        // SAFETY: the table has `function_count` entries.
        let function = unsafe { (*descriptor.functions.add(index)).0 };
        // SAFETY: the caller promises the type, whose size was compared; it is not null.
        (!function.is_null()).then(|| unsafe { std::mem::transmute_copy(&function) })
    }

    fn descriptor(&self) -> &Descriptor {
        // SAFETY: it lies in the library, which `self` keeps mapped, and is null only on the way out of `create`.
        unsafe { &*self.descriptor }
    }

    /// Refuses a buffer that cannot hold what it says.
    fn check_filled(&self, buffer: &Buffer) -> Result<(), CallError> {
        match unsound_buffer(buffer) {
            None => Ok(()),
            Some(error) => {
                self.failures.report_failure(&error);
                Err(error)
            }
        }
    }

    /// Calls an entry with a place for its answer, and takes the answer over into the host's memory.
    fn enter(&self, entry: impl FnOnce(*mut Buffer) -> Status) -> Result<Vec<u8>, CallError> {
        let mut answer = Buffer::EMPTY;
        let status = entry(&raw mut answer);
        self.check_filled(&answer)?;
        // SAFETY: B1, as far as it can be seen: the buffer is empty or as the plugin filled it, and is taken once.
        let bytes = unsafe { answer.take() };
        match status.into_result(&bytes, |text| plugin_text(text, ERROR_LIMIT)) {
            Ok(()) => Ok(bytes),
            Err(error) => {
                // The text of a panic says nothing but what the plugin's author wrote.
                let error = match error.kind() {
                    CallErrorKind::Panicked => CallError::new(error.kind(), format!("the plugin panicked: {error}")),
                    _ => error,
                };
                if error.kind().is_fault() {
                    self.failures.report_failure(&error);
                }
                Err(error)
            }
        }
    }
}

impl Stateful for NativePlugin {
    fn save(&self) -> Result<Option<State>, BoxError> {
        let Some(schema) = self.manifest.schema.clone() else { return Ok(None) };
        let save = self.descriptor().save;
        // SAFETY: P2: the instance lives. P5: the output is lent for the call.
        let bytes = self.enter(|output| unsafe { save(self.instance, output) })?;
        Ok(Some(State { schema, bytes }))
    }

    fn restore(&self, state: &State) -> Result<(), BoxError> {
        let restore = self.descriptor().restore;
        let (schema, bytes) = (Slice::new(state.schema.as_bytes()), Slice::new(&state.bytes));
        // SAFETY: P2: the instance lives. P5: schema, state and error are lent for the call.
        self.enter(|error| unsafe { restore(self.instance, schema, bytes, error) })?;
        Ok(())
    }
}

impl Runnable for NativePlugin {
    fn run(&self, stop: &StopSignal) -> Result<(), BoxError> {
        Ok(self.run_until(Stop::of(stop.flag()))?)
    }
}

/// A plugin of a declared interface.
pub(super) struct NativeInterface {
    plugin: NativePlugin,
    /// By the host's numbers. Like `invoke`, they go with the plugin, which keeps their code mapped. There are none if the
    /// plugin is called through `invoke` alone.
    methods: Box<[Option<Method>]>,
    invoke: Invoke,
}

impl NativeInterface {
    /// Resolves the functions through which the methods of a plugin that carries a contract are called, which has the host's
    /// methods at `numbers`.
    pub(super) fn new(plugin: NativePlugin, numbers: &MethodNumbers) -> Result<NativeInterface, DescriptorError> {
        // SAFETY: function 0 of a plugin that carries a contract is an `Invoke` (the ABI's `InterfaceDescriptor`); it is
        // dropped together with the plugin.
        let invoke = unsafe { plugin.function(0) }.ok_or(DescriptorError::NoInvoke)?;
        // SAFETY: the functions behind it, of which there are none or as many as its contract has methods, which admission
        // has checked, are a `Method` each (the same); they are dropped together with the plugin.
        let method = |number: Option<u32>| number.and_then(|number| unsafe { plugin.function(number as usize + 1) });
        let methods = numbers.all().map(method).collect();
        Ok(NativeInterface { plugin, methods, invoke })
    }
}

impl InterfacePlugin for NativeInterface {
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let mut frame = Frame::new(arguments, words);
        // SAFETY: P2: the instance lives. P4: the frame, and the arguments and words that it points to, are lent for the
        // call, and nobody else uses them.
        let status = unsafe { (self.invoke)(self.plugin.instance, method, &raw mut frame) };
        self.plugin.check_filled(&frame.output)?;
        // SAFETY: arguments and words still live, and P4, as far as it can be seen: the plugin filled the frame.
        unsafe { frame.finish(status, read, |text| plugin_text(text, ERROR_LIMIT)) }
    }

    #[inline]
    fn direct(&self, method: u32) -> Option<DirectMethod> {
        let function = (*self.methods.get(method as usize)?)?;
        // SAFETY: P2: the instance lives as long as this, and so does its plugin.
        Some(unsafe { DirectMethod::new(self.plugin.instance, function) })
    }

    fn run(&self, stop: &Stop) -> Result<(), BoxError> {
        Ok(self.plugin.run_until(stop)?)
    }
}

impl Stateful for NativeInterface {
    fn save(&self) -> Result<Option<State>, BoxError> {
        self.plugin.save()
    }

    fn restore(&self, state: &State) -> Result<(), BoxError> {
        self.plugin.restore(state)
    }
}

impl Drop for NativePlugin {
    fn drop(&mut self) {
        if self.descriptor.is_null() {
            return;
        }
        let destroy = self.descriptor().destroy;
        // SAFETY: P3: `create` made the instance, and `self`, through which all calls go, is being dropped.
        let status = unsafe { destroy(self.instance) };
        if status != Status::OK {
            let Manifest { name, version, .. } = &self.manifest;
            let version = version.as_ref().map(tracing::field::display);
            tracing::error!(plugin = name, version, status = status.0, "the plugin failed in its destructor");
        }
    }
}

impl std::fmt::Debug for NativePlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativePlugin").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}
