//! A staged plugin serves a share of the callers, each of whom always gets the same one, until somebody decides.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hotslot::{Canary, ErrorKind, Event, HotSlot, Lease, Outcome, Probation, Stage};

use crate::assert_kind;
use crate::support::{Done, PATIENCE, Plugin, Values, close, eventually, serving, swaps, wait_for};

fn slot(values: &Values) -> HotSlot<Plugin> {
    values.builder().open(b"p 1.0.0 1").unwrap()
}

fn canary(slot: &HotSlot<Plugin>, share: f64) -> Canary<Plugin> {
    slot.stage(b"p 2.0.0 2").unwrap().serve_share(share).unwrap()
}

/// The keys that get the answer 2, of a thousand.
fn chosen(slot: &HotSlot<Plugin>) -> Vec<u32> {
    (0..1_000).filter(|key: &u32| slot.load_for(key.to_le_bytes()).answer() == 2).collect()
}

#[test]
fn a_key_gets_always_the_same_plugin_and_keeps_the_new_one_while_its_share_grows() {
    let values = Values::new();
    let slot = slot(&values);
    assert!(chosen(&slot).is_empty(), "nothing is tried");
    let canary = canary(&slot, 0.05);
    let few = chosen(&slot);
    assert!((15..110).contains(&few.len()), "{} of 1,000 with a share of 5 %", few.len());
    assert_eq!(chosen(&slot), few);
    canary.set_share(0.5).unwrap();
    let half = chosen(&slot);
    assert!((400..600).contains(&half.len()) && few.iter().all(|key| half.contains(key)));
    canary.set_share(0.05).unwrap();
    assert_eq!(chosen(&slot), few);
    canary.set_share(1.0).unwrap();
    assert_eq!(chosen(&slot).len(), 1_000);
    canary.set_share(0.0).unwrap();
    assert!(chosen(&slot).is_empty());
    assert_eq!(serving(&slot), (1, 1), "whoever has no key gets what is current");
    let shown = format!("{canary:?}");
    assert!(shown.contains("generation: 2") && shown.contains("share: 0.0"), "{shown}");
    drop(canary);
    close(slot, &values.census);
}

#[test]
fn the_same_plugin_has_the_same_keys_in_every_process() {
    let (values, others) = (Values::new(), Values::new());
    let (one, other) = (slot(&values), slot(&others));
    let _canaries = (canary(&one, 0.3), canary(&other, 0.3));
    assert_eq!(chosen(&one), chosen(&other));
}

#[test]
fn one_that_is_promoted_serves_everyone_and_is_in_the_history() {
    let values = Values::new();
    let slot = slot(&values);
    slot.load().set_state(7);
    let canary = canary(&slot, 0.5);
    let before = slot.status().staged;
    assert_eq!((before.len(), before[0].share), (1, 0.5));
    let number = canary.generation_number();
    let held = (0..1_000_u32).map(|key| slot.load_for(key.to_le_bytes())).find(|lease| lease.answer() == 2).unwrap();
    let report = canary.promote().unwrap();
    assert_eq!(report.outcome, Outcome::Swapped { generation: number, previous: Some(1) });
    assert_eq!((serving(&slot), chosen(&slot).len()), ((2, 2), 1_000));
    assert_eq!(slot.load().state(), 7, "the state was handed over at the promotion");
    assert!(!Lease::is_retired(&held));
    assert_eq!(swaps(&slot), [(None, 1), (Some(1), 2)]);
    assert!(slot.status().staged.is_empty());
    slot.rollback().unwrap();
    assert!(Lease::is_retired(&held), "a lease from the trial is one like all others");
    drop(held);
    close(slot, &values.census);
}

#[test]
fn one_that_is_dropped_serves_nobody_and_is_destroyed_after_the_last_call_on_it() {
    let values = Values::new();
    let slot = slot(&values);
    let events = slot.subscribe();
    let canary = canary(&slot, 1.0);
    let call = slot.load_for("a client");
    assert_eq!(call.answer(), 2);
    drop(canary);
    assert_eq!(slot.load_for("a client").answer(), 1);
    assert!(Lease::is_retired(&call));
    assert_eq!((call.answer(), values.census.alive()), (2, vec![1, 2]), "the call that is under way ends on it");
    drop(call);
    wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 2, .. }).then_some(()));
    assert_eq!(slot.history().pop().unwrap().outcome, Outcome::Discarded);
    close(slot, &values.census);
}

