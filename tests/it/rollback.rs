//! The way back: which generations are kept, and where a rollback goes.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hotslot::{Candidate, Cause, ErrorKind, Event, HotSlot, Lease, Stage};

use crate::assert_kind;
use crate::support::{Plugin, Values, close, serving, swap, swaps, wait_for, warm};

/// A slot in which generations 1 to `count` were current, one after the other; generation N answers N.
fn slot_after(values: &Values, keep: usize, count: u64) -> HotSlot<Plugin> {
    let slot = values.builder().keep_previous(keep).open(generation(1)).unwrap();
    (2..=count).for_each(|number| drop(slot.reload(generation(number)).unwrap()));
    slot
}

fn generation(number: u64) -> Candidate {
    format!("p {number}.0.0 {number}").into_bytes().into()
}

#[test]
fn a_rollback_goes_to_the_generation_before_step_by_step() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 3);
    slot.load().set_state(33);
    let report = slot.rollback().unwrap();
    assert_eq!((swap(&report), report.cause.clone()), (Some((Some(3), 2)), Cause::Rollback));
    assert_eq!(report.version, Some("2.0.0".parse().unwrap()));
    assert_eq!(report.digest, Some(Lease::digest(&slot.load())));
    assert_eq!(report.stages.iter().map(|(stage, _)| *stage).collect::<Vec<_>>(), [Stage::Commit]);
    assert_eq!(serving(&slot), (2, 2));
    assert_eq!(slot.load().state(), 0, "the earlier generation has its own state");

    slot.rollback().unwrap();
    assert_eq!(serving(&slot), (1, 1));
    assert_eq!(slot.status().counters.rollbacks, 2);
    assert_eq!(values.census.loaded(), 3, "nothing was loaded for it");
    close(slot, &values.census);
}

#[test]
fn before_the_first_generation_there_is_nothing() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 1);
    let error = slot.rollback().unwrap_err();
    assert_kind!(error, ErrorKind::NotWarm { wanted: None, warm } if warm.is_empty());
    assert_eq!((error.stage(), serving(&slot)), (Stage::Commit, (1, 1)));

    slot.reload(generation(2)).unwrap();
    slot.rollback().unwrap();
    let error = slot.rollback().unwrap_err();
    assert_kind!(error, ErrorKind::NotWarm { wanted: None, warm } if warm == &[2]);
    assert_eq!(slot.status().counters.refused, 2);
    close(slot, &values.census);
}

#[test]
fn a_rollback_past_what_is_kept_names_what_is() {
    let values = Values::new();
    let slot = slot_after(&values, 1, 4);
    assert_eq!(warm(&slot), [3]);
    let error = slot.rollback_to(1).unwrap_err();
    assert_kind!(error, ErrorKind::NotWarm { wanted: Some(1), warm } if warm == &[3]);
    assert!(error.to_string().contains("keep_previous"), "{error}");

    slot.rollback().unwrap();
    let error = slot.rollback().unwrap_err();
    assert_kind!(error, ErrorKind::NotWarm { wanted: Some(2), warm } if warm == &[4]);
    assert_eq!(serving(&slot), (3, 3));
    close(slot, &values.census);
}

#[test]
fn a_generation_that_was_left_can_be_returned_to() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 3);
    slot.rollback_to(1).unwrap();
    assert_eq!(serving(&slot), (1, 1));
    assert_eq!(swap(&slot.rollback_to(3).unwrap()), Some((Some(1), 3)));
    assert_eq!(serving(&slot), (3, 3));
    assert_eq!(slot.rollback().map(|report| report.generation()).unwrap(), Some(2), "it came after 2, and still does");
    close(slot, &values.census);
}

#[test]
fn a_rollback_to_what_serves_is_refused() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 2);
    assert_kind!(slot.rollback_to(2).unwrap_err(), ErrorKind::AlreadyServing(2));
    close(slot, &values.census);
}

