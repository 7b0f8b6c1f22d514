//! How modules of several toolchains begin, and where they keep their memory. FAULTS 73.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotslot::wasm::{CallLimits, Engine, Func, InstancePolicy, ModuleError, WasmBackend, WasmPlugin};
use hotslot::{HotSlot, Stage};

use super::{compile, engine, limits};
use crate::support::{PATIENCE, admit};

/// Long for a function that does nothing.
const LIMIT: Duration = Duration::from_millis(500);

type Get = Func<(), u32>;

fn policies() -> [InstancePolicy; 3] {
    let max_uses = NonZeroU32::new(100).unwrap();
    [InstancePolicy::Fresh, InstancePolicy::Single, InstancePolicy::Reuse { max_uses }]
}

fn backend(engine: &Engine) -> WasmBackend<WasmPlugin<Get>> {
    engine.bind(|binder| binder.func("get")).call_limits(limits())
}

/// A module whose `get` returns 42 once `initialize` has run, and 43 if it ran again.
fn reactor(more: &str) -> Vec<u8> {
    compile(&format!(
        r#"(module (global $state (mut i32) (i32.const 41))
          (func (export "_initialize") (global.set $state (i32.add (global.get $state) (i32.const 1))))
          (func (export "get") (result i32) (global.get $state)) {more})"#
    ))
}

#[test]
fn a_reactor_is_initialised_once_in_every_instance() {
    for builder in [Engine::builder().max_instances(24), Engine::builder().max_instances(24).on_demand()] {
        let engine = builder.build().unwrap();
        for policy in policies() {
            let slot = HotSlot::builder(backend(&engine).instance_policy(policy)).open(reactor("")).unwrap();
            for _ in 0..3 {
                assert_eq!(slot.load().call(|get, call| call.run(get, ())).unwrap(), 42, "{policy:?}");
            }
        }
    }
}

#[test]
fn the_binder_and_start_see_what_they_would_see_elsewhere() {
    // `start` runs before `_initialize`, and the binder after both.
    let text = r#"(module (global $state (mut i32) (i32.const 1))
      (func $start (global.set $state (i32.mul (global.get $state) (i32.const 10)))) (start $start)
      (func (export "_initialize") (global.set $state (i32.add (global.get $state) (i32.const 3))))
      (func (export "get") (result i32) (global.get $state)))"#;
    let engine = engine();
    let backend = engine.bind(|binder| {
        let get: Get = binder.func("get")?;
        Ok(get)
    });
    let slot = HotSlot::builder(backend).open(compile(text)).unwrap();
    assert_eq!(slot.load().call(|get, call| call.run(get, ())).unwrap(), 13);
}

#[test]
fn an_initialisation_that_cannot_be_called_is_refused_by_its_name() {
    let engine = engine();
    for text in [
        r#"(module (func (export "_initialize") (param i32)) (func (export "get") (result i32) (i32.const 1)))"#,
        r#"(module (func (export "_initialize") (result i32) (i32.const 1)))"#,
        r#"(module (global (export "_initialize") i32 (i32.const 1)))"#,
    ] {
        let error = admit(&backend(&engine), compile(text)).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(ModuleError::WrongExport { name, .. }) if name == "_initialize"),
            "{error}"
        );
    }
    // One that traps or never ends is refused at load.
    let hasty = CallLimits { deadline: Duration::from_millis(300), ..limits() };
    for (body, reason) in [("unreachable", "unreachable"), ("(loop (br 0))", "did not answer within 300ms")] {
        let text = format!(
            r#"(module (func (export "_initialize") {body}) (func (export "get") (result i32) (i32.const 1)))"#
        );
        let error = HotSlot::builder(backend(&engine).call_limits(hasty.clone())).open(compile(&text)).unwrap_err();
        assert_eq!(error.stage(), Stage::Load);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn what_is_loaded_may_take_longer_than_a_call() {
    let engine = engine();
    // So many rounds that they take longer than a tick of the engine on any machine.
    let text = r#"(module (func (export "_initialize") (local i32)
        (loop (local.set 0 (i32.add (local.get 0) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get 0) (i32.const 500_000_000)))))
      (func (export "get") (result i32) (i32.const 1)))"#;
    let hasty = CallLimits { deadline: Duration::from_millis(1), ..limits() };
    let backend = |policy| backend(&engine).call_limits(hasty.clone()).instance_policy(policy);
    let single = InstancePolicy::Single;
    let error = HotSlot::builder(backend(single)).open(compile(text)).unwrap_err();
    assert!(error.to_string().contains("did not answer within 1ms"), "{error}");
    HotSlot::builder(backend(single).load_deadline(PATIENCE)).open(compile(text)).unwrap();
    // Where calls make instances, one has to be made in the time of a call at last.
    let fresh = InstancePolicy::Fresh;
    let error = HotSlot::builder(backend(fresh).load_deadline(PATIENCE)).open(compile(text)).unwrap_err();
    assert!(error.stage() == Stage::Load && error.to_string().contains("did not answer within 1ms"), "{error}");
}

