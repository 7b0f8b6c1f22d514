//! Whatever refuses a plugin, and at whatever stage: what served serves on, with its state; the error, the history, a
//! counter and an event say what happened; and nothing leaks.

use std::time::Duration;

use hotslot::{Candidate, Cause, Error, ErrorKind, Event, HotSlot, Outcome, Report, Stage};

use crate::assert_kind;
use crate::support::{Plugin, Values, close, eventually, snapshot, wait_for};

/// Makes an attempt that must be refused, and checks everything that has to be so afterwards.
#[track_caller]
fn refused_by(
    slot: &HotSlot<Plugin>,
    attempt: impl FnOnce(&HotSlot<Plugin>) -> Result<hotslot::Report, Error>,
    stage: Stage,
    reason: &str,
) -> Error {
    let events = slot.subscribe();
    let (before, refused) = (snapshot(slot), slot.status().counters.refused);
    let error = attempt(slot).expect_err("this must be refused");

    assert_eq!(snapshot(slot), before, "a refusal changes nothing for callers");
    assert_eq!(error.stage(), stage, "{error}");
    let serving = error.serving().expect("something serves on");
    assert_eq!((serving.generation, serving.digest), (before.generation, before.digest));
    let text = error.to_string();
    assert!(text.contains(&format!("refused at {stage}")) && text.contains(reason), "{text}");
    assert!(text.contains(&format!("still serving: generation {}", before.generation)), "{text}");

    let last = slot.history().pop().unwrap();
    let Outcome::Refused { stage: recorded, error: why } = &last.outcome else { panic!("{last:?}") };
    assert!(*recorded == stage && why.contains(reason), "{last:?}");
    assert_eq!(slot.status().counters.refused, refused + 1);
    let ended = wait_for(&events, |event| match event {
        Event::Ended(report) => Some(Report::clone(report)),
        _ => None,
    });
    assert_eq!(ended, last);
    error
}

/// A plugin that is refused at `stage`, because of `reason`, having gone through `stages` and been loaded or not.
#[track_caller]
fn reload_is_refused(candidate: &str, stage: Stage, reason: &str, stages: &[Stage], loaded: bool) -> Error {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    slot.load().set_state(77);

    let error = refused_by(&slot, |slot| slot.reload(candidate.as_bytes()), stage, reason);
    let last = slot.history().pop().unwrap();
    let recorded: Vec<_> = last.stages.iter().map(|(stage, _)| *stage).collect();
    assert_eq!((recorded.as_slice(), &last.cause), (stages, &Cause::Reload));
    assert_eq!(values.census.loaded(), 1 + usize::from(loaded));

    slot.reload(b"p 3.0.0 3").expect("the slot takes the next one");
    assert_eq!(slot.load().state(), 77);
    close(slot, &values.census);
    error
}

const UP_TO_ADMIT: &[Stage] = &[Stage::Copy, Stage::Queue, Stage::Hash, Stage::Gate, Stage::Admit];
const UP_TO_LOAD: &[Stage] = &[Stage::Copy, Stage::Queue, Stage::Hash, Stage::Gate, Stage::Admit, Stage::Load];
const UP_TO_PROBE: &[Stage] =
    &[Stage::Copy, Stage::Queue, Stage::Hash, Stage::Gate, Stage::Admit, Stage::Load, Stage::Probe];
const UP_TO_HAND_OVER: &[Stage] =
    &[Stage::Copy, Stage::Queue, Stage::Hash, Stage::Gate, Stage::Admit, Stage::Load, Stage::Probe, Stage::HandOver];

#[test]
fn bytes_that_the_backend_does_not_take() {
    let error = reload_is_refused("p", Stage::Admit, "the artifact has no version", UP_TO_ADMIT, false);
    assert_kind!(error, ErrorKind::Refused(_));
    reload_is_refused("p 2.0.0 2 admit=fail", Stage::Admit, "admit fails", UP_TO_ADMIT, false);
}

#[test]
fn a_panic_of_the_backend_at_admission() {
    let error = reload_is_refused("p 2.0.0 2 admit=panic", Stage::Admit, "admit panics", UP_TO_ADMIT, false);
    assert_kind!(error, ErrorKind::Panicked(_));
}

