//! Plugins that run: one at a time, each going on from where the one before stopped.
//!
//! A run adds one to the plugin's state, so the state counts the runs.

use std::cell::RefCell;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hotslot::{Builder, Cause, ErrorKind, Event, HotSlot, Lease, Probation, Runner, Stage, Subscription};

use crate::assert_kind;
use crate::support::{Latch, PATIENCE, Plugin, Values, close, eventually, serving, swap, wait_for};

/// Runs the first plugin, and waits until it does.
fn run(values: &Values, builder: Builder<Plugin>, first: &[u8]) -> (Runner<Plugin>, Subscription) {
    let slot = builder.open(first).unwrap();
    let events = slot.subscribe();
    let runner = Runner::start(slot).unwrap();
    started(&events, 1);
    runs(values, 1);
    (runner, events)
}

#[track_caller]
fn started(events: &Subscription, wanted: u64) {
    wait_for(events, |event| matches!(event, Event::RunStarted { generation } if *generation == wanted).then_some(()));
}

/// What the run ended with.
#[track_caller]
fn ended(events: &Subscription, wanted: u64) -> Option<String> {
    wait_for(events, |event| match event {
        Event::RunEnded { generation, error } if *generation == wanted => Some(error.clone()),
        _ => None,
    })
}

#[track_caller]
fn runs(values: &Values, generation: u64) {
    eventually(&format!("generation {generation} runs"), || values.census.running() == [generation]);
}

#[track_caller]
fn state_becomes(slot: &HotSlot<Plugin>, state: u64) {
    eventually(&format!("the state is {state}"), || slot.load().state() == state);
}

/// Stops a runner that waits for its plugin only briefly, and which may therefore still be stopping then.
fn stop_briefly(runner: Runner<Plugin>, values: &Values) {
    let slot = runner.stop();
    eventually("nothing runs any more", || values.census.running().is_empty());
    close(slot, &values.census);
}

/// Stops the runner, and checks that all its plugins are gone.
fn stop(runner: Runner<Plugin>, values: &Values) {
    let slot = runner.stop();
    assert_eq!(values.census.running(), [0; 0]);
    close(slot, &values.census);
}

#[test]
fn a_new_plugin_goes_on_from_where_the_old_one_stopped() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    state_becomes(runner.slot(), 1);
    let asked = Instant::now();
    let report = runner.reload(b"p 2.0.0 2").unwrap();
    let took = asked.elapsed();
    assert_eq!((swap(&report), report.cause.clone()), (Some((Some(1), 2)), Cause::Reload));
    assert!(report.gap.is_some_and(|gap| gap <= took), "{took:?}, {report:?}");
    assert_eq!(runner.slot().history().pop().unwrap(), report);
    state_becomes(runner.slot(), 2);
    runs(&values, 2);
    assert_eq!(values.census.running_peak(), 1, "the old one stopped before the new one started");

    let mut order = Vec::new();
    wait_for(&events, |event| {
        match event {
            Event::RunStarted { generation } => order.push(("started", *generation)),
            Event::RunEnded { generation, error: None } => order.push(("ended", *generation)),
            Event::Ended(_) => return Some(()),
            _ => {}
        }
        None
    });
    assert_eq!(order, [("ended", 1), ("started", 2)]);
    stop(runner, &values);
}

#[test]
fn a_plugin_is_stopped_only_when_the_new_one_is_loaded_and_proven() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    thread::scope(|scope| {
        let reload = scope.spawn(|| runner.reload(b"p 2.0.0 2 probe=hang"));
        values.latch.wait_for(1);
        assert_eq!(values.census.running(), [1]);
        assert!(!Lease::stop_signal(&runner.slot().load()).is_raised());
        values.latch.open();
        reload.join().unwrap().unwrap();
    });
    assert_eq!(ended(&events, 1), None);
    stop(runner, &values);
}

#[test]
fn a_plugin_that_is_refused_does_not_interrupt_the_run() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    assert_eq!(runner.reload(b"p 2.0.0 2 probe=fail").unwrap_err().stage(), Stage::Probe);
    assert!(!runner.reload(b"p 1.0.0 1").unwrap().is_swap(), "the same bytes do not either");
    assert_eq!((values.census.running(), runner.slot().load().state()), (vec![1], 1));
    let interrupted = std::iter::from_fn(|| events.try_recv()).any(|event| matches!(event, Event::RunEnded { .. }));
    assert!(!interrupted);
    stop(runner, &values);
}

