//! What an attempt captures, who may ask for one, and in which order its end is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use hotslot::{
    BoxError, Candidate, ErrorKind, Event, HotSlot, Lease, Outcome, Release, Report, Rollback, Runner, SlotGroup,
    Stage, Subscription, VersionRule,
};

use crate::assert_kind;
#[cfg(target_os = "linux")]
use crate::support::process::{alone, end_with, fork};
use crate::support::{PATIENCE, Plugin, Values, close, eventually, serving, wait_for};

/// Long for everything here but what hangs.
const LIMIT: Duration = Duration::from_secs(2);

/// A slot that hooks and plugins can get hold of after it has been opened.
type Handle = Arc<OnceLock<HotSlot<Plugin>>>;

#[test]
fn a_rollback_while_a_plugin_is_being_staged_lets_no_older_version_in() {
    let values = Values::new();
    let slot = values.builder().version_rule(VersionRule::NotOlder).open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    thread::scope(|scope| {
        // It has its turn, and so its base, before the rollback; what is compared with it comes after.
        let reload = scope.spawn(|| slot.reload(b"p 1.5.0 3 admit=hang"));
        values.latch.wait_for(1);
        slot.rollback().unwrap();
        values.latch.open();
        let error = reload.join().unwrap().unwrap_err();
        assert_kind!(error, ErrorKind::Version(text) if text.contains("1.5.0 is older than 2.0.0"));
    });
    slot.rollback_to(2).unwrap();
    assert_eq!(serving(&slot), (2, 2));
    close(slot, &values.census);
}

#[test]
fn a_base_that_was_replaced_and_brought_back_is_another_base() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    // Its hook is not asked: the state would be taken from another run of the base.
    let (staged, unchanged) = (slot.stage(b"p 3.0.0 3 hand_over=panic").unwrap(), slot.stage(b"p 1.0.0 1").unwrap());
    slot.reload(b"p 2.0.0 2").unwrap();
    slot.rollback().unwrap();
    for staged in [staged, unchanged] {
        let error = staged.commit().unwrap_err();
        assert_kind!(error, ErrorKind::BaseChanged { base: Some(1), current: 1 });
        assert!(error.to_string().contains("replaced and brought back"), "{error}");
    }
    close(slot, &values.census);
}

#[test]
fn the_time_in_the_queue_counts() {
    let values = Values::new();
    let slot = values.builder().reload_timeout(LIMIT).open(b"p 1.0.0 1").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| slot.reload(b"p 4.0.0 4 load=hang"));
        values.latch.wait_for(1);
        let (second, third) = (scope.spawn(|| slot.reload(b"p - 5")), scope.spawn(|| slot.reload(b"p - 6")));
        // Whoever gets its turn at the last moment has only that moment left.
        let errors = [second.join().unwrap(), third.join().unwrap()].into_iter().filter_map(Result::err);
        errors.for_each(|error| assert!(error.is_timeout(), "{error}"));
    });
    values.latch.open();
    eventually("nothing hangs any more", || slot.status().hung == 0);
    close(slot, &values.census);
}

/// What comes of each transition that is asked for from inside.
fn ask_for_each(handle: &Handle) -> Vec<&'static str> {
    let slot = handle.get().expect("it is open");
    let asked = [
        ("reload", slot.reload(b"p 7.0.0 7").map(drop)),
        ("stage", slot.stage(b"p 7.0.0 7").map(drop)),
        ("rollback", slot.rollback().map(drop)),
        ("rollback_to", slot.rollback_to(1).map(drop)),
        ("cold rollback", slot.rollback_to(Candidate::from(b"p 7.0.0 7")).map(drop)),
    ];
    let misuse = |(what, result): (&'static str, Result<(), hotslot::Error>)| {
        result.is_err_and(|error| error.is_misuse() && error.to_string().contains("reload_soon")).then_some(what)
    };
    asked.into_iter().filter_map(misuse).collect()
}

const EACH: [&str; 5] = ["reload", "stage", "rollback", "rollback_to", "cold rollback"];

