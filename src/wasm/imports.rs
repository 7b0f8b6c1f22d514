//! What a module can import: the functions that every plugin gets, and those that it calls services through.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use hotslot_plugin::Argument;
use wasmtime::{Caller, Extern, Linker, Store};

use super::call_frame::{ARGUMENT, FRAME};
use super::host::{LOG_LIMIT, StoreData, guest_bytes};
use super::signature::{ImportSignatures, Signature};
use crate::host::CallErrorKind;
use crate::text::{panic_text, plugin_text};

/// How many services one instance may ask for: each takes the host's memory until the instance is gone.
const SERVICES: usize = 256;

/// Offers what the table of imports in the module's documentation says.
pub(super) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    linker.func_wrap("hotslot", "log", |mut caller: Caller<'_, StoreData>, level: u32, ptr: u32, len: u32| {
        // What is beyond the limit is not shown, so it need not be copied.
        let text = guest_bytes(&mut caller, ptr, len)?;
        let text = text[..text.len().min(LOG_LIMIT + 1)].to_vec();
        caller.data().log(level, &text);
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap("hotslot", "wall_clock", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    })?;
    linker.func_wrap("hotslot", "monotonic_clock", || {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    })?;
    linker.func_wrap("hotslot", "send", |mut caller: Caller<'_, StoreData>, ptr: u32, len: u32| {
        let Some(on_message) = caller.data().offers.on_message.clone() else { return Ok(()) };
        let message = guest_bytes(&mut caller, ptr, len)?.to_vec();
        let plugin = Arc::clone(&caller.data().plugin);
        catch_unwind(AssertUnwindSafe(|| on_message(&plugin, &message)))
            .map_err(|panic| wasmtime::Error::msg(format!("the host's on_message panicked: {}", panic_text(panic))))
    })?;
    linker.func_wrap("hotslot", "panicked", |mut caller: Caller<'_, StoreData>, ptr: u32, len: u32| {
        let text = plugin_text(guest_bytes(&mut caller, ptr, len)?, LOG_LIMIT);
        caller.data_mut().bounds.note_panic(text);
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap("hotslot", "wait", |caller: Caller<'_, StoreData>, nanoseconds: u64| {
        Ok(u32::from(caller.data().bounds.wait(Duration::from_nanos(nanoseconds))?))
    })?;
    link_services(linker)
}

/// Everything that a linker offers, for admission to compare with.
pub(super) fn offered(linker: &Linker<StoreData>, store: &mut Store<StoreData>) -> ImportSignatures {
    let functions: Vec<_> = linker
        .iter(&mut *store)
        .filter_map(|(module, name, item)| Some((module.to_owned(), name.to_owned(), item.into_func()?)))
        .collect();
    functions
        .into_iter()
        .map(|(module, name, function)| {
            let ty = function.ty(&*store);
            ((module, name), Signature::of(ty.params(), ty.results()))
        })
        .collect()
}

/// What a plugin calls services of the host through.
fn link_services(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "hotslot",
        "service",
        |mut caller: Caller<'_, StoreData>, ptr: u32, len: u32, number: u32, error: u32| {
            let contract = guest_bytes(&mut caller, ptr, len)?.to_vec();
            match caller.data().offers.services.bind(&contract) {
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
    linker.func_wrap(
        "hotslot",
        "invoke",
        |mut caller: Caller<'_, StoreData>, service: u32, method: u32, frame: u32| {
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
                    Argument::IS_WORD => OwnedArgument::Word(word),
                    len => OwnedArgument::Bytes(
                        guest_bytes(&mut caller, u32::try_from(word)?, u32::try_from(len)?)?.to_vec(),
                    ),
                });
            }
            let arguments: Vec<_> = taken
                .iter()
                .map(|taken| match taken {
                    OwnedArgument::Word(word) => Argument::word(*word),
                    OwnedArgument::Bytes(bytes) => Argument::bytes(bytes),
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
        },
    )?;
    Ok(())
}

/// An argument that was copied out of a module.
enum OwnedArgument {
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
fn put(caller: &mut Caller<'_, StoreData>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| wasmtime::Error::msg("the plugin exports no memory"))?;
    Ok(memory.write(&mut *caller, at as usize, bytes)?)
}

/// Gives bytes away, in memory that the module allocates and releases: fills the buffer at `at`.
fn give(caller: &mut Caller<'_, StoreData>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
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