#[test]
fn after_a_hand_over_that_is_refused_the_old_plugin_runs_again() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    for (what, runs_so_far) in [("fail", 1), ("panic", 2)] {
        state_becomes(runner.slot(), runs_so_far);
        let error = runner.reload(format!("p 2.0.0 2 restore={what}").into_bytes()).unwrap_err();
        assert_eq!((error.stage(), error.serving().unwrap().generation), (Stage::HandOver, 1));
        started(&events, 1);
    }
    state_becomes(runner.slot(), 3);
    assert!(!Lease::stop_signal(&runner.slot().load()).is_raised());
    assert_eq!(values.census.running_peak(), 1);
    stop(runner, &values);
}

#[test]
fn a_new_plugin_whose_run_fails_makes_way_for_the_old_one_and_its_state() {
    for (what, error) in [("fail", "run fails on purpose"), ("panic", "run panics on purpose")] {
        let values = Values::new();
        let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
        state_becomes(runner.slot(), 1);
        let report = runner.reload(format!("p 2.0.0 2 run={what}").into_bytes()).unwrap();
        assert!(report.is_swap(), "a run that fails later is no refusal");

        assert!(ended(&events, 2).is_some_and(|told| told.contains(error)));
        started(&events, 1);
        let report = wait_for(&events, |event| match event {
            Event::Ended(report) if swap(report) == Some((Some(2), 1)) => Some(report.clone()),
            _ => None,
        });
        assert!(matches!(&report.cause, Cause::Automatic { reason } if reason.contains(error)), "{report:?}");
        assert!(report.gap.is_some());
        assert_eq!(runner.slot().status().counters.automatic_rollbacks, 1);
        state_becomes(runner.slot(), 2);
        runs(&values, 1);
        stop(runner, &values);
    }
}

#[test]
fn a_run_that_fails_after_its_probation_raises_an_alarm() {
    let values = Values::new();
    let (runner, events) =
        run(&values, values.builder().probation(Probation::new(Duration::ZERO).max_failures(0)), b"p 1.0.0 1");
    runner.reload(b"p 2.0.0 2 run=fail").unwrap();
    let message = alarm(&events);
    assert!(message.contains("generation 2 failed") && message.contains("run fails on purpose"), "{message}");
    assert_eq!((serving(runner.slot()), values.census.running()), ((2, 2), vec![]));

    runner.reload(b"p 3.0.0 3").expect("the next one runs");
    runs(&values, 3);
    stop(runner, &values);
}

#[test]
fn a_first_plugin_whose_run_fails_raises_an_alarm() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1 run=panic").unwrap();
    let events = slot.subscribe();
    let runner = Runner::start(slot).unwrap();
    let message = alarm(&events);
    assert!(message.contains("nothing runs") && message.contains("run panics on purpose"), "{message}");
    assert_eq!(serving(runner.slot()), (1, 1));
    stop(runner, &values);
}

#[track_caller]
fn alarm(events: &Subscription) -> String {
    wait_for(events, |event| match event {
        Event::Alarm { message } => Some(message.clone()),
        _ => None,
    })
}

#[test]
fn a_run_may_come_to_its_end_by_itself() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1 run=finish").unwrap();
    let events = slot.subscribe();
    let runner = Runner::start(slot).unwrap();
    assert_eq!(ended(&events, 1), None);
    let report = runner.reload(b"p 2.0.0 2").unwrap();
    assert_eq!(report.gap, None, "nothing ran that could have stopped");
    runs(&values, 2);
    state_becomes(runner.slot(), 2);
    stop(runner, &values);
}

#[test]
fn a_plugin_that_does_not_stop_is_reported_and_the_new_one_runs_beside_it() {
    let values = Values::new();
    let builder = values.builder().keep_previous(0).drain_timeout(Duration::from_millis(300));
    let (runner, events) = run(&values, builder, b"p 1.0.0 1 run=hang");
    let report = runner.reload(b"p 2.0.0 2").unwrap();
    assert_eq!(report.gap, None, "the old one had not stopped");
    eventually("both run", || values.census.running() == [1, 2]);
    wait_for(&events, |event| matches!(event, Event::Stuck { generation: 1, .. }).then_some(()));
    let status = runner.slot().status();
    assert!(status.retired[0].generation == 1 && status.retired[0].leases > 0 && status.retired[0].stuck, "{status:?}");

    values.latch.open();
    assert_eq!(ended(&events, 1), None, "its end is told when it comes");
    wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 1, .. }).then_some(()));
    assert_eq!(values.census.running(), [2]);
    stop_briefly(runner, &values);
}

