//! What a host offers besides plain functions: state for each instance and each call, memories, tables and globals.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use hotslot::HotSlot;
use hotslot::wasm::wasmtime::{Caller, Linker, Mutability};
use hotslot::wasm::{
    Binder, CallLimits, CallOptions, EngineError, Func, InstancePolicy, StoreData, WasmBackend, WasmCallError,
    WasmPlugin, guest_bytes, wasmtime,
};

use super::{compile, engine, limits};
use crate::support::admit;

type Run = Func<u32, u32>;

fn bind(binder: &mut Binder<'_>) -> Result<Run, WasmCallError> {
    binder.func("run")
}

fn run(plugin: &WasmPlugin<Run>, options: &CallOptions, argument: u32) -> Result<u32, WasmCallError> {
    plugin.call_with(options, |run, call| call.run(run, argument))
}

/// A module whose `run` passes its argument to `note` of the host, twice, and returns what that says.
fn notes() -> Vec<u8> {
    compile(
        r#"(module (import "env" "note" (func $note (param i32) (result i32)))
          (func (export "run") (param i32) (result i32)
            (drop (call $note (local.get 0))) (call $note (local.get 0))))"#,
    )
}

/// What the functions of the host have seen of one instance.
#[derive(Default)]
struct Seen {
    noted: Vec<u32>,
    counted: Option<Arc<AtomicU32>>,
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.counted.iter().for_each(|counted| _ = counted.fetch_sub(1, Ordering::Relaxed));
    }
}

fn noting(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    let note = |mut caller: Caller<'_, StoreData>, number: u32| {
        if let Some(sum) = caller.data().call_state::<AtomicU32>() {
            sum.fetch_add(number, Ordering::Relaxed);
        }
        assert!(caller.data().instance_state::<String>().is_none(), "it has another type");
        let seen = caller.data_mut().instance_state_mut::<Seen>().expect("every instance has one");
        seen.noted.push(number);
        u32::try_from(seen.noted.len()).unwrap()
    };
    linker.func_wrap("env", "note", note).map(drop)
}

fn noting_backend(alive: &Arc<AtomicU32>) -> WasmBackend<WasmPlugin<Run>> {
    let alive = Arc::clone(alive);
    engine().bind(bind).call_limits(limits()).link(noting).unwrap().instance_state(move |plugin| {
        assert_eq!(&*plugin.slot, "noting");
        alive.fetch_add(1, Ordering::Relaxed);
        Seen { noted: Vec::new(), counted: Some(Arc::clone(&alive)) }
    })
}

#[test]
fn the_state_of_an_instance_lives_as_long_as_the_instance() {
    let alive = Arc::new(AtomicU32::new(0));
    let options = CallOptions::new();
    for (policy, expected) in [
        (InstancePolicy::Fresh, [2, 2, 2]),
        (InstancePolicy::Reuse { max_uses: NonZeroU32::new(3).unwrap() }, [2, 4, 2]),
        (InstancePolicy::Single, [2, 4, 6]),
    ] {
        let backend = noting_backend(&alive).instance_policy(policy);
        let slot = HotSlot::builder(backend).name("noting").open(notes()).unwrap();
        // The instance that the load made counts as used once.
        let answers = [7, 8, 9].map(|number| run(&slot.load(), &options, number).unwrap());
        assert_eq!(answers, expected, "{policy:?}");
        slot.close(crate::support::PATIENCE);
        assert_eq!(alive.load(Ordering::Relaxed), 0, "{policy:?}: all are gone with their instances");
    }
}

#[test]
fn a_call_reads_and_prepares_the_state_of_its_instance() {
    let slot = HotSlot::builder(noting_backend(&Arc::default())).name("noting").open(notes()).unwrap();
    let noted = slot.load().call(|run, call| {
        call.instance_state::<Seen>().expect("it is there").noted.push(1);
        assert!(call.instance_state::<u8>().is_none());
        call.run(run, 5)?;
        Ok(std::mem::take(&mut call.instance_state::<Seen>().expect("it is there").noted))
    });
    assert_eq!(noted.unwrap(), [1, 5, 5]);
}

#[test]
fn the_state_of_a_call_is_that_calls_alone_and_is_let_go() {
    let backend = noting_backend(&Arc::default()).instance_policy(InstancePolicy::Single);
    let slot = HotSlot::builder(backend).name("noting").open(notes()).unwrap();
    let (one, other) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    run(&slot.load(), &CallOptions::new().state(Arc::clone(&one)), 3).unwrap();
    run(&slot.load(), &CallOptions::new().state(Arc::clone(&other)), 10).unwrap();
    run(&slot.load(), &CallOptions::new(), 100).unwrap();
    run(&slot.load(), &CallOptions::new().state(Arc::new("of another type")), 100).unwrap();
    assert_eq!((one.load(Ordering::Relaxed), other.load(Ordering::Relaxed)), (6, 20));
    let gone: Weak<_> = Arc::downgrade(&one);
    drop(one);
    assert!(gone.upgrade().is_none(), "the instance that is idle has kept it");
}

