//! A plugin as a WebAssembly module: what the host of a core module calls, over the same shims as a library's.
//!
//! [`export!`](crate::export) writes the exports, each of which comes here. A module has one instance, one thread, and
//! panics that trap, so little is left to do: make room for what the host writes, and keep what it reads.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::AtomicBool;

#[cfg(not(any(feature = "log", feature = "tracing")))]
use crate::Level;
use crate::abi::{Buffer, Descriptor, Frame, HostApi, Invoke, Slice, Status};

// Imports that every host of modules offers.
#[link(wasm_import_module = "hotslot")]
unsafe extern "C" {
    #[link_name = "log"]
    fn host_log(level: u32, text: *const u8, len: usize);
    #[link_name = "send"]
    fn host_send(message: *const u8, len: usize);
    #[link_name = "panicked"]
    fn host_panicked(text: *const u8, len: usize);
    #[link_name = "service"]
    fn host_service(contract: *const u8, len: usize, number: *mut u32, error: *mut Buffer) -> Status;
    #[link_name = "invoke"]
    fn host_invoke(service: u32, method: u32, frame: *mut Frame) -> Status;
    #[cfg(any(feature = "log", feature = "tracing"))]
    #[link_name = "event"]
    fn host_event(level: u32, texts: *const Slice, count: usize);
    #[cfg(any(feature = "log", feature = "tracing"))]
    #[link_name = "log_level"]
    fn host_log_level() -> u32;
}

/// A function that tells an instance that it continues from a snapshot.
pub(crate) type Resume = unsafe extern "C" fn(instance: *const c_void, error: *mut Buffer) -> Status;

/// One module's plugin.
pub struct Guest {
    instance: Cell<*mut c_void>,
    api: Cell<*const HostApi>,
    /// Where the host writes the arguments of the call that comes next.
    room: RefCell<Vec<u64>>,
    /// What the host reads after a call.
    answer: Cell<Buffer>,
}

// SAFETY: the host calls a module from one thread at a time, and a module cannot start another.
unsafe impl Sync for Guest {}

static STOP: AtomicBool = AtomicBool::new(false);

impl Guest {
    /// # Safety
    /// Its functions must be called by the exports that [`export!`](crate::export) makes, and those by a host of modules:
    /// the notes below rely on the order of its calls, and on what it writes into the room.
    pub const unsafe fn new() -> Guest {
        Guest {
            instance: Cell::new(ptr::null_mut()),
            api: Cell::new(ptr::null()),
            room: RefCell::new(Vec::new()),
            answer: Cell::new(Buffer::EMPTY),
        }
    }

    /// `hotslot_create`: makes the instance, with `len` bytes of configuration that were written into the room.
    pub fn create(&self, descriptor: &Descriptor, len: usize) -> u64 {
        // The instance may ask for its configuration at any time.
        let config: &'static [u8] = self.room_bytes(len).to_vec().leak();
        let api = Box::new(HostApi {
            size: size_of::<HostApi>(),
            context: ptr::null(),
            stop: &raw const STOP,
            config: Slice::new(config),
            log,
            send,
            service,
            invoke,
            event,
            log_level,
        });
        self.api.set(Box::leak(api));
        let (mut instance, mut error) = (ptr::null_mut(), Buffer::EMPTY);
        // SAFETY: P1: the API was leaked, and lives as long as the module's memory; `instance` and `error` for the call.
        let status = unsafe { (descriptor.create)(self.api.get(), &raw mut instance, &raw mut error) };
        self.instance.set(instance);
        self.outcome(status, error)
    }

    /// `hotslot_room`: the address of room for `len` bytes, aligned for a word.
    pub fn room(&self, len: usize) -> *mut u64 {
        let mut room = self.room.borrow_mut();
        let words = len.div_ceil(size_of::<u64>());
        if room.len() < words {
            room.resize(words, 0);
        }
        room.as_mut_ptr()
    }

    /// `hotslot_invoke`: one call, whose frame was written into the room.
    pub fn invoke(&self, enter: Invoke, method: u32, frame: *mut Frame) -> Status {
        // The host cannot release a buffer: it reads, and the next call releases.
        self.release();
        // SAFETY: P2: the host asks for an instance before it calls. P4: it wrote the frame into the room, which nobody
        // else uses until the call is over. B1: the output is as the shim filled it: it stays where the host reads it, and
        // what is kept here is released once.
        unsafe {
            let status = enter(self.instance.get(), method, frame);
            self.answer.set((&raw const (*frame).output).read());
            status
        }
    }

    /// `hotslot_run`.
    pub fn run(&self, descriptor: &Descriptor) -> u64 {
        let mut error = Buffer::EMPTY;
        // SAFETY: P2: the host asks for an instance before it runs it. P5: the flag is a static.
        let status = unsafe { (descriptor.run)(self.instance.get(), &raw const STOP, &raw mut error) };
        self.outcome(status, error)
    }

    /// `hotslot_resume`.
    pub fn resume(&self, resume: Resume) -> u64 {
        let mut error = Buffer::EMPTY;
        // SAFETY: P2: the host made a snapshot of an instance that it had asked for. P5: the error lives for the call.
        let status = unsafe { resume(self.instance.get(), &raw mut error) };
        self.outcome(status, error)
    }

