//! What becomes of calls in a generation that was replaced. FAULTS 32, 33.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hotslot::wasm::{CallLimits, CallOptions, Engine, WasmCallError};
use hotslot::{Event, HotSlot};

use super::{Plugin, answer, backend, destroyed, engine, limits, module};
use crate::support::{Latch, PATIENCE, eventually, wait_for};

/// Calls that may take as long as the test; only a retirement ends them.
fn patient() -> CallOptions {
    CallOptions::new().deadline(10 * PATIENCE)
}

fn slot(engine: &Engine, drain_timeout: Duration) -> HotSlot<Plugin> {
    let limits = CallLimits { memory: 512 << 20, ..limits() };
    HotSlot::builder(backend(engine).call_limits(limits))
        .keep_previous(0)
        .drain_timeout(drain_timeout)
        .open(module("1.0.0", 1))
        .unwrap()
}

#[test]
fn calls_still_inside_after_the_drain_timeout_are_trapped_and_their_memory_is_freed() {
    let engine = engine();
    let slot = slot(&engine, Duration::ZERO);
    let events = slot.subscribe();
    let inside = AtomicUsize::new(0);
    thread::scope(|scope| {
        let stuck: Vec<_> = (0..4)
            .map(|_| {
                let (lease, inside) = (slot.load(), &inside);
                scope.spawn(move || {
                    lease.call_with(&patient(), |calls, call| {
                        call.run(&calls.grow, 1024)?;
                        inside.fetch_add(1, Ordering::SeqCst);
                        call.run(&calls.spin, ())
                    })
                })
            })
            .collect();
        eventually("the calls are inside", || inside.load(Ordering::SeqCst) == 4);
        let loaded = resident();
        slot.reload(module("2.0.0", 2)).unwrap();
        wait_for(&events, |event| matches!(event, Event::Stuck { generation: 1, .. }).then_some(()));
        for call in stuck {
            let error = call.join().unwrap().unwrap_err();
            assert!(matches!(error, WasmCallError::Retired), "{error}");
            assert_eq!(answer(&slot.load()).unwrap(), 2, "its successor never noticed");
        }
        destroyed(&events, 1);
        assert_eq!(engine.status().instances, 0);
        // Four times 64 MiB; other tests have their own on the side.
        eventually("the memory is back with the system", || resident() + (200 << 20) < loaded);
    });
    assert!(slot.status().retired.is_empty());
}

#[test]
fn a_call_in_a_warm_generation_is_ended_and_a_rollback_serves_again() {
    let engine = engine();
    let slot = HotSlot::builder(backend(&engine)).drain_timeout(Duration::ZERO).open(module("1.0.0", 1)).unwrap();
    let lease = slot.load();
    thread::scope(|scope| {
        let stuck = scope.spawn(|| lease.call_with(&patient(), |calls, call| call.run(&calls.spin, ())));
        eventually("the call is inside", || engine.status().instances == 1);
        slot.reload(module("2.0.0", 2)).unwrap();
        assert!(matches!(stuck.join().unwrap(), Err(WasmCallError::Retired)));
    });
    assert!(matches!(answer(&lease), Err(WasmCallError::Retired)), "its time is over, until it serves again");
    slot.rollback().unwrap();
    assert_eq!((answer(&lease).unwrap(), answer(&slot.load()).unwrap()), (1, 1));
}

#[test]
fn calls_within_the_drain_timeout_finish() {
    let engine = engine();
    let slot = slot(&engine, 10 * PATIENCE);
    let events = slot.subscribe();
    let (lease, latch) = (slot.load(), Latch::default());
    thread::scope(|scope| {
        let call = scope.spawn(|| {
            let lease = lease;
            lease.call_with(&patient(), |calls, call| {
                latch.pass();
                call.run(&calls.answer, ())
            })
        });
        latch.wait_for(1);
        slot.reload(module("2.0.0", 2)).unwrap();
        assert_eq!(answer(&slot.load()).unwrap(), 2);
        latch.open();
        assert_eq!(call.join().unwrap().unwrap(), 1);
    });
    destroyed(&events, 1);
}

#[test]
fn a_slot_that_is_dropped_lets_its_calls_finish_or_ends_them() {
    let engine = engine();
    let slot = slot(&engine, Duration::ZERO);
    let (finishing, spinning, latch) = (slot.load(), slot.load(), Latch::default());
    thread::scope(|scope| {
        let spinning = scope.spawn(|| spinning.call_with(&patient(), |calls, call| call.run(&calls.spin, ())));
        let finishing = scope.spawn(|| {
            finishing.call_with(&patient(), |_, _| {
                latch.pass();
                Ok(())
            })
        });
        latch.wait_for(1);
        drop(slot);
        latch.open();
        finishing.join().unwrap().unwrap();
        assert!(matches!(spinning.join().unwrap(), Err(WasmCallError::Retired)));
    });
    eventually("nothing is left of it", || engine.status().instances == 0);
}

/// A load that is under way when its slot goes.
#[test]
fn a_slot_that_is_dropped_in_the_middle_of_a_reload_leaves_nothing() {
    let engine = engine();
    for _ in 0..20 {
        let slot = slot(&engine, Duration::ZERO);
        let staged = slot.stage(module("2.0.0", 2)).unwrap();
        drop(slot);
        staged.commit().unwrap_err();
    }
    eventually("nothing is left of it", || engine.status().instances == 0);
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
