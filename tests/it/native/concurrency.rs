//! Callers, reloads and the end of a slot, all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use hotslot::native::{NativePlugin, Unload};
use hotslot::{BoxError, Builder, ErrorKind, Event, HotSlot, Lease, Stage};

use super::methods::WAIT_FOR_STOP;
use super::process::alone;
use super::{answer, answering, builder, destroyed, elsewhere, frees, is_freed, mapped, native};
use crate::support::{Latch, PATIENCE, wait_for};

/// Row 19, under load: each caller sees the generations in their order, and each the code of its own generation.
#[test]
fn no_call_is_lost_while_two_hundred_reloads_happen_under_sixteen_threads() {
    alone(|| {
        reload_under_callers(Unload::KeepMapped, 200);
        // What a caller may still be inside is not unmapped; that takes a second to find out.
        reload_under_callers(Unload::WhenIdle, 30);
    });
}

fn reload_under_callers(unload: Unload, reloads: u32) {
    let slot = HotSlot::builder(native().unload(unload)).keep_previous(1).open(answering(1)).unwrap();
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let lease = slot.load();
                    let answer = answer(&lease);
                    assert_eq!(u64::from(answer), Lease::generation(&lease), "the code of another generation");
                    assert!(answer >= last, "{answer} after {last}");
                    last = answer;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 2..=reloads + 1 {
            slot.reload(answering(number)).unwrap();
            // Reloads do not crowd the callers out.
            let seen = calls.load(Ordering::Relaxed);
            while calls.load(Ordering::Relaxed) < seen + 16 {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(Lease::generation(&slot.load()), u64::from(reloads) + 1);
    assert_eq!(slot.status().counters.refused, 0);
    let status = slot.close(PATIENCE);
    assert!(status.retired.is_empty(), "{status:?}");
}

/// Row 32.
#[test]
fn a_lease_that_is_held_for_ever_is_named_and_holds_nobody_up() {
    let slot = builder().keep_previous(0).track_leases(true).drain_timeout(Duration::from_millis(20));
    let slot = slot.open(answering(1)).unwrap();
    let events = slot.subscribe();
    let held = slot.load();
    slot.reload(answering(2)).unwrap();
    let oldest = wait_for(&events, |event| match event {
        Event::Stuck { generation: 1, leases: 1, oldest_lease, .. } => Some(oldest_lease.clone()),
        _ => None,
    });
    assert!(format!("{oldest:?}").contains("concurrency.rs"), "{oldest:?}");
    for number in 3..8 {
        slot.reload(answering(number)).unwrap();
        assert_eq!((answer(&slot.load()), answer(&held)), (number, 1));
    }
    drop(held);
    destroyed(&events, 1);
}

/// Row 33: the load has been given up by then, and comes to its end when nobody is left.
#[test]
fn a_slot_that_is_dropped_while_a_plugin_loads_leaves_nothing_behind() {
    alone(|| {
        let (probing, probed) = channel();
        let door = Arc::new(Latch::default());
        let probe = {
            let door = Arc::clone(&door);
            move |plugin: &NativePlugin| -> Result<(), BoxError> {
                if answer(plugin) == 2 {
                    probing.send(())?;
                    door.pass();
                }
                Ok(())
            }
        };
        let slot = when_idle().probe(probe).reload_timeout(Duration::from_secs(3));
        let slot = elsewhere(|| slot.open(answering(1)).unwrap());
        let events = slot.subscribe();
        let error = elsewhere(|| slot.reload(answering(2)).unwrap_err());
        assert!(error.is_timeout() && error.stage() == Stage::Probe, "{error}");
        probed.recv().unwrap();
        drop(slot);
        destroyed(&events, 1);
        assert!(!mapped("idle-2.").is_empty(), "it is still at the door");
        door.open();
        assert_eq!(is_freed(&destroyed(&events, 2)), mapped("idle-2.").is_empty());
    });
}

/// Row 33: a staged plugin outlives its slot.
#[test]
fn a_plugin_that_is_staged_when_its_slot_is_dropped_cannot_be_committed_and_goes() {
    alone(|| {
        frees(|| {
            let slot = elsewhere(|| when_idle().open(answering(1)).unwrap());
            let events = slot.subscribe();
            elsewhere(move || {
                let staged = slot.stage(answering(2)).unwrap();
                drop(slot);
                assert_eq!(answer(staged.plugin().unwrap()), 2);
                assert!(matches!(staged.commit().unwrap_err().kind(), ErrorKind::Closed));
            });
            destroyed(&events, 2)
        });
    });
}

/// Two searches for threads that are still inside must not take each other for such.
#[test]
fn generations_that_go_at_the_same_time_do_not_keep_each_other() {
    alone(|| {
        let slots = elsewhere(|| std::array::from_fn::<_, 16, _>(|_| when_idle().open(answering(1)).unwrap()));
        let events = slots.each_ref().map(HotSlot::subscribe);
        drop(slots);
        let freed = events.iter().filter(|events| is_freed(&destroyed(events, 1))).count();
        assert!(freed > 12, "{freed} of 16");
    });
}

/// Row 33: a lease outlives its slot, and so does the code.
#[test]
fn a_lease_that_outlives_its_slot_can_still_call() {
    alone(|| {
        frees(|| {
            let slot = elsewhere(|| when_idle().open(answering(1)).unwrap());
            let events = slot.subscribe();
            elsewhere(move || {
                let (lease, waiting) = (slot.load(), slot.load());
                let inside = std::thread::spawn(move || waiting.call(WAIT_FOR_STOP, b""));
                drop(slot);
                assert_eq!(inside.join().unwrap(), Ok(Vec::new()), "it was told to stop");
                assert_eq!(answer(&lease), 1);
            });
            destroyed(&events, 1)
        });
    });
}

fn when_idle() -> Builder<NativePlugin> {
    HotSlot::builder(native().unload(Unload::WhenIdle)).name("idle")
}
