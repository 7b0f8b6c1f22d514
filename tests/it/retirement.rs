//! What becomes of a generation that is no longer current: it drains, it is destroyed once and by a thread that is
//! there for it, and if it lingers, somebody is told.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hotslot::{ErrorKind, Event, HotSlot, Lease, Phase, Release, Stage, Subscription};

use crate::assert_kind;
use crate::support::{PATIENCE, Plugin, Values, close, eventually, serving, wait_for};

/// A slot that keeps nothing for a rollback.
fn slot(values: &Values) -> HotSlot<Plugin> {
    values.builder().keep_previous(0).open(b"p 1.0.0 1").unwrap()
}

/// Waits until a generation is gone.
#[track_caller]
fn destroyed(events: &Subscription, wanted: u64) -> Release {
    wait_for(events, |event| match event {
        Event::Destroyed { generation, release } if *generation == wanted => Some(release.clone()),
        _ => None,
    })
}

#[test]
fn a_generation_is_destroyed_when_its_last_lease_ends_and_not_before() {
    let values = Values::new();
    let slot = slot(&values);
    let events = slot.subscribe();
    let first = slot.load();
    let second = first.clone();
    slot.reload(b"p 2.0.0 2").unwrap();
    slot.reload(b"p 3.0.0 3").unwrap();
    destroyed(&events, 2);
    drop(first);
    slot.reload(b"p 4.0.0 4").unwrap();
    destroyed(&events, 3);
    assert_eq!((second.answer(), values.census.alive()), (1, vec![1, 4]), "one lease is enough");
    drop(second);
    assert_eq!(destroyed(&events, 1), Release::Freed);
    assert_eq!(values.census.order(), [2, 3, 1]);
    close(slot, &values.census);
}

#[test]
fn a_lease_that_ends_on_another_thread_does_not_destroy_there() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(b"p 1.0.0 1 anchored").unwrap();
    let events = slot.subscribe();
    let lease = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    thread::Builder::new().name("reader".into()).spawn(move || drop(lease)).unwrap().join().unwrap();
    destroyed(&events, 1);
    close(slot, &values.census);
}

#[test]
fn a_generation_that_lingers_is_named() {
    let values = Values::new();
    let slot = slot(&values);
    let lease = slot.load();
    let others = [slot.load(), slot.load()];
    slot.reload(b"p 2.0.0 2").unwrap();

    let status = slot.status();
    let [lingering] = &status.retired[..] else { panic!("{status:?}") };
    assert_eq!((lingering.generation, lingering.leases, lingering.phase), (1, 3, Phase::Draining));
    assert_eq!((lingering.digest, lingering.version.as_ref()), (Lease::digest(&lease), Lease::version(&lease)));
    assert_eq!((lingering.epoch, lingering.oldest_lease.as_ref(), lingering.stuck), (2, None, false));
    let serving = status.serving.unwrap();
    assert_eq!((serving.generation, serving.epoch, serving.name.as_str()), (2, 2, "p"));

    let earlier = lingering.age;
    assert!(slot.status().retired[0].age >= earlier, "it grows older");
    drop((lease, others));
    close(slot, &values.census);
}

#[test]
fn a_lease_held_for_ever_is_reported_as_stuck_with_the_place_where_it_was_taken() {
    let values = Values::new();
    let slot =
        values.builder().keep_previous(0).track_leases(true).drain_timeout(Duration::ZERO).open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    let (oldest, line) = (slot.load(), line!());
    let younger = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();

    let held = wait_for(&events, |event| match event {
        Event::Stuck { generation: 1, leases: 2, oldest_lease, version, .. } => {
            assert_eq!(version.as_ref(), Lease::version(&oldest));
            Some(oldest_lease.clone().expect("leases are tracked"))
        }
        _ => None,
    });
    assert!(held.location.starts_with(&format!("{}:{line}:", file!())), "{}", held.location);
    assert!(Lease::stop_signal(&oldest).is_overdue());
    let status = slot.status();
    assert!(status.retired[0].stuck && status.counters.stuck == 1, "{status:?}");

    slot.reload(b"p 3.0.0 3").expect("transitions go on");
    destroyed(&events, 2);
    let younger_line = slot.status().retired[0].oldest_lease.clone().unwrap().location;
    assert_eq!(younger_line, held.location);
    drop(oldest);
    let next_oldest = slot.status().retired[0].oldest_lease.clone().unwrap().location;
    assert!(next_oldest.starts_with(&format!("{}:{}:", file!(), line + 1)), "{next_oldest}");
    drop(younger);
    destroyed(&events, 1);
    assert_eq!(slot.status().counters.stuck, 1, "it was reported once");
    close(slot, &values.census);
}

