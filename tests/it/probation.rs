//! A new plugin is watched for a while: one that fails too often goes, and the one before serves again.

use std::time::Duration;

use hotslot::{Cause, Event, HotSlot, Lease, Outcome, Probation, Report};

use crate::support::{PATIENCE, Plugin, Values, close, serving, swap, swaps, wait_for};

fn slot(values: &Values, window: Duration, max_failures: u64) -> HotSlot<Plugin> {
    values.builder().probation(Probation::new(window).max_failures(max_failures)).open(b"p 1.0.0 1").unwrap()
}

fn fail(slot: &HotSlot<Plugin>, times: u64) {
    (1..=times).for_each(|count| Lease::report_failure(&slot.load(), format!("failure {count}")));
}

fn rolled_back(event: &Event) -> Option<Report> {
    match event {
        Event::Ended(report) if matches!(report.cause, Cause::Automatic { .. }) => Some(Report::clone(report)),
        _ => None,
    }
}

/// When this returns, the reaper has looked at everything that was there before it was called: the first round trip
/// may have come in the middle of a look, the second one began a new one.
fn reaper_has_looked(slot: &HotSlot<Plugin>) {
    for number in ["98", "99"] {
        let events = slot.subscribe();
        let staged = slot.stage(format!("p - {number}").into_bytes()).unwrap();
        let wanted = staged.generation_number().unwrap();
        drop(staged);
        wait_for(&events, |event| {
            matches!(event, Event::Destroyed { generation, .. } if *generation == wanted).then_some(())
        });
    }
}

#[test]
fn one_failure_too_many_brings_the_previous_plugin_back_and_everyone_hears_of_it() {
    let values = Values::new();
    let slot = slot(&values, PATIENCE, 2);
    slot.load().set_state(5);
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    fail(&slot, 3);

    let report = wait_for(&events, rolled_back);
    assert_eq!(swap(&report), Some((Some(2), 1)));
    let Cause::Automatic { reason } = &report.cause else { panic!() };
    assert!(reason.contains("3 failed calls") && reason.contains("failure 3"), "{reason}");
    assert_eq!((serving(&slot), slot.load().state()), ((1, 1), 5));
    let counters = slot.status().counters;
    assert_eq!((counters.automatic_rollbacks, counters.rollbacks), (1, 0));
    assert_eq!(slot.history().pop().unwrap(), report);
    slot.rollback_to(2).expect("a person may know better");
    close(slot, &values.census);
}

#[test]
fn as_many_failures_as_are_allowed_do_nothing() {
    let values = Values::new();
    let slot = slot(&values, PATIENCE, 2);
    slot.reload(b"p 2.0.0 2").unwrap();
    fail(&slot, 2);
    reaper_has_looked(&slot);
    assert_eq!((serving(&slot), slot.status().serving.unwrap().failures), ((2, 2), 2));
    close(slot, &values.census);
}

#[test]
fn a_backend_reports_failures_that_nobody_else_sees() {
    let values = Values::new();
    let slot = slot(&values, PATIENCE, 0);
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    let lease = slot.load();
    lease.health().report_failure("a trap");
    wait_for(&events, rolled_back);
    assert_eq!(lease.health().last_failure().as_deref(), Some("a trap"));
    drop(lease);
    close(slot, &values.census);
}

#[test]
fn failures_after_the_window_do_nothing() {
    let values = Values::new();
    let slot = slot(&values, Duration::ZERO, 0);
    slot.reload(b"p 2.0.0 2").unwrap();
    fail(&slot, 10);
    reaper_has_looked(&slot);
    assert_eq!((serving(&slot), slot.status().counters.automatic_rollbacks), ((2, 2), 0));
    close(slot, &values.census);
}

#[test]
fn the_first_plugin_has_nothing_to_go_back_to_and_serves_on() {
    let values = Values::new();
    let slot = slot(&values, PATIENCE, 0);
    fail(&slot, 10);
    reaper_has_looked(&slot);
    let counters = slot.status().counters;
    assert_eq!((serving(&slot), counters.automatic_rollbacks, counters.refused), ((1, 1), 0, 0));
    close(slot, &values.census);
}

#[test]
fn where_nothing_is_kept_there_is_an_alarm_instead() {
    let values = Values::new();
    let slot = values
        .builder()
        .keep_previous(0)
        .probation(Probation::new(PATIENCE).max_failures(0))
        .open(b"p 1.0.0 1")
        .unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    fail(&slot, 1);
    let alarm = wait_for(&events, |event| match event {
        Event::Alarm { message } => Some(message.clone()),
        _ => None,
    });
    assert!(alarm.contains("generation 2 fails") && alarm.contains("keep_previous"), "{alarm}");
    assert_eq!((serving(&slot), slot.status().counters.alarms), ((2, 2), 1));
    assert!(matches!(slot.history().pop().unwrap().outcome, Outcome::Refused { .. }));
    close(slot, &values.census);
}

#[test]
fn the_previous_plugin_is_on_probation_again() {
    let values = Values::new();
    let slot = slot(&values, PATIENCE, 1);
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    slot.reload(b"p 3.0.0 3").unwrap();
    fail(&slot, 2);
    assert_eq!(swap(&wait_for(&events, rolled_back)), Some((Some(3), 2)));
    fail(&slot, 2);
    assert_eq!(swap(&wait_for(&events, rolled_back)), Some((Some(2), 1)));
    assert_eq!(swaps(&slot).len(), 5);
    close(slot, &values.census);
}

#[test]
fn failures_of_a_retired_generation_are_not_the_serving_ones() {
    let values = Values::new();
    let slot = slot(&values, PATIENCE, 0);
    let old = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    (0..10).for_each(|_| Lease::report_failure(&old, "late"));
    reaper_has_looked(&slot);
    assert_eq!(serving(&slot), (2, 2));
    drop(old);
    close(slot, &values.census);
}