#[test]
fn a_hook_that_asks_for_a_transition_is_told_so_at_once_and_nothing_commits_later() {
    for place in ["admit", "probe", "hand_over"] {
        let values = Values::new();
        let handle = Handle::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hook = |wanted: &'static str| {
            let (handle, seen) = (Arc::clone(&handle), Arc::clone(&seen));
            move || {
                if wanted == place && handle.get().is_some() {
                    seen.lock().unwrap().push(ask_for_each(&handle));
                }
                Ok::<(), BoxError>(())
            }
        };
        let (admit, probe, hand_over) = (hook("admit"), hook("probe"), hook("hand_over"));
        let slot = values
            .builder()
            .admit(move |_| admit())
            .probe(move |_: &Plugin| probe())
            .hand_over(move |_: &Plugin, _: &Plugin| hand_over())
            .open(b"p 1.0.0 1")
            .unwrap();
        handle.set(slot).expect("it is opened once");
        let slot = handle.get().unwrap();
        let began = Instant::now();
        slot.reload(b"p 2.0.0 2").expect("the reload itself goes on");
        assert!(began.elapsed() < PATIENCE, "nobody waited for a deadline");
        assert_eq!(*seen.lock().unwrap(), [EACH], "{place}");
        assert_eq!((serving(slot), slot.history().len()), ((2, 2), 2), "and nothing came of it");
    }
}

/// A staged plugin that is committed from inside is destroyed, like any other that is refused.
#[test]
fn a_commit_from_inside_is_misuse() {
    let values = Values::new();
    let parcel = Arc::new(Mutex::new(None::<hotslot::Staged<Plugin>>));
    let refused = Arc::new(Mutex::new(None));
    let (theirs, result) = (Arc::clone(&parcel), Arc::clone(&refused));
    let probe = move |_: &Plugin| {
        if let Some(staged) = theirs.lock().unwrap().take() {
            *result.lock().unwrap() = Some(staged.commit().unwrap_err());
        }
        Ok::<(), BoxError>(())
    };
    let slot = values.builder().probe(probe).open(b"p 1.0.0 1").unwrap();
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    *parcel.lock().unwrap() = Some(staged);
    slot.reload(b"p 3.0.0 3").unwrap();
    let error = refused.lock().unwrap().take().unwrap();
    assert!(error.is_misuse() && error.stage() == Stage::Commit, "{error}");
    assert_eq!(serving(&slot), (3, 3));
    close(slot, &values.census);
}

#[test]
fn a_probe_that_goes_through_another_slot_is_still_inside() {
    let values = Values::new();
    let (handle, seen) = (Handle::default(), Arc::new(Mutex::new(Vec::new())));
    let other = {
        let (handle, seen) = (Arc::clone(&handle), Arc::clone(&seen));
        let probe = move |_: &Plugin| {
            if handle.get().is_some() {
                seen.lock().unwrap().push(ask_for_each(&handle));
            }
            Ok::<(), BoxError>(())
        };
        Arc::new(Values::new().builder().probe(probe).open(b"q 1.0.0 1").unwrap())
    };
    let probe = move |plugin: &Plugin| match plugin.answer() {
        1 => Ok(()),
        _ => other.reload(b"q 2.0.0 2").map(drop).map_err(BoxError::from),
    };
    handle.set(values.builder().probe(probe).open(b"p 1.0.0 1").unwrap()).expect("it is opened once");
    handle.get().unwrap().reload(b"p 2.0.0 2").expect("another slot is another matter");
    assert_eq!(*seen.lock().unwrap(), [EACH]);
}

#[test]
fn a_plugin_that_runs_can_ask_for_its_replacement_soon() {
    let values = Values::new();
    let runner: Arc<OnceLock<Runner<Plugin>>> = Arc::default();
    let (asked, asked_in_run) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&runner));
    let answers = Arc::clone(&asked);
    values.on_run(move |generation| {
        if generation != 1 {
            return;
        }
        let runner = asked_in_run.wait();
        let misuse = |result: Result<hotslot::Report, hotslot::Error>| result.unwrap_err().is_misuse();
        let began = Instant::now();
        let refused = misuse(runner.reload(b"p 2.0.0 2")) && misuse(runner.rollback());
        let attempt = runner.reload_soon(Candidate::from(b"p 2.0.0 2").reason("by itself")).unwrap();
        answers.lock().unwrap().push((refused, began.elapsed() < LIMIT, attempt));
    });
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    assert!(runner.set(Runner::start(slot).unwrap()).is_ok(), "it is started once");
    let report = wait_for(&events, |event| match event {
        Event::Ended(report) if report.is_swap() && report.attempt > 1 => Some(Report::clone(report)),
        _ => None,
    });
    assert_eq!(*asked.lock().unwrap(), [(true, true, report.attempt)]);
    assert_eq!(report.reason.as_deref(), Some("by itself"));
    assert!(report.gap.is_some(), "the runner did it");
}

