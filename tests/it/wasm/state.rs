//! State that goes from one module to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hotslot::wasm::{CallLimits, CallOptions, Engine, Func, InstancePolicy, WasmCallError, WasmPlugin};
use hotslot::{HotSlot, Rollback, Stage, State, Stateful, transfer_state};

use super::{compile, engine, limits};
use crate::support::{PATIENCE, eventually};

/// A counter that hands its count over. It takes states of the schema `taken`, a name of nine bytes.
fn counter(version: &str, schema: &str, taken: &str) -> Vec<u8> {
    compile(&format!(
        r#"(module
          (@custom "version" "{version}")
          (@custom "hotslot.manifest" "schema={schema}")
          (memory (export "memory") 1)
          (data (i32.const 512) "{taken}")
          (data (i32.const 600) "unknown\1b")
          (func (export "add") (param i64) (result i64)
            (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (local.get 0)))
            (i64.load (i32.const 0)))
          (func (export "trap") unreachable)
          (func (export "hotslot_save") (result i64) (i64.const 8))
          (func (export "hotslot_alloc") (param i32) (result i32)
            (select (i32.const 1024) (i32.const 0) (i32.lt_u (local.get 0) (i32.const 100))))
          (func (export "hotslot_restore") (param $ptr i32) (param $schema i32) (param $len i32) (result i64)
            (if (i32.and (i32.eq (local.get $len) (i32.const 8))
                  (i64.eq (i64.load (local.get $ptr)) (i64.load (i32.const 512))))
              (then (i64.store (i32.const 0) (i64.load (i32.add (local.get $ptr) (local.get $schema))))
                    (return (i64.const 0))))
            (i64.const 0x258_00000008)))"#
    ))
}

struct Counter {
    add: Func<u64, u64>,
    trap: Func<(), ()>,
}

fn slot(engine: &Engine, policy: InstancePolicy) -> HotSlot<WasmPlugin<Counter>> {
    let backend = engine.bind(|binder| Ok(Counter { add: binder.func("add")?, trap: binder.func("trap")? }));
    HotSlot::builder(backend.instance_policy(policy))
        .hand_over(transfer_state)
        .open(counter("1.0.0", "counter/1", "counter/1"))
        .unwrap()
}

fn add(slot: &HotSlot<WasmPlugin<Counter>>, more: u64) -> u64 {
    slot.load().call(|counter, call| call.run(&counter.add, more)).unwrap()
}

#[test]
fn a_count_goes_on_in_the_next_version() {
    let slot = slot(&engine(), InstancePolicy::Single);
    assert_eq!((add(&slot, 40), add(&slot, 1)), (40, 41));
    slot.reload(counter("1.1.0", "counter/1", "counter/1")).unwrap();
    assert_eq!(add(&slot, 1), 42);
    slot.rollback().unwrap();
    assert_eq!(add(&slot, 1), 42, "the earlier one has its own");
}

#[test]
fn a_single_instance_that_traps_begins_with_what_was_handed_over() {
    let slot = slot(&engine(), InstancePolicy::Single);
    add(&slot, 40);
    slot.reload(counter("1.1.0", "counter/1", "counter/1")).unwrap();
    add(&slot, 2);
    let error = slot.load().call(|counter, call| call.run(&counter.trap, ())).unwrap_err();
    assert!(matches!(error, WasmCallError::Trapped { .. }));
    assert_eq!(add(&slot, 0), 40);
}

#[test]
fn every_fresh_instance_begins_with_what_was_handed_over() {
    let slot = slot(&engine(), InstancePolicy::Fresh);
    let state = State { schema: "counter/1".into(), bytes: 7_u64.to_le_bytes().to_vec() };
    slot.load().restore(&state).unwrap();
    assert_eq!((add(&slot, 1), add(&slot, 1)), (8, 8));
    slot.reload(counter("1.1.0", "counter/1", "counter/1")).unwrap();
    assert_eq!(add(&slot, 1), 8);
    assert_eq!(slot.load().save().unwrap(), Some(state));
}

#[test]
fn idle_instances_of_an_older_state_are_not_used_again() {
    let slot = slot(&engine(), InstancePolicy::Reuse { max_uses: 100.try_into().unwrap() });
    add(&slot, 1);
    let state = State { schema: "counter/1".into(), bytes: 7_u64.to_le_bytes().to_vec() };
    slot.load().restore(&state).unwrap();
    assert_eq!(add(&slot, 1), 8);
}

#[test]
fn an_instance_that_was_in_a_call_during_a_restore_is_not_used_again() {
    let slot = slot(&engine(), InstancePolicy::Reuse { max_uses: 100.try_into().unwrap() });
    add(&slot, 1);
    let state = State { schema: "counter/1".into(), bytes: 7_u64.to_le_bytes().to_vec() };
    let lease = slot.load();
    let counted = lease.call(|counter, call| {
        slot.load().restore(&state).unwrap();
        call.run(&counter.add, 1)
    });
    assert_eq!(counted.unwrap(), 2, "the call ends in the instance in which it began");
    assert_eq!(add(&slot, 1), 8);
}

