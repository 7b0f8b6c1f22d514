//! Which instance a call gets, and what happens when there is none.

use std::num::{NonZeroU32, NonZeroUsize};
use std::thread;
use std::time::Duration;

use hotslot::wasm::{CallLimits, CallOptions, Engine, Func, InstancePolicy, WasmCallError};
use hotslot::{HotSlot, Lease, StopSignal};

use super::{Plugin, answer, backend, engine, module};
use crate::support::{Latch, PATIENCE};

fn slot(engine: &Engine, policy: InstancePolicy) -> HotSlot<Plugin> {
    HotSlot::builder(backend(engine).instance_policy(policy)).open(module("1.0.0", 1)).unwrap()
}

fn reuse(max_uses: u32) -> InstancePolicy {
    InstancePolicy::Reuse { max_uses: NonZeroU32::new(max_uses).unwrap() }
}

fn calls(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

/// Has an instance, and waits at the latch before it answers.
fn answer_once_open(plugin: &Plugin, latch: &Latch) -> u32 {
    let answered = plugin.call(|calls, call| {
        latch.pass();
        call.run(&calls.answer, ())
    });
    answered.unwrap()
}

fn count(plugin: &Plugin) -> u32 {
    plugin.call(|calls, call| call.run(&calls.count, ())).unwrap()
}

#[test]
fn a_fresh_instance_has_seen_nothing() {
    let engine = engine();
    let slot = slot(&engine, InstancePolicy::Fresh);
    for _ in 0..100 {
        assert_eq!(count(&slot.load()), 1);
    }
    assert_eq!(engine.status().instances, 0);
}

#[test]
fn how_long_a_call_waited_for_its_instance_is_told_once_whether_it_got_one_or_not() {
    let slot = HotSlot::builder(backend(&engine()).instance_policy(InstancePolicy::Fresh).concurrency(calls(1)));
    let slot = slot.open(module("1.0.0", 1)).unwrap();
    let lease = slot.load();
    let (_, idle) = Lease::measure(&lease, |_| ());
    assert_eq!(idle.waited, Duration::ZERO, "there was no call");
    let (_, cost) = Lease::measure(&lease, count);
    assert!(cost.waited > Duration::ZERO && cost.waited <= cost.took, "{cost:?}");
    let mut refused = Duration::ZERO;
    let (inside, outer) = Lease::measure(&lease, |plugin| {
        plugin.call(|calls, call| {
            let (answer, inner) = Lease::measure(&lease, answer);
            assert!(matches!(answer, Err(WasmCallError::Saturated { .. })));
            refused = inner.waited;
            call.run(&calls.count, ())
        })
    });
    assert_eq!(inside.unwrap(), 1);
    assert!(refused > Duration::ZERO, "until it was refused");
    assert!(outer.waited > refused, "the outer call's own, and that of the call in it");
    assert_eq!(Lease::measure(&lease, |_| ()).1.waited, Duration::ZERO, "it is told once");
}

/// Also where many instances of many plugins take turns in the same place.
#[test]
fn nothing_of_one_call_is_seen_by_the_next_one_in_the_same_place() {
    let engine = Engine::builder().max_instances(2).build().unwrap();
    let slots = [slot(&engine, InstancePolicy::Fresh), slot(&engine, InstancePolicy::Fresh)];
    for round in 0..50_u32 {
        for slot in &slots {
            let secret = vec![round as u8 | 1; 2048];
            let found = slot.load().call(|calls, call| {
                call.run(&calls.grow, 3)?;
                let before = call.read(0, 4 * 65536)?.iter().filter(|&&byte| byte != 0).count();
                call.write(&calls.input, &secret)?;
                Ok(before)
            });
            // What `grow` writes into its own three pages, and nothing else.
            assert_eq!(found.unwrap(), 3 * 65536);
        }
    }
}

/// Before it waits, and while it does.
#[test]
fn an_instance_that_becomes_idle_makes_room_for_a_call_of_another_plugin() {
    let engine = Engine::builder().max_instances(1).build().unwrap();
    let one = slot(&engine, reuse(u32::MAX));
    let patient = backend(&engine).instance_policy(reuse(u32::MAX)).max_wait(2 * PATIENCE);
    let other = HotSlot::builder(patient).open(module("1.0.0", 2)).unwrap();
    for _ in 0..20 {
        let latch = Latch::default();
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(answer_once_open(&one.load(), &latch), 1));
            latch.wait_for(1);
            let waits = scope.spawn(|| answer(&other.load()));
            thread::yield_now();
            latch.open();
            assert_eq!(waits.join().unwrap().unwrap(), 2);
        });
    }
}

