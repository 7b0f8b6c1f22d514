//! A hand-over under load, on both backends: with calls held, every count arrives.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use hotslot::native::Native;
use hotslot::{HotSlot, transfer_state};
use hotslot_fixture_interface::v1_0::Fixture;

use super::{built, modules};
use crate::support::{PATIENCE, eventually, trust};

fn no_count_is_lost(kind: &str, slot: &HotSlot<dyn Fixture>, next: impl Fn(u64) -> Vec<u8>) {
    let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    slot.load().add(1);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for answer in 1..=5 {
            let before = made.load(Ordering::Relaxed);
            eventually("somebody calls", || made.load(Ordering::Relaxed) > before);
            let report = slot.reload(next(answer)).unwrap();
            assert_eq!(report.leases_during_hand_over, 0, "{kind}: {report:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(slot.load().add(0), made.into_inner(), "{kind}");
}

#[test]
fn every_count_arrives_while_calls_are_held() {
    let backend = Native::interface::<dyn Fixture>(trust());
    let slot = HotSlot::builder(backend).hand_over(transfer_state).hold_calls_during_hand_over(PATIENCE);
    let next = |answer| built::library("").answering(answer).bytes();
    no_count_is_lost("native", &slot.open(next(0)).unwrap(), next);
    if let Some(module) = built::module("") {
        let slot = HotSlot::builder(modules::<dyn Fixture>()).hand_over(transfer_state);
        let next = |answer| module.clone().answering(answer).bytes();
        no_count_is_lost("wasm", &slot.hold_calls_during_hand_over(PATIENCE).open(next(0)).unwrap(), next);
    }
}
