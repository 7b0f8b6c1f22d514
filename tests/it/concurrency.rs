//! Many threads at once: one transition at a time, a linear history, readers who never see a step back.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hotslot::{BusyPolicy, Candidate, ErrorKind, Event, HotSlot, Outcome, Stage, Staged};

use crate::assert_kind;
use crate::support::{Plugin, Values, close, serving, swap, swaps};

/// Each swap begins where the one before ended.
#[track_caller]
fn assert_linear(swaps: &[(Option<u64>, u64)]) {
    for pair in swaps.windows(2) {
        assert_eq!(pair[1].0, Some(pair[0].1), "{pair:?} in {swaps:?}");
    }
}

/// A plugin like no other.
fn unique(next: &AtomicU64) -> Candidate {
    format!("p - {}", next.fetch_add(1, Ordering::Relaxed)).into_bytes().into()
}

#[test]
fn sixteen_threads_that_reload_at_once_take_turns() {
    let values = Values::new();
    let slot = values.builder().open(b"p - 0").unwrap();
    let (start, next) = (Barrier::new(16), AtomicU64::new(1));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..10 {
                    assert!(slot.reload(unique(&next)).unwrap().is_swap());
                }
            });
        }
    });
    let swaps = swaps(&slot);
    assert_eq!((swaps.len(), slot.status().counters.swaps), (161, 161));
    assert_linear(&swaps);
    assert!(swaps.windows(2).all(|pair| pair[0].1 < pair[1].1), "generation numbers only grow: {swaps:?}");
    close(slot, &values.census);
}

#[test]
fn a_slot_that_does_not_queue_refuses_at_once() {
    let values = Values::new();
    let slot = values.builder().when_busy(BusyPolicy::Refuse).open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| slot.reload(b"p 3.0.0 3 load=hang"));
        values.latch.wait_for(1);
        for attempt in [slot.reload(b"p 4.0.0 4").map(drop), slot.stage(b"p 4.0.0 4").map(drop)] {
            let error = attempt.unwrap_err();
            assert_kind!(error, ErrorKind::Busy);
            assert_eq!(error.stage(), Stage::Gate);
            assert!(error.is_temporary() && error.serving().unwrap().generation == 2);
        }
        values.latch.open();
        assert!(first.join().unwrap().unwrap().is_swap());
    });
    slot.reload(b"p 4.0.0 4").expect("nobody is in the way any more");
    close(slot, &values.census);
}

#[test]
fn a_staged_plugin_that_waits_for_its_commit_is_in_nobodys_way() {
    let values = Values::new();
    let slot = values.builder().when_busy(BusyPolicy::Refuse).open(b"p 1.0.0 1").unwrap();
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    slot.reload(b"p 3.0.0 3").unwrap();
    drop(staged);
    close(slot, &values.census);
}

/// Reloads keep their turn until they are committed; of plugins that were staged side by side, one is committed.
#[test]
fn of_plugins_staged_side_by_side_exactly_one_is_committed() {
    let values = Values::new();
    let slot = values.builder().open(b"p - 0").unwrap();
    let next = AtomicU64::new(1);
    for _ in 0..20 {
        let staged: Vec<_> = (0..4).map(|_| slot.stage(unique(&next)).unwrap()).collect();
        let start = Barrier::new(staged.len());
        let commit = |staged: Staged<Plugin>| {
            start.wait();
            match staged.commit() {
                Ok(report) => usize::from(report.is_swap()),
                Err(error) => {
                    assert_kind!(error, ErrorKind::BaseChanged { .. });
                    0
                }
            }
        };
        let committed = thread::scope(|scope| {
            let commit = &commit;
            let threads: Vec<_> = staged.into_iter().map(|staged| scope.spawn(move || commit(staged))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(committed, 1);
    }
    assert_linear(&swaps(&slot));
    close(slot, &values.census);
}

#[test]
fn reloads_commits_and_rollbacks_from_everywhere_make_one_line() {
    for _ in 0..20 {
        let values = Values::new();
        let slot = values.builder().keep_previous(3).open(b"p - 0").unwrap();
        let events = slot.subscribe();
        let (start, next) = (Barrier::new(6), AtomicU64::new(1));
        let may_lose = |result: Result<hotslot::Report, hotslot::Error>| {
            if let Err(error) = result {
                assert_kind!(error, ErrorKind::BaseChanged { .. } | ErrorKind::NotWarm { .. });
            }
        };
        thread::scope(|scope| {
            for worker in 0..6 {
                let (slot, start, next) = (&slot, &start, &next);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..10 {
                        match worker % 3 {
                            0 => may_lose(slot.reload(unique(next))),
                            1 => may_lose(slot.rollback()),
                            _ => may_lose(slot.stage(unique(next)).and_then(|staged| staged.commit())),
                        }
                    }
                });
            }
        });
        let history = swaps(&slot);
        assert_linear(&history);
        assert_eq!(history.last().unwrap().1, slot.load().generation());

        let mut told = Vec::new();
        while let Some(event) = events.try_recv() {
            if let Event::Ended(report) = event {
                told.extend(swap(&report));
            }
        }
        assert_eq!(told, history[1..], "subscribers hear of swaps in their order");
        close(slot, &values.census);
    }
}

#[test]
fn a_reload_during_a_rollback_storm_loses_or_wins_but_never_hangs() {
    let values = Values::new();
    let slot = values.builder().keep_previous(2).open(b"p - 0").unwrap();
    slot.reload(b"p - 1").unwrap();
    let (done, next) = (AtomicBool::new(false), AtomicU64::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = slot.rollback();
                if let Some(&newest) = crate::support::warm(&slot).iter().max() {
                    let _ = slot.rollback_to(newest);
                }
            }
        });
        let outcomes = (0..200).map(|_| slot.reload(unique(&next))).filter(|result| match result {
            Ok(report) => report.is_swap(),
            Err(error) => {
                assert_kind!(error, ErrorKind::BaseChanged { .. });
                false
            }
        });
        let won = outcomes.count() as u64;
        done.store(true, Ordering::Relaxed);
        let counters = slot.status().counters;
        assert!(counters.swaps >= won + 2, "{counters:?}");
    });
    assert_linear(&swaps(&slot));
    close(slot, &values.census);
}