#[test]
fn one_that_the_policy_objects_to_is_served_no_more_and_cannot_be_promoted() {
    let values = Values::new();
    // A window that is over at once: a canary is judged for as long as it is served.
    let policy = Probation::new(Duration::ZERO).max_failed_share(0.1, 20);
    let slot = values.builder().probation(policy).open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    let canary = slot.stage(b"p 2.0.0 2 poisoned").unwrap().serve_share(0.5).unwrap();
    let call = |key: u32| {
        let lease = slot.load_for(key.to_le_bytes());
        Lease::measure(&lease, |plugin| plugin.answer()).0
    };
    let new = (0..1_000).filter(|key| call(*key) == 2).count();
    assert_eq!(new, 20, "as many calls as the policy wants to see");
    let objection = wait_for(&events, |event| match event {
        Event::Canary { generation: 2, share: 0.0, objection } => objection.clone(),
        _ => None,
    });
    assert!(objection.contains("20 of 20 calls failed"), "{objection}");
    assert_eq!((canary.objection(), canary.share(), canary.calls().failed_calls()), (Some(objection.clone()), 0.0, 20));
    let status = slot.status();
    assert_eq!(status.staged[0].objection.as_ref(), Some(&objection));
    assert_eq!((status.staged[0].calls, status.staged[0].failures, status.staged[0].share), (20, 20, 0.0));
    assert_eq!((status.serving.unwrap().failures, serving(&slot)), (0, (1, 1)));
    assert_kind!(canary.set_share(0.1).unwrap_err(), ErrorKind::CanaryFailed(why) if *why == objection);
    assert_kind!(canary.promote().unwrap_err(), ErrorKind::CanaryFailed(_));
    assert!(matches!(slot.history().pop().unwrap().outcome, Outcome::Refused { stage: Stage::Commit, .. }));
    assert_eq!(swaps(&slot), [(None, 1)], "nothing was rolled back, because nothing was current");
    close(slot, &values.census);
}

#[test]
fn a_call_that_fails_on_the_serving_plugin_too_does_not_count_against_the_canary() {
    let values = Values::new();
    let policy = Probation::new(PATIENCE).max_failures(0).second_opinions(2);
    let slot = values.builder().probation(policy).open(b"p 1.0.0 1").unwrap();
    let canary = canary(&slot, 1.0);
    let lease = slot.load_for("a client");
    let bad = |_: &u64| Some("an impossible request".to_owned());
    let (answer, cost) = Lease::measure_repeatable(&lease, bad, |plugin| plugin.answer());
    assert_eq!((answer, cost.failed), (2, false));
    assert_eq!((canary.calls().excused(), canary.objection()), (1, None));
    // One that only the new plugin fails counts.
    let only_new = |answer: &u64| (*answer == 2).then(|| "a wrong answer".to_owned());
    Lease::measure_repeatable(&lease, only_new, |plugin| plugin.answer());
    assert!(canary.objection().is_some_and(|objection| objection.contains("a wrong answer")));
    drop((lease, canary));
    close(slot, &values.census);
}

#[test]
fn another_swap_ends_it() {
    let values = Values::new();
    let slot = slot(&values);
    slot.reload(b"p 1.1.0 11").unwrap();
    let canary = canary(&slot, 1.0);
    assert_eq!(slot.load_for("a client").answer(), 2);
    slot.rollback().unwrap();
    assert_eq!((slot.load_for("a client").answer(), canary.share()), (1, 0.0));
    assert_kind!(canary.set_share(0.5).unwrap_err(), ErrorKind::BaseChanged { base: Some(2), current: 1 });
    assert_eq!(slot.load_for("a client").answer(), 1);
    assert_kind!(canary.promote().unwrap_err(), ErrorKind::BaseChanged { base: Some(2), current: 1 });
    close(slot, &values.census);
}

#[test]
fn a_slot_that_is_closed_has_none() {
    let values = Values::new();
    let slot = slot(&values);
    let canary = canary(&slot, 1.0);
    drop(slot);
    assert_kind!(canary.set_share(0.5).unwrap_err(), ErrorKind::Closed);
    assert_kind!(canary.promote().unwrap_err(), ErrorKind::Closed);
    eventually("all plugins are destroyed", || values.census.alive().is_empty());
}