#[test]
fn only_the_last_of_several_reloads_to_be_done_soon_is_made() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    slot.reload_soon(b"p 2.0.0 2 load=hang").unwrap();
    values.latch.wait_for(1);
    let superseded = slot.reload_soon(b"p 3.0.0 3").unwrap();
    let last = slot.reload_soon(b"p 4.0.0 4").unwrap();
    values.latch.open();
    let ended = wait_for(&events, |event| match event {
        Event::Ended(report) if report.attempt == last => Some(Report::clone(report)),
        _ => None,
    });
    assert!(ended.is_swap(), "{ended:?}");
    let history = slot.history();
    let lost = history.iter().find(|report| report.attempt == superseded).expect("nothing goes without a trace");
    let Outcome::Refused { stage: Stage::Gate, error } = &lost.outcome else { panic!("{lost:?}") };
    assert!(error.contains("later reload_soon"), "{error}");
    close(slot, &values.census);
}

#[test]
fn closing_waits_for_a_reload_that_was_put_off() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    slot.reload_soon(b"p 2.0.0 2 load=hang").unwrap();
    values.latch.wait_for(1);
    let is_open = AtomicBool::new(false);
    thread::scope(|scope| {
        let closing = scope.spawn(|| (slot.close(PATIENCE), is_open.load(Ordering::SeqCst)));
        eventually("what served is destroyed", || values.census.alive().is_empty());
        is_open.store(true, Ordering::SeqCst);
        values.latch.open();
        let (status, was_open) = closing.join().unwrap();
        assert!(was_open, "it waited: {status:?}");
        assert_eq!((values.census.alive(), status.counters.refused), (vec![], 1));
    });
}

/// A consumer of events is not inside.
#[test]
fn whoever_listens_may_roll_back() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    thread::scope(|scope| {
        let listener = scope.spawn(|| {
            wait_for(&events, |event| matches!(event, Event::Retired { .. }).then_some(()));
            slot.rollback().map(|report| report.generation())
        });
        slot.reload(b"p 2.0.0 2").unwrap();
        assert_eq!(listener.join().unwrap().unwrap(), Some(1));
    });
    close(slot, &values.census);
}

#[test]
fn a_hand_over_that_fails_under_best_effort_does_not_fail_the_commit() {
    for what in ["hand_over=panic", "hand_over=hang", "save=panic"] {
        let values = Values::new();
        let builder = values.builder().reload_timeout(LIMIT).drain_timeout(Duration::from_millis(50));
        // It does not stop when it is told to, so its state is taken if it gives it.
        let slot = builder.open(b"p 1.0.0 1 run=hang").unwrap();
        let events = slot.subscribe();
        let runner = Runner::start(slot).unwrap();
        values.latch.wait_for(1);
        let new = format!("p 2.0.0 2 {what}").into_bytes();
        let new = if what == "save=panic" { b"p 2.0.0 2 restore=panic".to_vec() } else { new };
        let report = runner.reload(new).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.is_swap());
        let alarm = wait_for(&events, |event| match event {
            Event::Alarm { message } => Some(message.clone()),
            _ => None,
        });
        assert!(alarm.contains("generation 2 starts without a state"), "{alarm}");
        values.latch.open();
        eventually("nothing hangs any more", || runner.slot().status().hung == 0);
        close(runner.stop(), &values.census);
    }
}

fn destroyed(events: &Subscription) -> impl Iterator<Item = &'static str> + '_ {
    std::iter::from_fn(|| events.try_recv()).filter_map(|event| match event {
        Event::Ended(_) => Some("ended"),
        Event::Destroyed { .. } => Some("destroyed"),
        _ => None,
    })
}

