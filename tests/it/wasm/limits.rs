//! What one call may take, and that nobody else pays for it. FAULTS 12, 14, 15.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hotslot::wasm::{CallLimits, CallOptions, InstancePolicy, WasmCallError};
use hotslot::{HotSlot, Probation, Stage, StopSignal};

use super::{answer, backend, compile, engine, limits, module, source, spin};
use crate::support::{eventually, wait_for};

#[test]
fn a_thousand_endless_loops_end_at_their_deadline_and_their_neighbours_never_notice() {
    let engine = engine();
    let spinning = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).expect("the fixture loads");
    let other = HotSlot::builder(backend(&engine)).open(module("1.0.0", 2)).expect("the fixture loads");
    let (left, done, answers) = (AtomicU64::new(1000), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        // In another slot on the same engine, and in the same generation.
        for expected in [2, 1] {
            let (other, spinning, done, answers) = (&other, &spinning, &done, &answers);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let lease = if expected == 2 { other.load() } else { spinning.load() };
                    assert_eq!(answer(&lease).expect("no neighbour is harmed"), expected);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let spinners: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        let error = spin(&spinning.load());
                        assert!(matches!(error, WasmCallError::DeadlineExceeded(_)), "{error}");
                    }
                })
            })
            .collect();
        spinners.into_iter().for_each(|spinner| spinner.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert!(answers.load(Ordering::Relaxed) > 0);
    assert_eq!(engine.status().instances, 0, "every instance was given back");
}

#[test]
fn a_loop_in_start_is_refused_at_load() {
    let hasty = CallLimits { deadline: Duration::from_millis(500), ..limits() };
    let slot = HotSlot::builder(backend(&engine()).call_limits(hasty)).open(module("1.0.0", 1)).unwrap();
    let start = source("1.1.0", 2, "(func $start (loop $again (br $again))) (start $start)");
    let error = slot.reload(compile(&start)).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    assert!(error.to_string().contains("did not answer within 500ms"), "{error}");
    assert_eq!(answer(&slot.load()).unwrap(), 1);
}

#[test]
fn a_call_can_have_a_deadline_of_its_own() {
    let slot = super::slot();
    let options = CallOptions::new().deadline(Duration::from_millis(1));
    let error = slot.load().call_with(&options, |calls, call| call.run(&calls.spin, ())).unwrap_err();
    assert!(matches!(error, WasmCallError::DeadlineExceeded(deadline) if deadline.as_millis() == 1), "{error}");
}

#[test]
fn memory_that_is_not_allowed_is_not_had() {
    let limits = CallLimits { memory: 4 << 20, ..limits() };
    let slot = HotSlot::builder(backend(&engine()).call_limits(limits)).open(module("1.0.0", 1)).unwrap();
    let grow = |pages| slot.load().call(|calls, call| call.run(&calls.grow, pages));
    assert_eq!(grow(63).unwrap(), 1);
    for pages in [64, 1024, 65535, u32::MAX] {
        let error = grow(pages).unwrap_err();
        assert!(matches!(error, WasmCallError::OutOfMemory { limit } if limit == 4 << 20), "{error}");
    }
    // A bit at a time does not get further.
    let error = slot
        .load()
        .call(|calls, call| {
            loop {
                call.run(&calls.grow, 1)?;
            }
        })
        .map(|_: ()| ())
        .unwrap_err();
    assert!(matches!(error, WasmCallError::OutOfMemory { .. }), "{error}");
    assert_eq!(answer(&slot.load()).unwrap(), 1);
}

#[test]
fn table_elements_that_are_not_allowed_are_not_had() {
    let slot = super::slot();
    let grow = |by| slot.load().call(|calls, call| call.run(&calls.grow_table, by));
    grow(9_999).unwrap();
    for by in [10_000, 1_000_000, u32::MAX] {
        let error = grow(by).unwrap_err();
        assert!(matches!(error, WasmCallError::OutOfTable { limit: 10_000 }), "{error}");
    }
}

#[test]
fn endless_recursion_traps_on_any_thread_of_an_ordinary_size() {
    let slot = super::slot();
    let overflow = || {
        let error = slot.load().call(|calls, call| call.run(&calls.recurse, ())).unwrap_err();
        let WasmCallError::Trapped { reason, site, .. } = error else { panic!("{error}") };
        assert!(reason.contains("stack") && site.unwrap().contains("recurse"), "{reason}");
    };
    overflow();
    thread::scope(|scope| {
        thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, overflow).unwrap().join().unwrap();
    });
}

