//! The functions behind the descriptor: each calls one method of the plugin and catches its panic.
//!
//! They are public for [`export!`](crate::export) and for hand-written entries, not for calling.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use crate::abi::{Buffer, Frame, HostApi, Method, Slice, Status, slice, slice_mut};
use crate::error::Unsupported;
use crate::{Answer, Argument, Arguments, CallError, CallErrorKind, Error, Host, Interface, Level, Plugin, Stop};

/// Values that an interface function takes and gives by value: plain data with one layout on both sides.
///
/// # Safety
/// The type must be a primitive or a `#[repr(C)]` struct (not an array: C passes those as pointers); every bit pattern
/// that the other side can send must be a valid value; and it must not carry a pointer into either side's memory.
pub unsafe trait Crossing: Copy + Send + 'static {}

macro_rules! crossing {
    ($($primitive:ty)*) => { $(
        // SAFETY: a primitive number; every bit pattern is valid.
        unsafe impl Crossing for $primitive {}
    )* };
}
crossing!(() u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64);

/// Runs `body`, writes its value to `out`, and turns a panic into a status.
///
/// # Safety
/// `out` must be valid for writes.
pub unsafe fn value<R>(out: *mut R, body: impl FnOnce() -> R) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => {
            // SAFETY: P5: `out` is valid for one write, which this function demands.
            unsafe { out.write(value) };
            Status::OK
        }
        Err(payload) => {
            message_alone(payload);
            Status::PANICKED
        }
    }
}

/// Runs `body` and puts its bytes, or the text of its error or panic, into `out`.
///
/// # Safety
/// `out` must be null or valid for writes.
unsafe fn bytes(out: *mut Buffer, body: impl FnOnce() -> Result<Vec<u8>, Error>) -> Status {
    // The error becomes text inside the guard too: its Display and its destructor are the plugin's code.
    let guarded = AssertUnwindSafe(|| match body() {
        Ok(bytes) => (Status::OK, bytes),
        Err(error) if error.is::<Unsupported>() => (Status::UNSUPPORTED, error.to_string().into_bytes()),
        Err(error) => (Status::FAILED, with_sources(&*error).into_bytes()),
    });
    let (status, bytes) =
        catch_unwind(guarded).unwrap_or_else(|payload| (Status::PANICKED, message_alone(payload).into_bytes()));
    if !out.is_null() {
        // SAFETY: not null, and then valid for one write (P1, P5), which this function demands.
        unsafe { out.write(Buffer::new(bytes)) };
    }
    status
}

/// Returns the error's text, followed by those of its sources.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Returns the text of a panic whose backtrace is in the log only.
fn message_alone(payload: Box<dyn Any + Send>) -> String {
    #[cfg(not(target_arch = "wasm32"))]
    drop(crate::backtrace::take());
    message_of(payload)
}

/// Returns the text of a panic. The payload dies here, inside the plugin that allocated it.
fn message_of(payload: Box<dyn Any + Send>) -> String {
    let text = || {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        // A method of a service of the host that failed, and whose trait leaves it to the caller.
        let unwound = || payload.downcast_ref::<crate::CallError>().map(|error| with_sources(error));
        text.or_else(|| payload.downcast_ref::<String>().cloned()).or_else(unwound)
    };
    let message = text().unwrap_or_else(|| "a panic without a text".to_owned());
    // A payload whose own destructor panics is leaked rather than allowed to unwind into the host.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message
}

/// Sends panics to the host's log with their place, instead of to the process's standard error; and with a backtrace, if
/// `RUST_BACKTRACE` is set as it is for any program.
fn report_panics_to(host: Host) {
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or("a panic without a text");
        let text = match panic.location() {
            Some(place) => format!("panicked at {place}: {text}"),
            None => format!("panicked: {text}"),
        };
        // A module ends here: the host gets to know why.
        #[cfg(target_arch = "wasm32")]
        crate::guest::panicked(&text);
        host.log(Level::Error, &text);
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(backtrace) = crate::backtrace::capture() {
            log_backtrace(host, &backtrace);
            crate::backtrace::keep(&backtrace);
        }
    }));
}

/// Logs how the panicking thread came to where it is, line by line.
#[cfg(not(target_arch = "wasm32"))]
fn log_backtrace(host: Host, backtrace: &str) {
    /// Two lines for each frame. A recursion without end would push everything else out of the log.
    const LINES: usize = 200;
    let lines: Vec<_> = backtrace.lines().collect();
    // What is between these two, as usual: before is the panic, and after what starts a thread.
    let end_of_panic = lines.iter().position(|line| line.contains("__rust_end_short_backtrace"));
    let frames = lines[end_of_panic.map_or(0, |at| at + 1)..].iter().skip_while(|line| line.trim().starts_with("at "));
    let frames = frames.take_while(|line| !line.contains("__rust_begin_short_backtrace"));
    frames.take(LINES).for_each(|line| host.log(Level::Error, line));
}

