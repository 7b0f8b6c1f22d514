//! What every module can import: the table in the module's documentation.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use hotslot_plugin::Argument;
use hotslot_plugin::abi::Status;
use hotslot_plugin::abi::wire::{ARGUMENT_SIZE, FRAME_SIZE, GuestArgument, GuestFrame, OUTPUT_OFFSET, guest_argument};
use wasmtime::{Caller, Extern, Linker, Store};

use super::error::Misuse;
use super::host::{StoreData, guest_bytes, memory};
use super::signature::{HostImports, Offered, Signature};
use crate::host::{CallErrorKind, Level, PluginHost, plugin_text};
use crate::nesting::Watch;

/// How many services one instance may ask for: each takes the host's memory until the instance is gone.
const SERVICES: usize = 256;
/// How many arguments a call of a service may have, and how many words its answer.
const ARGUMENTS: u32 = 1024;
const WORDS: u32 = 64 * 1024;
/// The longest log message that is copied, in bytes: [`PluginHost::log`](crate::host::PluginHost::log) cuts it to less.
const LOG_LIMIT: usize = 8 * 1024 + 1;
/// The most texts of an event, and the size of the address and the length of one.
const EVENT_TEXTS: u32 = 16;
const SLICE_SIZE: u32 = 8;
/// The longest text of a panic, in bytes.
const PANIC_LIMIT: usize = 8 * 1024;

/// Adds the functions that every module can import.
pub(super) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    linker.func_wrap("hotslot", "log", |mut caller: Caller<'_, StoreData>, level: u32, ptr: u32, len: u32| {
        let text = guest_bytes(&mut caller, ptr, len)?;
        let text = text[..text.len().min(LOG_LIMIT)].to_vec();
        caller.data_mut().bounds.settle()?;
        caller.data().host.log(Level::of(level), None, &text);
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap("hotslot", "event", log_event)?;
    linker.func_wrap("hotslot", "log_level", PluginHost::log_level)?;
    linker.func_wrap("hotslot", "wall_clock", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    })?;
    linker.func_wrap("hotslot", "monotonic_clock", || {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    })?;
    linker.func_wrap("hotslot", "send", |mut caller: Caller<'_, StoreData>, ptr: u32, len: u32| {
        let message = guest_bytes(&mut caller, ptr, len)?.to_vec();
        caller.data_mut().bounds.settle()?;
        caller.data().host.send(&message).map_err(wasmtime::Error::msg)
    })?;
    linker.func_wrap("hotslot", "panicked", |mut caller: Caller<'_, StoreData>, ptr: u32, len: u32| {
        let text = plugin_text(guest_bytes(&mut caller, ptr, len)?, PANIC_LIMIT);
        caller.data_mut().bounds.note_panic(text);
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap("hotslot", "wait", |mut caller: Caller<'_, StoreData>, nanoseconds: u64| {
        Ok(u32::from(caller.data_mut().bounds.wait(Duration::from_nanos(nanoseconds))?))
    })?;
    linker.func_wrap("hotslot", "service", bind_service)?;
    linker.func_wrap("hotslot", "invoke", call_service)?;
    Ok(())
}

/// Writes an event of the plugin's to the log: `count` texts, whose addresses and lengths are at `texts`.
fn log_event(mut caller: Caller<'_, StoreData>, level: u32, texts: u32, count: u32) -> wasmtime::Result<()> {
    if count > EVENT_TEXTS {
        return Err(Misuse::error(format!("an event of {count} texts")));
    }
    let slices = guest_bytes(&mut caller, texts, count * SLICE_SIZE)?.to_vec();
    let mut copied = Vec::new();
    for slice in slices.chunks_exact(SLICE_SIZE as usize) {
        let word = |at: usize| u32::from_le_bytes([slice[at], slice[at + 1], slice[at + 2], slice[at + 3]]);
        let text = guest_bytes(&mut caller, word(0), word(4))?;
        copied.push(text[..text.len().min(LOG_LIMIT)].to_vec());
    }
    let texts: Vec<&[u8]> = copied.iter().map(Vec::as_slice).collect();
    caller.data_mut().bounds.settle()?;
    caller.data().host.log_event(Level::of(level), &texts);
    Ok(())
}

/// Lists the functions that a linker offers, for admission to compare a module's imports with.
pub(super) fn signatures(linker: &Linker<StoreData>, store: &mut Store<StoreData>) -> HostImports {
    let functions: Vec<_> = linker
        .iter(&mut *store)
        .filter_map(|(module, name, item)| Some((module.to_owned(), name.to_owned(), item.into_func()?)))
        .collect();
    functions
        .into_iter()
        .map(|(module, name, function)| {
            let ty = function.ty(&*store);
            ((module, name), Offered::Function(Signature::of(ty.params(), ty.results())))
        })
        .collect()
}

/// Finds the service whose contract is at `ptr`, and writes its number to `number`; or why there is none to the buffer
/// at `error`.
fn bind_service(
    mut caller: Caller<'_, StoreData>,
    ptr: u32,
    len: u32,
    number: u32,
    error: u32,
) -> wasmtime::Result<i32> {
    let contract = guest_bytes(&mut caller, ptr, len)?.to_vec();
    match caller.data().host.service(&contract) {
        Ok(service) => {
            let services = &mut caller.data_mut().given.services;
            if services.len() == SERVICES {
                return Err(Misuse::error("the plugin asks for services again and again"));
            }
            services.push(Arc::new(service));
            let found = u32::try_from(services.len() - 1)?;
            write(&mut caller, number, &found.to_le_bytes())?;
            Ok(Status::OK.0)
        }
        Err(reason) => {
            give(&mut caller, error, reason.to_string().as_bytes())?;
            Ok(Status::FAILED.0)
        }
    }
}

