//! The wasm backend, with modules written by hand: what they do is what the text says.

mod admission;
mod allocation;
mod answers;
#[cfg(target_os = "linux")]
mod attempts;
pub(crate) mod bombs;
mod budget;
#[cfg(target_os = "linux")]
mod bulk;
mod cache;
mod calls;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod config;
mod functions;
mod host;
mod instances;
mod limits;
mod nesting;
mod odd;
mod offered;
mod retirement;
#[cfg(target_os = "linux")]
mod search;
mod snapshot;
mod specification;
mod start;
mod state;
mod storms;
mod tiers;

use std::time::Duration;

use hotslot::wasm::{
    Binder, CallLimits, CallOptions, Engine, Func, GuestBuffer, WasmBackend, WasmCallError, WasmPlugin,
};
use hotslot::{Event, HotSlot, Subscription};

use crate::support::{PATIENCE, wait_for};

/// A plugin that can do everything that the tests ask for. `answer` is what it answers.
pub(crate) fn module(version: &str, answer: u32) -> Vec<u8> {
    compile(&source(version, answer, ""))
}

/// The same as text, with more definitions.
pub(crate) fn source(version: &str, answer: u32, more: &str) -> String {
    format!(
        r#"(module
          (@custom "version" "{version}")
          (@custom "hotslot.manifest" "name=fixture\ninterface=fixture/1\n")
          (memory (export "memory") 1)
          (table (export "table") 1 funcref)
          ;; 2048 bytes at 4096
          (func (export "input") (result i64) (i64.const 0x1000_00000800))
          (func (export "answer") (result i32) (i32.const {answer}))
          (func (export "echo") (param $ptr i32) (param $len i32) (result i64)
            (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
          ;; Counts in memory: what a call leaves behind.
          (func (export "count") (result i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
            (i32.load (i32.const 0)))
          (func (export "trap") unreachable)
          (func (export "spin") (loop $again (br $again)))
          (func $recurse (export "recurse") (call $recurse))
          ;; As allocators do it: what cannot be had ends in a trap.
          (func (export "grow") (param $pages i32) (result i32)
            (local $was i32)
            (local.set $was (memory.grow (local.get $pages)))
            (if (i32.eq (local.get $was) (i32.const -1)) (then unreachable))
            (memory.fill (i32.mul (local.get $was) (i32.const 65536)) (i32.const 1)
              (i32.mul (local.get $pages) (i32.const 65536)))
            (local.get $was))
          (func (export "grow_table") (param $by i32)
            (if (i32.eq (table.grow (ref.null func) (local.get $by)) (i32.const -1)) (then unreachable)))
          {more})"#
    )
}

pub(crate) fn compile(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The functions of [`module`].
pub(crate) struct Calls {
    pub(crate) input: GuestBuffer,
    pub(crate) answer: Func<(), u32>,
    pub(crate) echo: Func<(u32, u32), u64>,
    pub(crate) count: Func<(), u32>,
    pub(crate) trap: Func<(), ()>,
    pub(crate) spin: Func<(), ()>,
    pub(crate) recurse: Func<(), ()>,
    pub(crate) grow: Func<u32, u32>,
    pub(crate) grow_table: Func<u32, ()>,
}

pub(crate) type Plugin = WasmPlugin<Calls>;

pub(crate) fn bind(binder: &mut Binder<'_>) -> Result<Calls, WasmCallError> {
    Ok(Calls {
        input: binder.buffer("input")?,
        answer: binder.func("answer")?,
        echo: binder.func("echo")?,
        count: binder.func("count")?,
        trap: binder.func("trap")?,
        spin: binder.func("spin")?,
        recurse: binder.func("recurse")?,
        grow: binder.func("grow")?,
        grow_table: binder.func("grow_table")?,
    })
}

/// A small engine: tests run at the same time, and most need two instances.
pub(crate) fn engine() -> Engine {
    Engine::builder().max_instances(24).build().unwrap()
}

pub(crate) fn backend(engine: &Engine) -> WasmBackend<WasmPlugin<Calls>> {
    engine.bind(bind).call_limits(limits())
}

pub(crate) fn slot() -> HotSlot<Plugin> {
    HotSlot::builder(backend(&engine())).open(module("1.0.0", 1)).unwrap()
}

/// The ordinary limits, for machines that have a lot else to do, and with memory that shows in the process's.
pub(crate) fn limits() -> CallLimits {
    CallLimits { deadline: PATIENCE, memory: 64 << 20, ..CallLimits::default() }
}

/// A call that never ends, and what ends it after 5 ms.
pub(crate) fn spin(plugin: &Plugin) -> WasmCallError {
    let options = CallOptions::new().deadline(Duration::from_millis(5));
    plugin.call_with(&options, |calls, call| call.run(&calls.spin, ())).unwrap_err()
}

/// Waits until a generation is gone.
#[track_caller]
pub(crate) fn destroyed(events: &Subscription, wanted: u64) {
    wait_for(events, |event| match event {
        Event::Destroyed { generation, .. } if *generation == wanted => Some(()),
        _ => None,
    });
}

pub(crate) fn answer(plugin: &Plugin) -> Result<u32, WasmCallError> {
    plugin.call(|calls, call| call.run(&calls.answer, ()))
}
