//! A plugin behind the trait object of a declared interface.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use hotslot_plugin::abi::{self, Buffer, Method, Status};
use hotslot_plugin::{
    Argument, CallError, CallErrorKind, CallWatcher, Interest, Link, Malformed, NotWatched, Reply, Stop, Transport,
};

use super::contract::MethodNumbers;
use crate::failures::FailureCounter;
use crate::nesting::{First, Nested, Refusal, Watch};
use crate::text::plugin_text;
use crate::{BoxError, LoadContext, State, Stateful};

/// A plugin that a backend can call through a declared interface: what differs from backend to backend.
///
/// Its state goes over as [`Stateful`] says; a plugin that has none saves `None`.
pub trait InterfacePlugin: Stateful + Send + Sync + 'static {
    /// Calls a method, by the number that the *plugin's* contract gives it. It fills `words`, which is zeroed and as long
    /// as the answer has words; `read` takes the answer from them and from its bytes.
    ///
    /// # Errors
    /// The plugin gave no answer, or `read` cannot read it. One that is the plugin's
    /// [fault](crate::host::CallErrorKind::is_fault) is counted by the [link](InterfaceLink).
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError>;

    /// Returns a method, by the number that the *host's* contract gives it, as a function that is called without anything
    /// else: for the backend of libraries.
    #[doc(hidden)]
    #[inline]
    fn direct(&self, method: u32) -> Option<DirectMethod> {
        let _ = method;
        None
    }

    /// Runs the plugin until `stop` is raised. Plugins that are only called do not support it.
    ///
    /// # Errors
    /// It does not run, or failed.
    fn run(&self, stop: &Stop) -> Result<(), BoxError> {
        let _ = stop;
        Err(CallError::unsupported().into())
    }
}

/// A method of a library's plugin.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct DirectMethod {
    instance: *const c_void,
    function: Method,
}

impl DirectMethod {
    /// # Safety
    /// By rule P2 of the [ABI](hotslot_plugin::abi), the instance must live, and the function be one of its plugin's, for as
    /// long as the result is used.
    #[cfg(feature = "native")]
    #[inline]
    pub(crate) unsafe fn new(instance: *const c_void, function: Method) -> DirectMethod {
        DirectMethod { instance, function }
    }

    #[inline]
    fn call(self, arguments: &[Argument<'_>], words: &mut [u64], output: &mut Buffer) -> Status {
        let (count, room) = (arguments.len() as u32, words.len() as u32);
        // SAFETY: P2: whoever made this promised it. P4: arguments, words and output are lent for the call, nobody else uses
        // them, and the counts are theirs.
        unsafe { (self.function)(self.instance, arguments.as_ptr().cast(), count, words.as_mut_ptr(), room, output) }
    }
}

/// The longest error text that is taken from a plugin, in bytes.
const ERROR_LIMIT: usize = 8 * 1024;

/// Says why a buffer that a plugin filled cannot be what it says. Such a one is not released: its values would mean nothing
/// there, either.
pub(crate) fn unsound_buffer(buffer: &Buffer) -> Option<CallError> {
    let problem = match (buffer.data.is_null(), buffer.len) {
        (_, 0) => return None,
        (true, len) => format!("null with a length of {len}"),
        (false, len) if isize::try_from(len).is_err() => format!("{len} bytes, more than there can be"),
        (false, _) => return None,
    };
    let text = format!("the plugin returned a buffer that cannot be: {problem}");
    Some(CallError::new(CallErrorKind::Malformed, text))
}

/// Connects a plugin with a declared interface: finds its methods, counts its failures, and passes on its state. The last
/// step of a [`load`](crate::Backend::load):
///
/// ```
/// # use hotslot::host::{Contract, Interface, InterfaceLink, InterfacePlugin};
/// # use hotslot::{Artifact, BoxError, LoadContext, Loaded};
/// fn loaded<I: Interface + ?Sized>(
///     plugin: impl InterfacePlugin,
///     artifact: &Artifact,
///     context: &LoadContext,
/// ) -> Result<Loaded<I>, BoxError> {
///     // At admission already, where it refuses the plugin; the numbers are then the evidence.
///     let methods = Contract::of::<I>().methods_in_manifest(artifact.manifest())?;
///     Ok(Loaded::boxed(I::proxy(InterfaceLink::new(plugin, methods, context))))
/// }
/// ```
pub struct InterfaceLink<P> {
    plugin: P,
    /// The plugin's numbers of the host's methods.
    methods: MethodNumbers,
    failures: FailureCounter,
    watched: Watched,
}

impl<P: InterfacePlugin> InterfaceLink<P> {
    /// Links a plugin whose contract has the host's methods at `methods`.
    pub fn new(plugin: P, methods: MethodNumbers, context: &LoadContext) -> InterfaceLink<P> {
        InterfaceLink { plugin, methods, failures: context.failures.clone(), watched: Watched::default() }
    }
}

impl<P: InterfacePlugin> Transport for InterfaceLink<P> {
    #[inline]
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        if let Some(direct) = self.plugin.direct(method)
            && let Some(first) = First::enter()
        {
            let mut output = Buffer::EMPTY;
            let status = direct.call(arguments, words, &mut output);
            let watch = first.leave();
            if status == Status::OK && output.is_empty() {
                return read(&mut Reply::new(words, &[])).map_err(|malformed| self.failed(malformed.into(), watch));
            }
            return self.finish(status, words, output, read, watch);
        }
        self.invoke_nested(method, arguments, words, read)
    }

