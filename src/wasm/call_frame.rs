//! A module's plugin behind the trait of a declared interface: the counterpart of what `hotslot_plugin::export!` writes
//! for `wasm32`.
//!
//! The host writes a call as one piece into room that the module gives: a frame, its arguments, room for the answer's
//! words, and the bytes that the arguments lend. After the call the frame says where the answer's bytes are.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use hotslot_plugin::{Argument, Link, Malformed, Reply, Stop, Transport};
use wasmtime::{Caller, Extern, Linker};

use super::binder::{Binder, Call, Func, unpack};
use super::error::CallError;
use super::host::{Host, guest_bytes};
use super::limits::CallOptions;
use super::plugin::WasmPlugin;
use crate::host::{CallError as Failure, CallErrorKind, Numbers};
use crate::text::plugin_text;
use crate::{BoxError, State, Stateful};

/// What a module of a declared interface exports: its contract promises it.
pub(super) const EXPORTS: [(&str, &str); 5] = [
    ("hotslot_create", "(i32) -> i64"),
    ("hotslot_room", "(i32) -> i32"),
    ("hotslot_invoke", "(i32, i32) -> i32"),
    ("hotslot_give", "(i32) -> i32"),
    ("hotslot_run", "() -> i64"),
];

/// How many services one instance may ask for: each takes the host's memory until the instance is gone.
const SERVICES: usize = 256;

/// The longest error text that is taken from a plugin, in bytes.
const ERROR_LIMIT: usize = 8 * 1024;

/// What a [`Frame`](hotslot_plugin::abi::Frame) is for a machine of 32 bits: four words of it, and a buffer of four.
const FRAME: usize = 32;
/// What an [`Argument`] is on every machine.
const ARGUMENT: usize = 16;

/// A plugin's functions, for one instance of it.
pub struct Guest {
    room: Func<u32, u32>,
    invoke: Func<(u32, u32), i32>,
    run: Func<(), u64>,
    /// The room that there is: its address, and its size.
    place: Cell<(u32, u32)>,
}

impl Guest {
    /// Looks the functions up, and makes the plugin.
    pub(super) fn bind(binder: &mut Binder<'_>) -> Result<Guest, CallError> {
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
        refused(&call, refusal).map_err(|reason| CallError::failed(format!("the plugin cannot be made: {reason}")))?;
        Ok(guest)
    }

    /// Room for `len` bytes, which is asked for only if there is less.
    fn room_for(&self, call: &mut Call<'_>, len: usize) -> Result<u32, CallError> {
        /// Most calls fit, so that most instances are asked once.
        const FIRST: u32 = 2 * 1024;
        let wanted = u32::try_from(len).map_err(|_| CallError::failed("a call of more than 4 GiB"))?;
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
    fn call<R>(
        &self,
        call: &mut Call<'_>,
        number: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<Result<R, Failure>, CallError> {
        let words_at = FRAME + ARGUMENT * arguments.len();
        let bytes_at = words_at + 8 * words.len();
        let lent = arguments.iter().filter_map(Argument::as_bytes).map(<[u8]>::len).sum::<usize>();
        let room = self.room_for(call, bytes_at + lent)?;
        let frame = Written { at: room, words_at, bytes_at, arguments, word_count: words.len() };
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
            0 => read(&mut Reply::new(words, bytes)).map_err(Failure::from),
            1 => Err(Failure::new(CallErrorKind::Failed, text())),
            2 => Err(Failure::new(CallErrorKind::Panicked, text())),
            3 => Err(Failure::unsupported()),
            4 => Err(Failure::new(CallErrorKind::Malformed, text())),
            unknown => {
                let text = format!("the plugin answered with the unknown status {unknown}: it does not follow the ABI");
                Err(Failure::new(CallErrorKind::Malformed, text))
            }
        })
    }
}

/// A call as it is written into a module's memory, whose machine is little-endian and has 32 bits.
struct Written<'a> {
    /// The address of the frame.
    at: u32,
    words_at: usize,
    bytes_at: usize,
    arguments: &'a [Argument<'a>],
    word_count: usize,
}

impl Written<'_> {
    fn write(&self, place: &mut [u8]) {
        let Written { at, words_at, bytes_at, arguments, word_count } = *self;
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
fn refused(call: &Call<'_>, answer: u64) -> Result<(), String> {
    if answer == 0 {
        return Ok(());
    }
    let (ptr, len) = unpack(answer);
    Err(call.read(ptr, len).map_or_else(|error| error.to_string(), |text| plugin_text(text, ERROR_LIMIT)))
}

/// The way to one plugin.
pub(super) struct WasmLink {
    plugin: WasmPlugin<Guest>,
    /// The plugin's numbers of the host's methods.
    numbers: Numbers,
}

impl WasmLink {
    pub(super) fn new(plugin: WasmPlugin<Guest>, numbers: Numbers) -> WasmLink {
        WasmLink { plugin, numbers }
    }
}

impl Transport for WasmLink {
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, Failure> {
        let Some(number) = self.numbers.get(method) else { return Err(Failure::unsupported()) };
        let answer = self.plugin.call(|guest, call| guest.call(call, number, arguments, words, read))?;
        if let Err(error) = &answer
            && error.kind() == CallErrorKind::Malformed
        {
            self.plugin.failures.report_failure(error);
        }
        answer
    }
}

impl Link for WasmLink {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, BoxError> {
        Ok(self.plugin.save()?.map(|State { schema, bytes }| (schema, bytes)))
    }

    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), BoxError> {
        self.plugin.restore(&State { schema: schema.to_owned(), bytes: state.to_vec() })
    }

    /// It takes as long as it takes: the stop signal ends it, and the drain timeout after that.
    fn run(&self, _: &Stop) -> Result<(), BoxError> {
        let forever = CallOptions::new().deadline(Duration::MAX);
        let outcome = self.plugin.call_with(&forever, |guest, call| {
            let refusal = call.run(&guest.run, ())?;
            Ok(refused(call, refusal))
        })?;
        Ok(outcome?)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        let kind = match &error {
            CallError::Trapped { .. } => CallErrorKind::Panicked,
            CallError::DeadlineExceeded(_) => CallErrorKind::DeadlineExceeded,
            CallError::Retired => CallErrorKind::Retired,
            CallError::Saturated { .. } => CallErrorKind::Saturated,
            CallError::OutOfMemory { .. } | CallError::OutOfTable { .. } => CallErrorKind::OutOfMemory,
            CallError::OutOfBounds { .. } | CallError::Unbound(_) => CallErrorKind::Malformed,
            // What `create` answered, for an instance that had to be made first.
            CallError::Failed(_) => CallErrorKind::Failed,
            _ => CallErrorKind::Unavailable,
        };
        Failure::new(kind, error.to_string())
    }
}

