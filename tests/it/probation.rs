//! A new plugin is watched for a while: one that fails too often goes, and the one before serves again.

use std::sync::Arc;
use std::time::Duration;

use hotslot::{CallStats, Cause, Event, HotSlot, Lease, Outcome, Probation, ProbationPolicy, Report, Subscription};

use crate::support::{Latch, PATIENCE, Plugin, Values, close, eventually, serving, swap, swaps, wait_for};

fn slot(values: &Values, window: Duration, max_failures: u64) -> HotSlot<Plugin> {
    values.builder().probation(Probation::new(window).max_failures(max_failures)).open(b"p 1.0.0 1").unwrap()
}

/// No failure is allowed, and nothing is kept to go back to.
fn slot_without_a_way_back(values: &Values) -> HotSlot<Plugin> {
    let policy = Probation::new(PATIENCE).max_failures(0);
    values.builder().keep_previous(0).probation(policy).open(b"p 1.0.0 1").unwrap()
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
    let slot = slot_without_a_way_back(&values);
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

/// A call that fails if the plugin answers with `fails`.
fn call(slot: &HotSlot<Plugin>, fails: &[u64]) {
    let failure = |answer: &u64| fails.contains(answer).then(|| format!("it answered {answer}"));
    let (_, cost) = Lease::measure_repeatable(&slot.load(), failure, Plugin::answer);
    assert!(cost.took >= cost.waited);
}

fn judged(values: &Values, policy: Probation) -> (HotSlot<Plugin>, Subscription) {
    let slot = values.builder().probation(policy).open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    let events = slot.subscribe();
    (slot, events)
}

#[test]
fn a_share_of_failed_calls_rolls_back_once_there_were_enough() {
    let values = Values::new();
    let (slot, events) = judged(&values, Probation::new(PATIENCE).max_failed_share(0.1, 20));
    (0..18).for_each(|_| call(&slot, &[]));
    (0..2).for_each(|_| call(&slot, &[2]));
    reaper_has_looked(&slot);
    assert_eq!((serving(&slot), slot.status().serving.unwrap().calls), ((2, 2), 20), "2 of 20 are 10 %");
    call(&slot, &[2]);
    let report = wait_for(&events, rolled_back);
    let Cause::Automatic { reason } = &report.cause else { panic!() };
    assert!(reason.contains("3 of 21 calls failed") && reason.contains("it answered 2"), "{reason}");
    close(slot, &values.census);
}

#[test]
fn a_slow_generation_is_rolled_back() {
    let values = Values::new();
    let limit = Duration::from_micros(300);
    let policy = Probation::new(PATIENCE).max_latency(0.5, limit, 10);
    let slot = values.builder().probation(policy).open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2 slow").unwrap();
    for _ in 0..10 {
        Lease::measure(&slot.load(), Plugin::answer);
    }
    let report = wait_for(&events, rolled_back);
    let Cause::Automatic { reason } = &report.cause else { panic!() };
    assert!(reason.contains("of 10 calls took longer than 300µs"), "{reason}");
    close(slot, &values.census);
}

#[test]
fn a_call_that_the_predecessor_cannot_bear_either_counts_against_neither() {
    let values = Values::new();
    let policy = Probation::new(PATIENCE).max_failures(3).second_opinions(1);
    let (slot, events) = judged(&values, policy);
    (0..100).for_each(|_| call(&slot, &[1, 2]));
    reaper_has_looked(&slot);
    let status = slot.status().serving.unwrap();
    assert_eq!((status.generation, status.failures, status.excused), (2, 0, 100));
    (0..4).for_each(|_| call(&slot, &[2]));
    assert_eq!(swap(&wait_for(&events, rolled_back)), Some((Some(2), 1)));
    assert_eq!(slot.status().serving.unwrap().failures, 0, "nor does any of it count against the one before");
    close(slot, &values.census);
}

#[test]
fn what_a_backend_reports_of_a_call_is_put_to_the_predecessor_too() {
    let values = Values::new();
    let policy = || Probation::new(PATIENCE).max_failures(0).second_opinions(1);
    let slot = values.builder().probation(policy()).open(b"p 1.0.0 1 poisoned").unwrap();
    slot.reload(b"p 2.0.0 2 poisoned").unwrap();
    let events = slot.subscribe();
    (0..10).for_each(|_| call(&slot, &[]));
    reaper_has_looked(&slot);
    assert_eq!((serving_generation(&slot), slot.status().serving.unwrap().excused), (2, 10));
    // Without being asked to, it counts.
    let (_, cost) = Lease::measure(&slot.load(), Plugin::answer);
    assert!(cost.failed);
    wait_for(&events, rolled_back);
    close(slot, &values.census);
}

fn serving_generation(slot: &HotSlot<Plugin>) -> u64 {
    Lease::generation(&slot.load())
}

#[test]
fn second_opinions_are_bounded_and_what_is_beyond_is_not_judged() {
    let values = Values::new();
    let policy = Probation::new(PATIENCE).max_failures(0).second_opinions(1);
    let (slot, _events) = judged(&values, policy);
    let (arrived, arrival) = std::sync::mpsc::channel();
    let (let_go, go) = std::sync::mpsc::channel();
    let go = std::sync::Mutex::new(go);
    std::thread::scope(|scope| {
        // The predecessor's call waits, so its place stays taken.
        scope.spawn(|| {
            let failure = |_: &u64| Some("both".to_owned());
            Lease::measure_repeatable(&slot.load(), failure, |plugin| {
                if plugin.answer() == 1 {
                    arrived.send(()).unwrap();
                    go.lock().unwrap().recv().unwrap();
                }
                plugin.answer()
            })
        });
        arrival.recv().unwrap();
        (0..10).for_each(|_| call(&slot, &[2]));
        let_go.send(()).unwrap();
    });
    reaper_has_looked(&slot);
    let status = slot.status().serving.unwrap();
    assert_eq!((status.generation, status.failures, status.excused, status.calls), (2, 0, 1, 0));
    assert_eq!(status.unjudged, 10);
    close(slot, &values.census);
}

#[test]
fn a_consultation_is_no_lease() {
    let values = Values::new();
    let policy = Probation::new(PATIENCE).max_failures(0).second_opinions(1);
    let slot = values.builder().drain_timeout(Duration::ZERO).probation(policy).open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    reaper_has_looked(&slot);
    let failure = |answer: &u64| Some(format!("{answer}"));
    Lease::measure_repeatable(&slot.load(), failure, |plugin| {
        if plugin.answer() == 1 {
            assert_eq!(slot.status().retired[0].leases, 0);
            reaper_has_looked(&slot);
        }
        0
    });
    assert_eq!(slot.status().counters.stuck, 0, "nobody was kept from draining");
    close(slot, &values.census);
}

#[test]
fn a_lease_on_the_predecessor_counts_during_and_after_consultations() {
    let values = Values::new();
    let policy = Probation::new(PATIENCE).max_failures(0).second_opinions(1);
    let slot = values.builder().probation(policy).open(b"p 1.0.0 1").unwrap();
    let old = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    let leases = || slot.status().retired[0].leases;
    let failure = |_: &()| Some("an impossible request".to_owned());
    Lease::measure_repeatable(&slot.load(), failure, |_| assert_eq!(leases(), 1));
    assert_eq!(leases(), 1);
    drop(old);
    assert_eq!(leases(), 0);
    close(slot, &values.census);
}

/// Without a warm one there is nobody to ask.
#[test]
fn without_a_warm_predecessor_a_failure_counts() {
    let values = Values::new();
    let policy = Probation::new(PATIENCE).max_failures(0).second_opinions(1);
    let slot = values.builder().keep_previous(0).probation(policy).open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    let events = slot.subscribe();
    call(&slot, &[1, 2]);
    wait_for(&events, |event| matches!(event, Event::Alarm { .. }).then_some(()));
    close(slot, &values.census);
}

/// The window is over when the verdict is there and the reaper gets to look, and nothing is called any more.
#[test]
fn the_clock_does_not_revive_what_was_condemned() {
    const WINDOW: Duration = Duration::from_millis(50);
    struct Slow;
    impl ProbationPolicy for Slow {
        fn window(&self) -> Duration {
            WINDOW
        }
        fn objection(&self, calls: &CallStats) -> Option<String> {
            while calls.age() <= WINDOW {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Some("after long thought".to_owned())
        }
    }
    let values = Values::new();
    let slot = values.builder().probation(Slow).open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    fail(&slot, 1);
    assert_eq!(swap(&wait_for(&events, rolled_back)), Some((Some(2), 1)));
    close(slot, &values.census);
}

#[test]
fn a_rollback_that_cannot_be_made_is_tried_once_and_told_once() {
    let values = Values::new();
    let slot = slot_without_a_way_back(&values);
    slot.reload(b"p 2.0.0 2").unwrap();
    fail(&slot, 20_000);
    reaper_has_looked(&slot);
    let status = slot.status();
    assert_eq!((status.counters.alarms, status.counters.refused), (1, 1));
    assert!(status.serving.unwrap().objection.unwrap().contains("1 failed calls"));
    assert!(slot.history().iter().any(|report| report.generation() == Some(2)), "the history keeps what mattered");
    slot.reload(b"p 3.0.0 3").unwrap();
    fail(&slot, 1);
    reaper_has_looked(&slot);
    assert_eq!(slot.status().counters.alarms, 2, "one for each generation");
    close(slot, &values.census);
}

#[test]
fn what_is_said_of_the_time_before_condemns_nobody_who_has_come_back() {
    struct Thoughtful(Arc<Latch>);
    impl ProbationPolicy for Thoughtful {
        fn window(&self) -> Duration {
            PATIENCE
        }
        fn objection(&self, calls: &CallStats) -> Option<String> {
            let failure = calls.last_failure()?;
            self.0.pass();
            Some(failure)
        }
    }
    let values = Values::new();
    let policy = Thoughtful(Arc::clone(&values.latch));
    let slot = values.builder().probation(policy).open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    std::thread::scope(|scope| {
        let lease = slot.load();
        let failing = scope.spawn(move || Lease::report_failure(&lease, "it was slow once"));
        values.latch.wait_for(1);
        slot.rollback().unwrap();
        slot.rollback_to(2).unwrap();
        values.latch.open();
        failing.join().unwrap();
    });
    let serving = slot.status().serving.unwrap();
    assert_eq!((serving.generation, serving.objection), (2, None));
    Lease::report_failure(&slot.load(), "it is slow again");
    eventually("what is said of the time since does", || {
        slot.status().serving.is_some_and(|serving| serving.generation == 1)
    });
    close(slot, &values.census);
}

#[test]
fn a_policy_of_ones_own_judges_and_one_that_panics_condemns_nobody() {
    struct Second(bool);
    impl ProbationPolicy for Second {
        fn window(&self) -> Duration {
            PATIENCE
        }
        fn objection(&self, calls: &CallStats) -> Option<String> {
            assert!(!self.0, "a policy panics on purpose");
            (calls.calls() == 2).then(|| format!("the second call: {calls:?}"))
        }
    }
    for panics in [false, true] {
        let values = Values::new();
        let slot = values.builder().probation(Second(panics)).open(b"p 1.0.0 1").unwrap();
        slot.reload(b"p 2.0.0 2").unwrap();
        let events = slot.subscribe();
        (0..2).for_each(|_| call(&slot, &[]));
        if panics {
            wait_for(&events, |event| {
                matches!(event, Event::Alarm { message } if message.contains("panicked")).then_some(())
            });
            assert_eq!(serving(&slot), (2, 2));
        } else {
            let report = wait_for(&events, rolled_back);
            assert!(matches!(&report.cause, Cause::Automatic { reason } if reason.starts_with("the second call")));
        }
        close(slot, &values.census);
    }
}