#[test]
fn the_time_for_which_others_have_the_instances_is_not_the_calls() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let engine = Engine::builder().max_instances(1).build().unwrap();
    let one = slot(&engine, InstancePolicy::Fresh);
    let limits = CallLimits { deadline: DEADLINE, ..super::limits() };
    let hasty = backend(&engine).call_limits(limits).instance_policy(InstancePolicy::Fresh).max_wait(2 * PATIENCE);
    let other = HotSlot::builder(hasty).open(module("1.0.0", 2)).unwrap();
    let latch = Latch::default();
    thread::scope(|scope| {
        scope.spawn(|| answer_once_open(&one.load(), &latch));
        latch.wait_for(1);
        let waits = scope.spawn(|| answer(&other.load()));
        thread::sleep(DEADLINE + DEADLINE / 2);
        latch.open();
        assert_eq!(waits.join().unwrap().unwrap(), 2);
    });
    assert_eq!(other.status().serving.unwrap().failures, 0);
}

#[test]
fn a_call_may_wait_for_as_long_as_it_takes() {
    let builder = backend(&engine()).instance_policy(InstancePolicy::Single).max_wait(Duration::MAX);
    let slot = HotSlot::builder(builder).open(module("1.0.0", 1)).unwrap();
    let latch = Latch::default();
    thread::scope(|scope| {
        scope.spawn(|| answer_once_open(&slot.load(), &latch));
        latch.wait_for(1);
        let waits = scope.spawn(|| answer(&slot.load()));
        // It may not wait yet.
        thread::sleep(Duration::from_millis(50));
        latch.open();
        assert_eq!(waits.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_reused_instance_keeps_what_was_there_for_so_many_uses() {
    let engine = engine();
    let slot = slot(&engine, reuse(3));
    // The first use is the proof at load that it can be instantiated and bound.
    let counts: Vec<_> = (0..8).map(|_| count(&slot.load())).collect();
    assert_eq!(counts, [1, 2, 1, 2, 3, 1, 2, 3]);
}

#[test]
fn an_instance_that_trapped_is_not_used_again() {
    let engine = engine();
    let slot = slot(&engine, reuse(100));
    let lease = slot.load();
    assert_eq!((count(&lease), count(&lease)), (1, 2));
    // The caller ignores the error; the instance is lost all the same.
    lease
        .call(|calls, call| {
            let _ = call.run(&calls.trap, ());
            Ok(())
        })
        .unwrap();
    assert_eq!(engine.status().instances, 0);
    assert_eq!(count(&lease), 1);
}

#[test]
fn the_single_instance_counts_every_call_and_calls_take_turns() {
    let engine = engine();
    let slot = slot(&engine, InstancePolicy::Single);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).map(|_| count(&slot.load())).max());
        }
    });
    assert_eq!(count(&slot.load()), 401);
    assert_eq!(engine.status().instances, 1);
}

/// A call that ends when the latch opens.
fn stays_inside(plugin: &Plugin, latch: &Latch) {
    let call = plugin.call(|_, _| {
        latch.pass();
        Ok(())
    });
    call.expect("there is room for it");
}

