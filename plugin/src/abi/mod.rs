//! The C ABI between a host and a native plugin, version [`ABI_VERSION`].
//!
//! A plugin exports one symbol, [`DESCRIPTOR_SYMBOL`], a [`Descriptor`] that lies in the section
//! [`DESCRIPTOR_SECTION`]. Its first part ([`Identity`]) has no pointers, so a host can read it from the file; the
//! rest is filled in by the loader's relocations.
//!
//! Ownership: a [`Slice`] is borrowed for the call. A [`Buffer`] belongs to the side that receives it, which gives
//! it back by calling its `release`, because each side has an allocator of its own.
//!
//! # Who may call what, and with which pointers
//! Both sides keep these rules. Code that calls or implements an entry cites them by their numbers.
//!
//! What a host does with a [`Descriptor`] that it found in a mapped library:
//! - **P1** It calls `create` with a `host` that stays valid, and does not move, for as long as the plugin's code is
//!   mapped, and with an `instance` and an `error` that are valid for one write during the call. Only a `create` that
//!   returned [`Status::OK`] has written an instance.
//! - **P2** It calls every other entry, and the functions, with an instance that `create` of the same descriptor wrote and
//!   that has not been destroyed; from any thread, also several at a time and while `run` runs.
//! - **P3** It calls `destroy` once for an instance, when no other call with it is under way, and none after it.
//! - **P4** It lends a [`Frame`] for the call of an [`Invoke`], or what a frame has for that of a [`Method`]. The frame, its
//!   arguments with the bytes that they lend, and its words, which are initialised, are valid during the call, and nobody
//!   else uses frame or words; the output is empty. The plugin leaves all of them in place. It may fill words and output,
//!   with a buffer as in B1.
//! - **P5** What else it passes is valid during the call: slices for reads, the flag `stop` for atomic reads, and a
//!   `Buffer` that holds nothing, for one write. A plugin keeps none of them.
//!
//! What a plugin does with its [`HostApi`]:
//! - **H1** It passes the API's own `context`, from any thread, for as long as its code is mapped.
//! - **H2** The slices that it passes are valid for reads during the call. A host keeps none of them.
//! - **H3** `number` and `error` are valid for one write during the call.
//! - **H4** It lends a [`Frame`] for a call of `invoke` as in P4, with the sides exchanged.
//!
//! On both sides:
//! - **B1** The bytes of a filled [`Buffer`] are valid until its `release` is called, which its receiver does at most once,
//!   from any thread, with the three values as they were.
//! - **B2** No function unwinds.

use std::ffi::c_void;
use std::sync::atomic::AtomicBool;

mod buffer;
mod frame;
mod status;
pub mod wire;

use crate::Argument;
pub use crate::call_error::SOURCE_SEPARATOR;
pub use buffer::{Buffer, Slice};
pub use frame::{Frame, finish};
pub(crate) use frame::{slice, slice_mut};
pub use status::Status;

/// The version of this ABI. It changes when anything in this module changes meaning or layout.
pub const ABI_VERSION: u32 = 1;

/// The first bytes of every descriptor.
pub const MAGIC: [u8; 16] = *b"hotslot\0plugin\0\x01";

/// The name of the exported descriptor.
pub const DESCRIPTOR_SYMBOL: &str = "HOTSLOT_PLUGIN";

/// The section that holds the descriptor: in ELF and PE files by this name, in Mach-O files as `__DATA,__hotslot`.
pub const DESCRIPTOR_SECTION: &str = ".hotslot";

/// The plugin unwinds on panic, so that its shims contain panics.
pub const PANIC_UNWIND: u32 = 1;
/// The plugin aborts on panic, and the host with it.
pub const PANIC_ABORT: u32 = 2;

/// A text of at most 95 bytes, padded with zero bytes, that can be read from a file.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Text {
    /// UTF-8, followed by at least one zero byte.
    pub bytes: [u8; 96],
}

impl Text {
    /// Makes a text.
    ///
    /// # Panics
    /// If it has more than 95 bytes or a zero byte; in a constant that is a compile error.
    pub const fn new(text: &str) -> Text {
        let source = text.as_bytes();
        assert!(source.len() < 96, "a descriptor text has at most 95 bytes");
        let mut bytes = [0; 96];
        let mut at = 0;
        while at < source.len() {
            assert!(source[at] != 0, "a descriptor text has no zero byte");
            bytes[at] = source[at];
            at += 1;
        }
        Text { bytes }
    }
}

/// The text without its padding; what is no UTF-8 is replaced.
impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(self.bytes.len());
        f.write_str(&String::from_utf8_lossy(&self.bytes[..end]))
    }
}

/// The part of a descriptor that says what the plugin is: plain bytes, readable from the file.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    /// [`MAGIC`].
    pub magic: [u8; 16],
    /// [`ABI_VERSION`] of the plugin.
    pub abi: u32,
    /// The size of the whole [`Descriptor`] in bytes.
    pub size: u32,
    /// [`PANIC_UNWIND`] or [`PANIC_ABORT`].
    pub panic: u32,
    /// How many entries [`Descriptor::functions`] has.
    pub function_count: u32,
    /// The plugin's name.
    pub name: Text,
    /// The plugin's semver version.
    pub version: Text,
    /// The interface that it implements.
    pub interface: Text,
    /// The schema of the state that it saves; empty if it has none.
    pub schema: Text,
}