#[test]
fn a_clone_is_tracked_where_it_was_cloned() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).track_leases(true).open(b"p 1.0.0 1").unwrap();
    let lease = slot.load();
    let (clone, line) = (lease.clone(), line!());
    drop(lease);
    slot.reload(b"p 2.0.0 2").unwrap();
    let location = slot.status().retired[0].oldest_lease.clone().unwrap().location;
    assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}");
    drop(clone);
    close(slot, &values.census);
}

#[test]
fn more_leases_than_can_be_tracked_are_served_all_the_same() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).track_leases(true).open(b"p 1.0.0 1").unwrap();
    let leases: Vec<_> = (0..1000).map(|_| slot.load()).collect();
    slot.reload(b"p 2.0.0 2").unwrap();
    assert_eq!(slot.status().retired[0].leases, 1000);
    drop(leases);
    close(slot, &values.census);
}

#[test]
fn a_warm_generation_with_leases_is_reported_too_and_comes_back_unharmed() {
    let values = Values::new();
    let slot = values.builder().drain_timeout(Duration::ZERO).open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    let lease = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    wait_for(&events, |event| matches!(event, Event::Stuck { generation: 1, .. }).then_some(()));
    assert_eq!(slot.status().retired[0].phase, Phase::Warm);
    slot.rollback().unwrap();
    assert!(
        !Lease::is_retired(&lease)
            && !Lease::stop_signal(&lease).is_raised()
            && !Lease::stop_signal(&lease).is_overdue()
    );
    drop(lease);
    close(slot, &values.census);
}

#[test]
fn a_destructor_that_hangs_holds_up_no_other() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(b"p 1.0.0 1 drop=hang").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2 anchored drop=hang").unwrap();
    slot.reload(b"p 3.0.0 3").unwrap();
    values.latch.wait_for(2);
    slot.reload(b"p 4.0.0 4").unwrap();
    destroyed(&events, 3);
    let status = slot.status();
    let phases: Vec<_> = status.retired.iter().map(|retired| (retired.generation, retired.phase)).collect();
    assert_eq!(phases, [(1, Phase::Destroying), (2, Phase::Destroying)]);
    values.latch.open();
    assert_eq!((destroyed(&events, 1), status.counters.destroyed), (Release::Freed, 1));
    close(slot, &values.census);
}

#[test]
fn a_destructor_that_panics_harms_no_other() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(b"p 1.0.0 1 drop=panic").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    assert_eq!(destroyed(&events, 1), Release::Freed);
    slot.reload(b"p 3.0.0 3").unwrap();
    destroyed(&events, 2);
    close(slot, &values.census);
}

/// What a destructor left half done may still be in use.
#[test]
fn what_a_plugin_lived_in_is_kept_if_its_destructor_panicked() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).open(b"p 1.0.0 1 anchored drop=panic").unwrap();
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    let release = destroyed(&events, 1);
    assert!(
        matches!(&release, Release::Retained { reason, alarm: None } if reason.contains("panicked")),
        "{release:?}"
    );
    let kept = slot.status().retained;
    assert_eq!((kept.generations, kept.bytes), (1, b"p 1.0.0 1 anchored drop=panic".len() as u64));
    drop(slot);
}

#[test]
fn lingering_generations_are_bounded_and_the_slot_recovers() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).max_retired(2).open(b"p 1.0.0 1").unwrap();
    let first = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    let second = slot.load();
    slot.reload(b"p 3.0.0 3").unwrap();

    let error = slot.reload(b"p 4.0.0 4").unwrap_err();
    assert_kind!(error, ErrorKind::TooManyRetired { lingering: 2, limit: 2 });
    assert_eq!(error.stage(), Stage::Gate);
    assert!(error.is_temporary());
    assert_eq!((serving(&slot), values.census.loaded()), ((3, 3), 3));

    let events = slot.subscribe();
    drop(first);
    destroyed(&events, 1);
    slot.reload(b"p 4.0.0 4").expect("there is room again");
    drop(second);
    close(slot, &values.census);
}