#[test]
fn what_cannot_be_tried_says_why() {
    let values = Values::new();
    let slot = slot(&values);
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = slot.stage(b"p 2.0.0 2").unwrap().serve_share(share).unwrap_err();
        assert_kind!(error, ErrorKind::Misuse(why) if why.contains("from 0 to 1"));
    }
    let first = canary(&slot, 0.5);
    assert_kind!(first.set_share(2.0).unwrap_err(), ErrorKind::Misuse(_));
    assert_eq!(first.share(), 0.5);
    let second = slot.stage(b"p 3.0.0 3").unwrap().serve_share(0.5).unwrap_err();
    assert_kind!(second, ErrorKind::CanaryUnderWay(number) if *number == first.generation_number());
    let same = slot.stage(b"p 1.0.0 1").unwrap().serve_share(0.5).unwrap_err();
    assert_kind!(same, ErrorKind::AlreadyServing(1));
    let late = slot.stage(b"p 3.0.0 3").unwrap();
    first.promote().unwrap();
    assert_kind!(late.serve_share(0.5).unwrap_err(), ErrorKind::BaseChanged { base: Some(1), .. });
    close(slot, &values.census);
}

#[test]
fn one_that_is_staged_again_serves_nobody_until_it_is_committed() {
    let values = Values::new();
    let slot = slot(&values);
    let staged = canary(&slot, 1.0).into_staged();
    assert_eq!(slot.load_for("a client").answer(), 1);
    staged.commit().unwrap();
    assert_eq!(slot.load_for("a client").answer(), 2);
    close(slot, &values.census);
}

/// Its keys wait with all others: a call on it would be made while it gets the state.
#[test]
fn its_callers_wait_too_while_calls_are_held() {
    let values = Values::new();
    let slot = values.builder().hold_calls_during_hand_over(PATIENCE).open(b"p 1.0.0 1").unwrap();
    let canary = slot.stage(b"p 2.0.0 2 hand_over=hang").unwrap().serve_share(1.0).unwrap();
    slot.load().set_state(5);
    thread::scope(|scope| {
        let promotion = scope.spawn(|| canary.promote());
        values.latch.wait_for(1);
        let call = scope.spawn(|| slot.load_for("a client").state());
        assert!(!call.is_finished());
        values.latch.open();
        assert_eq!(call.join().unwrap(), 5, "it comes after the hand-over");
        assert!(promotion.join().unwrap().is_ok());
    });
    close(slot, &values.census);
}

#[test]
fn a_call_on_it_that_does_not_end_refuses_its_hand_over() {
    let values = Values::new();
    let bound = Duration::from_millis(200);
    let slot = values.builder().hold_calls_during_hand_over(bound).open(b"p 1.0.0 1").unwrap();
    let canary = canary(&slot, 1.0);
    let call = slot.load_for("a client");
    assert_eq!(call.answer(), 2);
    assert_kind!(canary.promote().unwrap_err(), ErrorKind::HoldTimedOut { leases: 1, .. });
    assert_eq!(serving(&slot), (1, 1));
    drop(call);
    close(slot, &values.census);
}

#[test]
fn a_call_on_it_refuses_its_hand_over_once_it_is_staged_again_too() {
    let values = Values::new();
    let bound = Duration::from_millis(200);
    let slot = values.builder().hold_calls_during_hand_over(bound).open(b"p 1.0.0 1").unwrap();
    let canary = canary(&slot, 1.0);
    let call = slot.load_for("a client");
    let staged = canary.into_staged();
    assert_eq!(call.answer(), 2);
    assert_kind!(staged.commit().unwrap_err(), ErrorKind::HoldTimedOut { leases: 1, .. });
    assert_eq!(serving(&slot), (1, 1));
    drop(call);
    close(slot, &values.census);
}

/// It would be lost with what the old plugin learned after its state was saved.
#[test]
fn a_call_is_put_to_nobody_who_hands_its_state_over() {
    let values = Values::new();
    let policy = Probation::new(PATIENCE).max_failures(0).second_opinions(2);
    let builder = values.builder().probation(policy).hold_calls_during_hand_over(PATIENCE);
    let slot = builder.open(b"p 1.0.0 1").unwrap();
    let canary = canary(&slot, 1.0);
    assert_eq!(canary.manifest().version.as_ref().unwrap().to_string(), "2.0.0");
    let call = slot.load_for("a client");
    thread::scope(|scope| {
        let promotion = scope.spawn(|| canary.promote());
        // The promotion waits for the call on the canary, and holds all others from some moment on.
        let is_put_to_the_old_one = || {
            let asked = AtomicBool::new(false);
            let bad = |_: &u64| Some("an impossible request".to_owned());
            Lease::measure_repeatable(&call, bad, |plugin| {
                asked.fetch_or(plugin.answer() == 1, Ordering::Relaxed);
                plugin.answer()
            });
            asked.into_inner()
        };
        eventually("nobody is asked", || !is_put_to_the_old_one());
        assert!(!is_put_to_the_old_one());
        assert_eq!(slot.status().staged[0].failures, 0, "nobody can say whose fault it is");
        drop(call);
        promotion.join().unwrap().unwrap();
    });
    close(slot, &values.census);
}

