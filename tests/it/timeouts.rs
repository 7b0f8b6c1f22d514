//! What hangs holds nobody up: the caller has an error, the slot is usable, and the late result is destroyed.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hotslot::{ErrorKind, Event, HotSlot, Outcome, Probation, Stage};

use crate::assert_kind;
use crate::support::{Plugin, Values, close, eventually, serving, snapshot, wait_for};

/// Long for everything here but what hangs.
const LIMIT: Duration = Duration::from_secs(2);

fn slot(values: &Values) -> HotSlot<Plugin> {
    values.builder().reload_timeout(LIMIT).open(b"p 1.0.0 1").unwrap()
}

/// Generation 2, were it not for `step`, which hangs or stalls.
#[track_caller]
fn times_out(step: &str, stage: Stage) {
    for what in ["hang", "stall"] {
        let values = Values::new();
        let slot = slot(&values);
        let before = snapshot(&slot);

        let error = slot.reload(format!("p 2.0.0 2 {step}={what}").into_bytes()).unwrap_err();
        assert!(error.is_timeout());
        assert_kind!(error, ErrorKind::TimedOut(limit) if *limit == LIMIT);
        assert_eq!(error.stage(), stage);
        assert_eq!(snapshot(&slot), before);
        assert_eq!(slot.status().hung, 1);
        let last = slot.history().pop().unwrap();
        assert!(matches!(last.outcome, Outcome::Refused { stage: recorded, .. } if recorded == stage), "{last:?}");
        let (hung_at, waited) = last.stages.last().unwrap();
        assert!(*hung_at == stage && *waited > Duration::ZERO, "{last:?}");

        slot.reload(b"p 3.0.0 3").expect("the slot is usable while it hangs");
        slot.rollback().expect("in both directions");
        assert_eq!((serving(&slot), slot.status().hung), ((1, 1), 1));

        values.latch.open();
        eventually("nothing hangs any more", || slot.status().hung == 0);
        close(slot, &values.census);
    }
}

#[test]
fn an_admission_that_hangs() {
    times_out("admit", Stage::Admit);
}

#[test]
fn an_admit_hook_that_hangs() {
    times_out("vet", Stage::Admit);
}

#[test]
fn a_load_that_hangs() {
    times_out("load", Stage::Load);
}

#[test]
fn a_probe_that_hangs() {
    times_out("probe", Stage::Probe);
}

#[test]
fn a_hand_over_that_hangs() {
    times_out("hand_over", Stage::HandOver);
}

#[test]
fn a_late_result_is_destroyed_and_never_serves() {
    let values = Values::new();
    let slot = slot(&values);
    slot.reload(b"p 2.0.0 2 load=hang").unwrap_err();
    assert_eq!(values.census.alive(), [1]);
    let events = slot.subscribe();
    values.latch.open();
    wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 2, .. }).then_some(()));
    assert_eq!(serving(&slot), (1, 1));
    close(slot, &values.census);
}

#[test]
fn a_late_load_is_not_probed() {
    let values = Values::new();
    let probed = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = probed.clone();
    let slot = values
        .builder()
        .probe(move |plugin: &Plugin| {
            seen.lock().unwrap().push(plugin.answer());
            Ok::<(), String>(())
        })
        .reload_timeout(LIMIT)
        .open(b"p 1.0.0 1")
        .unwrap();
    slot.reload(b"p 2.0.0 2 load=hang").unwrap_err();
    values.latch.open();
    eventually("nothing hangs any more", || slot.status().hung == 0);
    assert_eq!(*probed.lock().unwrap(), [1]);
    close(slot, &values.census);
}

#[test]
fn a_commit_has_a_timeout_of_its_own() {
    let values = Values::new();
    let slot = slot(&values);
    let staged = slot.stage(b"p 2.0.0 2 hand_over=hang").unwrap();
    let error = staged.commit().unwrap_err();
    assert!(error.is_timeout() && error.stage() == Stage::HandOver, "{error}");
    values.latch.open();
    close(slot, &values.census);
}

#[test]
fn whoever_waits_for_a_turn_gets_it_when_the_one_before_times_out() {
    let values = Values::new();
    let slot = slot(&values);
    thread::scope(|scope| {
        let hanging = scope.spawn(|| slot.reload(b"p 2.0.0 2 load=hang"));
        values.latch.wait_for(1);
        // It has the same limit, counted from its own call, so it has to ask later than the one that hangs.
        thread::sleep(LIMIT / 2);
        let waiting = scope.spawn(|| slot.reload(b"p 3.0.0 3"));
        assert!(hanging.join().unwrap().unwrap_err().is_timeout());
        assert!(waiting.join().unwrap().unwrap().is_swap());
    });
    values.latch.open();
    close(slot, &values.census);
}

#[test]
fn hung_loads_are_bounded() {
    let values = Values::new();
    let slot = values.builder().reload_timeout(LIMIT).max_retired(1).open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2 load=hang").unwrap_err();
    let error = slot.reload(b"p 3.0.0 3").unwrap_err();
    assert_kind!(error, ErrorKind::TooManyRetired { lingering: 1, limit: 1 });
    assert_eq!(error.stage(), Stage::Gate);

    values.latch.open();
    slot.reload(b"p 3.0.0 3")
        .or_else(|_| {
            eventually("there is room again", || slot.status().hung == 0);
            slot.reload(b"p 3.0.0 3")
        })
        .unwrap();
    close(slot, &values.census);
}

#[test]
fn a_slot_can_be_dropped_while_a_load_hangs() {
    let values = Values::new();
    let slot = slot(&values);
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2 load=hang").unwrap_err();
    drop(slot);
    wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 1, .. }).then_some(()));
    values.latch.open();
    wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 2, .. }).then_some(()));
    assert!(events.recv().is_none(), "that was the last of it");
    values.census.assert_all_destroyed();
}

#[test]
fn closing_says_that_a_load_still_hangs() {
    let values = Values::new();
    let slot = slot(&values);
    // On a busy machine, the time may be up before.
    eventually("a load hangs", || {
        slot.reload(b"p 2.0.0 2 load=hang").unwrap_err();
        values.latch.waiting() > 0
    });
    let status = slot.close(LIMIT);
    let hung = values.latch.waiting();
    assert!(status.serving.is_none() && status.hung == hung, "{status:?}");
    values.latch.open();
    eventually("all is destroyed", || values.census.alive().is_empty() && values.census.loaded() == 1 + hung);
    values.census.assert_all_destroyed();
}

#[test]
fn limits_without_an_end_are_taken_as_such() {
    let values = Values::new();
    let slot = values
        .builder()
        .reload_timeout(Duration::MAX)
        .drain_timeout(Duration::MAX)
        .probation(Probation::new(Duration::MAX).max_failures(u64::MAX))
        .open(b"p 1.0.0 1")
        .unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    assert!(events.recv_timeout(Duration::MAX).is_some());
    let status = slot.close(Duration::MAX);
    assert!(status.retired.is_empty());
    values.census.assert_all_destroyed();
}