/// What a plugin calls services of the host through.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "hotslot",
        "service",
        |mut caller: Caller<'_, Host>, ptr: u32, len: u32, number: u32, error: u32| {
            let contract = guest_bytes(&mut caller, ptr, len)?.to_vec();
            match caller.data().offers.services.bind(&contract, &crate::PluginScope::new()) {
                Ok(bound) => {
                    let host = caller.data_mut();
                    if host.bound.len() == SERVICES {
                        return Err(wasmtime::Error::msg("the plugin asks for services again and again"));
                    }
                    host.bound.push(Arc::new(bound));
                    let found = u32::try_from(host.bound.len() - 1)?;
                    put(&mut caller, number, &found.to_le_bytes())?;
                    wasmtime::Result::Ok(0)
                }
                Err(reason) => {
                    give(&mut caller, error, reason.to_string().as_bytes())?;
                    Ok(1)
                }
            }
        },
    )?;
    linker.func_wrap("hotslot", "invoke", |mut caller: Caller<'_, Host>, service: u32, method: u32, frame: u32| {
        let Some(bound) = caller.data().bound.get(service as usize).cloned() else {
            return wasmtime::Result::Ok(3);
        };
        let fields = numbers(guest_bytes(&mut caller, frame, FRAME as u32)?);
        let [arguments_at, argument_count, word_count, words_at, ..] = fields;
        if argument_count > 1024 || word_count > 64 * 1024 {
            return Err(wasmtime::Error::msg("a call of a service has too many arguments"));
        }
        let raw = guest_bytes(&mut caller, arguments_at, argument_count * ARGUMENT as u32)?.to_vec();
        let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        // The same bytes can be lent many times over, and each time they are copied.
        let lent =
            raw.chunks_exact(ARGUMENT).map(|argument| half(&argument[8..])).filter(|&len| len != Argument::IS_WORD);
        let memory = caller.get_export("memory").and_then(Extern::into_memory);
        if lent.fold(0, u64::saturating_add) > memory.map_or(0, |memory| memory.data_size(&caller) as u64) {
            return Err(wasmtime::Error::msg("a call of a service lends more bytes than the plugin's memory has"));
        }
        let mut taken = Vec::new();
        for argument in raw.chunks_exact(ARGUMENT) {
            let (word, len) = (half(&argument[..8]), half(&argument[8..]));
            taken.push(match len {
                Argument::IS_WORD => Taken::Word(word),
                len => Taken::Bytes(guest_bytes(&mut caller, u32::try_from(word)?, u32::try_from(len)?)?.to_vec()),
            });
        }
        let arguments: Vec<_> = taken
            .iter()
            .map(|taken| match taken {
                Taken::Word(word) => Argument::word(*word),
                Taken::Bytes(bytes) => Argument::bytes(bytes),
            })
            .collect();
        let mut words = vec![0; word_count as usize];
        let (status, bytes) = match bound.call(method, &arguments, &mut words) {
            Ok(bytes) => (0, bytes),
            Err(error) => (status(error.kind()), error.to_string().into_bytes()),
        };
        let words: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        put(&mut caller, words_at, &words)?;
        give(&mut caller, frame + 16, &bytes)?;
        Ok(status)
    })?;
    Ok(())
}

/// An argument that was copied out of a module.
enum Taken {
    Word(u64),
    Bytes(Vec<u8>),
}

fn status(kind: CallErrorKind) -> i32 {
    match kind {
        CallErrorKind::Panicked => 2,
        CallErrorKind::Unsupported => 3,
        CallErrorKind::Malformed => 4,
        _ => 1,
    }
}

fn numbers(frame: &[u8]) -> [u32; 8] {
    std::array::from_fn(|at| {
        let bytes = frame.get(at * 4..at * 4 + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    })
}

/// Writes into the module's memory.
fn put(caller: &mut Caller<'_, Host>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| wasmtime::Error::msg("the plugin exports no memory"))?;
    Ok(memory.write(&mut *caller, at as usize, bytes)?)
}

/// Gives bytes away, in memory that the module allocates and releases: fills the buffer at `at`.
fn give(caller: &mut Caller<'_, Host>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let len = u32::try_from(bytes.len())?;
    let data = if bytes.is_empty() {
        0
    } else {
        let alloc = caller.get_export("hotslot_give").and_then(Extern::into_func);
        let alloc = alloc.ok_or_else(|| wasmtime::Error::msg("the plugin exports no function `hotslot_give`"))?;
        let data = alloc.typed::<u32, u32>(&mut *caller)?.call(&mut *caller, len)?;
        put(caller, data, bytes)?;
        data
    };
    put(caller, at, &[data.to_le_bytes(), len.to_le_bytes()].concat())
}
