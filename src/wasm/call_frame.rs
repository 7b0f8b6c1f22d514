//! One call of an interface's method, in a module's memory: the counterpart of what `hotslot_plugin::export!` writes for
//! `wasm32`.
//!
//! The host writes a call as one piece into room that the module gives: a frame, its arguments, room for the answer's
//! words, and the bytes that the arguments lend. After the call the frame says where the answer's bytes are.

use std::cell::Cell;

use hotslot_plugin::{Answered, Argument, Malformed};

use super::binder::{Binder, Call, Func, unpack};
use super::error::WasmCallError;
use crate::host::{CallError, CallErrorKind};
use crate::text::plugin_text;

/// What a module of a declared interface exports: its contract promises it.
pub(super) const EXPORTS: [(&str, &str); 5] = [
    ("hotslot_create", "(i32) -> i64"),
    ("hotslot_room", "(i32) -> i32"),
    ("hotslot_invoke", "(i32, i32) -> i32"),
    ("hotslot_give", "(i32) -> i32"),
    ("hotslot_run", "() -> i64"),
];

/// The longest error text that is taken from a plugin, in bytes.
const ERROR_LIMIT: usize = 8 * 1024;

/// What a [`Frame`](hotslot_plugin::abi::Frame) is for a machine of 32 bits: four words of it, and a buffer of four.
pub(super) const FRAME: usize = 32;
/// What an [`Argument`] is on every machine.
pub(super) const ARGUMENT: usize = 16;

/// A plugin's functions, for one instance of it.
pub struct Guest {
    room: Func<u32, u32>,
    invoke: Func<(u32, u32), i32>,
    pub(super) run: Func<(), u64>,
    /// The room that there is: its address, and its size.
    place: Cell<(u32, u32)>,
}

impl Guest {
    /// Looks the functions up, and makes the plugin.
    pub(super) fn bind(binder: &mut Binder<'_>) -> Result<Guest, WasmCallError> {
        let create: Func<u32, u64> = binder.func("hotslot_create")?;
        let guest = Guest {
            room: binder.func("hotslot_room")?,
            invoke: binder.func("hotslot_invoke")?,
            run: binder.func("hotslot_run")?,
            place: Cell::new((0, 0)),
        };
        let config = binder.store.data().offers.config.bytes();
        let mut call = Call::new(binder.store);
        let room = guest.room_for(&mut call, config.len())?;
        call.write_at(room, &config)?;
        let len = u32::try_from(config.len()).unwrap_or(u32::MAX);
        let refusal = call.run(&create, len)?;
        refused(&call, refusal)
            .map_err(|reason| WasmCallError::failed(format!("the plugin cannot be made: {reason}")))?;
        Ok(guest)
    }

    /// Room for `len` bytes, which is asked for only if there is less.
    fn room_for(&self, call: &mut Call<'_>, len: usize) -> Result<u32, WasmCallError> {
        /// Most calls fit, so that most instances are asked once.
        const FIRST: u32 = 2 * 1024;
        let wanted = u32::try_from(len).map_err(|_| WasmCallError::failed("a call of more than 4 GiB"))?;
        let (ptr, size) = self.place.get();
        if size >= wanted && size > 0 {
            return Ok(ptr);
        }
        let size = wanted.max(FIRST);
        let ptr = call.run(&self.room, size)?;
        call.read(ptr, size)?;
        self.place.set((ptr, size));
        Ok(ptr)
    }

    /// One call, written, made and read.
    pub(super) fn call<R>(
        &self,
        call: &mut Call<'_>,
        number: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Answered<'_>) -> Result<R, Malformed>,
    ) -> Result<Result<R, CallError>, WasmCallError> {
        let words_at = FRAME + ARGUMENT * arguments.len();
        let bytes_at = words_at + 8 * words.len();
        let lent = arguments.iter().filter_map(Argument::as_bytes).map(<[u8]>::len).sum::<usize>();
        let room = self.room_for(call, bytes_at + lent)?;
        let frame = FrameLayout { at: room, words_at, bytes_at, arguments, word_count: words.len() };
        frame.write(call.place_mut(room, bytes_at + lent)?);
        let status = call.run(&self.invoke, (number, room))?;
        let answered = call.read(room, u32::try_from(bytes_at).unwrap_or(u32::MAX))?;
        for (word, bytes) in words.iter_mut().zip(answered[words_at..].chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        let field =
            |at: usize| u32::from_le_bytes([answered[at], answered[at + 1], answered[at + 2], answered[at + 3]]);
        let bytes = call.read(field(16), field(20))?;
        let text = || plugin_text(bytes, ERROR_LIMIT);
        Ok(match status {
            0 => read(&mut Answered::new(words, bytes)).map_err(CallError::from),
            1 => Err(CallError::new(CallErrorKind::Failed, text())),
            2 => Err(CallError::new(CallErrorKind::Panicked, text())),
            3 => Err(CallError::unsupported()),
            4 => Err(CallError::new(CallErrorKind::Malformed, text())),
            unknown => {
                let text = format!("the plugin answered with the unknown status {unknown}: it does not follow the ABI");
                Err(CallError::new(CallErrorKind::Malformed, text))
            }
        })
    }
}

/// A call as it is written into a module's memory, whose machine is little-endian and has 32 bits.
struct FrameLayout<'a> {
    /// The address of the frame.
    at: u32,
    words_at: usize,
    bytes_at: usize,
    arguments: &'a [Argument<'a>],
    word_count: usize,
}

impl FrameLayout<'_> {
    fn write(&self, place: &mut [u8]) {
        let FrameLayout { at, words_at, bytes_at, arguments, word_count } = *self;
        let address = |offset: usize| at + offset as u32;
        let (frame, bytes) = place.split_at_mut(bytes_at);
        let fields = [address(FRAME), arguments.len() as u32, word_count as u32, address(words_at), 0, 0, 0, 0];
        for (place, field) in frame.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let mut copied = 0;
        for (place, argument) in frame[FRAME..].chunks_exact_mut(ARGUMENT).zip(arguments) {
            let (word, len) = match (argument.as_word(), argument.as_bytes()) {
                (Some(word), _) => (word, Argument::IS_WORD),
                (None, lent) => {
                    let lent = lent.unwrap_or_default();
                    bytes[copied..][..lent.len()].copy_from_slice(lent);
                    let at = u64::from(address(bytes_at + copied));
                    copied += lent.len();
                    (at, lent.len() as u64)
                }
            };
            place[..8].copy_from_slice(&word.to_le_bytes());
            place[8..].copy_from_slice(&len.to_le_bytes());
        }
        frame[words_at..].fill(0);
    }
}

/// The reason that a packed answer points to, unless it is 0.
pub(super) fn refused(call: &Call<'_>, answer: u64) -> Result<(), String> {
    if answer == 0 {
        return Ok(());
    }
    let (ptr, len) = unpack(answer);
    Err(call.read(ptr, len).map_or_else(|error| error.to_string(), |text| plugin_text(text, ERROR_LIMIT)))
}
