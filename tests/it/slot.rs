//! What a slot and its leases are to those who call the plugin.

use std::future::poll_fn;
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;

use hotslot::{
    Admission, Artifact, Backend, BoxError, Candidate, Cause, ErrorKind, Event, HotSlot, Lease, LoadContext, Loaded,
    Manifest, Outcome, Payload, Report, Runner, Stage, Staged, Status, StopSignal, Subscription,
};

use crate::assert_kind;
use crate::support::{Plugin, Values, block_on, close, says, serving, swap};

#[test]
fn a_lease_stays_with_the_generation_it_was_taken_on() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let old = slot.load();
    slot.reload(b"p 2.0.0 2").unwrap();
    let new = slot.load();

    assert_eq!((old.answer(), old.generation(), Lease::version(&old).unwrap().major), (1, 1, 1));
    assert_eq!((new.answer(), new.generation(), Lease::version(&new).unwrap().major), (2, 2, 2));
    assert_eq!(Lease::manifest(&old).name, "p");
    assert_ne!(Lease::digest(&old), Lease::digest(&new));
    assert_eq!(old.clone().answer(), 1, "a clone is on the same generation, retired or not");
    drop((old, new));
    close(slot, &values.census);
}

#[test]
fn a_slot_is_shown_with_its_name_and_what_serves() {
    let values = Values::new();
    let slot = values.builder().name("prices").open(b"p 1.0.0 1").unwrap();
    let shown = format!("{slot:?}");
    assert!(
        shown.starts_with("HotSlot { name: \"prices\", serving: Some(") && shown.contains("generation: 1"),
        "{shown}"
    );
    close(slot, &values.census);
}

#[test]
fn what_is_leased_what_is_staged_and_what_runs_is_shown_too() {
    let values = Values::new();
    let slot = values.builder().name("prices").open(b"p 1.0.0 1").unwrap();
    let shown = format!("{:?}", slot.load());
    assert!(shown.starts_with("Lease { generation: 1, version: Some(\"1.0.0\")"), "{shown}");
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    let shown = format!("{staged:?}");
    assert!(shown.starts_with("Staged { generation: Some(2)"), "{shown}");
    drop(staged);
    let runner = hotslot::Runner::start(slot).unwrap();
    let shown = format!("{runner:?}");
    assert!(shown.starts_with("Runner { slot: HotSlot { name: \"prices\""), "{shown}");
    close(runner.stop(), &values.census);
}

#[test]
fn a_lease_is_retired_by_a_swap_and_serves_again_after_a_rollback() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let lease = slot.load();
    assert!(!Lease::is_retired(&lease) && !Lease::stop_signal(&lease).is_raised());
    slot.reload(b"p 2.0.0 2").unwrap();
    assert!(Lease::is_retired(&lease) && Lease::stop_signal(&lease).is_raised());
    slot.rollback().unwrap();
    assert!(!Lease::is_retired(&lease) && !Lease::stop_signal(&lease).is_raised());
    drop(lease);
    close(slot, &values.census);
}

#[test]
fn a_staged_plugin_can_be_tried_and_serves_only_from_its_commit_on() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    assert_eq!(staged.plugin().unwrap().answer(), 2);
    assert_eq!(staged.generation_number(), Some(2));
    assert_eq!(staged.manifest().unwrap().version, Some("2.0.0".parse().unwrap()));
    assert_eq!(serving(&slot), (1, 1), "it does not serve yet");

    let digest = staged.digest();
    let report = staged.commit().unwrap();
    assert_eq!((swap(&report), report.digest), (Some((Some(1), 2)), Some(digest)));
    assert_eq!(serving(&slot), (2, 2));
    close(slot, &values.census);
}

#[test]
fn a_staged_plugin_that_is_dropped_is_destroyed_and_recorded() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let events = slot.subscribe();
    drop(slot.stage(b"p 2.0.0 2").unwrap());
    crate::support::wait_for(&events, |event| matches!(event, Event::Destroyed { generation: 2, .. }).then_some(()));
    assert_eq!(serving(&slot), (1, 1));
    assert_eq!(slot.history().last().unwrap().outcome, Outcome::Discarded);
    assert_eq!(slot.status().counters.discarded, 1);
    close(slot, &values.census);
}

#[test]
fn state_is_taken_over_at_commit_and_not_before() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    slot.load().set_state(7);
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    slot.load().set_state(8);
    staged.commit().unwrap();
    assert_eq!(slot.load().state(), 8, "what was learned after the staging is not lost");
    close(slot, &values.census);
}

