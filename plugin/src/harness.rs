//! A plugin in the process of its own tests: no slot, no library, no module, and the same way for every call.

use std::ffi::c_void;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::abi::{Buffer, Descriptor, Frame, HostApi, Method, Slice, Status};
use crate::{Argument, CallError, Error, Interface, Level, Link, Malformed, Reply, Stop, Transport, shim};

/// A plugin that is to be made in this process, by [`harness!`](crate::harness): for its author's tests.
///
/// Calls go through the same shims as in a host: arguments are encoded and decoded, panics are caught. What the plugin
/// logs and sends is kept, to be looked at.
///
/// ```
/// use hotslot_plugin::{Error, Host, Level, Plugin, interface};
///
/// #[interface(version = "1.0")]
/// pub trait Greeter {
///     fn greet(&self, name: &str) -> String;
/// }
///
/// struct Polite { host: Host, greeting: String }
///
/// impl Plugin for Polite {
///     fn create(host: Host) -> Result<Self, Error> {
///         Ok(Polite { greeting: String::from_utf8(host.config().to_vec())?, host })
///     }
/// }
///
/// impl Greeter for Polite {
///     fn greet(&self, name: &str) -> String {
///         self.host.log(Level::Info, "greeting");
///         format!("{}, {name}", self.greeting)
///     }
/// }
///
/// let polite = hotslot_plugin::harness!(Polite as Greeter).config("Good day").start()?;
/// assert_eq!(polite.greet("Ada"), "Good day, Ada");
/// assert_eq!(polite.logged(), [(Level::Info, "greeting".to_owned())]);
/// # Ok::<(), hotslot_plugin::Error>(())
/// ```
pub struct Harness<I: ?Sized> {
    descriptor: Descriptor,
    methods: &'static [Method],
    config: Vec<u8>,
    services: Vec<Service>,
    interface: std::marker::PhantomData<fn() -> Box<I>>,
}

/// A service by its contract: both sides are compiled together here, so the contracts are the same or do not fit.
type Service =
    (&'static str, Box<dyn Fn(u32, &[Argument<'_>], &mut [u64]) -> Result<Vec<u8>, CallError> + Send + Sync>);

impl<I: Interface + ?Sized> Harness<I> {
    /// # Safety
    /// The functions must be those that [`export!`](crate::export) makes for a plugin of the interface `I`.
    #[doc(hidden)]
    pub unsafe fn new(descriptor: Descriptor, methods: &'static [Method]) -> Harness<I> {
        Harness { descriptor, methods, config: Vec::new(), services: Vec::new(), interface: std::marker::PhantomData }
    }

    /// Configures the plugin with these bytes.
    pub fn config(mut self, config: impl Into<Vec<u8>>) -> Self {
        self.config = config.into();
        self
    }

    /// Offers this service to the plugin.
    pub fn service<S: Interface + ?Sized>(mut self, service: Arc<S>) -> Self {
        let call = move |method: u32, arguments: &[Argument<'_>], words: &mut [u64]| {
            let mut answer = crate::Answer::new(words);
            service.dispatch(method, &mut crate::Arguments::new(arguments), &mut answer)?;
            Ok(answer.into_bytes())
        };
        self.services.push((S::CONTRACT, Box::new(call)));
        self
    }

    /// Makes the plugin.
    ///
    /// # Errors
    /// What its `create` returned, or panicked with.
    pub fn start(self) -> Result<HarnessPlugin<I>, Error> {
        // A plugin may keep its host for as long as its code is there, which here is for ever.
        let host: &'static LocalHost = Box::leak(Box::new(LocalHost {
            services: self.services,
            heard: Mutex::default(),
            stop: AtomicBool::new(false),
        }));
        let api: &'static HostApi = Box::leak(Box::new(HostApi {
            size: size_of::<HostApi>(),
            context: (&raw const *host).cast(),
            stop: &raw const host.stop,
            config: Slice::new(self.config.leak()),
            log,
            send,
            service,
            invoke,
            event,
            log_level,
        }));
        let mut local = Local { descriptor: self.descriptor, methods: self.methods, instance: ptr::null_mut() };
        let (mut instance, create) = (ptr::null_mut(), local.descriptor.create);
        // SAFETY: P1: the API lives for ever, `instance` and the error for the call.
        local.outcome(|error| unsafe { create(api, &raw mut instance, error) })?;
        local.instance = instance;
        Ok(HarnessPlugin { plugin: I::proxy(local), host })
    }
}

