//! A staged plugin gets copies of calls: its answers are compared, and concern nobody else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hotslot::{ErrorKind, HotSlot, Lease, Outcome, Probation, Shadow, Staged};

use crate::assert_kind;
use crate::support::{PATIENCE, Plugin, Values, close, eventually, serving};

fn slot(values: &Values) -> HotSlot<Plugin> {
    values.builder().open(b"p 1.0.0 1").unwrap()
}

/// A shadow of all calls, whose input is a number that is added to the answer.
fn shadow(slot: &HotSlot<Plugin>, staged: Staged<Plugin>) -> Shadow<Plugin, u64, u64> {
    slot.shadow(staged, 1.0).start(sum, difference).unwrap()
}

fn sum(plugin: &Plugin, more: &u64) -> u64 {
    plugin.answer() + more
}

fn difference(_: &u64, serving: &u64, staged: &u64) -> Option<String> {
    (serving != staged).then(|| format!("{staged} for {serving}"))
}

#[test]
fn answers_are_compared_and_what_differs_is_kept_with_counts_and_a_sample() {
    let values = Values::new();
    let slot = slot(&values);
    let shadow = shadow(&slot, slot.stage(b"p 2.0.0 2").unwrap());
    for input in [10, 10, 20, 30] {
        // The serving plugin answers as the staged one does for 30.
        let answer = sum(&slot.load(), &input) + u64::from(input == 30);
        assert!(shadow.offer(input, answer));
    }
    assert!(shadow.settle(PATIENCE));
    let report = shadow.report();
    assert_eq!((report.offered, report.skipped, report.dropped), (4, 0, 0));
    assert_eq!((report.compared, report.differed, report.others), (4, 3, 0));
    let kinds: Vec<_> = report.differences.iter().map(|kind| (&*kind.what, kind.count, *kind.sample)).collect();
    assert_eq!(kinds, [("12 for 11", 2, 10), ("22 for 21", 1, 20)]);
    assert_eq!((shadow.calls().calls(), shadow.calls().failed_calls()), (4, 0));
    assert!(shadow.calls().latency_quantile(0.5).is_some());
    assert_eq!(serving(&slot), (1, 1), "it serves nobody");
    let number = shadow.generation_number();
    let report = shadow.promote().unwrap();
    assert_eq!(report.outcome, Outcome::Swapped { generation: number, previous: Some(1) });
    assert_eq!(serving(&slot), (2, 2));
    close(slot, &values.census);
}

#[test]
fn more_kinds_of_difference_than_are_kept_are_counted() {
    let values = Values::new();
    let slot = slot(&values);
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    let shadow = slot.shadow(staged, 1.0).samples(2).start(sum, difference).unwrap();
    (0..5).for_each(|input| assert!(shadow.offer(input, 0)));
    assert!(shadow.settle(PATIENCE));
    let report = shadow.report();
    assert_eq!((report.differed, report.differences.len(), report.others), (5, 2, 3));
    drop(shadow);
    close(slot, &values.census);
}

#[test]
fn a_share_of_the_calls_is_copied_and_the_parts_of_the_others_are_not_made() {
    let values = Values::new();
    let slot = slot(&values);
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    let shadow = slot.shadow(staged, 0.25).queue(1_000).start(sum, difference).unwrap();
    let mut made = 0;
    for input in 0..1_000 {
        shadow.offer_with(|| {
            made += 1;
            (input, 0)
        });
    }
    assert!(shadow.settle(PATIENCE));
    let report = shadow.report();
    assert_eq!((made, report.offered, report.skipped, report.compared), (250, 1_000, 750, 250));
    drop(shadow);
    close(slot, &values.census);
}

#[test]
fn failures_and_panics_are_differences_and_count_against_nobody() {
    let values = Values::new();
    let slot = values.builder().probation(Probation::new(PATIENCE).max_failures(0)).open(b"p 1.0.0 1").unwrap();
    let staged = slot.stage(b"p 2.0.0 2 poisoned").unwrap();
    let call = |plugin: &Plugin, input: &u64| match input {
        1 => panic!("the plugin panics on purpose"),
        _ => plugin.answer(),
    };
    let compare = |input: &u64, _: &u64, _: &u64| match input {
        2 => panic!("the comparison panics on purpose"),
        _ => None,
    };
    let shadow = slot.shadow(staged, 1.0).start(call, compare).unwrap();
    (0..3).for_each(|input| assert!(shadow.offer(input, 1)));
    assert!(shadow.settle(PATIENCE));
    let kinds: Vec<_> = shadow.report().differences.iter().map(|kind| kind.what.clone()).collect();
    assert_eq!(kinds, ["the call failed: the plugin panics on purpose", "a panic: the comparison panics on purpose"]);
    assert_eq!((shadow.calls().calls(), shadow.calls().failed_calls()), (3, 3));
    assert_eq!(slot.status().staged[0].failures, 0);
    shadow.promote().unwrap();
    let serving = slot.status().serving.unwrap();
    assert_eq!((serving.generation, serving.failures, serving.objection), (2, 0, None));
    close(slot, &values.census);
}