#[test]
fn a_cancelled_call_ends_and_takes_nobody_along() {
    let slot = super::slot();
    let lease = slot.load();
    let (first, second) = (StopSignal::new(), StopSignal::new());
    let patient = CallOptions::new().deadline(Duration::from_secs(600));
    let spin_until = |cancel: &StopSignal| {
        let options = patient.clone().cancel(cancel);
        lease.call_with(&options, |calls, call| call.run(&calls.spin, ())).unwrap_err()
    };
    thread::scope(|scope| {
        let one = scope.spawn(|| spin_until(&first));
        let two = scope.spawn(|| spin_until(&second));
        first.raise();
        assert!(matches!(one.join().unwrap(), WasmCallError::Cancelled));
        assert!(!two.is_finished(), "it was the first call that was cancelled");
        second.raise();
        assert!(matches!(two.join().unwrap(), WasmCallError::Cancelled));
    });
    assert!(matches!(spin_until(&first), WasmCallError::Cancelled), "a call that is cancelled already does not begin");
    assert_eq!(slot.status().serving.unwrap().failures, 0, "that is not the plugin's fault");
}

/// A host that panics in its own part of a call.
#[test]
fn a_panic_of_the_caller_costs_that_instance() {
    let engine = engine();
    let policy = InstancePolicy::Reuse { max_uses: 1000.try_into().unwrap() };
    let slot = HotSlot::builder(backend(&engine).instance_policy(policy).concurrency(NonZeroUsize::MIN))
        .open(module("1.0.0", 1))
        .unwrap();
    let lease = slot.load();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        lease.call(|calls, call| {
            call.run(&calls.count, ())?;
            std::panic::resume_unwind(Box::new("the caller panics on purpose"));
            #[allow(unreachable_code)]
            Ok(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(engine.status().instances, 0);
    assert_eq!(lease.call(|calls, call| call.run(&calls.count, ())).unwrap(), 1, "and neither its turn nor its place");
}

#[test]
fn calls_that_fail_in_probation_roll_the_plugin_back() {
    let slot = HotSlot::builder(backend(&engine()))
        .probation(Probation::new(Duration::from_secs(600)).max_failures(3))
        .open(module("1.0.0", 1))
        .unwrap();
    let events = slot.subscribe();
    slot.reload(module("2.0.0", 2)).unwrap();
    let lease = slot.load();
    for _ in 0..4 {
        lease.call(|calls, call| call.run(&calls.trap, ())).unwrap_err();
    }
    wait_for(&events, |event| matches!(event, hotslot::Event::Retired { generation: 2, .. }).then_some(()));
    eventually("the earlier generation serves", || answer(&slot.load()).unwrap() == 1);
    assert_eq!(slot.status().counters.automatic_rollbacks, 1);
}

#[test]
fn a_trap_after_a_refused_growth_is_reported_as_what_it_was() {
    let limits = CallLimits { memory: 4 << 20, ..limits() };
    let module = |body: &str| {
        compile(&format!(
            r#"(module (memory (export "memory") 1) (func $deep (call $deep))
              (func (export "run") (drop (memory.grow (i32.const 1000))) {body}))"#
        ))
    };
    let run = |body: &str| {
        let backend = engine().bind(|binder| binder.func::<(), ()>("run")).call_limits(limits.clone());
        let slot = HotSlot::builder(backend).open(module(body)).unwrap();
        slot.load().call(|run, call| call.run(run, ())).unwrap_err()
    };
    for cause in ["unreachable", "(drop (i32.load (i32.const 0x100000)))"] {
        let error = run(cause);
        assert!(matches!(error, WasmCallError::OutOfMemory { limit } if limit == 4 << 20), "{cause}: {error:?}");
    }
    // These have other causes.
    let smaller = "(drop (memory.grow (i32.const 1))) unreachable";
    for (other, reason) in [
        ("(call $deep)", "stack"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide"),
        (smaller, "unreachable"),
    ] {
        let error = run(other);
        assert!(
            matches!(&error, WasmCallError::Trapped { reason: why, .. } if why.contains(reason)),
            "{other}: {error:?}"
        );
    }
}
