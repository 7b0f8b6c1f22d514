//! Native plugins that run rather than being called.

use std::sync::mpsc::channel;
use std::time::Duration;

use hotslot::{Cause, Event, HotSlot, Outcome, Runner, transfer_state};

use super::methods::RELEASE;
use super::{add, answer, answering, destroyed, fixture, native};
use crate::support::wait_for;

/// A runner for the first plugin, and the ticks that the current one sends: each says by whose code.
fn start(
    first: super::Fixture,
    drain_timeout: Duration,
) -> (Runner<hotslot::native::NativePlugin>, std::sync::mpsc::Receiver<String>) {
    let (tick, ticks) = channel();
    let backend = native().on_message(move |_, message| {
        let _ = tick.send(String::from_utf8_lossy(message).into_owned());
    });
    let slot = HotSlot::builder(backend).hand_over(transfer_state).drain_timeout(drain_timeout).keep_previous(1);
    (Runner::start(slot.open(first).unwrap()).unwrap(), ticks)
}

/// Waits until the code with this answer has ticked.
#[track_caller]
fn ticks_as(ticks: &std::sync::mpsc::Receiver<String>, answer: u32) {
    let wanted = format!("tick {answer:08}");
    while ticks.recv_timeout(crate::support::PATIENCE).expect("it ticks") != wanted {}
}

#[test]
fn a_running_plugin_is_replaced_and_its_count_goes_on() {
    let (runner, ticks) = start(answering(1), Duration::from_secs(60));
    ticks_as(&ticks, 1);
    let old = runner.slot().load();
    let report = runner.reload(answering(2)).unwrap();
    assert!(report.gap.is_some());
    let handed_over = add(&old, 0);
    assert!(handed_over > 0);
    ticks_as(&ticks, 2);
    assert_eq!(add(&old, 0), handed_over, "the old one has stopped");
    assert!(add(&runner.slot().load(), 0) > handed_over);
    runner.stop();
}

/// Row 13.
#[test]
fn a_plugin_that_spins_is_reported_as_stuck_and_the_new_one_runs() {
    let (runner, ticks) = start(answering(1).script("run=spin"), Duration::from_millis(20));
    let events = runner.slot().subscribe();
    let spinning = runner.slot().load();
    let report = runner.reload(answering(2)).unwrap();
    assert_eq!(report.outcome, Outcome::Swapped { generation: 2, previous: Some(1) });
    assert_eq!(report.gap, None, "the old one has not stopped");
    wait_for(&events, |event| matches!(event, Event::Stuck { generation: 1, .. }).then_some(()));
    ticks_as(&ticks, 2);
    assert_eq!(answer(&runner.slot().load()), 2);
    let retired = runner.slot().status().retired;
    assert!(retired.iter().any(|retired| retired.generation == 1 && retired.stuck), "{retired:?}");

    // Transitions go on, and what comes to an end at last is cleaned up.
    runner.reload(answering(3)).unwrap();
    ticks_as(&ticks, 3);
    spinning.call(RELEASE, b"").unwrap();
    drop(spinning);
    destroyed(&events, 1);
    runner.stop();
}

#[test]
fn a_plugin_whose_run_fails_makes_room_for_the_one_before() {
    for script in ["run=panic", "run=fail"] {
        let (runner, ticks) = start(answering(1), Duration::from_secs(60));
        ticks_as(&ticks, 1);
        let events = runner.slot().subscribe();
        runner.reload(answering(2).script(script)).unwrap();
        let reason = wait_for(&events, |event| match event {
            Event::Ended(report) => match &report.cause {
                Cause::Automatic { reason } => Some(reason.clone()),
                _ => None,
            },
            _ => None,
        });
        assert!(reason.contains(if script == "run=panic" { "run panics" } else { "run fails" }), "{reason}");
        ticks_as(&ticks, 1);
        runner.stop();
    }
}

#[test]
fn a_plugin_that_does_not_run_says_so() {
    let slot = HotSlot::builder(native()).open(super::c_library("counter.c", &[])).unwrap();
    let events = slot.subscribe();
    let runner = Runner::start(slot).unwrap();
    let error = wait_for(&events, |event| match event {
        Event::RunEnded { error, .. } => error.clone(),
        _ => None,
    });
    assert_eq!(error, "the plugin does not support this");
    runner.reload(fixture()).unwrap();
    runner.stop();
}