/// What somebody holds does not go by waiting: with time for a reload until the end of days, the wait would be as long.
#[test]
fn what_somebody_holds_is_not_waited_for() {
    let values = Values::new();
    let builder = values.builder().keep_previous(0).reload_timeout(Duration::MAX);
    let slot = builder.max_retired(2).open(b"p 1.0.0 1").unwrap();
    let lease = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    let staged = slot.stage(b"p 3.0.0 3").unwrap();
    let error = slot.reload(b"p 4.0.0 4").unwrap_err();
    assert_kind!(error, ErrorKind::TooManyRetired { lingering: 2, limit: 2 });
    drop((lease, staged));
    close(slot, &values.census);
}

#[test]
fn warm_generations_do_not_count_as_lingering() {
    let values = Values::new();
    let slot = values.builder().keep_previous(3).max_retired(1).open(b"p 1.0.0 1").unwrap();
    for number in 2..=4 {
        slot.reload(format!("p {number}.0.0 {number}").into_bytes()).unwrap();
    }
    close(slot, &values.census);
}

#[test]
fn a_reload_waits_for_a_destruction_that_makes_room() {
    let values = Values::new();
    let slot = values.builder().keep_previous(0).max_retired(1).open(b"p 1.0.0 1 drop=hang").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    values.latch.wait_for(1);
    thread::scope(|scope| {
        let reload = scope.spawn(|| slot.reload(b"p 3.0.0 3"));
        values.latch.open();
        reload.join().unwrap().expect("room was about to be made");
    });
    close(slot, &values.census);
}

#[test]
fn a_destructor_that_hangs_for_good_ends_in_a_refusal_and_not_in_a_wait_without_end() {
    let values = Values::new();
    let slot = values
        .builder()
        .keep_previous(0)
        .max_retired(1)
        .reload_timeout(Duration::from_secs(2))
        .open(b"p 1.0.0 1 drop=hang")
        .unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    values.latch.wait_for(1);
    let error = slot.reload(b"p 3.0.0 3").unwrap_err();
    assert_kind!(error, ErrorKind::TooManyRetired { lingering: 1, limit: 1 });
    values.latch.open();
    close(slot, &values.census);
}

#[test]
fn leases_outlive_the_slot() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    let old = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    let (current, another) = (slot.load(), slot.load());
    drop(slot);
    assert_eq!((old.answer(), current.answer()), (1, 2));
    assert!(Lease::is_retired(&current) && Lease::stop_signal(&current).is_raised(), "whoever holds on is told");
    drop(old);
    destroyed(&events, 1);
    drop(current);
    assert_eq!(another.clone().answer(), 2);
    drop(another);
    destroyed(&events, 2);
    assert!(events.recv().is_none());
    values.census.assert_all_destroyed();
}

#[test]
fn a_staged_plugin_outlives_the_slot_and_cannot_be_committed_any_more() {
    for name in ["with hooks", "without"] {
        let values = Values::new();
        let builder = if name == "without" { HotSlot::builder(values.clone()) } else { values.builder() };
        let slot = builder.open(b"p 1.0.0 1").unwrap();
        let events = slot.subscribe();
        let (staged, dropped) = (slot.stage(b"p 2.0.0 2").unwrap(), slot.stage(b"p 3.0.0 3").unwrap());
        let unchanged = slot.stage(b"p 1.0.0 1").unwrap();
        drop(slot);
        destroyed(&events, 1);

        assert_eq!(staged.plugin().unwrap().answer(), 2);
        let error = staged.commit().unwrap_err();
        assert_kind!(error, ErrorKind::Closed);
        assert!(error.serving().is_none());
        destroyed(&events, 2);
        assert_kind!(unchanged.commit().unwrap_err(), ErrorKind::Closed);
        drop(dropped);
        destroyed(&events, 3);
        assert!(!{ events }.any(|event| matches!(event, Event::Destroyed { .. })), "and then it ends");
        values.census.assert_all_destroyed();
    }
}

/// The reaper is about to end when the last plugin comes.
#[test]
fn a_plugin_that_is_dropped_while_the_slot_ends_is_destroyed_properly() {
    for _ in 0..300 {
        let values = Values::new();
        let slot = values.builder().open(b"p 1.0.0 1").unwrap();
        let (first, second) = (slot.stage(b"p 2.0.0 2").unwrap(), slot.stage(b"p 3.0.0 3").unwrap());
        thread::scope(|scope| {
            scope.spawn(move || drop(first));
            scope.spawn(move || drop(second));
            drop(slot);
        });
        eventually("all is destroyed", || values.census.alive().is_empty());
        values.census.assert_all_destroyed();
    }
}