#[test]
fn a_call_that_is_over_before_it_begins_does_not_cost_the_single_instance_its_state() {
    let slot = slot(&engine(), InstancePolicy::Single);
    let lease = slot.load();
    assert_eq!(count(&lease), 1);
    let cancel = StopSignal::new();
    cancel.raise();
    for options in [CallOptions::new().cancel(&cancel), CallOptions::new().deadline(Duration::ZERO)] {
        lease.call_with(&options, |calls, call| call.run(&calls.count, ())).unwrap_err();
    }
    assert_eq!(count(&lease), 2);
}

#[test]
fn callers_do_not_wait_for_each_other() {
    let engine = engine();
    for policy in [InstancePolicy::Fresh, reuse(100)] {
        let slot = slot(&engine, policy);
        let (latch, lease) = (Latch::default(), slot.load());
        thread::scope(|scope| {
            for _ in 0..6 {
                // All six are inside at once, or none gets out.
                scope.spawn(|| stays_inside(&lease, &latch));
            }
            latch.wait_for(6);
            assert_eq!(answer(&lease).unwrap(), 1);
            latch.open();
        });
    }
}

/// Fills a generation with calls, and runs `then` while they are inside.
fn full(lease: &Lease<Plugin>, calls: usize, then: impl FnOnce(&Latch)) {
    let latch = Latch::default();
    thread::scope(|scope| {
        for _ in 0..calls {
            scope.spawn(|| stays_inside(lease, &latch));
        }
        latch.wait_for(calls);
        then(&latch);
        latch.open();
    });
}

#[test]
fn more_calls_than_allowed_are_refused_as_saturated() {
    let slot = HotSlot::builder(backend(&engine()).concurrency(calls(2))).open(module("1.0.0", 1)).unwrap();
    let lease = slot.load();
    full(&lease, 2, |_| {
        let error = answer(&lease).unwrap_err();
        assert!(matches!(error, WasmCallError::Saturated { limit: 2, .. }), "{error}");
        assert!(!error.is_fault());
    });
    assert_eq!(answer(&lease).unwrap(), 1);
    assert_eq!(slot.status().serving.unwrap().failures, 0);
}

#[test]
fn a_call_can_wait_for_its_turn() {
    let backend = backend(&engine()).concurrency(calls(2)).max_wait(PATIENCE);
    let slot = HotSlot::builder(backend).open(module("1.0.0", 1)).unwrap();
    let lease = slot.load();
    thread::scope(|scope| {
        full(&lease, 2, |latch| {
            let waiting = scope.spawn(|| answer(&lease));
            latch.open();
            assert_eq!(waiting.join().unwrap().unwrap(), 1);
        });
    });
}

#[test]
fn an_engine_that_is_full_says_so_instead_of_failing_in_its_allocator() {
    let engine = Engine::builder().max_instances(3).build().unwrap();
    let slot = HotSlot::builder(backend(&engine).concurrency(calls(10))).open(module("1.0.0", 1)).unwrap();
    let lease = slot.load();
    full(&lease, 3, |_| {
        let error = answer(&lease).unwrap_err();
        assert!(matches!(error, WasmCallError::Saturated { limit: 3, .. }), "{error}");
        let error = slot.reload(module("1.1.0", 2)).unwrap_err();
        assert!(error.to_string().contains("instances of the engine"), "{error}");
    });
    slot.reload(module("1.1.0", 2)).unwrap();
}

/// There is room for the calls of one that serves, of one that drains and of one that comes in.
#[test]
fn a_generation_that_drains_leaves_room_for_its_successor() {
    let engine = Engine::builder().max_instances(6).build().unwrap();
    let slot = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).unwrap();
    let old = slot.load();
    full(&old, 2, |_| {
        assert!(matches!(answer(&old), Err(WasmCallError::Saturated { limit: 2, .. })));
        slot.reload(module("1.1.0", 2)).unwrap();
        let new = slot.load();
        full(&new, 2, |_| drop(slot.stage(module("1.2.0", 3)).unwrap()));
    });
}