/// It is asked for its state when it is to make room, and keeps its place.
#[test]
fn an_instance_whose_state_cannot_be_saved_can_still_be_stopped() {
    let module = |version: &str, saved: &str| {
        compile(&format!(
            r#"(module
              (@custom "version" "{version}")
              (@custom "hotslot.manifest" "schema=s/1")
              (memory (export "memory") 1)
              (func (export "spin") (loop (br 0)))
              (func (export "hotslot_save") (result i64) (i64.const {saved}))
              (func (export "hotslot_alloc") (param i32) (result i32) (i32.const 1024))
              (func (export "hotslot_restore") (param i32 i32 i32) (result i64) (i64.const 0)))"#
        ))
    };
    let (sound, broken) = ("8", "0x7fffffff_00000008");
    let engine = Engine::builder().max_instances(2).build().unwrap();
    let backend = || {
        let bound = engine.bind(|binder| binder.func::<(), ()>("spin")).call_limits(limits());
        bound.instance_policy(InstancePolicy::Single).max_wait(Duration::ZERO)
    };
    let builder = HotSlot::builder(backend()).keep_previous(2).drain_timeout(Duration::ZERO);
    let slot = builder.open(module("1.0.0", broken)).unwrap();
    slot.reload(module("2.0.0", sound)).unwrap();
    let full = HotSlot::builder(backend()).open(module("1.0.0", sound)).unwrap_err();
    assert!(full.to_string().contains("instances of the engine"), "{full}");
    slot.rollback().unwrap();
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lease = slot.load();
        let (begun, options) = (&begun, CallOptions::new().deadline(10 * PATIENCE));
        let spinning = scope.spawn(move || {
            lease.call_with(&options, |spin, call| {
                begun.store(true, Ordering::SeqCst);
                call.run(spin, ())
            })
        });
        eventually("it spins", || begun.load(Ordering::SeqCst));
        slot.reload(module("3.0.0", sound)).unwrap();
        assert!(matches!(spinning.join().unwrap(), Err(WasmCallError::Retired)));
    });
}

/// Somebody else's call does not pay for that, and it is asked once.
#[test]
fn an_instance_that_is_slow_to_save_its_state_takes_no_time_of_the_call_that_needs_its_place() {
    let module = |version: &str| {
        compile(&format!(
            r#"(module
              (@custom "version" "{version}")
              (@custom "hotslot.manifest" "schema=s/1")
              (import "env" "note" (func $note))
              (memory (export "memory") 1)
              (func (export "work"))
              (func (export "hotslot_save") (result i64) (call $note) (i64.const 0x7fffffff_00000008))
              (func (export "hotslot_alloc") (param i32) (result i32) (i32.const 1024))
              (func (export "hotslot_restore") (param i32 i32 i32) (result i64) (i64.const 0)))"#
        ))
    };
    let needy = compile(
        r#"(module
          (memory (export "memory") 1)
          (func (export "grow") (result i32) (local $n i32)
            (memory.grow (i32.const 1))
            ;; Where the time is looked at.
            (loop (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))))"#,
    );
    // Two of the slow one, and the needy one before it grows.
    let engine = Engine::builder().max_instances(8).memory_budget(3 << 16).build().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&asked);
    let slow = engine.bind(|binder| binder.func::<(), ()>("work")).link(move |linker| {
        let asked = Arc::clone(&theirs);
        let note = move || {
            asked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(CallLimits::default().deadline * 3 / 2);
        };
        linker.func_wrap("env", "note", note).map(drop)
    });
    let slow = slow.map(|backend| backend.call_limits(limits()));
    let slow = HotSlot::builder(slow.unwrap().instance_policy(InstancePolicy::Single)).open(module("1.0.0")).unwrap();
    slow.reload(module("2.0.0")).unwrap();
    let needy = HotSlot::builder(engine.bind(|binder| binder.func::<(), u32>("grow"))).open(needy).unwrap();
    let grow = || needy.load().call(|grow, call| call.run(grow, ())).expect("it is told that there is no more");
    for _ in 0..2 {
        assert_eq!(grow(), u32::MAX);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "it is not asked again");
    }
    slow.rollback().unwrap();
    assert_eq!((grow(), asked.load(Ordering::SeqCst)), (u32::MAX, 2), "another one");
    slow.load().call(|work, call| call.run(work, ())).unwrap();
    slow.rollback_to(Rollback::to(2)).unwrap();
    assert_eq!((grow(), asked.load(Ordering::SeqCst)), (u32::MAX, 3), "it has served again");
}

#[test]
fn a_state_that_the_next_version_does_not_know_refuses_the_reload() {
    let slot = slot(&engine(), InstancePolicy::Single);
    add(&slot, 40);
    let error = slot.reload(counter("2.0.0", "counter/2", "another/2")).unwrap_err();
    assert_eq!(error.stage(), Stage::HandOver);
    assert!(error.to_string().contains("does not take the state: unknown\\u{1b}"), "{error}");
    assert_eq!(add(&slot, 1), 41, "the old one serves on, with its state");
    slot.reload(counter("2.0.0", "counter/2", "counter/1")).expect("a version that migrates the state");
    assert_eq!(add(&slot, 1), 42);
}

#[test]
fn a_state_for_which_there_is_no_room_is_refused_and_the_one_before_stays() {
    let slot = slot(&engine(), InstancePolicy::Single);
    add(&slot, 40);
    let state = State { schema: "counter/1".into(), bytes: vec![0; 4096] };
    let error = slot.load().restore(&state).unwrap_err();
    assert!(error.to_string().contains("no room for a state of 4105 bytes"), "{error}");
    assert_eq!(add(&slot, 1), 41);
}

#[test]
fn a_plugin_without_a_schema_has_no_state_and_takes_none() {
    let slot = super::slot();
    assert_eq!(slot.load().save().unwrap(), None);
    let state = State { schema: "counter/1".into(), bytes: Vec::new() };
    assert!(slot.load().restore(&state).unwrap_err().to_string().contains("no schema"));
}