#[test]
fn where_nothing_is_kept_nothing_can_be_rolled_back_to() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(generation(1)).unwrap();
    let events = slot.subscribe();
    slot.reload(generation(2)).unwrap();
    wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 1, .. }).then_some(()));
    let error = slot.rollback().unwrap_err();
    assert_kind!(error, ErrorKind::NotWarm { wanted: Some(1), warm } if warm.is_empty());
    assert_eq!(serving(&slot), (2, 2));
    close(slot, &values.census);
}

#[test]
fn only_as_many_generations_stay_warm_as_the_slot_keeps() {
    let values = Values::new();
    let slot = slot_after(&values, 3, 9);
    assert_eq!(warm(&slot), [6, 7, 8]);
    let status = slot.status();
    assert!(
        status
            .retired
            .iter()
            .filter(|retired| warm(&slot).contains(&retired.generation))
            .all(|retired| { retired.leases == 0 && !retired.stuck && retired.size == b"p 1.0.0 1".len() })
    );
    close(slot, &values.census);
    assert_eq!(values.census.order().len(), 9);
}

/// The chain of rollbacks is worth more than what was retired last.
#[test]
fn what_rollbacks_would_go_to_is_kept_before_what_was_left() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 3);
    slot.rollback().unwrap();
    assert_eq!(serving(&slot), (2, 2));
    slot.reload(generation(4)).unwrap();
    let mut kept = warm(&slot);
    kept.sort_unstable();
    assert_eq!(kept, [1, 2], "4 replaced 2, which replaced 1; 3 leads nowhere");
    slot.rollback().unwrap();
    slot.rollback().unwrap();
    assert_eq!(serving(&slot), (1, 1));
    assert_eq!(
        swaps(&slot),
        [(None, 1), (Some(1), 2), (Some(2), 3), (Some(3), 2), (Some(2), 4), (Some(4), 2), (Some(2), 1)]
    );
    close(slot, &values.census);
}

#[test]
fn a_generation_counts_its_failures_anew_when_it_comes_back() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 1);
    Lease::report_failure(&slot.load(), "a hiccup");
    assert_eq!(slot.status().serving.unwrap().failures, 1);
    slot.reload(generation(2)).unwrap();
    slot.rollback().unwrap();
    let status = slot.status().serving.unwrap();
    assert_eq!((status.failures, status.last_failure.as_deref()), (0, Some("a hiccup")));
    assert_eq!(status.epoch, 3, "the current generation changed three times");
    close(slot, &values.census);
}

#[test]
fn a_rollback_is_not_held_up_by_a_load_and_the_load_finds_its_base_changed() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 2);
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"p 3.0.0 3 load=hang"));
        values.latch.wait_for(1);
        slot.rollback().expect("it does not wait for the load");
        assert_eq!(serving(&slot), (1, 1));
        values.latch.open();
        let error = reload.join().unwrap().unwrap_err();
        assert_kind!(error, ErrorKind::BaseChanged { base: Some(2), current: 1 });
        assert_eq!(error.serving().unwrap().generation, 1);
    });
    assert_eq!(serving(&slot), (1, 1));
    close(slot, &values.census);
}

#[test]
fn a_rollback_during_a_hand_over_wins() {
    let values = Values::new();
    let slot = slot_after(&values, 2, 2);
    let (send, outcome) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| send.send(slot.reload(b"p 3.0.0 3 hand_over=hang")).unwrap());
        values.latch.wait_for(1);
        slot.rollback().unwrap();
        values.latch.open();
        let error = outcome.recv_timeout(Duration::from_secs(60)).unwrap().unwrap_err();
        assert_eq!(error.stage(), Stage::Commit);
        assert_kind!(error, ErrorKind::BaseChanged { base: Some(2), current: 1 });
    });
    assert_eq!(serving(&slot), (1, 1));
    close(slot, &values.census);
}
