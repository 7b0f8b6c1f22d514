//! Plugins that are WebAssembly modules: contained, limited, and compiled on the spot.
//!
//! A [`Engine`] is an engine; [`Engine::plugins`] makes a [`Backend`](crate::Backend) of it, with a binder of yours that
//! turns an instance into a struct of typed functions. Every call gets an instance of its own.
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
//! slot.reload(second)?; // calls that are inside finish with what they had
//! assert_eq!(inspect(b"GET / HTTP/1.1")?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Trust
//! A module can do nothing but compute, in its own memory, and call what the host offers. It need not be trusted with
//! more than that: what it costs in time, memory, tables, stack and compilation is limited, and what it says is checked
//! before it is believed. What is trusted is [`wasmtime`], and the functions that you [link](WasmBackend::link).
//!
//! The engine handles the signals `SIGSEGV`, `SIGILL` and `SIGFPE` of the process, and passes on those that are not
//! about its code.
//!
//! # Faults, and what is done about them
//!
//! | Fault | What would happen | Remedy | Where |
//! |---|---|---|---|
//! | garbage, a truncated or a wrong module | an error deep in a compiler | one pass before it: valid, required exports, allowed imports, interface, versions; every refusal says what and where | `checks`, `sections` |
//! | a module made to be hard to compile | half a minute and gigabytes | [`ModuleLimits`], before anything is compiled | `checks` |
//! | proposals that nobody asked for | 64-bit memories, threads and so on by default | off | `checks`, `engine` |
//! | an endless loop, also in `start` | the thread is gone | a deadline that begins before there is an instance; each call is looked at on its own, every tick | `limits`, `engine` |
//! | ending one call ends others | neighbours on the same engine are killed, too | a look at *this* call's deadline, caller and generation | `limits` |
//! | a replaced plugin does not let go of its calls | its memory stays for ever | after the slot's `drain_timeout` its calls are ended, and its memory is freed | `limits`, `instances` |
//! | a memory or a table bomb | the host's memory | [`CallLimits`]; what is refused is an error inside the plugin, and typed outside | `limits` |
//! | endless recursion | the thread's stack overflows, which ends the process | a [limit](EngineBuilder::stack) of its own, below that of ordinary threads | `engine` |
//! | one request sees another one's data | a leak | a fresh instance for every call, unless it is [asked for otherwise](InstancePolicy) | `instances` |
//! | more calls than instances | an error of the allocator | a permit in front, and [`WasmCallError::Saturated`] | `permits`, `instances` |
//! | no address space for a pool | no engine | on demand, by itself | `engine` |
//! | an answer that points anywhere | a panic, or foreign bytes | every address is held against the plugin's memory | `binder`, `host` |
//! | an instance in an unknown state after a trap | wrong answers | it is dropped, whatever the policy | `instances` |
//! | a compiled module from who knows where | its machine code runs | nothing is loaded that this user's engine has not written: a keyed MAC in a private folder | `cache` |
//! | a cache entry that is cut short or damaged | a crash, or no start | skipped, counted, removed and compiled again | `cache` |
//! | many compilations at once | every core is busy | one at a time, on a [bounded number](EngineBuilder::compile_threads) of threads | `compile` |
//! | escape codes in a plugin's texts | they steer the terminal, or forge log lines | control characters are written out | `host`, `error` |
//!
//! # What a module says of itself
//! Its version is in the custom section `version`, as plain text, where `wasm-metadata` and the tools around it write
//! it. The rest is in a section `hotslot.manifest`: lines of `key=value`, with the keys `name`, `interface` and
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
//! # Imports
//! A module can import what is linked, and these:
//!
//! | module, name | signature | |
//! |---|---|---|
//! | `hotslot`, `log` | `(i32, i32, i32)` | level (1 error to 5 trace), address and length of a text; goes to `tracing` |
//! | `hotslot`, `wall_clock` | `() -> i64` | nanoseconds since 1970 |
//! | `hotslot`, `monotonic_clock` | `() -> i64` | nanoseconds since some moment, never going back |
//! | `hotslot`, `send` | `(i32, i32)` | address and length of a message for [`on_message`](WasmBackend::on_message) |
//! | `hotslot`, `panicked` | `(i32, i32)` | address and length of a text that says why the plugin is about to trap |
//! | `hotslot`, `wait` | `(i64) -> i32` | waits so many nanoseconds, or less if the plugin has to stop; 1 if it has |
//! | `hotslot`, `service`, `invoke` | | what `hotslot-plugin` calls [services](WasmBackend::service) of the host through |
//!
//! # A declared interface in another language
//! What `hotslot_plugin::export!` writes for a module in Rust, another compiler's module brings by itself. Its sections
//! are added with `cargo hotslot describe`; the contract among them promises a `memory`, and these exports:
//!
//! | name | signature | |
//! |---|---|---|
//! | `hotslot_create` | `(i32) -> i64` | makes the plugin, with so many bytes of configuration in the room; answers 0, or an error text, its address in the upper half and its length in the lower |
//! | `hotslot_room` | `(i32) -> i32` | the address of room for so many bytes, aligned to 8, which stays until more is asked for |
//! | `hotslot_invoke` | `(i32, i32) -> i32` | a method's number in the contract, and the address of a [frame](hotslot_plugin::abi::Frame) in the room; answers a [status](hotslot_plugin::abi::Status), with the answer's words and bytes in the frame |
//! | `hotslot_give` | `(i32) -> i32` | memory for so many bytes that a service of the host answers with |
//! | `hotslot_run` | `() -> i64` | runs until `wait` says to stop; answers as `hotslot_create` |
//!
//! # State
//! A plugin whose manifest names a `schema` hands its state over to its successor with
//! [`transfer_state`](crate::transfer_state). It exports:
//!
//! | name | signature | |
//! |---|---|---|
//! | `hotslot_save` | `() -> i64` | the state: its address in the upper half, its length in the lower |
//! | `hotslot_alloc` | `(i32) -> i32` | the address of room for so many bytes, or 0 |
//! | `hotslot_restore` | `(i32, i32, i32) -> i64` | takes a state: the address of the schema's name, with the state right after it, and the lengths of both; answers 0, or an error text, address and length packed as above |
//!
//! With a [single](InstancePolicy::Single) instance the state is that instance's. With several, it is what each of them
//! begins with: what calls change is not kept.
//!
//! # Limits
//! - Only core modules are taken, not components.
//! - Calls are synchronous, on the caller's thread. An asynchronous host makes them where it may block, and gives them a
//!   [signal](CallOptions::cancel) to raise when it does not want the answer any more.
//! - A deadline ends the plugin's code, not a function of the host that the plugin is inside of.
//! - How long a compilation may take is up to [`ModuleLimits`]: one that the slot's `reload_timeout` has given up on goes
//!   on to its end, and its result is kept for the next attempt.

mod admission;
mod backend;
mod binder;
mod builder;
mod call_frame;
mod code;
mod compile;
mod disk_cache;
mod engine;
mod error;
mod exports;
mod host;
mod imports;
mod inspect;
mod instances;
mod limits;
mod link;
mod permits;
mod plugin;
mod sections;
mod signature;
mod state;
mod validate;

pub use backend::{PluginType, WasmBackend};
pub use binder::{Binder, Call, Func, GuestBuffer};
#[cfg(feature = "winch")]
pub use builder::DangerousEngineBuilder;
pub use builder::EngineBuilder;
pub use engine::{Allocation, Engine, EngineStatus};
pub use error::{EngineError, ModuleError, WasmCallError};
pub use host::{StoreData, guest_bytes};
pub(crate) use inspect::inspect;
pub use instances::{InstancePolicy, waited};
pub use limits::{CallLimits, CallOptions};
pub use plugin::WasmPlugin;
pub use validate::ModuleLimits;
/// The engine underneath, for functions of the host: `Caller`, `Linker`, and its errors.
pub use wasmtime;