#[test]
fn the_end_of_a_generation_is_told_after_the_swap_or_the_refusal_that_brought_it() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(b"p - 0").unwrap();
    for number in 1..500 {
        let events = slot.subscribe();
        match number % 3 {
            0 => drop(slot.stage(format!("p - {number}").into_bytes()).unwrap()),
            1 => drop(slot.reload(format!("p - {number} probe=fail").into_bytes()).unwrap_err()),
            _ => drop(slot.reload(format!("p - {number}").into_bytes()).unwrap()),
        }
        eventually("it is gone", || slot.status().retired.is_empty());
        let mut order = Vec::new();
        eventually("both are told", || {
            order.extend(destroyed(&events));
            order.len() == 2
        });
        assert_eq!(order, ["ended", "destroyed"], "{number}");
    }
    close(slot, &values.census);
}

#[test]
fn staged_generations_are_counted_and_bounded_and_show_in_the_status() {
    let values = Values::new();
    let slot = values.builder().max_retired(2).open(b"p 1.0.0 1").unwrap();
    let first = slot.stage(Candidate::from(b"p 2.0.0 2")).unwrap();
    let second = slot.stage(b"p 3.0.0 3").unwrap();
    let status = slot.status();
    let staged: Vec<_> = status.staged.iter().map(|staged| (staged.generation, staged.digest)).collect();
    assert!(status.staged.iter().all(|staged| staged.age > Duration::ZERO));
    assert_eq!(staged, [(2, first.digest()), (3, second.digest())]);
    assert_kind!(slot.stage(b"p 4.0.0 4").unwrap_err(), ErrorKind::TooManyRetired { lingering: 2, limit: 2 });
    assert_kind!(slot.reload(b"p 4.0.0 4").unwrap_err(), ErrorKind::TooManyRetired { lingering: 2, limit: 2 });
    drop(second);
    first.commit().unwrap();
    assert!(slot.status().staged.is_empty());
    slot.reload(b"p 4.0.0 4").expect("there is room again");
    close(slot, &values.census);
}

#[test]
fn a_cold_rollback_goes_to_bytes_that_are_no_longer_loaded() {
    let values = Values::new();
    let hour = Duration::from_secs(3600);
    let slot = values.builder().keep_previous(1).min_reload_interval(hour).open(b"p 1.0.0 1").unwrap();
    slot.load().set_state(5);
    slot.reload(b"p 2.0.0 2").expect("the first one is never too soon");
    slot.rollback_to(Rollback::to_artifact(b"p 0.9.0 9").requested_by("alice").reason("it was good")).unwrap();
    let report = slot.history().pop().unwrap();
    assert_eq!((report.requested_by.as_deref(), report.reason.as_deref()), (Some("alice"), Some("it was good")));
    assert_eq!((report.cause.clone(), report.generation()), (hotslot::Cause::Rollback, Some(3)));
    assert_eq!((serving(&slot), slot.load().state()), ((3, 9), 0), "older, at once, and without a state");
    assert_eq!(slot.status().counters.rollbacks, 1);

    let report = slot.rollback_to(Candidate::from(b"p 2.0.0 2").reason("warm")).unwrap();
    assert_eq!((report.generation(), values.census.loaded()), (Some(2), 3), "what is warm is not loaded again");
    assert_eq!(report.reason.as_deref(), Some("warm"));
    let error = slot.rollback_to(Candidate::from(b"p 2.0.0 2")).unwrap_err();
    assert_kind!(error, ErrorKind::AlreadyServing(2));
    let error = slot.rollback_to(Candidate::from(b"p 1.0.0 1 probe=fail")).unwrap_err();
    assert_eq!(error.stage(), Stage::Probe, "it goes through all the checks");
    assert_kind!(slot.reload(b"p 3.0.0 3").unwrap_err(), ErrorKind::TooSoon { .. });
    close(slot, &values.census);
}

#[test]
fn a_configuration_is_part_of_what_a_plugin_is() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let with = |config: &str| Candidate::from(b"p 1.0.0 1").config(config).reason(format!("to {config}"));
    let first = slot.reload(with("a")).unwrap();
    assert!(first.is_swap(), "the same bytes with another configuration are another plugin");
    assert_eq!(slot.reload(with("a")).unwrap().outcome, Outcome::Unchanged { generation: 2 });
    let second = slot.reload(with("b")).unwrap();
    let (a, b) = (hotslot::Digest::of(b"a"), hotslot::Digest::of(b"b"));
    assert_eq!((first.config_digest, second.config_digest, first.digest), (Some(a), Some(b), second.digest));
    assert_eq!(slot.status().serving.unwrap().config_digest, Some(b));
    assert_eq!(second.reason.as_deref(), Some("to b"));
    slot.rollback().unwrap();
    assert_eq!(Lease::id(&slot.load()).config_digest, Some(a), "a rollback goes back to both");
    assert_eq!(slot.rollback_to(with("b")).unwrap().generation(), Some(3));
    close(slot, &values.census);
}