#[test]
fn a_run_that_leaves_a_destructor_to_its_thread_that_hangs_holds_nobody_up() {
    struct Hang(Arc<Latch>);
    impl Drop for Hang {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    thread_local! {
        static LEFT: RefCell<Option<Hang>> = const { RefCell::new(None) };
    }
    let values = Values::new();
    let latch = Arc::clone(&values.latch);
    values.on_run(move |generation| {
        if generation == 1 {
            LEFT.set(Some(Hang(Arc::clone(&latch))));
        }
    });
    let builder = values.builder().keep_previous(0).drain_timeout(Duration::from_millis(100));
    let (runner, events) = run(&values, builder, b"p 1.0.0 1");
    runner.reload(b"p 2.0.0 2").unwrap();
    assert_eq!(ended(&events, 1), None);
    runs(&values, 2);
    values.latch.wait_for(1);
    assert_eq!(values.census.alive(), [1, 2], "the thread is not through with it");
    wait_for(&events, |event| matches!(event, Event::Stuck { generation: 1, .. }).then_some(()));
    values.latch.open();
    eventually("it goes with its thread", || values.census.alive() == [2]);
    stop(runner, &values);
}

#[test]
fn a_hand_over_that_fails_does_not_keep_a_plugin_that_will_not_stop() {
    let values = Values::new();
    let builder = values.builder().drain_timeout(Duration::from_millis(300));
    let (runner, events) = run(&values, builder, b"p 1.0.0 1 run=hang save=fail");
    assert!(runner.reload(b"p 2.0.0 2").unwrap().is_swap());
    let message = alarm(&events);
    assert!(message.contains("starts without a state") && message.contains("save fails"), "{message}");
    values.latch.open();
    assert_eq!(ended(&events, 1), None);
    stop_briefly(runner, &values);
}

#[test]
fn a_rollback_to_a_plugin_that_never_stopped_does_not_run_it_twice_at_once() {
    let values = Values::new();
    let builder = values.builder().drain_timeout(Duration::from_millis(300));
    let (runner, events) = run(&values, builder, b"p 1.0.0 1 run=hang");
    state_becomes(runner.slot(), 1);
    runner.reload(b"p 2.0.0 2").unwrap();
    runner.rollback().unwrap();
    assert_eq!(ended(&events, 2), None);
    assert_eq!(values.census.running(), [1], "it has been running all along");
    assert!(!Lease::stop_signal(&runner.slot().load()).is_raised());

    values.latch.open();
    assert_eq!(ended(&events, 1), None);
    started(&events, 1);
    state_becomes(runner.slot(), 2);
    stop_briefly(runner, &values);
}

#[test]
fn a_plugin_that_was_told_to_stop_in_vain_runs_again() {
    let values = Values::new();
    let builder = values.builder().drain_timeout(Duration::from_millis(300));
    let (runner, events) = run(&values, builder, b"p 1.0.0 1 run=hang");
    assert_kind!(runner.rollback().unwrap_err(), ErrorKind::NotWarm { .. });
    assert_eq!(values.census.running(), [1]);
    values.latch.open();
    assert_eq!(ended(&events, 1), None);
    started(&events, 1);
    state_becomes(runner.slot(), 2);
    stop_briefly(runner, &values);
}

/// The time that the old plugin takes to stop is its drain timeout's, not the reload's.
#[test]
fn a_plugin_that_is_slow_to_stop_does_not_use_up_the_time_of_the_hand_over() {
    let values = Values::new();
    let timeout = Duration::from_millis(800);
    let builder = values.builder().reload_timeout(timeout).drain_timeout(PATIENCE);
    let (runner, events) = run(&values, builder, b"p 1.0.0 1 run=hang");
    let (send, report) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| send.send(runner.reload(b"p 2.0.0 2")).unwrap());
        wait_for(&events, |event| matches!(event, Event::Stage { stage: Stage::Probe, .. }).then_some(()));
        assert!(report.recv_timeout(timeout).is_err(), "it waits for the old one to stop");
        values.latch.open();
        assert!(report.recv_timeout(PATIENCE).unwrap().unwrap().is_swap());
    });
    stop(runner, &values);
}

#[test]
fn a_rollback_runs_the_plugin_before_with_the_state_that_it_had() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    state_becomes(runner.slot(), 1);
    runner.reload(b"p 2.0.0 2").unwrap();
    state_becomes(runner.slot(), 2);
    let report = runner.rollback().unwrap();
    assert_eq!((swap(&report), report.cause), (Some((Some(2), 1)), Cause::Rollback));
    assert!(report.gap.is_some());
    state_becomes(runner.slot(), 2);
    runs(&values, 1);

    runner.rollback_to(2).unwrap();
    runs(&values, 2);
    state_becomes(runner.slot(), 3);
    assert_eq!(values.census.running_peak(), 1);

    assert_kind!(runner.rollback_to(9).unwrap_err(), ErrorKind::NotWarm { wanted: Some(9), .. });
    while values.census.running() != [2] || runner.slot().load().state() != 4 {
        started(&events, 2);
        state_becomes(runner.slot(), 4);
    }
    stop(runner, &values);
}