#[test]
fn a_report_tells_what_was_measured() {
    let values = Values::new();
    let slot =
        Arc::new(values.clone().builder().probe(|_: &Plugin| Ok::<(), BoxError>(())).open(b"p 1.0.0 1").unwrap());
    let bytes = b"p 2.0.0 2";
    let staged = slot.stage(bytes).unwrap();
    drop((slot.load(), slot.load(), slot.load()));
    let report = staged.commit().unwrap();

    assert_eq!((report.cause.clone(), swap(&report)), (Cause::Reload, Some((Some(1), 2))));
    assert_eq!(report.generation(), Some(2));
    assert_eq!(report.size, bytes.len());
    assert_eq!(report.digest, Some(hotslot::Digest::of(bytes)));
    assert_eq!(report.leases_during, 3);
    assert_eq!(report.gap, None);
    let stages: Vec<_> = report.stages.iter().map(|(stage, _)| *stage).collect();
    let before = [Stage::Copy, Stage::Queue, Stage::Hash, Stage::Gate, Stage::Admit, Stage::Load, Stage::Probe];
    assert_eq!(stages, [&before[..], &[Stage::Staged, Stage::HandOver, Stage::Commit]].concat());
    assert_eq!(report.stages.iter().map(|(_, duration)| *duration).sum::<std::time::Duration>(), report.total);

    drop(slot.load());
    assert_eq!(slot.reload(b"p 3.0.0 3").unwrap().leases_during, 0, "only what falls into the attempt counts");
    close(Arc::into_inner(slot).unwrap(), &values.census);
}

#[test]
fn leases_of_all_threads_are_counted_during_an_attempt_and_none_beside_it() {
    const THREADS: u64 = 40;
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let take = |leases: usize| (0..leases).for_each(|_| drop(slot.load()));
    let (before, during, after) = (Barrier::new(41), Barrier::new(41), Barrier::new(41));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                take(50);
                before.wait();
                during.wait();
                take(100);
                after.wait();
            });
        }
        before.wait();
        let staged = slot.stage(b"p 2.0.0 2").unwrap();
        // Threads that come later count as well.
        scope.spawn(|| take(7)).join().unwrap();
        during.wait();
        after.wait();
        assert_eq!(staged.commit().unwrap().leases_during, THREADS * 100 + 7);
        take(3);
        assert_eq!(slot.reload(b"p 3.0.0 3").unwrap().leases_during, 0);
    });
    close(slot, &values.census);
}

#[test]
fn a_first_plugin_that_is_refused_leaves_no_slot_and_no_trace() {
    let values = Values::new();
    let error = values.builder().open(b"p 1.0.0 1 probe=fail").unwrap_err();
    assert_eq!(error.stage(), Stage::Probe);
    assert!(error.serving().is_none());
    assert!(error.to_string().contains("probe fails on purpose"), "{error}");
    crate::support::eventually("it is destroyed", || values.census.alive().is_empty());
    values.census.assert_all_destroyed();
}

#[test]
fn a_timeout_that_refuses_everything_is_misuse() {
    let values = Values::new();
    let error = values.builder().reload_timeout(std::time::Duration::ZERO).open(b"p 1.0.0 1").unwrap_err();
    assert!(error.is_misuse() && !error.is_temporary());
    assert_kind!(error, kind if says(kind, "reload_timeout"));
    assert_kind!(error, ErrorKind::Misuse(_));
}

#[test]
fn plugins_of_different_kinds_take_turns_behind_a_trait() {
    type Answer = dyn Fn() -> String + Send + Sync;

    /// Digits become one kind of closure, everything else another one.
    struct Closures;
    impl Backend<Answer> for Closures {
        fn admit(&self, _: &Payload) -> Result<Admission, BoxError> {
            Ok(Manifest::default().into())
        }
        fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<Answer>, BoxError> {
            let text = String::from_utf8(artifact.bytes().to_vec())?;
            Ok(match text.parse::<u64>() {
                Ok(number) => Loaded::boxed(Box::new(move || (number + 1).to_string())),
                Err(_) => Loaded::boxed(Box::new(move || text.clone())),
            })
        }
    }

    let slot: HotSlot<Answer> = HotSlot::builder(Closures).open(b"41").unwrap();
    assert_eq!(slot.load()(), "42");
    slot.reload(b"forty-two").unwrap();
    assert_eq!(slot.load()(), "forty-two");
}

#[test]
fn a_lease_can_be_held_across_an_await() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let answers = async {
        let lease = slot.load();
        let before = lease.answer();
        let mut reloaded = false;
        poll_fn(|context| {
            if std::mem::replace(&mut reloaded, true) {
                return Poll::Ready(());
            }
            slot.reload(b"p 2.0.0 2").unwrap();
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        (before, lease.answer(), Lease::is_retired(&lease), slot.load().answer())
    };
    assert_eq!(block_on(is_send(answers)), (1, 1, true, 2));
    close(slot, &values.census);
}

fn is_send<V: Send>(value: V) -> V {
    value
}

#[test]
fn handles_can_be_shared_between_threads() {
    fn shared<V: Send + Sync + 'static>() {}
    shared::<HotSlot<Plugin>>();
    shared::<HotSlot<dyn Fn() + Send + Sync>>();
    shared::<Lease<Plugin>>();
    shared::<Staged<Plugin>>();
    shared::<Runner<Plugin>>();
    shared::<Subscription>();
    shared::<(hotslot::Error, Event, Report, Status, StopSignal, Candidate, Artifact)>();
}