/// [`Descriptor::create`](crate::abi::Descriptor::create) of `P`.
///
/// # Safety
/// Rule P1 of the [ABI](crate::abi).
pub unsafe extern "C" fn create<P: Plugin>(
    host: *const HostApi,
    instance: *mut *mut c_void,
    error: *mut Buffer,
) -> Status {
    // SAFETY: P1: `host` is valid while this code is mapped.
    report_panics_to(unsafe { Host::from_ptr(host) });
    // SAFETY: P1, for all three.
    unsafe { create_in_process::<P>(host, instance, error) }
}

/// Makes an instance as [`create`] does, for a plugin in its own tests, where the panic hook is not the plugin's.
///
/// # Safety
/// Rule P1 of the [ABI](crate::abi).
pub unsafe extern "C" fn create_in_process<P: Plugin>(
    host: *const HostApi,
    instance: *mut *mut c_void,
    error: *mut Buffer,
) -> Status {
    // SAFETY: P1: `host` is valid while this code is mapped, `error` and `instance` for one write.
    unsafe {
        bytes(error, || {
            let made = Box::into_raw(Box::new(P::create(Host::from_ptr(host))?));
            instance.write(made.cast());
            Ok(Vec::new())
        })
    }
}

/// [`Descriptor::destroy`](crate::abi::Descriptor::destroy) of `P`.
///
/// # Safety
/// Rules P2 and P3 of the [ABI](crate::abi).
pub unsafe extern "C" fn destroy<P: Plugin>(instance: *mut c_void) -> Status {
    // SAFETY: P2 and P3: `instance` is a box that `create::<P>` leaked, and nobody uses it now or later.
    unsafe {
        bytes(std::ptr::null_mut(), || {
            drop(Box::from_raw(instance.cast::<P>()));
            Ok(Vec::new())
        })
    }
}

/// [`Descriptor::run`](crate::abi::Descriptor::run) of `P`.
///
/// # Safety
/// Rules P2 and P5 of the [ABI](crate::abi).
pub unsafe extern "C" fn run<P: Plugin>(
    instance: *const c_void,
    stop: *const AtomicBool,
    error: *mut Buffer,
) -> Status {
    // SAFETY: P2: `instance` came from `create::<P>` and lives. P5: `stop` and `error` are valid for the call.
    unsafe { bytes(error, || this::<P>(instance).run(Stop::from_ptr(stop)).map(|()| Vec::new())) }
}

/// Tells an instance of `P` that it continues from a snapshot.
///
/// # Safety
/// Rules P2 and P5 of the [ABI](crate::abi).
#[cfg(target_arch = "wasm32")]
pub unsafe extern "C" fn resume<P: Plugin>(instance: *const c_void, error: *mut Buffer) -> Status {
    // SAFETY: P2: `instance` came from `create::<P>` and lives. P5: `error` is valid for the call.
    unsafe { bytes(error, || this::<P>(instance).resume().map(|()| Vec::new())) }
}

/// [`Descriptor::call`](crate::abi::Descriptor::call) of `P`.
///
/// # Safety
/// Rules P2 and P5 of the [ABI](crate::abi).
pub unsafe extern "C" fn call<P: Plugin>(
    instance: *const c_void,
    method: u32,
    input: Slice,
    output: *mut Buffer,
) -> Status {
    // SAFETY: P2: `instance` came from `create::<P>` and lives. P5: `input` and `output` are valid for the call.
    unsafe { bytes(output, || this::<P>(instance).call(method, input.as_bytes())) }
}

/// [`Descriptor::save`](crate::abi::Descriptor::save) of `P`.
///
/// # Safety
/// Rules P2 and P5 of the [ABI](crate::abi).
pub unsafe extern "C" fn save<P: Plugin>(instance: *const c_void, output: *mut Buffer) -> Status {
    // SAFETY: P2: `instance` came from `create::<P>` and lives. P5: `output` is valid for the call.
    unsafe { bytes(output, || this::<P>(instance).save()) }
}

/// [`Descriptor::restore`](crate::abi::Descriptor::restore) of `P`.
///
/// # Safety
/// Rules P2 and P5 of the [ABI](crate::abi).
pub unsafe extern "C" fn restore<P: Plugin>(
    instance: *const c_void,
    schema: Slice,
    state: Slice,
    error: *mut Buffer,
) -> Status {
    // SAFETY: P2: `instance` came from `create::<P>` and lives. P5: both texts and `error` are valid for the call.
    unsafe {
        bytes(error, || {
            let schema = std::str::from_utf8(schema.as_bytes())?;
            this::<P>(instance).restore(schema, state.as_bytes()).map(|()| Vec::new())
        })
    }
}

