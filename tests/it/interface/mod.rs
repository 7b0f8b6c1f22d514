//! Declared interfaces: one plugin source, behind one trait, as a library, as a module and in this process.

mod auto;
pub(crate) mod built;
mod compatibility;
mod failures;
mod hand_over;
pub(crate) mod kinds;
#[cfg(target_os = "linux")]
mod log;
mod running;
mod services;
mod shadow;
mod types;
mod values;

use crate::support::trust;
use std::sync::LazyLock;

use hotslot::HotSlot;
use hotslot::wasm::{Engine, InstancePolicy, WasmBackend};
use hotslot_plugin::Interface;

/// An engine's backend with one instance a plugin, which keeps its count.
pub(crate) fn modules<I: Interface + ?Sized>() -> WasmBackend<I> {
    // One for all, so that a module that several tests load is compiled once.
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::builder().build().expect("this machine has an engine"));
    ENGINE.interface::<I>().instance_policy(InstancePolicy::Single).call_limits(crate::wasm::limits())
}

/// A slot on each kind of plugin that can be built here, for `I` in this variant.
fn slots<I: Interface + ?Sized>(variant: &str) -> Vec<(&'static str, HotSlot<I>)> {
    slots_with(variant, |native| native, |wasm| wasm)
}

/// The same with options.
fn slots_with<I: Interface + ?Sized>(
    variant: &str,
    native: impl FnOnce(hotslot::native::Native<I>) -> hotslot::native::Native<I>,
    wasm: impl FnOnce(WasmBackend<I>) -> WasmBackend<I>,
) -> Vec<(&'static str, HotSlot<I>)> {
    let backend = native(hotslot::native::Native::interface::<I>(trust()));
    let library = HotSlot::builder(backend).open(built::library(variant).bytes());
    let mut slots = vec![("native", library.expect("the library is sound"))];
    if let Some(module) = built::module(variant) {
        let module = HotSlot::builder(wasm(modules::<I>())).open(module.bytes());
        slots.push(("wasm", module.expect("the module is sound")));
    }
    slots
}