#[test]
fn an_admit_hook_that_says_no_or_panics() {
    reload_is_refused("p 2.0.0 2 vet=fail", Stage::Admit, "vet fails", UP_TO_ADMIT, false);
    let error = reload_is_refused("p 2.0.0 2 vet=panic", Stage::Admit, "vet panics", UP_TO_ADMIT, false);
    assert_kind!(error, ErrorKind::Panicked(_));
}

#[test]
fn a_version_that_the_rule_does_not_allow() {
    let error = reload_is_refused("p 0.9.0 2", Stage::Admit, "older than 1.0.0", UP_TO_ADMIT, false);
    assert_kind!(error, ErrorKind::Version(_));
}

#[test]
fn a_load_that_fails_or_panics() {
    reload_is_refused("p 2.0.0 2 load=fail", Stage::Load, "load fails", UP_TO_LOAD, false);
    let error = reload_is_refused("p 2.0.0 2 load=panic", Stage::Load, "load panics", UP_TO_LOAD, false);
    assert_kind!(error, ErrorKind::Panicked(_));
}

#[test]
fn a_probe_that_fails() {
    reload_is_refused("p 2.0.0 2 probe=fail", Stage::Probe, "probe fails", UP_TO_PROBE, true);
    reload_is_refused("p 2.0.0 2 anchored probe=fail", Stage::Probe, "probe fails", UP_TO_PROBE, true);
}

#[test]
fn a_probe_that_panics() {
    let error = reload_is_refused("p 2.0.0 2 probe=panic", Stage::Probe, "probe panics", UP_TO_PROBE, true);
    assert_kind!(error, ErrorKind::Panicked(_));
    reload_is_refused("p 2.0.0 2 anchored probe=panic", Stage::Probe, "probe panics", UP_TO_PROBE, true);
}

#[test]
fn a_hand_over_that_fails_or_panics() {
    for step in ["hand_over", "restore"] {
        let reason = format!("{step} fails");
        let script = format!("p 2.0.0 2 {step}=fail");
        reload_is_refused(&script, Stage::HandOver, &reason, UP_TO_HAND_OVER, true);
        let script = format!("p 2.0.0 2 anchored {step}=panic");
        let reason = format!("{step} panics");
        let error = reload_is_refused(&script, Stage::HandOver, &reason, UP_TO_HAND_OVER, true);
        assert_kind!(error, ErrorKind::Panicked(_));
    }
}

#[test]
fn a_plugin_whose_state_cannot_be_saved_serves_on() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1 save=fail").unwrap();
    refused_by(&slot, |slot| slot.reload(b"p 2.0.0 2"), Stage::HandOver, "save fails");
    close(slot, &values.census);
}

#[test]
fn an_artifact_that_is_too_large() {
    let values = Values::new();
    let slot = values.builder().max_artifact_size(16).open(b"p 1.0.0 1").unwrap();
    let large = vec![b' '; 17];
    let error = refused_by(&slot, |slot| slot.reload(&large), Stage::Admit, "max_artifact_size");
    assert_kind!(error, ErrorKind::TooLarge { size: 17, limit: 16 });
    slot.reload(b"p 2.0.0 2      x").expect("one of just the size is taken");
    close(slot, &values.census);
}

#[test]
fn a_staged_plugin_whose_base_has_changed() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let stale = slot.stage(b"p 2.0.0 2").unwrap();
    slot.reload(b"p 3.0.0 3").unwrap();
    let error = refused_by(&slot, |_| stale.commit(), Stage::HandOver, "is current now");
    assert_kind!(error, ErrorKind::BaseChanged { base: Some(1), current: 3 });
    assert!(error.is_temporary());
    close(slot, &values.census);
}

#[test]
fn a_staged_plugin_whose_base_has_changed_without_a_hand_over() {
    let values = Values::new();
    let slot = HotSlot::builder(values.clone()).open(b"p 1.0.0 1").unwrap();
    let stale = slot.stage(b"p 2.0.0 2").unwrap();
    slot.reload(b"p 3.0.0 3").unwrap();
    let error = refused_by(&slot, |_| stale.commit(), Stage::Commit, "is current now");
    assert_kind!(error, ErrorKind::BaseChanged { base: Some(1), current: 3 });
    close(slot, &values.census);
}