#[test]
fn a_staged_plugin_can_be_run_when_its_time_has_come() {
    let values = Values::new();
    let (runner, _events) = run(&values, values.builder(), b"p 1.0.0 1");
    state_becomes(runner.slot(), 1);
    let (staged, stale) = (runner.slot().stage(b"p 2.0.0 2").unwrap(), runner.slot().stage(b"p 3.0.0 3").unwrap());
    assert_eq!(values.census.running(), [1]);
    assert!(runner.commit(staged).unwrap().gap.is_some());
    state_becomes(runner.slot(), 2);
    assert_kind!(runner.commit(stale).unwrap_err(), ErrorKind::BaseChanged { base: Some(1), current: 2 });
    state_becomes(runner.slot(), 3);
    runs(&values, 2);
    stop(runner, &values);
}

#[test]
fn a_swap_that_is_made_directly_is_followed() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    runner.slot().reload(b"p 2.0.0 2").unwrap();
    started(&events, 2);
    runs(&values, 2);
    runner.slot().rollback().unwrap();
    started(&events, 1);
    runs(&values, 1);
    assert_eq!(values.census.running_peak(), 1);
    stop(runner, &values);
}

#[test]
fn a_swap_that_is_made_directly_is_followed_also_if_nothing_runs() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1 run=finish").unwrap();
    let events = slot.subscribe();
    let runner = Runner::start(slot).unwrap();
    ended(&events, 1);
    runner.slot().reload(b"p 2.0.0 2").unwrap();
    started(&events, 2);
    runs(&values, 2);
    stop(runner, &values);
}

#[test]
fn an_automatic_rollback_of_the_slot_is_followed() {
    let values = Values::new();
    let (runner, events) =
        run(&values, values.builder().probation(Probation::new(PATIENCE).max_failures(0)), b"p 1.0.0 1");
    runner.reload(b"p 2.0.0 2").unwrap();
    Lease::report_failure(&runner.slot().load(), "nonsense");
    assert_eq!(ended(&events, 2), None);
    started(&events, 1);
    runs(&values, 1);
    stop(runner, &values);
}

/// The plugin may or may not have noticed that it was not current for a moment.
#[test]
fn a_plugin_that_was_away_for_a_moment_runs() {
    let values = Values::new();
    let (runner, _events) = run(&values, values.builder(), b"p 1.0.0 1 run=spin");
    runner.reload(b"p 2.0.0 2 run=spin").unwrap();
    for _ in 0..500 {
        runner.slot().rollback().unwrap();
        runner.slot().rollback_to(2).unwrap();
        runs(&values, 2);
    }
    stop(runner, &values);
}

/// Whether the commit comes before, during or after the start.
#[test]
fn a_swap_during_the_start_is_followed() {
    for _ in 0..100 {
        let values = Values::new();
        let slot = values.builder().open(b"p 1.0.0 1").unwrap();
        let staged = slot.stage(b"p 2.0.0 2").unwrap();
        let runner = thread::scope(|scope| {
            scope.spawn(|| staged.commit().unwrap());
            Runner::start(slot).unwrap()
        });
        runs(&values, 2);
        stop(runner, &values);
    }
}

#[test]
fn stopping_gives_back_a_slot_that_can_be_run_again() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    state_becomes(runner.slot(), 1);
    let slot = runner.stop();
    assert_eq!((ended(&events, 1), values.census.running()), (None, vec![]));
    assert_eq!(serving(&slot), (1, 1));
    slot.reload(b"p 2.0.0 2").expect("and be used without a runner");
    assert_eq!(values.census.running(), [0; 0]);

    let runner = Runner::start(slot).unwrap();
    runs(&values, 2);
    state_becomes(runner.slot(), 2);
    stop(runner, &values);
}

#[test]
fn dropping_the_runner_stops_the_plugin_and_everything_ends() {
    let values = Values::new();
    let (runner, events) = run(&values, values.builder(), b"p 1.0.0 1");
    runner.reload(b"p 2.0.0 2").unwrap();
    drop(runner);
    assert_eq!(ended(&events, 2), None);
    assert_eq!(events.filter(|event| matches!(event, Event::Destroyed { .. })).count(), 2);
    values.census.assert_all_destroyed();
}

#[test]
fn dropping_the_runner_of_a_plugin_that_does_not_stop_holds_nobody_up() {
    let values = Values::new();
    let builder = values.builder().drain_timeout(Duration::from_millis(300));
    let (runner, events) = run(&values, builder, b"p 1.0.0 1 run=hang");
    drop(runner);
    wait_for(&events, |event| matches!(event, Event::Stuck { generation: 1, .. }).then_some(()));
    values.latch.open();
    assert_eq!(events.filter(|event| matches!(event, Event::Destroyed { .. })).count(), 1);
    values.census.assert_all_destroyed();
}