    #[inline]
    fn invoke_repeatable<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        if self.watched.is_so() {
            return self.invoke_watched(method, arguments, words, read);
        }
        self.invoke(method, arguments, words, read)
    }
}

/// Who watches the calls of a plugin, if anybody does.
#[derive(Default)]
struct Watched {
    /// All that a call looks at while nobody does.
    is_so: AtomicBool,
    by: RwLock<Option<Arc<dyn CallWatcher>>>,
}

impl Watched {
    #[inline]
    fn is_so(&self) -> bool {
        self.is_so.load(Relaxed)
    }

    fn begin(&self, watcher: Arc<dyn CallWatcher>) -> Result<(), NotWatched> {
        let mut by = self.by.write().unwrap_or_else(PoisonError::into_inner);
        if by.as_ref().is_some_and(|by| by.interest() != Interest::Over) {
            return Err(NotWatched::Taken);
        }
        *by = Some(watcher);
        self.is_so.store(true, Relaxed);
        Ok(())
    }

    /// The watcher, if it is to be shown the next call. Waits for nobody: a call that comes while one begins or ends is not shown.
    fn next(&self) -> Option<Arc<dyn CallWatcher>> {
        let watcher = Arc::clone(self.by.try_read().ok()?.as_ref()?);
        match watcher.interest() {
            Interest::Wanted => Some(watcher),
            Interest::Skipped => None,
            Interest::Over => {
                self.end(&watcher);
                None
            }
        }
    }

    fn end(&self, watcher: &Arc<dyn CallWatcher>) {
        let Ok(mut by) = self.by.try_write() else { return };
        // Another one may have begun meanwhile.
        if by.as_ref().is_some_and(|by| Arc::ptr_eq(by, watcher)) {
            *by = None;
            self.is_so.store(false, Relaxed);
        }
    }
}

// What is seldom, out of the way of what is not.

#[cold]
#[inline(never)]
fn unavailable(refusal: Refusal) -> CallError {
    CallError::new(CallErrorKind::Unavailable, format!("calls are nested too deeply: {refusal}"))
}

impl<P: InterfacePlugin> InterfaceLink<P> {
    /// Makes a call, and shows it to whoever watches.
    #[inline(never)]
    fn invoke_watched<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let Some(watcher) = self.watched.next() else { return self.invoke(method, arguments, words, read) };
        let (room, mut seen) = (words.len(), None);
        let answer = self.invoke(method, arguments, words, |reply| {
            seen = Some((reply.words_left().to_vec(), reply.bytes().to_vec()));
            read(reply)
        });
        match (&answer, &seen) {
            (Err(error), _) => watcher.saw(method, arguments, Err(error), room),
            (Ok(_), Some((words, bytes))) => watcher.saw(method, arguments, Ok((words, bytes)), room),
            // An answer is read.
            (Ok(_), None) => {}
        }
        answer
    }

    /// Makes a call that may be inside of another one, by the plugin's number of the method.
    #[inline(never)]
    fn invoke_nested<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let Some(number) = self.methods.get(method) else { return Err(CallError::unsupported()) };
        let nested = Nested::enter_interface().map_err(unavailable)?;
        let watch = Watch::begin();
        let answer = self.plugin.invoke(number, arguments, words, read);
        drop(nested);
        answer.map_err(|error| self.failed(error, watch))
    }

    /// Reads what a direct call came to, if that has bytes or is no answer.
    #[inline(never)]
    fn finish<R>(
        &self,
        status: Status,
        words: &[u64],
        output: Buffer,
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
        watch: Watch,
    ) -> Result<R, CallError> {
        if let Some(error) = unsound_buffer(&output) {
            return Err(self.failed(error, watch));
        }
        // SAFETY: B1, as far as it can be seen: the plugin filled the output, and it is consumed here.
        let answer = unsafe { abi::finish(status, words, output, read, |text| plugin_text(text, ERROR_LIMIT)) };
        answer.map_err(|error| self.failed(error, watch))
    }
}

impl<P> InterfaceLink<P> {
    /// Counts an error that is the plugin's fault, and returns the one that the caller gets.
    #[cold]
    #[inline(never)]
    fn failed(&self, error: CallError, watch: Watch) -> CallError {
        if error.kind().is_fault() {
            match watch.refusal() {
                // It failed because a call that it made through the host was refused, and is not to blame.
                Some(refusal) if error.kind() == CallErrorKind::Panicked => return unavailable(refusal),
                _ => self.failures.report_failure(&error),
            }
        }
        error
    }
}

impl<P: InterfacePlugin> Link for InterfaceLink<P> {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, BoxError> {
        Ok(self.plugin.save()?.map(|State { schema, bytes }| (schema, bytes)))
    }

    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), BoxError> {
        self.plugin.restore(&State { schema: schema.to_owned(), bytes: state.to_vec() })
    }

    fn run(&self, stop: &Stop) -> Result<(), BoxError> {
        self.plugin.run(stop)
    }

    fn watch(&self, watcher: Arc<dyn CallWatcher>) -> Result<(), NotWatched> {
        self.watched.begin(watcher)
    }

    fn repeat(&self, method: u32, arguments: &[Argument<'_>], words: &mut [u64]) -> Result<Vec<u8>, CallError> {
        self.invoke(method, arguments, words, |reply| Ok(reply.bytes().to_vec()))
    }
}

impl<P> std::fmt::Debug for InterfaceLink<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InterfaceLink").field("methods", &self.methods).finish_non_exhaustive()
    }
}