#[test]
fn a_call_that_hangs_holds_up_nobody_but_the_shadow() {
    let values = Values::new();
    let slot = slot(&values);
    let staged = slot.stage(b"p 2.0.0 2").unwrap();
    let latch = values.latch.clone();
    let call = move |plugin: &Plugin, _: &u64| {
        latch.pass();
        plugin.answer()
    };
    let shadow = slot.shadow(staged, 1.0).queue(2).start(call, difference).unwrap();
    assert!(shadow.offer(0, 1));
    values.latch.wait_for(1);
    assert_eq!(
        [1, 2, 3, 4].map(|input| shadow.offer(input, 1)),
        [true, true, false, false],
        "the queue has room for two"
    );
    assert!(!shadow.settle(Duration::ZERO));
    assert_eq!((shadow.report().dropped, shadow.report().compared), (2, 0));
    shadow.promote().unwrap();
    assert_eq!(serving(&slot), (2, 2), "nobody waits for the call");
    slot.reload(b"p 3.0.0 3").unwrap();
    slot.reload(b"p 4.0.0 4").unwrap();
    slot.reload(b"p 5.0.0 5").unwrap();
    assert!(values.census.alive().contains(&2), "it lives while the call is under way");
    values.latch.open();
    eventually("it goes when the call has ended", || !values.census.alive().contains(&2));
    close(slot, &values.census);
}

#[test]
fn one_that_is_dropped_ends_and_one_that_is_kept_can_serve_a_share_next() {
    let values = Values::new();
    let slot = slot(&values);
    drop(shadow(&slot, slot.stage(b"p 2.0.0 2").unwrap()));
    eventually("it is destroyed", || values.census.alive() == [1]);
    assert_eq!(slot.history().pop().unwrap().outcome, Outcome::Discarded);
    let shadow = shadow(&slot, slot.stage(b"p 2.0.0 2").unwrap());
    assert!(format!("{shadow:?}").starts_with("Shadow { staged: Staged { generation: Some(3)"), "{shadow:?}");
    let calls = values.calls.load(Ordering::Relaxed);
    assert!(shadow.offer(0, 1) && shadow.settle(PATIENCE));
    assert_eq!(values.calls.load(Ordering::Relaxed), calls + 1);
    let canary = shadow.into_staged().serve_share(1.0).unwrap();
    assert_eq!(Lease::generation(&slot.load_for("a client")), 3);
    drop(canary);
    close(slot, &values.census);
}

#[test]
fn a_panic_in_the_destructor_of_an_answer_does_not_end_it() {
    struct Answer {
        is_bomb: bool,
    }
    impl Drop for Answer {
        fn drop(&mut self) {
            if self.is_bomb {
                panic!("an answer panics on purpose");
            }
        }
    }
    let values = Values::new();
    let slot = slot(&values);
    let call = |_: &Plugin, is_bomb: &bool| Answer { is_bomb: *is_bomb };
    let shadow = slot.shadow(slot.stage(b"p 2.0.0 2").unwrap(), 1.0).start(call, |_, _, _| None).unwrap();
    for is_bomb in [true, false] {
        assert!(shadow.offer(is_bomb, Answer { is_bomb: false }));
    }
    assert!(shadow.settle(PATIENCE));
    assert_eq!(shadow.calls().calls(), 2);
    drop(shadow);
    close(slot, &values.census);
}

#[test]
fn what_cannot_be_compared_says_why() {
    let values = Values::new();
    let (slot, other) = (slot(&values), Values::new());
    let start = |staged: Staged<Plugin>, share: f64, queue: usize| {
        slot.shadow(staged, share).queue(queue).start(sum, difference).unwrap_err()
    };
    let stage = || slot.stage(b"p 2.0.0 2").unwrap();
    assert_kind!(start(stage(), 1.5, 1), ErrorKind::Misuse(why) if why.contains("from 0 to 1"));
    assert_kind!(start(stage(), f64::NAN, 1), ErrorKind::Misuse(_));
    assert_kind!(start(stage(), 1.0, 0), ErrorKind::Misuse(why) if why.contains("queue"));
    assert_kind!(start(slot.stage(b"p 1.0.0 1").unwrap(), 1.0, 1), ErrorKind::AlreadyServing(1));
    let elsewhere = other.builder().open(b"p 1.0.0 1").unwrap();
    assert_kind!(start(elsewhere.stage(b"p 2.0.0 2").unwrap(), 1.0, 1), ErrorKind::Misuse(why) if why.contains("another slot"));
    close(elsewhere, &other.census);
    close(slot, &values.census);
}
