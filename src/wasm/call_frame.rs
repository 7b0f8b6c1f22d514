//! One call of an interface's method, in a module's memory: the counterpart of what `hotslot_plugin::export!` writes for
//! `wasm32`.
//!
//! The host writes a call as one piece into room that the module gives: a frame, its arguments, room for the answer's
//! words, and the bytes that the arguments lend. After the call the frame says where the answer's bytes are.

use hotslot_plugin::abi::Status;
use hotslot_plugin::abi::wire::{GuestCall, GuestFrame};

use super::binder::{Binder, Call, Func, unpack};
use super::error::WasmCallError;
use super::host::slice;
use crate::host::{Argument, CallError, Malformed, Reply, plugin_text};

/// The longest error text that is taken from a plugin, in bytes.
const ERROR_LIMIT: usize = 8 * 1024;

/// The functions of one instance of a declared interface's plugin.
pub struct Guest {
    room: Func<u32, u32>,
    invoke: Func<(u32, u32), i32>,
    run: Func<(), u64>,
}

impl Guest {
    /// Looks the functions up, and creates the plugin, unless the instance was made from a snapshot of it.
    pub(super) fn bind(binder: &mut Binder<'_>) -> Result<Guest, WasmCallError> {
        let guest = Guest {
            room: binder.func("hotslot_room")?,
            invoke: binder.func("hotslot_invoke")?,
            run: binder.func("hotslot_run")?,
        };
        if binder.is_resumed {
            return Ok(guest);
        }
        let create: Func<u32, u64> = binder.func("hotslot_create")?;
        let config = binder.store.data().host.config().clone();
        let mut call = Call::new(binder.store);
        let room = guest.room_for(&mut call, config.len())?;
        call.write_at(room, &config)?;
        let len = u32::try_from(config.len()).unwrap_or(u32::MAX);
        let answer = call.run(&create, len)?;
        reason(&call, answer)
            .map_err(|why| WasmCallError::NotCreated(format!("the plugin cannot be created: {why}")))?;
        Ok(guest)
    }

    /// Returns the address of room for `len` bytes; the module is asked only if it has given less.
    fn room_for(&self, call: &mut Call<'_>, len: usize) -> Result<u32, WasmCallError> {
        /// Most calls fit, so that most instances are asked once.
        const FIRST: u32 = 2 * 1024;
        let needed = u32::try_from(len).map_err(|_| WasmCallError::failed("a call of more than 4 GiB"))?;
        let (ptr, size) = call.data().given.room;
        if size >= needed && size > 0 {
            return Ok(ptr);
        }
        let size = needed.max(FIRST);
        let ptr = call.run(&self.room, size)?;
        call.read(ptr, size)?;
        call.data_mut().given.room = (ptr, size);
        Ok(ptr)
    }

    /// Writes a call, makes it, and reads the answer. The inner error is what the plugin answered.
    pub(super) fn call<R>(
        &self,
        call: &mut Call<'_>,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<Result<R, CallError>, WasmCallError> {
        let guest_call = GuestCall::new(arguments, words.len());
        let size = guest_call.size();
        let room = self.room_for(call, size)?;
        guest_call.write(room, call.slice_mut(room, size)?);
        let status = call.run(&self.invoke, (method, room))?;
        let memory = call.memory_bytes();
        let bytes_of = |ptr, len| slice(memory, ptr, len).ok_or_else(|| WasmCallError::OutOfBounds { ptr, len });
        let piece = bytes_of(room, u32::try_from(guest_call.bytes_offset()).unwrap_or(u32::MAX))?;
        guest_call.read_words(piece, words);
        let frame = GuestFrame::read(piece).expect("the piece begins with a frame");
        call.check_answer(frame.output_len)?;
        let bytes = bytes_of(frame.output, frame.output_len)?;
        let answered = Status(status).into_result(bytes, |text| plugin_text(text, ERROR_LIMIT));
        let answered = answered.and_then(|()| read(&mut Reply::new(words, bytes)).map_err(CallError::from));
        // What it takes to read an answer is the plugin's choice, too.
        call.check_time()?;
        Ok(answered)
    }

    /// Runs the plugin until it returns. The inner error is what the plugin answered.
    pub(super) fn run(&self, call: &mut Call<'_>) -> Result<Result<(), String>, WasmCallError> {
        let answer = call.run(&self.run, ())?;
        Ok(reason(call, answer))
    }
}

/// Returns the text that a packed answer points to as an error, unless the answer is 0.
pub(super) fn reason(call: &Call<'_>, answer: u64) -> Result<(), String> {
    if answer == 0 {
        return Ok(());
    }
    let (ptr, len) = unpack(answer);
    Err(call.read(ptr, len).map_or_else(|error| error.to_string(), |text| plugin_text(text, ERROR_LIMIT)))
}