/// A plugin in this process: the interface, and what its host heard.
pub struct HarnessPlugin<I: ?Sized> {
    plugin: Box<I>,
    host: &'static LocalHost,
}

impl<I: Interface + ?Sized> HarnessPlugin<I> {
    /// Returns what it logged so far.
    pub fn logged(&self) -> Vec<(Level, String)> {
        self.host.heard().logged.clone()
    }

    /// Returns what it sent so far.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        self.host.heard().sent.clone()
    }

    /// Saves its state: the schema and the bytes; `None` if it has none.
    ///
    /// # Errors
    /// What its `save` returned.
    pub fn save(&self) -> Result<Option<(String, Vec<u8>)>, Error> {
        self.plugin.link().map_or(Ok(None), Link::save)
    }

    /// Hands a state over.
    ///
    /// # Errors
    /// What its `restore` returned.
    pub fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
        self.plugin.link().map_or(Ok(()), |link| link.restore(schema, state))
    }

    /// Runs it, until [`stop`](HarnessPlugin::stop) is called from another thread or it returns on its own.
    ///
    /// # Errors
    /// What its `run` returned.
    pub fn run(&self) -> Result<(), Error> {
        self.plugin.link().map_or(Ok(()), |link| link.run(Stop::of(&self.host.stop)))
    }

    /// Raises its stop signal.
    pub fn stop(&self) {
        self.host.stop.store(true, Ordering::Release);
    }

    /// Returns the plugin alone, for a host.
    pub fn into_plugin(self) -> Box<I> {
        self.plugin
    }
}

impl<I: ?Sized> Deref for HarnessPlugin<I> {
    type Target = I;

    fn deref(&self) -> &I {
        &self.plugin
    }
}

/// A connection to a plugin of this process.
struct Local {
    descriptor: Descriptor,
    methods: &'static [Method],
    instance: *mut c_void,
}

// SAFETY: the instance is a plugin, which is `Send`: `template_of` demands it where the descriptor is made. The rest is
// constant.
unsafe impl Send for Local {}
// SAFETY: the instance is a plugin, which is `Sync`: `template_of` demands it where the descriptor is made.
unsafe impl Sync for Local {}

impl Local {
    fn outcome(&self, enter: impl FnOnce(*mut Buffer) -> Status) -> Result<Vec<u8>, Error> {
        let mut output = Buffer::EMPTY;
        let status = enter(&raw mut output);
        // SAFETY: B1: it is empty or as the shim filled it, and is taken once.
        let bytes = unsafe { output.take() };
        match status {
            Status::OK => Ok(bytes),
            _ => Err(String::from_utf8_lossy(&bytes).into()),
        }
    }
}

impl Transport for Local {
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let mut frame = Frame::new(arguments, words);
        // SAFETY: P2: the instance lives. P4: the frame and what it points to are lent for the call.
        let status = unsafe { shim::invoke(self.methods, self.instance, method, &raw mut frame) };
        // SAFETY: arguments and words still live, and the frame was lent for the one call above.
        unsafe { frame.finish(status, read, |text| String::from_utf8_lossy(text).into_owned()) }
    }
}

impl Link for Local {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, Error> {
        let schema = self.descriptor.identity.schema.to_string();
        if schema.is_empty() {
            return Ok(None);
        }
        // SAFETY: P2: the instance lives. P5: the output is empty and lives for the call.
        let state = self.outcome(|output| unsafe { (self.descriptor.save)(self.instance, output) })?;
        Ok(Some((schema, state)))
    }

    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
        let (schema, state) = (Slice::new(schema.as_bytes()), Slice::new(state));
        // SAFETY: P2: the instance lives. P5: the texts are lent for the call.
        self.outcome(|error| unsafe { (self.descriptor.restore)(self.instance, schema, state, error) }).map(drop)
    }

    fn run(&self, stop: &Stop) -> Result<(), Error> {
        // SAFETY: P2: the instance lives. P5: the flag is lent for the call.
        self.outcome(|error| unsafe { (self.descriptor.run)(self.instance, stop.as_ptr(), error) }).map(drop)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if !self.instance.is_null() {
            // SAFETY: P3: `create` made the instance, and `self`, which makes all calls, is being dropped.
            unsafe { (self.descriptor.destroy)(self.instance) };
        }
    }
}