/// What lives elsewhere panics when it is given back.
#[test]
fn a_release_that_panics_ends_the_teardown_with_an_alarm() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(b"p 1.0.0 1 anchored release=panic").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2 drop=payload").unwrap();
    let release = wait_for(&events, |event| match event {
        Event::Destroyed { generation: 1, release } => Some(release.clone()),
        _ => None,
    });
    let Release::Retained { reason, alarm: Some(alarm) } = release else { panic!("{release:?}") };
    assert!(reason.contains("release panicked") && alarm.contains("release panicked"), "{reason}; {alarm}");
    slot.reload(b"p 3.0.0 3").unwrap();
    wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 2, .. }).then_some(()));
    eventually("all but the serving one are gone", || slot.status().retired.is_empty());
    assert_eq!(slot.status().counters.alarms, 1);
    drop(slot);
}

#[test]
fn a_destructor_that_takes_too_long_is_told_of_once() {
    let values = Values::new();
    let builder = values.builder().keep_previous(0).drain_timeout(Duration::from_millis(10));
    let slot = builder.open(b"p 1.0.0 1 drop=hang").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    let alarm = wait_for(&events, |event| match event {
        Event::Alarm { message } => Some(message.clone()),
        _ => None,
    });
    assert!(alarm.contains("destructor of generation 1"), "{alarm}");
    assert!(slot.status().retired[0].stuck);
    values.latch.open();
    wait_for(&events, |event| {
        let is_again = matches!(event, Event::Alarm { message } if message.contains("destructor of generation 1"));
        assert!(!is_again, "{event:?}");
        matches!(event, Event::Destroyed { generation: 1, .. }).then_some(())
    });
    close(slot, &values.census);
}

#[test]
fn a_generation_that_has_just_become_current_is_young() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    thread::sleep(Duration::from_millis(30));
    let old = slot.status().serving.unwrap().age;
    slot.reload(b"p 2.0.0 2").unwrap();
    let young = slot.status().serving.unwrap().age;
    assert!(young < old, "{young:?} is no younger than {old:?}");
    close(slot, &values.census);
}

#[test]
fn an_error_prints_as_a_sentence_for_programs_that_return_it_from_main() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let error = slot.reload(b"p 2.0.0 2 probe=fail").unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    let nested = slot.reload(b"p x 2").unwrap_err();
    assert!(format!("{nested:?}").starts_with("refused at admit: "), "{nested:?}");
    close(slot, &values.census);
}

/// What the threads of one name in this process do.
#[cfg(target_os = "linux")]
#[derive(Debug, Default)]
struct Activity {
    threads: usize,
    wake_ups: u64,
    /// Of processor time, in hundredths of a second.
    ticks: u64,
}

#[cfg(target_os = "linux")]
fn activity(name: &str) -> Activity {
    let mut activity = Activity::default();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let read = |file| std::fs::read_to_string(task.as_ref().unwrap().path().join(file)).unwrap_or_default();
        if read("comm").trim() == name {
            let number = |text: &str| text.trim().parse::<u64>().unwrap_or_default();
            activity.threads += 1;
            let status = read("status");
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            activity.wake_ups += switches.map_or(0, number);
            // Behind the name: the state, ten other fields, and the time in user and in kernel mode.
            let stat = read("stat");
            let behind = stat.rsplit(')').next().unwrap_or_default();
            activity.ticks += behind.split_whitespace().skip(11).take(2).map(number).sum::<u64>();
        }
    }
    activity
}

