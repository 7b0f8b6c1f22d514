//! Plugins that call the host, which calls them again. FAULTS 69.

use std::sync::{Arc, OnceLock};
use std::thread;

use hotslot::wasm::wasmtime;
use hotslot::wasm::{Engine, Func, InstancePolicy, WasmCallError, WasmPlugin};
use hotslot::{HotSlot, Probation};

use super::{compile, limits};
use crate::support::PATIENCE;

type Run = Func<u32, u32>;
type Slot = HotSlot<WasmPlugin<Run>>;

/// Calls `again`, which calls `run`, and so on. It traps on an answer of 0.
fn module(version: &str) -> Vec<u8> {
    compile(&format!(
        r#"(module (@custom "version" "{version}") (import "env" "again" (func $again (param i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "run") (param i32) (result i32) (local $answer i32)
            (if (i32.eqz (local.get 0)) (then (return (i32.const 7))))
            (local.set $answer (call $again (i32.sub (local.get 0) (i32.const 1))))
            (if (i32.eqz (local.get $answer)) (then unreachable))
            (local.get $answer)))"#
    ))
}

/// A slot whose plugin can call it again, through a linked function. What that does with an error is up to `fails`.
fn slot(engine: &Engine, policy: InstancePolicy, fails: fn(WasmCallError) -> wasmtime::Result<u32>) -> Arc<Slot> {
    let known: Arc<OnceLock<Arc<Slot>>> = Arc::default();
    let again = Arc::clone(&known);
    let backend = engine.bind(|binder| binder.func("run")).call_limits(limits()).instance_policy(policy);
    let backend = backend.link(move |linker| {
        let again = Arc::clone(&again);
        let call = move |left: u32| {
            let slot = again.get().expect("the slot is open");
            slot.load().call(|run, call| call.run(run, left)).or_else(fails)
        };
        linker.func_wrap("env", "again", call).map(drop)
    });
    let slot = HotSlot::builder(backend.unwrap()).probation(Probation::new(PATIENCE).max_failures(0));
    let slot = Arc::new(slot.keep_previous(1).open(module("1.0.0")).unwrap());
    slot.reload(module("1.1.0")).unwrap();
    assert!(known.set(Arc::clone(&slot)).is_ok());
    slot
}

fn run(slot: &Slot, depth: u32) -> Result<u32, WasmCallError> {
    slot.load().call(|run, call| call.run(run, depth))
}

fn on_a_thread<R: Send>(stack: usize, work: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| thread::Builder::new().stack_size(stack).spawn_scoped(scope, work).unwrap().join().unwrap())
}

#[test]
fn a_plugin_that_calls_itself_through_the_host_is_stopped_before_the_stack_ends_and_is_not_blamed() {
    for (stack, engine_stack) in [
        (256 << 10, 256 << 10),
        (512 << 10, 256 << 10),
        (2 << 20, 256 << 10),
        (2 << 20, 64 << 10),
        (2 << 20, 1 << 20),
        (64 << 20, 256 << 10),
    ] {
        let engine = Engine::builder().max_instances(192).stack(engine_stack).build().unwrap();
        for policy in [InstancePolicy::Fresh, InstancePolicy::Reuse { max_uses: 10.try_into().unwrap() }] {
            // The host's function passes the error on, or makes something of it that the plugin cannot go on with.
            for fails in [|error| Err(wasmtime::Error::new(error)), |_| Ok(0)] {
                let slot = slot(&engine, policy, fails);
                let error = on_a_thread(stack, || run(&slot, u32::MAX)).unwrap_err();
                let is_typed = matches!(error, WasmCallError::NestedTooDeep(_) | WasmCallError::StackTooSmall { .. });
                assert!(is_typed, "{stack} {engine_stack}: {error:?}");
                assert!(!error.is_fault());
                // Neither the generation nor the thread is worse off.
                assert_eq!(slot.status().serving.unwrap().failures, 0);
                assert_eq!(on_a_thread(2 << 20, || run(&slot, 0)).unwrap(), 7);
                assert_eq!(slot.status().serving.unwrap().generation, 2);
            }
        }
    }
}

#[test]
fn calls_nest_as_deep_as_the_stack_allows() {
    let engine = Engine::builder().max_instances(192).build().unwrap();
    let slot = slot(&engine, InstancePolicy::Fresh, |error| Err(wasmtime::Error::new(error)));
    for (stack, depth) in [(512 << 10, 1), (2 << 20, 20), (64 << 20, 50)] {
        assert_eq!(on_a_thread(stack, || run(&slot, depth)).unwrap(), 7, "{depth} deep on {stack} bytes");
    }
}

#[test]
fn a_single_instance_that_would_wait_for_itself_is_refused_at_once_and_not_blamed() {
    let engine = super::engine();
    for fails in [|error| Err(wasmtime::Error::new(error)), |_| Ok(0)] {
        let slot = slot(&engine, InstancePolicy::Single, fails);
        // A wait would be as long as the deadline of a call, which is the test's patience.
        let error = run(&slot, 3).unwrap_err();
        assert!(matches!(error, WasmCallError::NestedTooDeep(_)), "{error:?}");
        assert_eq!(slot.status().serving.unwrap().failures, 0);
        assert_eq!(slot.status().serving.unwrap().generation, 2);
    }
}

#[test]
fn an_endless_recursion_of_the_plugin_alone_is_a_trap_on_any_thread_that_may_call() {
    for (stack, engine_stack) in [(512 << 10, 256 << 10), (2 << 20, 1 << 20), (2 << 20, 64 << 10)] {
        let engine = Engine::builder().max_instances(24).stack(engine_stack).build().unwrap();
        let slot = HotSlot::builder(super::backend(&engine)).open(super::module("1.0.0", 1)).unwrap();
        let recurse = || slot.load().call(|calls, call| call.run(&calls.recurse, ()));
        let error = on_a_thread(stack, recurse).unwrap_err();
        assert!(matches!(error, WasmCallError::Trapped { .. }), "{error:?}");
        // Where it would overflow the thread's own stack, it does not begin. A thread can get a larger stack than it asks
        // for: that of one that has ended.
        let error = on_a_thread(engine_stack + (64 << 10), recurse).unwrap_err();
        assert!(matches!(error, WasmCallError::StackTooSmall { .. } | WasmCallError::Trapped { .. }), "{error:?}");
    }
    // As much as a thread of the slot has, and the host needs some of it.
    let engine = Engine::builder().max_instances(24).stack(2 << 20).build().unwrap();
    let error = HotSlot::builder(super::backend(&engine)).open(super::module("1.0.0", 1)).unwrap_err();
    assert!(error.to_string().contains("EngineBuilder::stack"), "{error}");
}
