//! A shadow of a declared interface: calls are copied as they go over, in the host's proxy.

use hotslot::HotSlot;
use hotslot::host::{RecordedAnswer, RecordedValue};
use hotslot_fixture_interface::v1_0::Fixture;

use super::{built, slots};
use crate::support::PATIENCE;

/// The slot of each kind, with a plugin of the same kind that answers 2.
fn each(test: impl Fn(&HotSlot<dyn Fixture>, Vec<u8>)) {
    for (kind, slot) in slots::<dyn Fixture>("") {
        let image = if kind == "wasm" { built::module("").expect("the slot has one") } else { built::library("") };
        println!("{kind}");
        test(&slot, image.version("1.9.0").answering(2).bytes());
    }
}

#[test]
fn calls_of_repeatable_methods_are_copied_and_their_answers_compared() {
    each(|slot, bytes| {
        let before = slot.load().answer();
        let shadow = slot.shadow(slot.stage(bytes).unwrap(), 1.0).start_on_calls(RecordedAnswer::difference).unwrap();
        for _ in 0..3 {
            assert_eq!(slot.load().answer(), before, "the callers get the serving plugin's answer");
        }
        let text = slot.load().fail("").unwrap();
        assert!(shadow.settle(PATIENCE));
        let report = shadow.report();
        assert_eq!((report.offered, report.compared, report.differed), (4, 4, 3), "{report:?}");
        let difference = &report.differences[0];
        assert_eq!((&*difference.what, difference.count), ("answer: another answer", 3));
        assert_eq!((difference.sample.method(), difference.sample.arguments()), ("answer", &[][..]));
        // What is not repeatable is not repeated.
        assert_eq!(slot.load().add(5), 5);
        assert!(shadow.settle(PATIENCE));
        assert_eq!(shadow.report().offered, 4);
        shadow.promote().unwrap();
        let new = slot.load();
        assert_eq!((new.answer(), new.add(0), new.fail("").unwrap()), (2, 0, text));
    });
}

#[test]
fn arguments_are_copied_and_failures_are_told_apart() {
    each(|slot, bytes| {
        let compare = |call: &hotslot::host::RecordedCall, one: &RecordedAnswer, other: &RecordedAnswer| {
            let kinds = [one, other].map(|answer| answer.result.as_ref().map_err(|error| error.kind()).err());
            Some(format!("{} {:?} {kinds:?}", call.method(), call.arguments()))
        };
        let shadow = slot.shadow(slot.stage(bytes).unwrap(), 1.0).start_on_calls(compare).unwrap();
        let error = slot.load().fail("panic").unwrap_err();
        assert!(shadow.settle(PATIENCE));
        let (report, kind) = (shadow.report(), error.kind());
        let argument = RecordedValue::Bytes(b"panic".to_vec());
        assert_eq!(report.differences[0].what, format!("fail {:?} {:?}", [argument], [Some(kind), Some(kind)]));
        assert!(!format!("{:?}", report.differences[0].sample).contains("112"), "arguments may be secret");
        assert_eq!(shadow.calls().failed_calls(), 1);
    });
}

#[test]
fn a_share_of_the_calls_is_copied_and_none_after_its_end() {
    each(|slot, bytes| {
        let shadow =
            slot.shadow(slot.stage(bytes.clone()).unwrap(), 0.5).start_on_calls(RecordedAnswer::difference).unwrap();
        (0..10).for_each(|_| {
            slot.load().answer();
        });
        assert!(shadow.settle(PATIENCE));
        assert_eq!((shadow.report().offered, shadow.report().compared), (10, 5));
        drop(shadow);
        (0..10).for_each(|_| {
            slot.load().answer();
        });
        // The next one sees all of them.
        let shadow = slot.shadow(slot.stage(bytes).unwrap(), 1.0).start_on_calls(RecordedAnswer::difference).unwrap();
        slot.load().answer();
        assert!(shadow.settle(PATIENCE));
        assert_eq!(shadow.report().compared, 1);
    });
}

/// Otherwise one of them would see nothing, and say that nothing differs.
#[test]
fn two_shadows_at_once_do_not_get_the_same_calls() {
    each(|slot, bytes| {
        let first = slot.shadow(slot.stage(bytes.clone()).unwrap(), 1.0).start_on_calls(RecordedAnswer::difference);
        let first = first.unwrap();
        let second = slot.shadow(slot.stage(bytes).unwrap(), 1.0).start_on_calls(RecordedAnswer::difference);
        assert!(second.unwrap_err().to_string().contains("for another shadow"));
        slot.load().answer();
        assert!(first.settle(PATIENCE));
        assert_eq!(first.report().compared, 1);
    });
}
