//! Which plugin may follow which; and what is the same plugin.

use hotslot::{Candidate, ErrorKind, HotSlot, Lease, Outcome, Stage, VersionRule};

use crate::assert_kind;
use crate::support::{Plugin, Values, close, says, serving, swap};

fn versioned(bytes: &str, version: &str) -> Candidate {
    Candidate::new(bytes.as_bytes()).version(version.parse().unwrap())
}

fn slot_with(values: &Values, rule: VersionRule, first: &str) -> HotSlot<Plugin> {
    values.builder().version_rule(rule).open(first.as_bytes()).unwrap()
}

#[test]
fn the_same_bytes_again_change_nothing() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let report = slot.reload(b"p 1.0.0 1").unwrap();
    assert_eq!(report.outcome, Outcome::Unchanged { generation: 1 });
    assert!(!report.is_swap() && report.generation() == Some(1));
    assert_eq!(
        (report.digest, report.version),
        (Some(Lease::digest(&slot.load())), Lease::version(&slot.load()).cloned())
    );
    assert_eq!(values.census.loaded(), 1, "nothing was loaded");
    assert_eq!(slot.status().counters.unchanged, 1);
    assert_eq!(slot.history().len(), 2, "it is in the history all the same");

    let staged = slot.stage(b"p 1.0.0 1").unwrap();
    assert!(staged.is_unchanged() && staged.plugin().is_none() && staged.generation_number().is_none());
    assert_eq!(staged.commit().unwrap().outcome, Outcome::Unchanged { generation: 1 });
    close(slot, &values.census);
}

#[test]
fn the_same_bytes_are_a_new_instance_if_they_are_forced() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let report = slot.reload(Candidate::new(*b"p 1.0.0 1").force()).unwrap();
    assert_eq!(swap(&report), Some((Some(1), 2)));
    assert_eq!(values.census.loaded(), 2);
    close(slot, &values.census);
}

#[test]
fn only_the_serving_bytes_are_unchanged_not_those_of_a_warm_generation() {
    let values = Values::new();
    let slot = slot_with(&values, VersionRule::Any, "p 1.0.0 1");
    slot.reload(b"p 2.0.0 2").unwrap();
    assert_eq!(swap(&slot.reload(b"p 1.0.0 1").unwrap()), Some((Some(2), 3)));
    close(slot, &values.census);
}

#[test]
fn a_caller_can_say_the_version_of_bytes_that_do_not() {
    let values = Values::new();
    let slot = values.builder().open(versioned("p - 1", "1.0.0")).unwrap();
    assert_eq!(Lease::version(&slot.load()).unwrap().to_string(), "1.0.0");
    let error = slot.reload(versioned("p - 2", "0.9.0")).unwrap_err();
    assert_kind!(error, kind if says(kind, "older"));
    slot.reload(versioned("p - 2", "1.0.1")).unwrap();
    close(slot, &values.census);
}

#[test]
fn a_caller_cannot_contradict_the_bytes() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    let error = slot.reload(versioned("p 2.0.0 2", "3.0.0")).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    assert_kind!(error, ErrorKind::Version(text) if text.contains("2.0.0") && text.contains("3.0.0"));
    slot.reload(versioned("p 2.0.0 2", "2.0.0")).expect("to agree with them is fine");
    close(slot, &values.census);
}

#[test]
fn an_older_version_is_refused_unless_it_comes_by_rollback() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 1.1.0 2").unwrap();
    let error = slot.reload(b"p 1.0.0 1").unwrap_err();
    assert_kind!(error, ErrorKind::Version(text) if text.contains("roll back"));
    assert!(!error.is_temporary());
    assert_eq!(serving(&slot), (2, 2));

    slot.rollback().unwrap();
    assert_eq!(serving(&slot), (1, 1));
    slot.reload(b"p 1.0.5 3").expect("what counts is the version that serves now");
    close(slot, &values.census);
}

#[test]
fn the_same_version_and_versions_that_are_unknown_may_follow() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    slot.reload(b"p 1.0.0 2").unwrap();
    slot.reload(b"p - 3").unwrap();
    slot.reload(b"p 0.1.0 4").unwrap();
    close(slot, &values.census);
}

#[test]
fn a_pre_release_is_older_than_its_release() {
    let values = Values::new();
    let slot = values.builder().open(b"p 1.0.0 1").unwrap();
    assert_kind!(slot.reload(b"p 1.0.0-rc.1 2").unwrap_err(), ErrorKind::Version(_));
    close(slot, &values.census);
}

#[test]
fn any_version_may_follow_where_the_slot_allows_it() {
    let values = Values::new();
    let slot = slot_with(&values, VersionRule::Any, "p 2.0.0 1");
    slot.reload(b"p 1.0.0 2").unwrap();
    slot.reload(b"p - 3").unwrap();
    close(slot, &values.census);
}

#[test]
fn a_requirement_is_put_to_every_plugin_the_first_one_included() {
    let values = Values::new();
    let rule = VersionRule::Compatible("^1.2".parse().unwrap());
    let builder = || values.builder().version_rule(rule.clone());
    assert_kind!(builder().open(b"p 1.1.0 1").unwrap_err(), ErrorKind::Version(_));
    assert_kind!(builder().open(b"p - 1").unwrap_err(), ErrorKind::Version(_));

    let slot = builder().open(b"p 1.3.0 1").unwrap();
    assert_kind!(slot.reload(b"p 2.0.0 2").unwrap_err(), ErrorKind::Version(text) if text.contains("^1.2"));
    slot.reload(b"p 1.2.0 3").expect("an older one is fine as long as it is compatible");
    close(slot, &values.census);
}
