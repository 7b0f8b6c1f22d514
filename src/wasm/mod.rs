//! Plugins that are WebAssembly modules: sandboxed, limited, and compiled when they are loaded.
//!
//! An [`Engine`] makes a [`Backend`](crate::Backend) for each slot: [`Engine::interface`] for a
//! [declared interface](crate::host), [`Engine::bind`] with a closure of yours that turns an instance into a struct of typed
//! functions. By default every call gets an instance of its own.
//!
//! ```
//! use hotslot::HotSlot;
//! use hotslot::wasm::{GuestBuffer, WasmCallError, Func, Engine, WasmPlugin};
//!
//! struct Rules {
//!     request: GuestBuffer,
//!     inspect: Func<(u32, u32), u32>,
//! }
//!
//! let engine = Engine::new()?;
//! let backend = engine
//!     .bind(|plugin| Ok(Rules { request: plugin.buffer("request")?, inspect: plugin.func("inspect")? }))
//!     .require_interface("rules/1")
//!     .require_export("inspect", "(i32, i32) -> i32");
//!
//! # let read = |answer: u32| wat::parse_str(format!(r#"(module
//! #     (@custom "version" "1.{answer}.0")
//! #     (@custom "hotslot.manifest" "name=rules\ninterface=rules/1")
//! #     (memory (export "memory") 1)
//! #     (func (export "request") (result i64) (i64.const 0x1000))
//! #     (func (export "inspect") (param i32 i32) (result i32) (i32.const {answer})))"#));
//! # let (first, second) = (read(0)?, read(1)?);
//! let slot: HotSlot<WasmPlugin<Rules>> = HotSlot::builder(backend).open(first)?; // the bytes of a `.wasm` file
//!
//! let inspect = |request: &[u8]| {
//!     slot.load().call(|rules, call| {
//!         let (ptr, len) = call.write(&rules.request, request)?;
//!         call.run(&rules.inspect, (ptr, len))
//!     })
//! };
//! assert_eq!(inspect(b"GET / HTTP/1.1")?, 0);
//! slot.reload(second)?; // in-flight calls finish on the old version
//! assert_eq!(inspect(b"GET / HTTP/1.1")?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Trust
//! A module is untrusted. It can compute in its own memory and call what the host offers, and nothing else; its time,
//! memory, tables, stack and compilation are limited, and every address and text that it gives is checked. What is
//! trusted is [`wasmtime`], and the functions that you [link](WasmBackend::link).
//!
//! The engine handles the signals `SIGSEGV`, `SIGILL` and `SIGFPE` of the process, and passes on those that its code did
//! not cause.
//!
//! # Faults and remedies
//!
//! | Fault | What would happen | Remedy | Where |
//! |---|---|---|---|
//! | garbage, a truncated or a wrong module | an error deep in a compiler | one pass before it: validation, required exports, allowed imports, interface, versions; every refusal says what and where | `validate`, `sections`, `admission` |
//! | a serde type whose fields changed on one side | a value is read as another one | the contract describes types down to the field; refused by type and field | `sections`, `admission` |
//! | a module made to be hard to compile | minutes and gigabytes for a few KB | [`ModuleLimits`], before anything is compiled: bytes and counts, and what a compiler's work grows with | `validate`, `effort` |
//! | what is still hard to compile | the host's memory and processors, for as long as it takes | a child process [compiles](EngineBuilder::compile_in_child), under limits of address space, processor time, time and output; it is killed when its attempt is over | `compile_child`, `child` |
//! | code that comes back from a child cut short, or is somebody else's output | it is run | a MAC with a key that only this child got; then sealed here, and only that is loaded | `compile_child`, `seal` |
//! | many instances, each within its limits | together they are all of the host's memory | a [budget](EngineBuilder::memory_budget) of the engine; idle instances and warm generations give theirs up first, and the refusal says who has the rest | `budget`, `account`, `engine` |
//! | proposals that nobody asked for | 64-bit memories, threads and so on by default | not enabled | `validate`, `engine` |
//! | an endless loop, also in `start` | the thread is lost | a deadline that begins before the instance is made; each call checks its own, every tick | `limits`, `host`, `engine` |
//! | one instruction that works on all of the memory, which nothing interrupts | a call overruns its deadline | the [default](CallLimits::memory) is so small that it takes a tenth of a second at the most | `limits` |
//! | ending one call ends others | neighbours on the same engine are killed, too | each call checks *its own* deadline, caller and generation | `limits`, `host` |
//! | a replaced plugin does not finish its calls | its memory is never freed | after the slot's `drain_timeout` its calls are ended, and its memory is freed | `limits`, `instances` |
//! | a memory or a table bomb | the host runs out of memory | [`CallLimits`]; a refused growth is an error inside the plugin, and a typed one outside | `limits` |
//! | endless recursion | the thread's stack overflows, which ends the process | a [limit](EngineBuilder::stack) of its own, below that of ordinary threads | `engine` |
//! | a plugin calls a function of the host that calls the plugin, and so on | the thread's stack overflows | how deep calls are nested, and on Linux how much stack is left, is checked before each; the refusal is not held against the plugin | `binder`, `instances`, `nesting.rs` |
//! | one request sees another one's data | a leak | a fresh instance for every call, unless another [policy](InstancePolicy) is set | `instances` |
//! | more calls than instances | an error of the allocator | a permit in front, and [`WasmCallError::Saturated`] | `permits`, `instances` |
//! | warm generations hold the places of those to come | a reload is refused though nothing runs | they give their idle instances up first, with their state saved; the error says who has the rest | `engine`, `instances` |
//! | no address space for a pool | no engine | falls back to allocation on demand automatically | `engine` |
//! | an answer that is gigabytes once it is read, or nested without an end | the host runs out of memory, time or stack | [`CallLimits::answer`], and the memory and the depth of values of serde are counted while they are read | `call_frame`, `hotslot-plugin` |
//! | an address or a text for a function of the host that is none | the host's error, or nobody's | it ends the call as the plugin's fault, and counts in its probation | `host`, `imports` |
//! | an answer that points anywhere | a panic, or foreign bytes | every address is checked against the plugin's memory | `binder`, `host`, `imports` |
//! | an instance in an unknown state after a trap | wrong answers | it is dropped, whatever the policy | `instances` |
//! | a compiled module of unknown origin | its machine code runs | only what this user's engine has written is loaded: a keyed MAC in a private directory | `seal`, `disk_cache` |
//! | a cache directory that is full, mounted for reading only, or shared with another process number 1 | no start, or a lost entry | what can be read is used, the rest is compiled; said once, and in the status | `disk_cache` |
//! | a cache entry that is cut short or damaged | a crash, or no start | skipped, counted, removed and compiled again | `disk_cache` |
//! | a compiled function that another one is taken for, or of unknown origin | its machine code runs | functions are found by a SHA-256 over all that their code is made from; those on disk count with a MAC, and children have no part in it | `function_cache`, `function_packs`, `seal` |
//! | many compilations at once | every core is busy | one at a time, on a [bounded number](EngineBuilder::compile_threads) of threads | `compile` |
//! | a compilation that takes long | every slot waits for it | others go on beside it; a slot has two at once at the most, and what it has abandoned in the queue is dropped | `compile_queue` |
//! | a plugin that logs in a loop | the host's log is full of it | 500 lines a second of a generation; the rest is dropped, and counted | `host` |
//! | terminal control characters in a plugin's texts | they take over the terminal, or forge log lines | control characters are escaped | `imports`, `error` |
//! | a plugin makes the host reload its slot, from a function that it calls | the reload waits for itself | what the plugin's code calls runs inside of its [scope](crate::PluginScope), where the slot refuses it | `binder`, `instances` |
//!
//! # Manifest
//! A module's version is in the custom section `version`, as plain text, where `wasm-metadata` and the tools around it
//! write it. The rest is in a section `hotslot.manifest`: lines of `key=value`, with the keys `name`, `interface` and
//! `schema`. In Rust:
//!
//! ```
//! #[used]
//! #[unsafe(link_section = "version")]
//! static VERSION: [u8; 5] = *b"1.4.0";
//! #[used]
//! #[unsafe(link_section = "hotslot.manifest")]
//! static MANIFEST: [u8; 29] = *b"name=rules\ninterface=rules/1\n";
//! ```
//!
//! # Start
//! Where a module has a `start` function or exports `_initialize` (a *reactor*, as WASI's toolchains call a library), both
//! run once in every new instance, before anything else and under the deadline of the call. One that exports `_start` is
//! a command, and is refused unless `_start` is [required](WasmBackend::require_export). The module's memory can be
//! exported under any name.
//!
//! # Imports
//! A module can import what is linked, and these:
//!
//! | module, name | signature | |
//! |---|---|---|
//! | `hotslot`, `log` | `(i32, i32, i32)` | level (1 error to 5 trace), address and length of a text; written to `tracing` |
//! | `hotslot`, `event` | `(i32, i32, i32)` | level, address and number of texts, each an address and a length of 32 bits: target, message, fields, spans; written to `tracing` |
//! | `hotslot`, `log_level` | `() -> i32` | the most verbose level that anybody in the host listens to, 0 for none |
//! | `hotslot`, `wall_clock` | `() -> i64` | nanoseconds since 1970 |
//! | `hotslot`, `monotonic_clock` | `() -> i64` | nanoseconds since a fixed moment, never decreasing |
//! | `hotslot`, `send` | `(i32, i32)` | address and length of a message for [`on_message`](WasmBackend::on_message) |
//! | `hotslot`, `panicked` | `(i32, i32)` | address and length of the text of a panic, before the trap |
//! | `hotslot`, `wait` | `(i64) -> i32` | waits so many nanoseconds, or less if the plugin has to stop; returns 1 if it has |
//! | `hotslot`, `service`, `invoke` | | what `hotslot-plugin` calls [services](WasmBackend::service) of the host through |
//!
//! Memories, tables and globals can be [offered](WasmBackend::offer_memory), too: each instance gets its own.
//!
//! A function that is linked is the same for all instances. What it keeps for one of them is the
//! [state of the instance](WasmBackend::instance_state), and what a caller brings along is the
//! [state of the call](CallOptions::state).
//!
//! # A declared interface in another language
//! For Rust, `hotslot_plugin::export!` writes the exports and sections of a module. In another language the module has
//! to export a `memory` and these functions, and `cargo hotslot describe` adds the sections:
//!
//! | name | signature | |
//! |---|---|---|
//! | `hotslot_create` | `(i32) -> i64` | creates the plugin, with so many bytes of configuration in the room; returns 0, or an error text with its address in the upper half and its length in the lower half |
//! | `hotslot_room` | `(i32) -> i32` | returns the address of room for so many bytes, aligned to 8, which stays valid until more is asked for |
//! | `hotslot_invoke` | `(i32, i32) -> i32` | calls a method, by its number in the contract and the address of a [frame](hotslot_plugin::abi::Frame) in the room; returns a [status](hotslot_plugin::abi::Status), with the answer's words and bytes in the frame |
//! | `hotslot_give` | `(i32) -> i32` | allocates so many bytes, for the answer of a service of the host |
//! | `hotslot_resume` | `() -> i64` | need not be there: runs first in an instance that [continues from a snapshot](WasmBackend::preinitialize); returns what `hotslot_create` does |
//! | `hotslot_run` | `() -> i64` | runs until `wait` says to stop; returns what `hotslot_create` does |
//!
//! # State
//! A plugin whose manifest names a `schema` can hand its state over to its successor with
//! [`transfer_state`](crate::transfer_state). It exports:
//!
//! | name | signature | |
//! |---|---|---|
//! | `hotslot_save` | `() -> i64` | returns the state: its address in the upper half, its length in the lower half |
//! | `hotslot_alloc` | `(i32) -> i32` | allocates so many bytes for a state; returns their address, or 0 |
//! | `hotslot_restore` | `(i32, i32, i32) -> i64` | restores a state: the address of the schema's name, with the state right after it, and the lengths of both; returns 0, or an error text, packed as above |
//!
//! With a [single](InstancePolicy::Single) instance the state is that instance's. With several, it is what each of them
//! starts from, and changes that calls make are lost with the instance.
//!
//! # Limits
//! - Only core modules are loaded, not components.
//! - Calls are synchronous, on the caller's thread. An asynchronous host makes them where it may block, and can
//!   [cancel](CallOptions::cancel) them.
//! - A deadline ends the plugin's code, not a function of the host that it has called.
//! - A compilation in this process is bounded by [`ModuleLimits`], not by a timeout: one that outlasts the slot's
//!   `reload_timeout` runs to its end, and its result is cached for the next attempt. One [in a
//!   child](EngineBuilder::compile_in_child) ends there.