/// To say "unchanged" would be to say that these bytes serve.
#[test]
fn a_plugin_staged_as_unchanged_when_another_one_serves_by_then() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let unchanged = slot.stage(b"p 1.0.0 1").unwrap();
    assert!(unchanged.is_unchanged());
    slot.reload(b"p 2.0.0 2").unwrap();
    let error = refused_by(&slot, |_| unchanged.commit(), Stage::Commit, "is current now");
    assert_kind!(error, ErrorKind::BaseChanged { base: Some(1), current: 2 });
    close(slot, &values.census);
}

#[test]
fn the_cause_below_a_reason_is_told_once() {
    #[derive(Debug)]
    struct Outer(std::io::Error);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the key is not to be had")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    let values = Values::new();
    let closed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let shut = closed.clone();
    let slot = values
        .builder()
        .admit(move |_| match shut.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(Outer(std::io::Error::other("disk full"))),
            false => Ok(()),
        })
        .open(b"p 1.0.0 1")
        .unwrap();
    closed.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = refused_by(&slot, |slot| slot.reload(b"p 2.0.0 2"), Stage::Admit, "the key is not to be had");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk full");
    let last = slot.history().pop().unwrap();
    let Outcome::Refused { error: why, .. } = &last.outcome else { panic!("{last:?}") };
    assert_eq!(why, "the key is not to be had: disk full");
    close(slot, &values.census);
}

#[test]
fn hooks_run_in_the_order_in_which_they_were_added_until_one_refuses() {
    let values = Values::new();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (first, second) = (seen.clone(), seen.clone());
    let slot = HotSlot::builder(values.clone())
        .probe(move |plugin: &Plugin| {
            first.lock().unwrap().push(("first", plugin.answer()));
            if plugin.answer() == 2 { Err("not two") } else { Ok(()) }
        })
        .probe(move |plugin: &Plugin| {
            second.lock().unwrap().push(("second", plugin.answer()));
            Ok::<(), String>(())
        })
        .open(b"p 1.0.0 1")
        .unwrap();
    refused_by(&slot, |slot| slot.reload(b"p 1.0.0 2"), Stage::Probe, "not two");
    assert_eq!(*seen.lock().unwrap(), [("first", 1), ("second", 1), ("first", 2)]);
    close(slot, &values.census);
}

#[test]
fn the_admit_hook_sees_the_bytes_that_are_loaded_and_their_manifest() {
    let values = Values::new();
    let slot = HotSlot::builder(values.clone())
        .admit(|artifact| {
            let (bytes, manifest) = (artifact.bytes(), artifact.manifest());
            let is_so = bytes == b"p - 1" && artifact.digest() == hotslot::Digest::of(bytes) && manifest.name == "p";
            let version = manifest.version.as_ref().map(ToString::to_string);
            if is_so && version.as_deref() == Some("1.2.3") { Ok(()) } else { Err(format!("{artifact:?}")) }
        })
        .open(Candidate::new(*b"p - 1").version("1.2.3".parse().unwrap()))
        .unwrap();
    close(slot, &values.census);
}

#[test]
fn a_refusal_names_the_version_that_was_refused_once_it_is_known() {
    let values = Values::new();
    let slot = values.builder().reload_timeout(Duration::from_millis(500)).open(b"p 2.0.0 1").unwrap();
    let refusals = [
        ("what is this", None),
        ("p 2.1.0 2 admit=fail", None),
        ("p 1.0.0 2", Some("1.0.0")),
        ("p 2.1.0 2 vet=fail", Some("2.1.0")),
        ("p 2.2.0 2 load=panic", Some("2.2.0")),
        ("p 2.3.0 2 probe=fail", Some("2.3.0")),
        ("p 2.4.0 2 hand_over=fail", Some("2.4.0")),
        ("p 2.5.0 2 load=hang", Some("2.5.0")),
    ];
    for (candidate, version) in refusals {
        slot.reload(candidate.as_bytes()).unwrap_err();
        let report = slot.history().pop().unwrap();
        assert_eq!(report.version.map(|version| version.to_string()).as_deref(), version, "{candidate}");
    }
    values.latch.open();
    eventually("nothing hangs any more", || slot.status().hung == 0);
    close(slot, &values.census);
}