#[test]
fn what_was_slow_once_is_loaded_also_where_there_is_room_for_one_instance() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let theirs = Arc::clone(&is_slow);
    let wait = move || {
        if theirs.swap(false, Ordering::Relaxed) {
            std::thread::sleep(2 * LIMIT);
        }
    };
    let text = r#"(module (import "host" "wait" (func $wait)) (func (export "_initialize") (call $wait))
        (func (export "get") (result i32) (i32.const 1)))"#;
    let engine = Engine::builder().max_instances(1).build().unwrap();
    let hasty = CallLimits { deadline: LIMIT, ..limits() };
    let backend = backend(&engine).call_limits(hasty).load_deadline(PATIENCE).instance_policy(InstancePolicy::Fresh);
    let backend = backend.link(|linker| linker.func_wrap("host", "wait", wait.clone()).map(drop)).unwrap();
    HotSlot::builder(backend).open(compile(text)).unwrap();
    assert!(!is_slow.load(Ordering::Relaxed), "it was slow at first");
}

#[test]
fn a_command_is_refused_unless_it_is_asked_for() {
    let engine = engine();
    let command = compile(r#"(module (func (export "_start")) (func (export "get") (result i32) (i32.const 1)))"#);
    let error = admit(&backend(&engine), &command).unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(ModuleError::Command)) && error.to_string().contains("cdylib"),
        "{error}"
    );
    let error = admit(&backend(&engine), reactor(r#"(func (export "_start"))"#)).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ModuleError::Command)), "{error}");
    admit(&backend(&engine).require_export("_start", "()"), &command).unwrap();
}

#[test]
fn the_memory_is_found_under_any_name() {
    let engine = engine();
    for name in ["memory", "mem", "$", ""] {
        // `start` logs, `get` returns what is at its address 8, and the buffer is bound.
        let text = format!(
            r#"(module (import "hotslot" "log" (func $log (param i32 i32 i32)))
              (memory (export "{name}") 1) (data (i32.const 8) "here")
              (func $start (call $log (i32.const 3) (i32.const 8) (i32.const 4))) (start $start)
              (func (export "buffer") (result i64) (i64.const 0x8_00000004)))"#
        );
        let bound = engine.bind(|binder| binder.buffer("buffer")).call_limits(limits());
        let slot = HotSlot::builder(bound).open(compile(&text)).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        let read = slot.load().call(|buffer, call| {
            let (ptr, len) = call.write(buffer, b"HERE")?;
            Ok(call.read(ptr, len)?.to_vec())
        });
        assert_eq!(read.unwrap(), b"HERE", "{name:?}");
    }
}

#[test]
fn a_module_that_hides_its_memory_from_a_host_that_needs_it_is_refused_at_admission() {
    let engine = engine();
    let hidden = |more: &str| compile(&format!(r#"(module {more} (memory 1))"#));
    for module in [
        hidden(r#"(import "hotslot" "log" (func (param i32 i32 i32)))"#),
        hidden(r#"(import "hotslot" "event" (func (param i32 i32 i32)))"#),
        hidden(r#"(@custom "hotslot.manifest" "schema=s/1")"#),
    ] {
        let error = admit(&backend(&engine), &module).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ModuleError::NoMemory { .. })), "{error}");
    }
    let interface = engine.interface::<dyn hotslot_fixture_interface::v1_0::Fixture>();
    let error = hotslot::Backend::admit(&interface, &hotslot::Payload::new(hidden(""))).map(drop).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ModuleError::NoMemory { .. })), "{error}");
    // A module that computes with numbers alone needs none.
    admit(&backend(&engine), hidden("")).unwrap();
}