#[test]
fn instances_that_wait_in_one_generation_make_room_for_another() {
    let engine = Engine::builder().max_instances(4).build().unwrap();
    let slot = HotSlot::builder(backend(&engine).instance_policy(reuse(1000)).concurrency(calls(4)))
        .keep_previous(3)
        .open(module("1.0.0", 1))
        .unwrap();
    for answers in 2..8 {
        let lease = slot.load();
        full(&lease, 4, |_| ());
        assert_eq!(engine.status().instances, 4, "all of them wait for the next call");
        slot.reload(module(&format!("1.{answers}.0"), answers)).unwrap();
        assert_eq!(answer(&slot.load()).unwrap(), answers);
    }
    slot.rollback().unwrap();
    assert_eq!(answer(&slot.load()).unwrap(), 6);
}

#[test]
fn a_wait_that_is_in_vain_ends() {
    let backend = backend(&engine()).concurrency(calls(1)).max_wait(Duration::from_millis(1));
    let slot = HotSlot::builder(backend).open(module("1.0.0", 1)).unwrap();
    let lease = slot.load();
    full(&lease, 1, |_| assert!(matches!(answer(&lease), Err(WasmCallError::Saturated { .. }))));
}

/// Counts in memory, and hands the count over if it has a schema.
fn counter(version: &str, schema: bool) -> Vec<u8> {
    let schema = if schema { "schema=count/1" } else { "" };
    super::compile(&format!(
        r#"(module (@custom "version" "{version}") (@custom "hotslot.manifest" "name=counter\n{schema}")
          (memory (export "memory") 1)
          (func (export "count") (result i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
            (i32.load (i32.const 0)))
          (func (export "hotslot_save") (result i64) (i64.const 4))
          (func (export "hotslot_alloc") (param i32) (result i32) (i32.const 1024))
          (func (export "hotslot_restore") (param i32 i32 i32) (result i64)
            (i32.store (i32.const 0) (i32.load (i32.add (local.get 0) (local.get 1)))) (i64.const 0)))"#
    ))
}

#[test]
fn warm_generations_give_their_places_up_before_a_stage_is_refused_and_keep_their_state() {
    // The same as 70 slots with two warm generations each on 192 instances.
    let engine = Engine::builder().max_instances(20).build().unwrap();
    for schema in [true, false] {
        let backend = || {
            let count = |binder: &mut hotslot::wasm::Binder<'_>| binder.func::<(), u32>("count");
            engine.bind(count).instance_policy(InstancePolicy::Single).call_limits(super::limits())
        };
        let open = |index: u32| {
            let slot = HotSlot::builder(backend()).name(format!("s{index}")).keep_previous(2);
            slot.open(counter("1.0.0", schema)).unwrap()
        };
        let slots: Vec<_> = (0..8).map(open).collect();
        let count = |slot: &HotSlot<hotslot::wasm::WasmPlugin<Func<(), u32>>>| {
            slot.load().call(|count, call| call.run(count, ())).unwrap()
        };
        slots.iter().for_each(|slot| assert_eq!((count(slot), count(slot)), (1, 2)));
        for version in ["1.1.0", "1.2.0", "1.3.0"] {
            for slot in &slots {
                slot.reload(counter(version, schema)).unwrap_or_else(|error| panic!("{version}: {error}"));
                assert_eq!(count(slot), 1);
            }
        }
        for slot in &slots {
            slot.rollback_to(2).unwrap();
            // What it had counted, if it could be saved or did not have to give way.
            assert!(count(slot) == 2 || !schema);
        }
    }
    // All that serve: nobody gives way, and the error says who has them.
    let backend = || engine.bind(|_| Ok(())).instance_policy(InstancePolicy::Single);
    let mut slots = Vec::new();
    let error = loop {
        match HotSlot::builder(backend()).name("keeper").open(super::module("1.0.0", 1)) {
            Ok(slot) => slots.push(slot),
            Err(error) => break error.to_string(),
        }
        assert!(slots.len() <= 20);
    };
    assert!(error.contains("1 by slot `keeper` generation 1 (serving or staged)"), "{error}");
    assert!(error.contains("and the rest by 15 more generations"), "{error}");
}