/// Thousands of reloads, as fast as they come, from four threads.
#[test]
fn a_storm_of_reloads_loads_only_so_many_generations_at_once() {
    const MAX_RETIRED: usize = 8;
    const KEPT: usize = 2;
    let values = Values::new();
    let slot = values.builder().keep_previous(KEPT).max_retired(MAX_RETIRED).open(b"p - 0").unwrap();
    let next = AtomicU64::new(1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    slot.reload(unique(&next)).unwrap();
                }
            });
        }
    });
    assert_eq!(slot.status().counters.swaps, 2001);
    // One that serves and one that is being loaded beside those that may linger.
    let bound = MAX_RETIRED + KEPT + 2;
    assert!(values.census.peak() <= bound, "{} were loaded at once, {bound} may be", values.census.peak());
    close(slot, &values.census);
}

#[test]
fn a_storm_of_reloads_is_refused_within_the_interval() {
    let values = Values::new();
    let hour = Duration::from_secs(3600);
    let slot = values.builder().min_reload_interval(hour).open(b"p - 0").unwrap();
    let next = AtomicU64::new(1);
    slot.reload(unique(&next)).expect("the first one after the opening is never too soon");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let error = slot.reload(unique(&next)).unwrap_err();
                    assert_kind!(error, ErrorKind::TooSoon { retry_after } if *retry_after <= hour);
                    assert!(error.stage() == Stage::Gate && error.is_temporary());
                }
            });
        }
    });
    assert_eq!(values.census.loaded(), 2, "nothing was loaded");
    assert_eq!(slot.status().counters.refused, 4000);
    assert_eq!(slot.history().len(), 256, "the history is bounded");
    assert_eq!(slot.reload(b"p - 1").unwrap().outcome, Outcome::Unchanged { generation: 2 });
    close(slot, &values.census);
}

#[test]
fn a_storm_of_reloads_swaps_once_in_an_interval() {
    let values = Values::new();
    let interval = Duration::from_millis(20);
    let slot = values.builder().min_reload_interval(interval).open(b"p - 0").unwrap();
    let (opened, next) = (Instant::now(), AtomicU64::new(1));
    let mut swapped = 0;
    while swapped < 10 {
        match slot.reload(unique(&next)) {
            Ok(_) => swapped += 1,
            Err(error) => assert_kind!(error, ErrorKind::TooSoon { retry_after } if !retry_after.is_zero()),
        }
    }
    // The swap of the opening was before `opened`, so the first interval may be partly over.
    assert!(opened.elapsed() >= interval * 9, "{:?}", opened.elapsed());
    slot.rollback().expect("a rollback is never too soon");
    close(slot, &values.census);
}

/// Ten thousand reloads under readers: no stale code, no lost call, nothing left.
#[test]
fn readers_never_see_a_step_back_in_ten_thousand_reloads() {
    const RELOADS: u64 = 10_000;
    let values = Values::new();
    let slot = values.builder().keep_previous(2).open(b"p - 1").unwrap();
    let (committed, done, start) = (AtomicU64::new(1), AtomicBool::new(false), Barrier::new(4));
    let read = |slot: &HotSlot<Plugin>| {
        start.wait();
        let (mut calls, mut last) = (0_u64, 0);
        while !done.load(Ordering::Acquire) {
            let at_least = committed.load(Ordering::Acquire);
            let lease = slot.load();
            let generation = lease.generation();
            assert!(generation >= at_least, "generation {generation} was out of date: {at_least} serves");
            assert!(generation >= last, "generation {generation} after {last}");
            assert_eq!((lease.answer(), (*lease).generation()), (generation, generation), "the answer of another one");
            (calls, last) = (calls + 1, generation);
            if calls % 16 == 0 {
                thread::yield_now(); // a reader that never rests would take the processor from the reloads
            }
        }
        calls
    };
    let calls = thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| read(&slot))).collect();
        start.wait();
        for number in 2..=RELOADS {
            let report = slot.reload(format!("p - {number}").into_bytes()).unwrap();
            assert_eq!(swap(&report), Some((Some(number - 1), number)));
            committed.store(number, Ordering::Release);
        }
        done.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert_eq!(values.calls.load(Ordering::Relaxed), calls, "every call arrived");
    assert_eq!(serving(&slot), (RELOADS, RELOADS));
    assert!(values.census.peak() <= 64 + 2 + 2, "{} were loaded at once", values.census.peak());
    crate::support::eventually("all but the kept are destroyed", || values.census.alive().len() == 3);
    assert_eq!(values.census.alive(), [RELOADS - 2, RELOADS - 1, RELOADS]);
    close(slot, &values.census);
}