#[test]
fn one_that_is_condemned_during_its_promotion_is_not_promoted() {
    let values = Values::new();
    let slot = values.builder().probation(Probation::new(PATIENCE).max_failures(0)).open(b"p 1.0.0 1").unwrap();
    let canary = slot.stage(b"p 2.0.0 2 hand_over=hang").unwrap().serve_share(1.0).unwrap();
    thread::scope(|scope| {
        let promotion = scope.spawn(|| canary.promote());
        values.latch.wait_for(1);
        Lease::report_failure(&slot.load_for("a client"), "it fails");
        assert_eq!(slot.load_for("a client").answer(), 1);
        values.latch.open();
        assert_kind!(promotion.join().unwrap().unwrap_err(), ErrorKind::CanaryFailed(_));
    });
    assert_eq!(serving(&slot), (1, 1));
    close(slot, &values.census);
}

#[test]
fn a_key_stays_with_it_when_the_hand_over_to_another_one_was_refused() {
    let values = Values::new();
    let slot = values.builder().hold_calls_during_hand_over(PATIENCE).open(b"p 1.0.0 1").unwrap();
    let canary = canary(&slot, 1.0);
    thread::scope(|scope| {
        let other = scope.spawn(|| slot.reload(b"p 3.0.0 3 hand_over=stall"));
        values.latch.wait_for(1);
        let call = scope.spawn(|| slot.load_for("a client").answer());
        thread::park_timeout(Duration::from_millis(20));
        values.latch.open();
        assert!(other.join().unwrap().is_err());
        assert_eq!((call.join().unwrap(), canary.share()), (2, 1.0));
    });
    drop(canary);
    close(slot, &values.census);
}

#[test]
fn its_leases_say_when_it_is_no_longer_served() {
    let values = Values::new();
    let slot = slot(&values);
    let first = canary(&slot, 1.0);
    let lease = slot.load_for("a client");
    assert!(!Lease::is_retired(&lease));
    let staged = first.into_staged();
    assert!(Lease::is_retired(&lease) && Lease::stop_signal(&lease).is_raised());
    let second = staged.serve_share(1.0).unwrap();
    assert!(!Lease::is_retired(&lease) && !Lease::stop_signal(&lease).is_raised(), "it is served again");
    slot.reload(b"p 3.0.0 3").unwrap();
    assert!(Lease::is_retired(&lease) && second.share() == 0.0);
    drop((lease, second));
    close(slot, &values.census);
}

/// Canaries come and go under the callers: nobody is given one that is gone, and nobody waits.
#[test]
fn canaries_come_and_go_under_calls() {
    let values = Values::new();
    let slot = values.builder().max_retired(1_000).open(b"p - 0").unwrap();
    let (done, calls, new) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let _done = Done(&done);
        for first in 0..2_u64 {
            let (slot, done, calls, new) = (&slot, &done, &calls, &new);
            scope.spawn(move || {
                for key in (first..).step_by(2) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let lease = slot.load_for((key % 64).to_le_bytes());
                    assert_eq!(lease.answer() % 1_000, Lease::generation(&lease) - 1);
                    calls.fetch_add(1, Ordering::Relaxed);
                    new.fetch_add(u64::from(Lease::generation(&lease) > 1), Ordering::Relaxed);
                }
            });
        }
        for answer in 1..300_u64 {
            let canary = slot.stage(format!("p - {answer}").into_bytes()).unwrap().serve_share(0.5).unwrap();
            let before = new.load(Ordering::Relaxed);
            eventually("it is called", || new.load(Ordering::Relaxed) > before);
            match answer % 3 {
                0 => drop(canary.promote().unwrap()),
                1 => drop(canary.into_staged()),
                _ => drop(canary),
            }
        }
    });
    assert!(calls.into_inner() > 300);
    close(slot, &values.census);
}
