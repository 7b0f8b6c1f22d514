//! A hand-over that loses nothing, for slots that hold calls meanwhile; and what the others are told of their loss.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use hotslot::{ErrorKind, Outcome, Stage, Staged};

use crate::assert_kind;
use crate::support::{PATIENCE, Values, close, eventually, reload_in_time, serving};

#[test]
fn every_call_counts_while_calls_are_held() {
    const CALLERS: u64 = 4;
    const RELOADS: u64 = 20;
    let values = Values::new();
    let slot = values.builder().hold_calls_during_hand_over(PATIENCE).open(b"p 1.0.0 0").unwrap();
    let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    slot.load().count();
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=RELOADS {
            // Calls go on between two hand-overs.
            let before = made.load(Ordering::Relaxed);
            eventually("somebody calls", || made.load(Ordering::Relaxed) > before);
            let report = slot.reload(format!("p 1.0.0 {number}").into_bytes()).unwrap();
            assert_eq!(report.leases_during_hand_over, 0, "{report:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(slot.load().state(), made.into_inner());
    close(slot, &values.census);
}

/// The second commit comes to its hand-over while the first one's still holds the calls.
#[test]
fn of_two_commits_at_once_none_skips_its_hand_over() {
    let values = Values::new();
    let slot = values.builder().hold_calls_during_hand_over(PATIENCE).open(b"p 1.0.0 0").unwrap();
    for round in 1..=200_u64 {
        slot.load().set_state(round);
        let staged = [1, 2].map(|which| slot.stage(format!("p 1.0.0 {round} {which}").into_bytes()).unwrap());
        let ready = Barrier::new(2);
        let commit = |staged: Staged<_>| {
            ready.wait();
            staged.commit()
        };
        let committed = thread::scope(|scope| {
            let commits = staged.map(|staged| scope.spawn(|| commit(staged)));
            commits.map(|commit| commit.join().unwrap()).into_iter().filter(Result::is_ok).count()
        });
        assert_eq!((committed, slot.load().state()), (1, round));
    }
    close(slot, &values.census);
}

#[test]
fn a_hold_takes_no_longer_than_the_reload_may() {
    let values = Values::new();
    let (limit, bound) = (Duration::from_millis(500), 10 * PATIENCE);
    let slot = values.builder().hold_calls_during_hand_over(bound).reload_timeout(limit).open(b"p 1.0.0 1").unwrap();
    let lease = slot.load();
    // On a busy machine, the time may be up before.
    eventually("the reload ends where it waits for the lease", || {
        let error = slot.reload(b"p 2.0.0 2").unwrap_err();
        assert_kind!(error, ErrorKind::TimedOut(after) if *after == limit);
        assert_eq!((lease.answer(), serving(&slot)), (1, (1, 1)));
        error.stage() == Stage::HandOver
    });
    drop(lease);
    close(slot, &values.census);
}

#[test]
fn a_hook_that_takes_longer_than_the_reload_may_is_not_held_to_the_bound_of_the_hold() {
    let values = Values::new();
    let (limit, bound) = (Duration::from_millis(500), 10 * PATIENCE);
    let slot = values.builder().hold_calls_during_hand_over(bound).reload_timeout(limit).open(b"p 1.0.0 1").unwrap();
    // On a busy machine, the time may be up before.
    eventually("the reload ends in its hook", || {
        let error = slot.reload(b"p 2.0.0 2 hand_over=hang").unwrap_err();
        assert_kind!(error, ErrorKind::TimedOut(after) if *after == limit);
        error.stage() == Stage::HandOver
    });
    values.latch.open();
    eventually("nothing hangs any more", || slot.status().hung == 0);
    close(slot, &values.census);
}

#[test]
fn who_asks_while_calls_are_held_waits_and_gets_the_new_plugin() {
    let values = Values::new();
    let slot = values.builder().hold_calls_during_hand_over(PATIENCE).open(b"p 1.0.0 1").unwrap();
    slot.load().set_state(7);
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"p 2.0.0 2 hand_over=hang").unwrap());
        values.latch.wait_for(1);
        let waits = [(); 3].map(|()| scope.spawn(|| (slot.load().answer(), slot.load().state())));
        // Nothing tells from outside that they wait; those that come later get the same.
        values.latch.open();
        for wait in waits {
            assert_eq!(wait.join().unwrap(), (2, 7));
        }
        let report = reload.join().unwrap();
        assert_eq!(report.leases_during_hand_over, 0);
        assert!(report.leases_held_up <= 3);
    });
    close(slot, &values.census);
}