/// Calls a method of a service: the frame at `frame` has the arguments, and gets the answer.
fn call_service(mut caller: Caller<'_, StoreData>, service: u32, method: u32, frame_at: u32) -> wasmtime::Result<i32> {
    let Some(service) = caller.data().given.services.get(service as usize).cloned() else {
        return Ok(Status::UNSUPPORTED.0);
    };
    let frame = GuestFrame::read(guest_bytes(&mut caller, frame_at, FRAME_SIZE as u32)?);
    let frame = frame.ok_or_else(|| Misuse::error("a frame of a service's call is cut short"))?;
    if frame.argument_count > ARGUMENTS || frame.word_count > WORDS {
        return Err(Misuse::error("a call of a service has too many arguments"));
    }
    let arguments = copy_arguments(&mut caller, &frame)?;
    let arguments: Vec<_> = arguments.iter().map(OwnedArgument::lend).collect();
    let mut words = vec![0; frame.word_count as usize];
    caller.data_mut().bounds.settle()?;
    let watch = Watch::begin();
    let (status, bytes) = match service.call(method, &arguments, &mut words) {
        Ok(bytes) => (Status::OK, bytes),
        // The service could not read its arguments. If it had called a plugin, it might be that one's answer.
        Err(error) if error.kind() == CallErrorKind::Malformed && !watch.saw_a_call() => {
            return Err(Misuse::error(format!("the arguments of a service's call cannot be read: {error}")));
        }
        Err(error) => (Status::of(error.kind()), error.to_wire()),
    };
    let words: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    write(&mut caller, frame.words, &words)?;
    give(&mut caller, frame_at.saturating_add(OUTPUT_OFFSET as u32), &bytes)?;
    Ok(status.0)
}

/// An argument that was copied out of a module's memory.
enum OwnedArgument {
    Word(u64),
    Bytes(Vec<u8>),
}

impl OwnedArgument {
    fn lend(&self) -> Argument<'_> {
        match self {
            OwnedArgument::Word(word) => Argument::word(*word),
            OwnedArgument::Bytes(bytes) => Argument::bytes(bytes),
        }
    }
}

fn copy_arguments(caller: &mut Caller<'_, StoreData>, frame: &GuestFrame) -> wasmtime::Result<Vec<OwnedArgument>> {
    let raw = guest_bytes(caller, frame.arguments, frame.argument_count * ARGUMENT_SIZE as u32)?;
    let arguments: Vec<_> = raw.chunks_exact(ARGUMENT_SIZE).filter_map(guest_argument).collect();
    // The same bytes can be lent many times over, and each time they are copied.
    let lent = arguments.iter().fold(0_u64, |sum, argument| match argument {
        GuestArgument::Word(_) => sum,
        GuestArgument::Bytes { len, .. } => sum.saturating_add(*len),
    });
    let memory = memory(caller);
    if lent > memory.map_or(0, |memory| memory.data_size(&*caller) as u64) {
        return Err(Misuse::error("a call of a service lends more bytes than the plugin's memory has"));
    }
    let mut copied = Vec::with_capacity(arguments.len());
    for argument in arguments {
        copied.push(match argument {
            GuestArgument::Word(word) => OwnedArgument::Word(word),
            GuestArgument::Bytes { address, len } => {
                let (Ok(address), Ok(len)) = (u32::try_from(address), u32::try_from(len)) else {
                    return Err(Misuse::error("an argument is outside the plugin's memory"));
                };
                let bytes = guest_bytes(caller, address, len)?;
                OwnedArgument::Bytes(bytes.to_vec())
            }
        });
    }
    Ok(copied)
}

/// Writes into the module's memory.
fn write(caller: &mut Caller<'_, StoreData>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let memory = memory(caller).ok_or_else(|| Misuse::error("the plugin exports no memory"))?;
    let out_of_bounds = |_| Misuse::error(format!("{} bytes at {at:#x} are outside the plugin's memory", bytes.len()));
    memory.write(&mut *caller, at as usize, bytes).map_err(out_of_bounds)
}

/// Gives bytes away, in memory that the module allocates and releases: fills the buffer at `at`.
fn give(caller: &mut Caller<'_, StoreData>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let len = u32::try_from(bytes.len())?;
    let data = if bytes.is_empty() {
        0
    } else {
        let alloc = caller.get_export("hotslot_give").and_then(Extern::into_func);
        let alloc = alloc.ok_or_else(|| Misuse::error("the plugin exports no function `hotslot_give`"))?;
        let alloc = alloc.typed::<u32, u32>(&mut *caller);
        let alloc = alloc.map_err(|_| Misuse::error("the plugin's function `hotslot_give` is not `(i32) -> i32`"))?;
        let data = alloc.call(&mut *caller, len)?;
        write(caller, data, bytes)?;
        data
    };
    write(caller, at, &[data.to_le_bytes(), len.to_le_bytes()].concat())
}
