//! The memory of all instances of an engine. FAULTS 14, 74.

use std::num::NonZeroU32;

use hotslot::wasm::{Binder, CallLimits, Engine, Func, InstancePolicy, WasmCallError, WasmPlugin};
use hotslot::{HotSlot, Stage};

use super::{compile, limits};

const PAGE: u64 = 1 << 16;

type Slot = HotSlot<WasmPlugin<Grows>>;

struct Grows {
    grow: Func<u32, u32>,
    count: Func<(), u32>,
}

/// A module with so many pages that counts its calls, grows, and has a state.
fn module(version: &str, pages: u32) -> Vec<u8> {
    compile(&format!(
        r#"(module
          (@custom "version" "{version}")
          (@custom "hotslot.manifest" "name=grows\nschema=count/1\n")
          (memory (export "memory") {pages})
          (func (export "count") (result i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
            (i32.load (i32.const 0)))
          (func (export "grow") (param i32) (result i32)
            (local $was i32)
            (local.set $was (memory.grow (local.get 0)))
            (if (i32.eq (local.get $was) (i32.const -1)) (then unreachable))
            (local.get $was))
          (func (export "try_grow") (param i32) (result i32) (memory.grow (local.get 0)))
          (func (export "hotslot_alloc") (param i32) (result i32) (i32.const 256))
          (func (export "hotslot_save") (result i64) (i64.const 4))
          (func (export "hotslot_restore") (param i32 i32 i32) (result i64)
            (i32.store (i32.const 0) (i32.load (i32.add (local.get 0) (local.get 1)))) (i64.const 0)))"#
    ))
}

fn bind(binder: &mut Binder<'_>) -> Result<Grows, WasmCallError> {
    Ok(Grows { grow: binder.func("grow")?, count: binder.func("count")? })
}

fn engine(pages: u64) -> Engine {
    Engine::builder().max_instances(24).memory_budget(pages * PAGE).build().unwrap()
}

fn open(engine: &Engine, name: &str, policy: InstancePolicy, pages: u32) -> Result<Slot, hotslot::Error> {
    let backend = engine.bind(bind).call_limits(limits()).instance_policy(policy);
    HotSlot::builder(backend).name(name).keep_previous(2).open(module("1.0.0", pages))
}

fn grow(slot: &Slot, pages: u32) -> Result<u32, WasmCallError> {
    slot.load().call(|plugin, call| call.run(&plugin.grow, pages))
}

fn count(slot: &Slot) -> u32 {
    slot.load().call(|plugin, call| call.run(&plugin.count, ())).unwrap()
}

#[test]
fn a_plugin_that_needs_more_than_is_left_is_refused_with_who_has_it_and_is_not_to_blame() {
    let engine = engine(20);
    let large = open(&engine, "large", InstancePolicy::Single, 8).unwrap();
    let small = open(&engine, "small", InstancePolicy::Single, 2).unwrap();
    assert_eq!(grow(&large, 4).unwrap(), 8);
    let status = engine.status();
    assert_eq!((status.memory, status.memory_budget), (14 * PAGE, 20 * PAGE));
    let error = grow(&small, 7).unwrap_err();
    assert!(matches!(&error, WasmCallError::OverBudget { limit, .. } if *limit == 20 * PAGE), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("786432 by slot `large` generation 1 (serving or staged)"), "{text}");
    assert!(text.contains("131072 by slot `small` generation 1"), "{text}");
    assert!(!error.is_fault());
    // It trapped, so its instance is gone, and what that had is back.
    let holders = engine.holders();
    assert_eq!((&*holders[0].slot, holders[0].memory, holders.len()), ("large", 12 * PAGE, 1));
    assert_eq!(grow(&small, 6).unwrap(), 2, "what is left can be had");
    // One that needs too much from the start is refused at its load.
    let error = open(&engine, "third", InstancePolicy::Single, 1).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    assert!(error.to_string().contains("more than is left of the engine's 1310720 bytes"), "{error}");
    // Its own limit comes first, and is its fault.
    let limits = CallLimits { memory: 4 << 16, ..limits() };
    let own = HotSlot::builder(super::engine().bind(bind).call_limits(limits)).open(module("1.0.0", 2)).unwrap();
    assert!(matches!(grow(&own, 3), Err(WasmCallError::OutOfMemory { .. })));
}

#[test]
fn everything_is_given_back() {
    let engine = engine(40);
    for policy in
        [InstancePolicy::Fresh, InstancePolicy::Reuse { max_uses: NonZeroU32::new(5).unwrap() }, InstancePolicy::Single]
    {
        let slot = open(&engine, "slot", policy, 2).unwrap();
        for _ in 0..20 {
            let _ = grow(&slot, 3);
            let _ = grow(&slot, 5_000);
        }
        slot.reload(module("1.1.0", 3)).unwrap();
        slot.close(crate::support::PATIENCE);
        assert_eq!((engine.status().memory, engine.holders().len()), (0, 0), "{policy:?}");
    }
}

#[test]
fn warm_generations_and_idle_instances_give_their_memory_up_first_and_keep_their_state() {
    // Two that serve, and one and a half more.
    let engine = engine(7 * 4);
    let slots = ["one", "other"].map(|name| open(&engine, name, InstancePolicy::Single, 8).unwrap());
    slots.iter().for_each(|slot| assert_eq!((count(slot), count(slot)), (1, 2)));
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        for slot in &slots {
            slot.reload(module(version, 8)).unwrap_or_else(|error| panic!("{version}: {error}"));
            assert_eq!(count(slot), 1);
        }
    }
    for slot in &slots {
        slot.rollback_to(2).unwrap();
        assert_eq!(count(slot), 2, "it was saved before it gave way");
    }
    // A growth in the middle of a call, too.
    assert_eq!(grow(&slots[0], 8).unwrap(), 8);
    // And idle instances of one that serves.
    let engine = super::budget::engine(10);
    let reuse = InstancePolicy::Reuse { max_uses: NonZeroU32::MAX };
    let idle = open(&engine, "idle", reuse, 6).unwrap();
    assert_eq!(engine.status().memory, 6 * PAGE);
    let busy = open(&engine, "busy", InstancePolicy::Single, 3).unwrap();
    assert_eq!(grow(&busy, 6).unwrap(), 3);
    assert_eq!(engine.status().memory, 9 * PAGE);
    let error = idle.load().call(|plugin, call| call.run(&plugin.count, ())).unwrap_err();
    assert!(matches!(error, WasmCallError::OverBudget { .. }), "{error:?}");
}

#[test]
fn tables_count_and_a_refused_growth_is_up_to_the_plugin() {
    let engine = engine(2);
    let module = compile(
        r#"(module (table 10 funcref)
          (func (export "grow") (param i32) (result i32) (table.grow (ref.null func) (local.get 0))))"#,
    );
    let backend = engine.bind(|binder| binder.func::<u32, u32>("grow"));
    let backend = backend.call_limits(CallLimits { table_elements: 50_000, ..limits() });
    let slot = HotSlot::builder(backend.instance_policy(InstancePolicy::Single)).open(module).unwrap();
    let grow = |by| slot.load().call(|grow, call| call.run(grow, by)).unwrap();
    assert_eq!((grow(90), engine.status().memory), (10, 800));
    // 131,072 bytes are 16,384 elements.
    assert_eq!((grow(20_000), engine.status().memory), (u32::MAX, 800));
    assert_eq!((grow(16_284), engine.status().memory), (100, 2 * PAGE));
}