#[test]
fn those_who_waited_are_counted() {
    let held_up = || {
        let values = Values::new();
        let builder = values.builder().hold_calls_during_hand_over(Duration::from_millis(500));
        let slot = builder.open(b"p 1.0.0 1").unwrap();
        let asking = AtomicU64::new(0);
        let ask = || {
            asking.fetch_add(1, Ordering::Relaxed);
            slot.load().answer()
        };
        thread::scope(|scope| {
            let reload = scope.spawn(|| slot.reload(b"p 2.0.0 2 hand_over=hang"));
            values.latch.wait_for(1);
            let calls = [(); 2].map(|()| scope.spawn(ask));
            eventually("both ask", || asking.load(Ordering::Relaxed) == 2);
            values.latch.open();
            let answers = calls.map(|call| call.join().unwrap());
            // On a busy machine, the time may be up before.
            let serves = if reload.join().unwrap().is_ok() { 2 } else { 1 };
            assert!(answers.iter().all(|answer| *answer == serves), "{answers:?}");
        });
        let held_up = slot.history().pop().unwrap().leases_held_up;
        assert!(held_up <= 2, "{held_up}");
        // Of those before, the next report knows nothing, also if calls were held in vain.
        let lease = slot.load();
        slot.reload(b"p 3.0.0 3").unwrap_err();
        assert_eq!(slot.history().pop().unwrap().leases_held_up, 0);
        drop(lease);
        reload_in_time(&slot, b"p 3.0.0 3");
        assert_eq!(slot.history().pop().unwrap().leases_held_up, 0);
        close(slot, &values.census);
        held_up
    };
    // Nothing tells from outside that somebody waits; whoever asks a little too late is served at once.
    eventually("both wait", || held_up() == 2);
}

#[test]
fn a_hook_that_takes_longer_than_calls_are_held_lets_them_go_on_to_the_old_plugin() {
    let values = Values::new();
    let bound = Duration::from_millis(500);
    let slot = values.builder().hold_calls_during_hand_over(bound).open(b"p 1.0.0 1").unwrap();
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"p 2.0.0 2 hand_over=hang").unwrap_err());
        values.latch.wait_for(1);
        let lease = slot.load();
        assert_eq!(lease.answer(), 1);
        lease.count();
        let error = reload.join().unwrap();
        assert_kind!(error, ErrorKind::HoldTimedOut { bound: is, leases: 0 } if *is == bound);
        assert_eq!(error.stage(), Stage::HandOver);
        assert!(error.is_temporary() && error.to_string().contains("went on to the old plugin"), "{error}");
    });
    let last = slot.history().pop().unwrap();
    assert!(matches!(last.outcome, Outcome::Refused { stage: Stage::HandOver, .. }), "{last:?}");
    values.latch.open();
    reload_in_time(&slot, b"p 3.0.0 3");
    assert_eq!((serving(&slot).0, slot.load().state()), (3, 1), "nothing was lost");
    eventually("nothing hangs any more", || slot.status().hung == 0);
    close(slot, &values.census);
}

#[test]
fn a_hook_that_fails_or_panics_lets_calls_go_on_to_the_old_plugin() {
    for what in ["fail", "panic"] {
        let values = Values::new();
        let slot = values.builder().hold_calls_during_hand_over(PATIENCE).open(b"p 1.0.0 1").unwrap();
        let error = slot.reload(format!("p 2.0.0 2 hand_over={what}").into_bytes()).unwrap_err();
        assert_eq!((error.stage(), serving(&slot)), (Stage::HandOver, (1, 1)), "{error}");
        slot.reload(b"p 3.0.0 3").unwrap();
        close(slot, &values.census);
    }
}

#[test]
fn a_lease_that_is_not_given_back_refuses_the_hand_over_and_names_itself() {
    let values = Values::new();
    let slot = values.builder().hold_calls_during_hand_over(Duration::from_millis(500)).open(b"p 1.0.0 1").unwrap();
    let lease = slot.load();
    let error = slot.reload(b"p 2.0.0 2").unwrap_err();
    assert_kind!(error, ErrorKind::HoldTimedOut { leases: 1, .. });
    assert!(error.to_string().contains("one lease was still out"), "{error}");
    assert_eq!((lease.answer(), serving(&slot)), (1, (1, 1)));
    drop(lease);
    reload_in_time(&slot, b"p 2.0.0 2");
    close(slot, &values.census);
}