    /// `hotslot_save`: the state. One that cannot be saved traps, with the reason in the log.
    pub fn save(&self, descriptor: &Descriptor) -> u64 {
        let mut output = Buffer::EMPTY;
        // SAFETY: P2: the host asks for an instance before it saves it. P5: the output is empty, and lives for the call.
        let status = unsafe { (descriptor.save)(self.instance.get(), &raw mut output) };
        // SAFETY: B1: it is as the shim filled it, and is taken once.
        let bytes = unsafe { output.take() };
        if status != Status::OK {
            // An answer of the export has no room for an error.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            panic!("the state cannot be saved: {text}");
        }
        self.keep(bytes)
    }

    /// `hotslot_alloc`: room for a state of `len` bytes.
    pub fn alloc(&self, len: usize) -> *mut u8 {
        self.room(len.max(1)).cast()
    }

    /// `hotslot_restore`.
    ///
    /// # Safety
    /// `data` must be what [`alloc`](Guest::alloc) gave, with both texts in it.
    pub unsafe fn restore(&self, descriptor: &Descriptor, data: *const u8, schema: usize, state: usize) -> u64 {
        let mut error = Buffer::EMPTY;
        // SAFETY: P2: the host asks for an instance before it restores one. P5: both texts are in the room, as this
        // function demands, and nobody writes there during the call.
        let status = unsafe {
            let (schema, state) = (Slice { data, len: schema }, Slice { data: data.add(schema), len: state });
            (descriptor.restore)(self.instance.get(), schema, state, &raw mut error)
        };
        self.outcome(status, error)
    }

    /// Returns 0, or where the error's text is.
    fn outcome(&self, status: Status, error: Buffer) -> u64 {
        // SAFETY: B1: it is empty or as the shim filled it, and is taken once.
        let text = unsafe { error.take() };
        match status {
            Status::OK => 0,
            _ if text.is_empty() => self.keep(b"it gave no reason".to_vec()),
            _ => self.keep(text),
        }
    }

    /// Keeps bytes until the next call, and tells where they are: the address in the upper half.
    fn keep(&self, bytes: Vec<u8>) -> u64 {
        let packed = (bytes.as_ptr() as u64) << 32 | bytes.len() as u64;
        self.release();
        self.answer.set(Buffer::new(bytes));
        packed
    }

    /// Releases what the host has read.
    fn release(&self) {
        let answer = self.answer.replace(Buffer::EMPTY);
        if let Some(release) = answer.release {
            // SAFETY: B1: it is as it was filled in here, and in the place of it there is nothing to release now.
            unsafe { release(answer.data, answer.len, answer.capacity) };
        }
    }

    fn room_bytes(&self, len: usize) -> Vec<u8> {
        let room = self.room.borrow();
        room.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect()
    }
}

/// Says why the call that is under way is about to trap.
pub(crate) fn panicked(text: &str) {
    // SAFETY: the import reads the text during the call, for which it is lent.
    unsafe { host_panicked(text.as_ptr(), text.len()) }
}

unsafe extern "C" fn log(_: *const c_void, level: u32, _: Slice, message: Slice) {
    // SAFETY: the import reads the text during the call, for which it is lent (H2).
    unsafe { host_log(level, message.data, message.len) }
}

/// A module that does not forward events needs no import for them.
#[cfg(not(any(feature = "log", feature = "tracing")))]
unsafe extern "C" fn event(_: *const c_void, _: u32, _: *const Slice, _: usize) {}

#[cfg(not(any(feature = "log", feature = "tracing")))]
unsafe extern "C" fn log_level(_: *const c_void) -> u32 {
    Level::Trace as u32
}

#[cfg(any(feature = "log", feature = "tracing"))]
unsafe extern "C" fn event(_: *const c_void, level: u32, texts: *const Slice, count: usize) {
    // SAFETY: the import reads the texts during the call, for which they are lent (H2).
    unsafe { host_event(level, texts, count) }
}

#[cfg(any(feature = "log", feature = "tracing"))]
unsafe extern "C" fn log_level(_: *const c_void) -> u32 {
    // SAFETY: the import only returns a number.
    unsafe { host_log_level() }
}

unsafe extern "C" fn send(_: *const c_void, message: Slice) {
    // SAFETY: the import reads the message during the call, for which it is lent (H2).
    unsafe { host_send(message.data, message.len) }
}

unsafe extern "C" fn service(_: *const c_void, contract: Slice, number: *mut u32, error: *mut Buffer) -> Status {
    // SAFETY: H2 for the contract; H3 for number and error, which the import fills with memory from `give`, or not at all.
    unsafe {
        let status = host_service(contract.data, contract.len, number, error);
        own(&mut *error);
        status
    }
}

unsafe extern "C" fn invoke(_: *const c_void, service: u32, method: u32, frame: *mut Frame) -> Status {
    // SAFETY: H4 for the frame, whose output the import fills with memory from `give`, or not at all.
    unsafe {
        let status = host_invoke(service, method, frame);
        own(&mut (*frame).output);
        status
    }
}

/// Takes over what the host wrote into memory that [`give`] made for it.
///
/// # Safety
/// The host must have filled the buffer so, or left it empty.
unsafe fn own(buffer: &mut Buffer) {
    if buffer.data.is_null() {
        return;
    }
    // SAFETY: `give` leaked a boxed slice of that length at that address, as this function demands, and the host keeps no
    // hold on it.
    let bytes = unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(buffer.data, buffer.len)) };
    *buffer = Buffer::new(bytes.into_vec());
}

/// `hotslot_give`: memory for `len` bytes that the host gives the plugin.
pub fn give(len: usize) -> *mut u8 {
    Box::into_raw(vec![0_u8; len].into_boxed_slice()).cast()
}
