//! State that goes from one generation to the next, as the bytes of a C struct.

use hotslot::host::{CallError, CallErrorKind};
use hotslot::native::NativePlugin;
use hotslot::{HotSlot, Stage, Stateful, transfer_state};

use super::{add, answer, answering, builder, c_library, fixture, reason};

fn stateful() -> hotslot::Builder<NativePlugin> {
    builder().hand_over(transfer_state)
}

#[test]
fn the_count_goes_on_after_a_reload() {
    let slot = stateful().open(answering(1)).unwrap();
    add(&slot.load(), 41);
    slot.reload(answering(2)).unwrap();
    assert_eq!(add(&slot.load(), 1), 42);
}

#[test]
fn the_bytes_are_those_of_the_c_struct_with_its_schema() {
    let slot: HotSlot<NativePlugin> = builder().open(fixture()).unwrap();
    add(&slot.load(), 7);
    let state = slot.load().save().unwrap().unwrap();
    assert_eq!(state.schema, "indicator/1");
    assert_eq!(state.bytes, [0.0f64.to_ne_bytes(), 7u64.to_ne_bytes()].concat());
}

#[test]
fn rust_hands_over_to_c_and_back() {
    let slot = stateful().open(fixture()).unwrap();
    add(&slot.load(), 10);
    slot.reload(c_library("counter.c", &[])).unwrap();
    assert_eq!(answer(&slot.load()), 42, "this is the one in C");
    assert_eq!(add(&slot.load(), 1), 11);
    slot.reload(answering(3)).unwrap();
    assert_eq!((answer(&slot.load()), add(&slot.load(), 1)), (3, 12));
}

/// Row 6, for state.
#[test]
fn a_state_of_another_schema_is_refused_at_hand_over() {
    let slot = stateful().open(fixture().schema("indicator/9")).unwrap();
    add(&slot.load(), 5);
    let error = slot.reload(answering(2)).unwrap_err();
    assert_eq!(error.stage(), Stage::HandOver);
    let refusal = reason::<CallError>(&error);
    assert_eq!(refusal.kind(), CallErrorKind::Failed);
    assert!(refusal.to_string().contains("indicator/9"), "{refusal}");
    assert_eq!((answer(&slot.load()), add(&slot.load(), 0)), (0, 5), "the old one keeps serving, with its state");
}

/// Row 6, for the layout behind a schema.
#[test]
fn a_state_of_another_size_is_refused_by_the_plugin() {
    let slot: HotSlot<NativePlugin> = builder().open(fixture()).unwrap();
    add(&slot.load(), 3);
    for bytes in [&[0; 15][..], &[0; 17], &[]] {
        let state = hotslot::State { schema: "indicator/1".to_owned(), bytes: bytes.to_vec() };
        let error = slot.load().restore(&state).unwrap_err();
        assert!(error.to_string().contains("change the schema id"), "{error}");
    }
    assert_eq!(add(&slot.load(), 0), 3, "nothing of it was taken over");
}

#[test]
fn a_panic_while_restoring_is_refused_at_hand_over() {
    let slot = stateful().open(answering(1)).unwrap();
    let error = slot.reload(answering(2).script("restore=panic")).unwrap_err();
    assert_eq!(error.stage(), Stage::HandOver);
    assert_eq!(reason::<CallError>(&error).kind(), CallErrorKind::Panicked, "{error}");
    assert_eq!(answer(&slot.load()), 1);
}

#[test]
fn a_plugin_without_a_schema_hands_nothing_over() {
    let slot = stateful().open(fixture().schema("")).unwrap();
    add(&slot.load(), 5);
    slot.reload(answering(2)).unwrap();
    assert_eq!(add(&slot.load(), 0), 0);
}

#[test]
fn a_rollback_finds_the_state_that_the_plugin_had() {
    let slot = stateful().open(answering(1)).unwrap();
    add(&slot.load(), 5);
    slot.reload(answering(2)).unwrap();
    add(&slot.load(), 100);
    slot.rollback().unwrap();
    assert_eq!((answer(&slot.load()), add(&slot.load(), 0)), (1, 5));
}