#[test]
fn what_would_wait_for_itself_does_not_wait() {
    let values = Values::new();
    let slot = Arc::new(std::sync::OnceLock::<hotslot::HotSlot<crate::support::Plugin>>::new());
    // The hook asks for a lease, as a service that the plugin calls may do.
    let hook = {
        let slot = Arc::clone(&slot);
        move |_: &crate::support::Plugin, new: &crate::support::Plugin| {
            new.set_state(slot.get().expect("it is open").load().answer() + 10);
            Ok::<(), hotslot::BoxError>(())
        }
    };
    let opened = values.builder().hand_over(hook).hold_calls_during_hand_over(PATIENCE).open(b"p 1.0.0 1").unwrap();
    assert!(slot.set(opened).is_ok());
    let own = slot.get().unwrap();
    // A thread that has a lease asks for another one while the hand-over waits for it.
    let (is_held, has_second) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let first = own.load();
            is_held.store(true, Ordering::Release);
            // Until leases are no longer handed out: then this one is an exception.
            eventually("the hand-over begins", || own.status().staged.len() == 1);
            for _ in 0..100 {
                assert_eq!(own.load().answer(), 1);
            }
            has_second.store(true, Ordering::Release);
            drop(first);
        });
        eventually("a lease is out", || is_held.load(Ordering::Acquire));
        let report = own.reload(b"p 2.0.0 2").unwrap();
        assert!(has_second.load(Ordering::Acquire));
        assert_eq!(report.leases_during_hand_over, 1, "that of the hook");
    });
    assert_eq!(own.load().state(), 11, "the hook saw the old plugin");
    assert_eq!(own.reload(b"p 3.0.0 3").unwrap().leases_during_hand_over, 1, "that of the hook, this time");
    drop(slot);
}

#[test]
fn what_a_hand_over_may_lose_is_counted_where_calls_are_not_held() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let under_way = slot.load();
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"p 2.0.0 2 hand_over=hang").unwrap());
        values.latch.wait_for(1);
        for _ in 0..3 {
            slot.load().count();
        }
        values.latch.open();
        let report = reload.join().unwrap();
        assert_eq!((report.leases_during_hand_over, report.leases_held_up), (4, 0));
    });
    drop(under_way);
    assert_eq!(slot.reload(b"p 3.0.0 3").unwrap().leases_during_hand_over, 0);
    close(slot, &values.census);
}

#[test]
fn calls_that_are_held_for_no_time_are_a_misuse() {
    let error = Values::new().builder().hold_calls_during_hand_over(Duration::ZERO).open(b"p 1.0.0 1").unwrap_err();
    assert!(error.is_misuse(), "{error}");
}

/// The times of the stages are the total, however an attempt ends.
#[test]
fn the_stages_of_every_attempt_add_up_to_its_total() {
    let values = Values::new();
    let began = Instant::now();
    let slot = values.builder().reload_timeout(Duration::from_secs(2)).max_artifact_size(64).open(b"p 1.0.0 1");
    let slot = slot.unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    for refused in ["p", "p 3.0.0 3 load=fail", "p 3.0.0 3 probe=panic", "p 3.0.0 3 hand_over=fail", "p 0.0.1 1"] {
        slot.reload(refused.as_bytes()).unwrap_err();
    }
    slot.reload(vec![b'x'; 65]).unwrap_err();
    slot.reload(b"p 3.0.0 3 load=hang").unwrap_err();
    slot.reload(b"p 3.0.0 3 hand_over=hang").unwrap_err();
    drop(slot.stage(b"p 3.0.0 3").unwrap());
    slot.stage(b"p 3.0.0 3").unwrap().commit().unwrap();
    slot.rollback().unwrap();
    slot.rollback_to(hotslot::Candidate::from(b"p 0.5.0 5")).unwrap();
    let history = slot.history();
    assert_eq!(history.len(), 15);
    let all: Duration = history.iter().map(|report| report.total).sum();
    assert!(all <= began.elapsed(), "no time counts twice: {history:?}");
    for report in history {
        let sum: Duration = report.stages.iter().map(|(_, duration)| *duration).sum();
        assert_eq!(sum, report.total, "{report:?}");
        if let Outcome::Refused { stage, .. } = report.outcome {
            assert_eq!(report.stages.last().map(|(last, _)| *last), Some(stage), "{:?}", report.stages);
        }
        if report.outcome == Outcome::Discarded {
            assert_eq!(report.stages.last().map(|(last, _)| *last), Some(Stage::Staged), "{:?}", report.stages);
        }
    }
    values.latch.open();
    eventually("nothing hangs any more", || slot.status().hung == 0);
    close(slot, &values.census);
}