/// What a plugin's host is here.
struct LocalHost {
    services: Vec<Service>,
    heard: Mutex<Record>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Record {
    logged: Vec<(Level, String)>,
    sent: Vec<Vec<u8>>,
}

impl LocalHost {
    fn heard(&self) -> MutexGuard<'_, Record> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// # Safety
/// `context` must be that of an API made by [`Harness::start`]: rule H1.
unsafe fn host(context: *const c_void) -> &'static LocalHost {
    // SAFETY: `start` made it of the address of a host, which it leaked.
    unsafe { &*context.cast::<LocalHost>() }
}

unsafe extern "C" fn log(context: *const c_void, level: u32, _: Slice, message: Slice) {
    // SAFETY: H1 for the context, H2 for the text.
    let (host, text) = unsafe { (host(context), message.as_bytes()) };
    host.heard().logged.push((Level::of(level), String::from_utf8_lossy(text).into_owned()));
}

unsafe extern "C" fn event(context: *const c_void, level: u32, texts: *const Slice, count: usize) {
    // SAFETY: H1 for the context, H2 for the texts.
    let (host, texts) = unsafe { (host(context), std::slice::from_raw_parts(texts, count)) };
    // SAFETY: H2: each of them is valid during the call.
    let message = texts.get(1).map(|text| unsafe { text.as_bytes() }).unwrap_or_default();
    host.heard().logged.push((Level::of(level), String::from_utf8_lossy(message).into_owned()));
}

unsafe extern "C" fn log_level(_: *const c_void) -> u32 {
    Level::Trace as u32
}

unsafe extern "C" fn send(context: *const c_void, message: Slice) {
    // SAFETY: H1 for the context, H2 for the message.
    let (host, message) = unsafe { (host(context), message.as_bytes()) };
    host.heard().sent.push(message.to_vec());
}

unsafe extern "C" fn service(context: *const c_void, contract: Slice, number: *mut u32, error: *mut Buffer) -> Status {
    // SAFETY: H1 for the context, H2 for the contract, H3 for number and error.
    unsafe {
        let asked = contract.as_bytes();
        let found = host(context).services.iter().position(|(contract, _)| contract.as_bytes() == asked);
        match found {
            Some(at) => {
                number.write(at as u32);
                Status::OK
            }
            None => {
                let text = String::from_utf8_lossy(asked);
                let asked = text.lines().next().unwrap_or_default();
                error.write(Buffer::new(format!("the harness was given no service `{asked}`").into_bytes()));
                Status::FAILED
            }
        }
    }
}

unsafe extern "C" fn invoke(context: *const c_void, service: u32, method: u32, frame: *mut Frame) -> Status {
    // SAFETY: H1 for the context, H4 for the frame.
    unsafe {
        let Some((_, call)) = host(context).services.get(service as usize) else { return Status::UNSUPPORTED };
        (*frame).answer_with(|arguments, words| call(method, arguments, words))
    }
}

/// A [`Harness`](crate::Harness) for a plugin's own tests: `harness!(Type as Interface)`.
#[macro_export]
macro_rules! harness {
    ($plugin:ty as $interface:path) => {{
        use $crate::__private::{Author, ByDefault as _, in_process};

        const METHODS: &[$crate::abi::Method] = <dyn $interface as $crate::__private::Methods<$plugin>>::METHODS;
        // SAFETY: the methods are those of this plugin, one line above, and `Author` has them from its type.
        unsafe { $crate::Harness::<dyn $interface>::new(in_process(Author::<$plugin>::MAKER), METHODS) }
    }};
}