/// A module that imports a memory, a table and globals, and answers with what it finds and leaves there.
fn importing(memory: &str) -> Vec<u8> {
    compile(&format!(
        r#"(module
          (import "env" "memory" (memory {memory}))
          (import "env" "__indirect_function_table" (table $table 2 funcref))
          (import "env" "base" (global $base i32))
          (import "env" "count" (global $count (mut i64)))
          (import "env" "base" (global $again i32))
          (import "env" "first" (func $first (param i32) (result i32)))
          (elem (i32.const 1) $double)
          (data (i32.const 16) "offered")
          (func $double (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
          (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
          (func $start (i32.store8 (i32.const 0) (i32.const 1)))
          (start $start)
          (func (export "run") (param i32) (result i32)
            (global.set $count (i64.add (global.get $count) (i64.const 1)))
            (i32.add
              (i32.add (global.get $base) (i32.sub (global.get $again) (global.get $base)))
              (i32.add
                (i32.add (call_indirect (param i32) (result i32) (local.get 0) (i32.const 1)) (call $first (i32.const 16)))
                (i32.wrap_i64 (global.get $count))))))"#
    ))
}

fn offering() -> WasmBackend<WasmPlugin<Run>> {
    let backend = engine().bind(bind).call_limits(limits());
    let backend = backend.offer_memory("env", "memory", 2, Some(64)).unwrap();
    let backend = backend.offer_table("env", "__indirect_function_table", 4, None).unwrap();
    let backend = backend.offer_global("env", "base", Mutability::Const, 1000).unwrap();
    let backend = backend.offer_global("env", "count", Mutability::Var, 0_i64).unwrap();
    let first = |mut caller: Caller<'_, StoreData>, ptr: u32| {
        wasmtime::Result::Ok(u32::from(guest_bytes(&mut caller, ptr, 1)?[0]))
    };
    backend.link(|linker| linker.func_wrap("env", "first", first).map(drop)).unwrap()
}

#[test]
fn a_module_imports_memories_tables_and_globals_and_each_instance_has_its_own() {
    for (policy, counts) in [(InstancePolicy::Fresh, [1, 1]), (InstancePolicy::Single, [1, 2])] {
        let slot = HotSlot::builder(offering().instance_policy(policy)).open(importing("1 64")).unwrap();
        for count in counts {
            // 1000, twice the argument, the first letter of the data in the host's eyes, and the count.
            let expected = 1000 + 42 + u32::from(b'o') + count;
            assert_eq!(run(&slot.load(), &CallOptions::new(), 21).unwrap(), expected, "{policy:?}");
        }
        // The host writes and reads there as in any plugin's memory.
        let first = slot.load().call(|_, call| Ok(call.read(0, 1)?[0]));
        assert_eq!(first.unwrap(), 1, "`start` ran in it");
    }
}

#[test]
fn what_is_offered_is_limited_and_compared_with_what_is_imported() {
    for (memory, offered) in [("3 64", "2 to 64 pages"), ("1 32", "2 to 64 pages")] {
        let error = admit(&offering(), importing(memory)).unwrap_err().to_string();
        assert!(error.contains("imports `env` `memory` as a memory of") && error.contains(offered), "{error}");
    }
    for (import, found) in [
        (
            r#"(import "env" "base" (global (mut i32)))"#,
            "as a mutable global i32, and the host offers a constant global i32",
        ),
        (r#"(import "env" "base" (global i64))"#, "as a constant global i64"),
        (r#"(import "env" "memory" (func))"#, "as a function ()"),
        (r#"(import "env" "first" (memory 1))"#, "the host offers a function"),
    ] {
        let module = compile(&format!("(module {import})"));
        let error = admit(&offering(), &module).unwrap_err().to_string();
        assert!(error.contains(found), "{import}: {error}");
    }
    let small = CallLimits { memory: 1 << 16, ..limits() };
    let error = admit(&offering().call_limits(small), importing("1 64")).unwrap_err().to_string();
    assert!(error.contains("131072 bytes of memory from the start are more than the 65536 allowed"), "{error}");
    // Growing is under the limit of the call, as in a memory of its own.
    let small = CallLimits { memory: 3 << 16, ..limits() };
    let bind = |binder: &mut Binder<'_>| binder.func::<u32, u32>("grow");
    let backend = engine().bind(bind).call_limits(small).offer_memory("env", "memory", 2, Some(64)).unwrap();
    let module = compile(
        r#"(module (import "env" "memory" (memory 1))
          (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"#,
    );
    let slot = HotSlot::builder(backend).open(module).unwrap();
    let grow = |by| slot.load().call(|grow, call| call.run(grow, by)).unwrap();
    assert_eq!((grow(1), grow(2)), (2, u32::MAX));
}

#[test]
fn a_name_is_offered_once() {
    let backend = || engine().bind(bind);
    let taken = |result: Result<WasmBackend<WasmPlugin<Run>>, EngineError>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("offered as `env` `x` already"), "{error}");
    };
    let function = |linker: &mut Linker<StoreData>| linker.func_wrap("env", "x", || ()).map(drop);
    taken(backend().offer_memory("env", "x", 1, None).unwrap().offer_table("env", "x", 1, None));
    taken(backend().offer_global("env", "x", Mutability::Var, 1.5_f64).unwrap().link(function));
    taken(backend().link(function).unwrap().offer_memory("env", "x", 1, None));
    assert!(matches!(backend().offer_memory("env", "y", 2, Some(1)), Err(EngineError::Misuse(_))));
    assert!(matches!(backend().offer_table("env", "y", 2, Some(1)), Err(EngineError::Misuse(_))));
}