/// In a process of its own, so that no other test's slots wake the reaper.
#[cfg(target_os = "linux")]
#[test]
fn one_reaper_serves_all_slots_and_sleeps_while_nothing_drains() {
    alone(|| {
        let all: Vec<_> = (0..200).map(|_| Values::new()).collect();
        let slots: Vec<_> = all.iter().map(|values| values.builder().open(b"p 1.0.0 1").unwrap()).collect();
        slots.iter().for_each(|slot| drop(slot.reload(b"p 2.0.0 2").unwrap()));
        let reaper = || activity("hotslot-reaper");
        assert_eq!(reaper().threads, 1, "one for all of them");
        // Warm generations are nothing to wait for.
        eventually("it has come to rest", || {
            let before = reaper().wake_ups;
            thread::sleep(Duration::from_millis(200));
            reaper().wake_ups == before
        });
        let lease = slots[0].load();
        let slots: Vec<_> = slots.into_iter().map(Arc::new).collect();
        let snapshots = [1, 3].map(|at: usize| {
            let group = SlotGroup::new("pair", (Arc::clone(&slots[at]), Arc::clone(&slots[at + 1]))).unwrap();
            let snapshot = group.load();
            group.reload([Some(b"p 3.0.0 3".into()), Some(b"p 3.0.0 3".into())]).unwrap();
            snapshot
        });
        drop(slots);
        let alive = || all.iter().map(|values| values.census.alive().len()).sum::<usize>();
        eventually("all but the held ones are gone", || alive() == 5);
        thread::sleep(Duration::from_secs(1));
        let before = reaper();
        thread::sleep(Duration::from_secs(2));
        let after = reaper();
        // One that does not wait between two looks wakes up seldom, and is at work all the time.
        let rests = after.wake_ups - before.wake_ups <= 40 && after.ticks - before.ticks <= 20;
        assert!(rests, "in two seconds, {before:?} became {after:?}");
        drop((lease, snapshots));
        eventually("the last ones are gone", || alive() == 0);
    });
}

/// A subscription that is dropped costs nothing afterwards.
#[cfg(target_os = "linux")]
#[test]
fn subscriptions_that_are_dropped_leave_nothing_behind() {
    alone(|| {
        let rss = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let values = Values::new();
        let slot = values.builder().open(b"p 1.0.0 1").unwrap();
        (0..1_000).for_each(|_| drop(slot.subscribe()));
        let before = rss();
        (0..300_000).for_each(|_| drop(slot.subscribe()));
        let grown = rss().saturating_sub(before);
        assert!(grown < 4_000, "300,000 subscriptions left {grown} kB");
        close(slot, &values.census);
    });
}

/// Forks; the child answers through its exit code.
#[cfg(target_os = "linux")]
#[test]
fn a_slot_in_a_forked_child_answers_instead_of_waiting() {
    alone(|| {
        let values = Values::new();
        let slot = values.builder().name("forked").open(b"p 1.0.0 1").unwrap();
        let (staged, retired) = (slot.stage(b"p 2.0.0 2").unwrap(), slot.load());
        slot.reload(b"p 1.5.0 1").unwrap();
        let Some(child) = fork() else {
            let forked = |result: Result<(), hotslot::Error>| {
                result.is_err_and(|error| matches!(error.kind(), ErrorKind::Forked))
            };
            let answers = [
                forked(slot.reload(b"p 3.0.0 3").map(drop)),
                forked(slot.rollback().map(drop)),
                forked(slot.reload_soon(b"p 3.0.0 3").map(drop)),
                forked(staged.commit().map(drop)),
                forked(values.builder().open(b"p 1.0.0 1").map(drop)),
                slot.load().answer() == 1,
                slot.status().serving.is_none(),
                slot.status().slot == "forked",
            ];
            // The last thing that a lease on a retired generation does is to wake the reaper.
            drop((retired, slot));
            end_with(&answers);
        };
        child.answers_well();
        drop((staged, retired));
        slot.reload(b"p 3.0.0 3").expect("the parent goes on");
        close(slot, &values.census);
    });
}

/// Readers' counts are not a matter of this file, but that they go on is.
#[test]
fn readers_go_on_while_a_transition_waits() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let answers = AtomicU64::new(0);
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"p 2.0.0 2 load=hang"));
        values.latch.wait_for(1);
        for _ in 0..1000 {
            answers.fetch_add(slot.load().answer(), Ordering::Relaxed);
        }
        values.latch.open();
        reload.join().unwrap().unwrap();
    });
    assert_eq!(answers.into_inner(), 1000);
    close(slot, &values.census);
}
