//! Many things at once. FAULTS 29, 30, 31.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use hotslot::wasm::{Engine, InstancePolicy};
use hotslot::{Candidate, HotSlot, Lease, Outcome, VersionRule};

use super::{answer, backend, module};
use crate::support::{PATIENCE, eventually};

/// Callers on two threads, while `transitions` change the plugin; every call must answer 1 or 2.
fn under_load(policy: InstancePolicy, transitions: impl FnOnce(&HotSlot<super::Plugin>)) {
    let engine = Engine::builder().max_instances(48).build().unwrap();
    let slot = HotSlot::builder(backend(&engine).instance_policy(policy))
        .version_rule(VersionRule::Any)
        .open(module("1.0.0", 1))
        .unwrap();
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let got = answer(&slot.load()).expect("no call fails");
                    assert!(got == 1 || got == 2);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        transitions(&slot);
        done.store(true, Ordering::Relaxed);
    });
    assert!(calls.load(Ordering::Relaxed) > 0);
    let status = slot.close(PATIENCE);
    assert!(status.retired.is_empty() && status.hung == 0, "{status:?}");
    eventually("every instance was given back", || engine.status().instances == 0);
    assert!(engine.status().compiled <= 2, "the rest was known");
}

#[test]
fn a_storm_of_reloads_loses_no_call() {
    let modules = [module("1.0.0", 1), module("2.0.0", 2)];
    for policy in [InstancePolicy::Fresh, InstancePolicy::Reuse { max_uses: 10.try_into().unwrap() }] {
        under_load(policy, |slot| {
            for turn in 1..=300 {
                slot.reload(&modules[turn % 2]).unwrap();
                let retired = slot.status().retired.len();
                assert!(retired <= 66, "{retired} generations linger");
            }
            assert_eq!(slot.status().counters.swaps, 301);
        });
    }
}

#[test]
fn reloads_and_rollbacks_from_many_threads_leave_a_linear_history() {
    let modules = [module("1.0.0", 1), module("2.0.0", 2)];
    under_load(InstancePolicy::Fresh, |slot| {
        thread::scope(|scope| {
            for thread in 0..8 {
                let modules = &modules;
                scope.spawn(move || {
                    for turn in 0..10 {
                        let candidate = Candidate::new(&modules[(thread + turn) % 2][..]).force();
                        // A rollback in between makes the base of a reload stale, which it says.
                        if turn % 4 == 3 { drop(slot.rollback()) } else { drop(slot.reload(candidate)) }
                    }
                });
            }
        });
        let mut current = None;
        for report in slot.history() {
            if let Outcome::Swapped { generation, previous } = report.outcome {
                assert_eq!(previous, current);
                current = Some(generation);
            }
        }
        assert_eq!(current, Some(Lease::generation(&slot.load())));
    });
}