#[test]
fn closing_waits_until_all_is_destroyed() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1 drop=hang").unwrap();
    slot.reload(b"p 2.0.0 2").unwrap();
    let lease = slot.load();
    thread::scope(|scope| {
        let status = scope.spawn(|| slot.close(PATIENCE));
        values.latch.wait_for(1);
        drop(lease);
        values.latch.open();
        let status = status.join().unwrap();
        assert!(status.retired.is_empty() && status.serving.is_none(), "{status:?}");
        assert_eq!(status.counters.destroyed, 2);
        values.census.assert_all_destroyed();
    });
}

#[test]
fn closing_reports_what_lingers_and_who_holds_it() {
    let values = Values::new();
    let slot = values.builder().track_leases(true).open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    let (lease, line) = (slot.load(), line!());
    slot.reload(b"p 2.0.0 2").unwrap();
    let status = slot.close(Duration::ZERO);
    let lingering = status.retired.iter().find(|retired| retired.generation == 1).expect("it is held");
    assert_eq!((lingering.leases, lingering.phase), (1, Phase::Draining));
    let location = &lingering.oldest_lease.as_ref().unwrap().location;
    assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}");
    assert_eq!(lease.answer(), 1);
    drop(lease);
    destroyed(&events, 1);
    eventually("all is destroyed", || values.census.alive().is_empty());
    values.census.assert_all_destroyed();
}

#[test]
fn a_generation_is_in_one_place_at_a_time() {
    let values = Values::new();
    let slot = values.builder().keep_previous(1).open(b"p 1.0.0 1").unwrap();
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            loop {
                let status = slot.status();
                let serving = status.serving.as_ref().unwrap().generation;
                let mut seen: Vec<_> = status.retired.iter().map(|retired| retired.generation).collect();
                seen.push(serving);
                seen.sort_unstable();
                let all = seen.len();
                seen.dedup();
                assert_eq!(seen.len(), all, "a generation is listed twice: {status:#?}");
                let has_lost = serving > 1 && !seen.contains(&(serving - 1));
                assert!(!has_lost, "the one before is in neither place: {status:#?}");
                if serving == 500 {
                    break;
                }
            }
        });
        for number in 2..=500 {
            slot.reload(format!("p {number}.0.0 {number}").into_bytes()).unwrap();
        }
        watcher.join().unwrap();
    });
    close(slot, &values.census);
}

/// A backend that does something when it goes.
struct Ending(Values, Box<dyn Fn() + Send + Sync>);

impl hotslot::Backend<Plugin> for Ending {
    fn admit(&self, payload: &hotslot::Payload) -> Result<hotslot::Admission, hotslot::BoxError> {
        self.0.admit(payload)
    }

    fn load(
        &self,
        artifact: &hotslot::Artifact,
        context: &hotslot::LoadContext,
    ) -> Result<hotslot::Loaded<Plugin>, hotslot::BoxError> {
        self.0.load(artifact, context)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.1();
    }
}

/// What a slot leaves goes with the last that has it. That is the reaper, which has other slots to look after.
#[test]
fn a_backend_that_hangs_at_its_end_holds_up_no_other_slot() {
    let (values, others) = (Values::new(), Values::new());
    let latch = values.latch.clone();
    let backend = Ending(values.clone(), Box::new(move || latch.pass()));
    let hanging = HotSlot::builder(backend).open(b"p 1.0.0 1").unwrap();
    let lease = hanging.load();
    drop(hanging);
    drop(lease);
    values.latch.wait_for(1);
    let slot = slot(&others);
    let events = slot.subscribe();
    slot.reload(b"p 2.0.0 2").unwrap();
    destroyed(&events, 1);
    values.latch.open();
    close(slot, &others.census);
}

/// For an instant, whoever drops a lease has a reference to the slot, and that may be the last one.
#[test]
fn a_backend_never_ends_on_the_thread_that_drops_a_lease() {
    let rounds = || {
        for round in 0..500 {
            let (tell, told) = mpsc::channel();
            let values = Values::new();
            let tell = move || tell.send(thread::current().id()).expect("it is waited for");
            let slot = HotSlot::builder(Ending(values, Box::new(tell))).open(b"p 1.0.0 1").unwrap();
            let lease = slot.load();
            drop(slot);
            drop(lease);
            let ended_on = told.recv_timeout(PATIENCE).expect("the backend ends");
            assert_ne!(ended_on, thread::current().id(), "round {round}");
        }
    };
    // More of them than there are processors, so that one is held up just there now and then.
    thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(rounds))));
}