/// One method of an interface `Self` on a plugin of the type `P`: what the macro writes, for the number of each method. The
/// interface itself, `dyn Trait`, counts as one, too.
#[doc(hidden)]
pub trait Serve<P: ?Sized, const NUMBER: u32>: Interface {
    #[allow(missing_docs, reason = "for the macros")]
    fn serve(plugin: &P, arguments: &mut Arguments<'_>, answer: &mut Answer<'_>) -> Result<(), CallError>;
}

/// The [`Method`] with this number of the interface `I`, for a plugin of the type `P`.
///
/// # Safety
/// Rules P2 and P4 of the [ABI](crate::abi).
#[doc(hidden)]
pub unsafe extern "C" fn method<P, I: Serve<P, NUMBER> + ?Sized, const NUMBER: u32>(
    instance: *const c_void,
    arguments: *const Argument<'static>,
    argument_count: u32,
    words: *mut u64,
    word_count: u32,
    output: *mut Buffer,
) -> Status {
    // SAFETY: P2: `instance` came from `create` for `P`, and lives. P4: arguments and words are valid during the call, as many
    // as the counts say, and the words are nobody else's.
    let (plugin, arguments, words) =
        unsafe { (this::<P>(instance), slice(arguments, argument_count), slice_mut(words, word_count)) };
    let guarded = || {
        let mut answer = Answer::new(words);
        match I::serve(plugin, &mut Arguments::new(arguments), &mut answer) {
            Ok(()) if !answer.is_cut => {}
            Ok(()) => return Err(CallError::malformed("the caller has too little room for the answer")),
            Err(error) => return Err(error),
        }
        Ok(answer.into_bytes())
    };
    match guard(guarded) {
        Ok(Ok(bytes)) if bytes.is_empty() => Status::OK,
        // SAFETY: P4: the output is valid for the call, and empty.
        Ok(Ok(bytes)) => unsafe { give(Status::OK, bytes, output) },
        // SAFETY: the same.
        Ok(Err(error)) => unsafe { fail(&error, output) },
        // SAFETY: the same.
        Err(payload) => unsafe { panicked(payload, output) },
    }
}

/// Runs a method, and catches its panic.
#[cfg(not(target_arch = "wasm32"))]
#[inline]
fn guard<R>(method: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(method))
}

/// Runs a method. In a module a panic traps, and what would make an error of it is not to be there.
#[cfg(target_arch = "wasm32")]
#[inline]
fn guard<R>(method: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    Ok(method())
}

/// # Safety
/// `output` must be valid for one write.
unsafe fn give(status: Status, bytes: Vec<u8>, output: *mut Buffer) -> Status {
    // SAFETY: this function's own condition.
    unsafe { output.write(Buffer::new(bytes)) };
    status
}

/// # Safety
/// `output` must be valid for one write.
#[cold]
#[inline(never)]
unsafe fn fail(error: &CallError, output: *mut Buffer) -> Status {
    // SAFETY: this function's own condition.
    unsafe { give(Status::of(error.kind()), error.to_wire(), output) }
}

/// # Safety
/// `output` must be valid for one write.
#[cold]
#[inline(never)]
unsafe fn panicked(payload: Box<dyn Any + Send>, output: *mut Buffer) -> Status {
    // A module ends with a trap, whose backtrace its host has. An error that unwinds has run no panic hook: what waits is
    // another panic's.
    #[cfg(not(target_arch = "wasm32"))]
    let backtrace = crate::backtrace::take().filter(|_| !payload.is::<CallError>());
    let error = CallError::new(CallErrorKind::Panicked, message_of(payload));
    #[cfg(not(target_arch = "wasm32"))]
    let error = match backtrace {
        Some(backtrace) => error.with_cause(backtrace),
        None => error,
    };
    // SAFETY: this function's own condition.
    unsafe { fail(&error, output) }
}

/// Calls one of `methods` with what is in a frame: the body of an [`Invoke`](crate::abi::Invoke).
///
/// # Safety
/// Rules P2 and P4 of the [ABI](crate::abi), for the methods of one plugin.
#[doc(hidden)]
pub unsafe fn invoke(methods: &[Method], instance: *const c_void, method: u32, frame: *mut Frame) -> Status {
    let Some(method) = methods.get(method as usize) else { return Status::UNSUPPORTED };
    // SAFETY: P4: the frame is lent for the call, and nobody else's; the rest is passed on as it came.
    unsafe {
        let Frame { arguments, argument_count, word_count, words, output } = &mut *frame;
        method(instance, *arguments, *argument_count, *words, *word_count, output)
    }
}

/// Returns the instance behind the host's pointer.
///
/// # Safety
/// `instance` must have come from [`create`] of the same `P`, or of a transparent wrapper of it, and live.
pub unsafe fn this<'a, P>(instance: *const c_void) -> &'a P {
    // SAFETY: P2: it lives, and is a `P` or laid out as one, which this function demands.
    unsafe { &*instance.cast::<P>() }
}