/// What a plugin exports. See the [module](self) for who owns what.
#[repr(C)]
pub struct Descriptor {
    /// What the plugin is.
    pub identity: Identity,
    /// Makes an instance, written to `instance`.
    pub create: unsafe extern "C" fn(host: *const HostApi, instance: *mut *mut c_void, error: *mut Buffer) -> Status,
    /// Destroys an instance; called once, when no other call is under way.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void) -> Status,
    /// Runs until `*stop` is true.
    pub run: unsafe extern "C" fn(instance: *const c_void, stop: *const AtomicBool, error: *mut Buffer) -> Status,
    /// Answers one call; `output` takes the answer or the error's text.
    pub call: unsafe extern "C" fn(instance: *const c_void, method: u32, input: Slice, output: *mut Buffer) -> Status,
    /// Saves the state; `output` takes the bytes or the error's text.
    pub save: unsafe extern "C" fn(instance: *const c_void, output: *mut Buffer) -> Status,
    /// Restores a state that was saved under `schema`.
    pub restore:
        unsafe extern "C" fn(instance: *const c_void, schema: Slice, state: Slice, error: *mut Buffer) -> Status,
    /// The interface's own functions, `identity.function_count` of them, in the interface's order.
    pub functions: *const Function,
}

/// What a plugin of a declared interface exports in the place of a [`Descriptor`]: one whose first function is an
/// [`Invoke`], and behind it the interface's contract, readable from the file.
///
/// Behind the [`Invoke`] there may be a [`Method`] for each method of the contract, in its order: the shorter way of the same
/// call, which a host takes where it is there. A plugin has all of them or none. Rust's have them; those in C, and those
/// that were built against a hotslot-plugin without them, are called through the [`Invoke`] alone. A host without them does
/// not look at more than the first function. So they are no new version of this ABI. Functions of its own have no place there:
/// a table that is neither one nor as long as the contract is refused, and one that is as long is taken for the methods.
#[repr(C)]
pub struct InterfaceDescriptor<const N: usize> {
    /// The descriptor.
    pub descriptor: Descriptor,
    /// [`CONTRACT_MAGIC`].
    pub magic: [u8; 16],
    /// How many bytes the text has.
    pub length: u64,
    /// The [contract](crate::Interface::CONTRACT), UTF-8.
    pub contract: [u8; N],
}

/// Stands before a contract.
pub const CONTRACT_MAGIC: [u8; 16] = *b"hotslot\0contract";

/// Calls a method of the interface, by the number that the plugin's contract gives it.
pub type Invoke = unsafe extern "C" fn(instance: *const c_void, method: u32, frame: *mut Frame) -> Status;

/// Calls one method of the interface: with the fields of a [`Frame`] as parameters, so that nothing has to be written for the
/// plugin but what the method takes, and with a function for each method, so that nothing has to be looked up.
pub type Method = unsafe extern "C" fn(
    instance: *const c_void,
    arguments: *const Argument<'static>,
    argument_count: u32,
    words: *mut u64,
    word_count: u32,
    output: *mut Buffer,
) -> Status;

impl<const N: usize> InterfaceDescriptor<N> {
    /// Puts this contract, of `N` bytes, behind the descriptor.
    ///
    /// # Panics
    /// It has another length; in a constant that is a compile error.
    pub const fn new(descriptor: Descriptor, contract: &str) -> InterfaceDescriptor<N> {
        assert!(contract.len() == N, "the contract has the length that is said");
        let text = crate::contract::bytes(contract);
        InterfaceDescriptor { descriptor, magic: CONTRACT_MAGIC, length: N as u64, contract: text }
    }
}

// SAFETY: a descriptor is a constant: nothing writes to it or to the function table after the loader relocated them.
unsafe impl Sync for Descriptor {}

/// The address of one function of the interface.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Function(pub *const c_void);

// SAFETY: the address of a function is a constant, which may be read from any thread.
unsafe impl Sync for Function {}
// SAFETY: the address of a function is the same on every thread, and nothing is freed with it.
unsafe impl Send for Function {}

/// What the host offers a plugin. It stays valid for as long as the plugin's code is mapped.
#[repr(C)]
pub struct HostApi {
    /// The size of this struct in the host, in bytes: fields are only ever added.
    pub size: usize,
    /// Handed back to every function below.
    pub context: *const c_void,
    /// True from the moment the plugin is no longer current; it may go back to false on a rollback.
    pub stop: *const AtomicBool,
    /// The configuration that the host gave; valid as long as this struct.
    pub config: Slice,
    /// Writes to the host's log: `level` is 1 (error) to 5 (trace), both texts are UTF-8.
    pub log: unsafe extern "C" fn(context: *const c_void, level: u32, target: Slice, message: Slice),
    /// Sends a message to the host, which defines what it means.
    pub send: unsafe extern "C" fn(context: *const c_void, message: Slice),
    /// Looks for the service with this [contract](crate::Interface::CONTRACT), and gives it a number; or the text of
    /// an error.
    pub service:
        unsafe extern "C" fn(context: *const c_void, contract: Slice, number: *mut u32, error: *mut Buffer) -> Status,
    /// Calls a method of a service, by the number that the plugin's contract gives it.
    pub invoke: unsafe extern "C" fn(context: *const c_void, service: u32, method: u32, frame: *mut Frame) -> Status,
    /// Writes an event to the host's log: `count` UTF-8 texts at `texts`, which are its target, its message, its fields and
    /// the spans that it is in. More may be added; what is missing is empty.
    pub event: unsafe extern "C" fn(context: *const c_void, level: u32, texts: *const Slice, count: usize),
    /// Returns the most verbose level that anybody listens to, as in `log`; 0 if nobody does.
    pub log_level: unsafe extern "C" fn(context: *const c_void) -> u32,
}

// SAFETY: P1: the pointers are valid wherever they are used from; H1: the functions may be called from any thread.
unsafe impl Send for HostApi {}
// SAFETY: nothing in it changes but the flag behind `stop`, which is atomic; H1: its functions may be called from several
// threads at a time.
unsafe impl Sync for HostApi {}
