//! Baseline code first, optimised code when it is ready.

use hotslot::HotSlot;
use hotslot::wasm::{Engine, InstancePolicy, WasmCallError};
use tempfile::TempDir;

use super::{Plugin, answer, backend, compile, module, source, spin};
use crate::support::eventually;

fn engine() -> Engine {
    Engine::builder().max_instances(12).dangerous().baseline_first().build().unwrap()
}

fn slot(engine: &Engine, policy: InstancePolicy) -> HotSlot<Plugin> {
    HotSlot::builder(backend(engine).instance_policy(policy)).open(module("1.0.0", 1)).unwrap()
}

#[test]
fn calls_go_on_while_the_code_becomes_better() {
    let engine = engine();
    for policy in [InstancePolicy::Fresh, InstancePolicy::Reuse { max_uses: 50.try_into().unwrap() }] {
        let slot = slot(&engine, policy);
        let lease = slot.load();
        eventually("the optimised code serves", || {
            assert_eq!(answer(&lease).unwrap(), 1);
            lease.is_optimised()
        });
        assert_eq!(answer(&lease).unwrap(), 1);
    }
    assert_eq!(engine.status().compiled, 1);
    let known = slot(&engine, InstancePolicy::Fresh);
    assert!(known.load().is_optimised(), "what is known need not be compiled, in whichever way");
}

#[test]
fn a_single_instance_keeps_its_state_and_with_it_its_code() {
    let slot = slot(&engine(), InstancePolicy::Single);
    let lease = slot.load();
    let count = || lease.call(|calls, call| call.run(&calls.count, ())).unwrap();
    assert_eq!(count(), 1);
    eventually("the optimised code is there", || lease.is_optimised());
    assert_eq!(count(), 2);
}

#[test]
fn baseline_code_is_limited_like_any_other() {
    let slot = slot(&engine(), InstancePolicy::Fresh);
    let mut version = 0;
    // Until one of them is not optimised before it has been tried.
    eventually("a whole round in baseline code", || {
        version += 1;
        let much = "(func (param i64) (result i64) (i64.mul (local.get 0) (i64.const 3)))".repeat(5000);
        slot.reload(compile(&source(&format!("1.{version}.0"), 1, &much))).unwrap();
        let lease = slot.load();
        let spun = spin(&lease);
        assert!(matches!(spun, WasmCallError::DeadlineExceeded(_)), "{spun}");
        let recurse = lease.call(|calls, call| call.run(&calls.recurse, ())).unwrap_err();
        assert!(matches!(recurse, WasmCallError::Trapped { .. }), "{recurse}");
        let grow = lease.call(|calls, call| call.run(&calls.grow, 5000)).unwrap_err();
        assert!(matches!(grow, WasmCallError::OutOfMemory { .. }), "{grow}");
        !lease.is_optimised()
    });
}

#[test]
fn only_optimised_code_is_kept_in_the_folder() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let build = || Engine::builder().max_instances(4).cache_dir(&path).dangerous().baseline_first().build().unwrap();
    let slot_of_first = slot(&build(), InstancePolicy::Fresh);
    eventually("the optimised code serves", || slot_of_first.load().is_optimised());
    let engine = build();
    assert!(slot(&engine, InstancePolicy::Fresh).load().is_optimised());
    assert_eq!((engine.status().compiled, engine.status().found_on_disk), (0, 1));
}

#[test]
fn a_plugin_that_is_set_up_once_has_optimised_code_from_the_start() {
    let engine = engine();
    let get = |engine: &Engine| engine.bind(|binder| binder.func::<(), u32>("get")).preinitialize();
    let text = |more: &str| {
        compile(&format!(
            r#"(module (global $state (mut i32) (i32.const 1))
              (func (export "_initialize") (global.set $state (i32.const 2)))
              (func (export "get") (result i32) (global.get $state)) {more})"#
        ))
    };
    let slot = HotSlot::builder(get(&engine)).open(text("")).unwrap();
    assert!(slot.load().is_optimised() && engine.snapshots()[0].snapshot.is_ok(), "{:?}", engine.snapshots());
    assert_eq!(slot.load().call(|get, call| call.run(get, ())).unwrap(), 2);
    // One of which no snapshot can be taken begins as others do.
    let slot = HotSlot::builder(get(&engine)).open(text("(data $passive \"x\") (func (data.drop $passive))")).unwrap();
    eventually("the optimised code serves", || {
        assert_eq!(slot.load().call(|get, call| call.run(get, ())).unwrap(), 2);
        slot.load().is_optimised()
    });
}