mod account;
mod admission;
mod backend;
mod binder;
mod budget;
mod builder;
mod call_frame;
mod code;
mod compile;
mod compile_child;
mod compile_queue;
mod config;
mod disk_cache;
mod effort;
mod engine;
mod error;
mod exports;
mod function_cache;
mod function_packs;
mod host;
mod idle;
mod imports;
mod inspect;
mod instances;
mod limits;
mod link;
mod module_limits;
mod offered;
mod parked;
mod permits;
mod plugin;
mod seal;
mod sections;
mod signature;
mod snapshot;
mod state;
mod validate;

pub use backend::{PluginType, WasmBackend};
pub use binder::{Binder, Call, Func, GuestBuffer};
#[cfg(feature = "winch")]
pub use builder::DangerousEngineBuilder;
pub use builder::EngineBuilder;
pub use compile::DiskCacheStatus;
pub use compile_child::CompileLimits;
pub(crate) use compile_child::compilation_role;
pub use engine::{Allocation, Engine, EngineStatus, Holder};
pub use error::{CompileError, EngineError, HostFailure, ModuleError, WasmCallError};
pub use host::{StoreData, guest_bytes, guest_str};
pub(crate) use inspect::inspect;
pub use instances::InstancePolicy;
pub use limits::{CallLimits, CallOptions};
pub use module_limits::ModuleLimits;
pub use plugin::WasmPlugin;
pub use snapshot::{Snapshot, SnapshotStatus};
/// The engine underneath, for functions of the host: `Caller`, `Linker`, and its errors.
pub use wasmtime;
