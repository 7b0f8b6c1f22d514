//! Slots that change as one: whoever loads from the group finds what belongs together.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hotslot::{
    Candidate, Cause, ErrorKind, GroupError, GroupLease, HotSlot, Lease, Outcome, Probation, SlotGroup, Stage,
};

use crate::assert_kind;
#[cfg(target_os = "linux")]
use crate::support::process::{alone, end_with, fork};
use crate::support::{Done, PATIENCE, Plugin, Values, close, eventually, serving, swaps, wait_for};

type Slot = Arc<HotSlot<Plugin>>;
type Pair = SlotGroup<(Slot, Slot)>;

/// Two slots on backends of their own, whose first plugins answer 1.
struct Fixture {
    values: [Values; 2],
    one: Slot,
    other: Slot,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(|values| values.builder())
    }

    fn with(builder: impl Fn(&Values) -> hotslot::Builder<Plugin>) -> Fixture {
        let values = [Values::new(), Values::new()];
        let open = |values: &Values, name: &str| Arc::new(builder(values).name(name).open(b"p - 1").unwrap());
        Fixture { one: open(&values[0], "one"), other: open(&values[1], "other"), values }
    }

    fn group(&self) -> Pair {
        SlotGroup::new("pair", (Arc::clone(&self.one), Arc::clone(&self.other))).unwrap()
    }

    /// Checks that nothing is left, once the group is gone.
    fn close(self) {
        for (slot, values) in [self.one, self.other].into_iter().zip(&self.values) {
            // The group's last trace goes on another thread.
            eventually("the group has let go", || Arc::strong_count(&slot) == 1);
            close(Arc::into_inner(slot).expect("nobody else has it"), &values.census);
        }
    }
}

fn plugin(answer: u64) -> Option<Candidate> {
    Some(format!("p - {answer}").into_bytes().into())
}

fn bytes(text: &str) -> Option<Candidate> {
    Some(text.as_bytes().to_vec().into())
}

fn answers(group: &Pair) -> (u64, u64) {
    let both = group.load();
    (both.0.answer(), both.1.answer())
}

fn outcome(slot: &HotSlot<Plugin>) -> Outcome {
    slot.history().pop().unwrap().outcome
}

/// What the last attempt of a member says that had to stay as it was because of another one.
fn refused_for(slot: &HotSlot<Plugin>, name: &str) -> bool {
    matches!(outcome(slot), Outcome::Refused { error, .. } if error.contains(&format!("`{name}` was refused")))
}

#[test]
fn members_are_replaced_and_rolled_back_together() {
    let fixture = Fixture::new();
    let group = fixture.group();
    assert_eq!(answers(&group), (1, 1));
    let report = group.reload([plugin(2), plugin(2)]).unwrap();
    assert_eq!((answers(&group), report.snapshot), ((2, 2), 2));
    let names: Vec<_> = report.members.iter().map(|(name, report)| (&**name, report.is_swap())).collect();
    assert_eq!(names, [("one", true), ("other", true)]);
    for (_, report) in &report.members {
        // Each waits for the others, twice: before its hand-over, and before its store.
        let stages: Vec<_> = report.stages.iter().map(|(stage, _)| *stage).collect();
        let last = [Stage::Staged, Stage::HandOver, Stage::Staged, Stage::Commit];
        assert_eq!(stages.last_chunk(), Some(&last), "{stages:?}");
    }
    assert_eq!((serving(&fixture.one), serving(&fixture.other)), ((2, 2), (2, 2)));
    group.reload([None, plugin(3)]).unwrap();
    assert_eq!(answers(&group), (2, 3));
    let status = group.status();
    assert_eq!((status.snapshot, status.warm), (3, vec![2, 1]));
    assert_eq!(status.members, [("one".to_owned(), 2), ("other".to_owned(), 3)]);
    let report = group.rollback().unwrap();
    assert_eq!((answers(&group), report.snapshot, report.members.len()), ((2, 2), 2, 1));
    group.rollback_to(1).unwrap();
    assert_eq!(answers(&group), (1, 1));
    assert_kind!(group.rollback_to(1).unwrap_err().error(), ErrorKind::AlreadyServing(1));
    assert_kind!(group.rollback().unwrap_err().error(), ErrorKind::NotWarm { wanted: None, .. });
    group.rollback_to(3).unwrap();
    assert_eq!(answers(&group), (2, 3));
    assert_eq!(swaps(&fixture.one), [(None, 1), (Some(1), 2), (Some(2), 1), (Some(1), 2)]);
    drop(group);
    fixture.close();
}

#[test]
fn the_same_plugin_again_changes_nothing_in_a_member() {
    let fixture = Fixture::new();
    let group = fixture.group();
    group.reload([plugin(1), plugin(2)]).unwrap();
    assert_eq!((answers(&group), outcome(&fixture.one)), ((1, 2), Outcome::Unchanged { generation: 1 }));
    drop(group);
    fixture.close();
}

/// A lease is on what was current at one moment, for as long as it is held.
#[test]
fn a_lease_is_retired_by_a_change_and_serves_again_after_a_rollback() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let first = group.load();
    assert!(!GroupLease::is_retired(&first));
    group.reload([plugin(2), plugin(2)]).unwrap();
    let second = group.load();
    assert_eq!((GroupLease::snapshot(&first), GroupLease::snapshot(&second)), (1, 2));
    assert!(GroupLease::is_retired(&first) && !GroupLease::is_retired(&second));
    group.rollback().unwrap();
    assert!(!GroupLease::is_retired(&first) && GroupLease::is_retired(&second));
    drop((first, second, group));
    fixture.close();
}

/// By number, the group and its members are what they were when the change began; but they were something else meanwhile.
#[test]
fn a_member_that_was_changed_and_changed_back_meanwhile_refuses_the_change_of_all() {
    let fixture = Fixture::new();
    fixture.one.reload(b"p - 2").unwrap();
    let group = fixture.group();
    let first = group.status().snapshot;
    thread::scope(|scope| {
        let change = scope.spawn(|| group.reload([plugin(3), bytes("p - 3 hand_over=hang")]));
        fixture.values[1].latch.wait_for(1);
        for is_first in [false, true] {
            fixture.one.rollback_to(if is_first { 2 } else { 1 }).unwrap();
            eventually("the group follows", || (group.status().snapshot == first) == is_first);
        }
        fixture.values[1].latch.open();
        let error = change.join().unwrap().unwrap_err();
        assert_eq!(error.slot(), "one");
        assert_kind!(error.error(), ErrorKind::BaseChanged { base: Some(2), current: 2 });
    });
    assert_eq!((answers(&group), swaps(&fixture.other)), ((2, 1), vec![(None, 1)]));
    drop(group);
    fixture.close();
}

/// A member that is changed past the group refuses the change of all, and not that of those that come after it.
#[test]
fn a_change_is_made_in_all_or_in_none_while_a_member_is_changed_past_the_group() {
    let fixture = Fixture::new();
    let group = fixture.group();
    fixture.other.reload(b"p - 2").unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Back, and back again: what was left stays warm.
                let _ = fixture.other.rollback();
            }
        });
        let (mut done, mut refused) = (0, 0);
        let end = Instant::now() + PATIENCE;
        for answer in 10.. {
            let made = group.reload([plugin(answer), plugin(answer)]).is_ok();
            let wanted = hotslot::Digest::of(format!("p - {answer}").as_bytes());
            let history = fixture.one.history();
            let of_this = history.iter().rfind(|report| report.digest == Some(wanted) && report.cause == Cause::Reload);
            let swapped = of_this.is_some_and(|report| matches!(report.outcome, Outcome::Swapped { .. }));
            assert_eq!(made, swapped, "{of_this:?}");
            *(if made { &mut done } else { &mut refused }) += 1;
            if refused >= 200 && done > 0 || Instant::now() > end {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    drop(group);
    fixture.close();
}

#[test]
fn groups_and_what_is_taken_from_them_are_shown() {
    let fixture = Fixture::new();
    let group = fixture.group();
    assert_eq!(format!("{group:?}"), r#"SlotGroup { name: "pair", .. }"#);
    assert_eq!(format!("{:?}", group.load()), "GroupLease { snapshot: 1, .. }");
    let staged = group.stage([None, plugin(2)]).unwrap();
    assert_eq!(format!("{staged:?}"), r#"StagedGroup { members: ["other"], .. }"#);
    drop((staged, group));
    fixture.close();
}

#[test]
fn a_lease_keeps_all_of_its_plugins() {
    let fixture = Fixture::with(|values| values.builder().keep_previous(0));
    let group = fixture.group();
    let first = group.load();
    for answer in 2..6 {
        group.reload([plugin(answer), plugin(answer)]).unwrap();
    }
    assert!(GroupLease::is_retired(&first) && Lease::is_retired(&first.0));
    assert_eq!((first.0.answer(), first.1.answer(), GroupLease::snapshot(&first)), (1, 1, 1));
    let is_alive = |values: &Values| values.census.alive().contains(&1);
    assert!(fixture.values.iter().all(is_alive));
    drop(first);
    eventually("they are destroyed", || !fixture.values.iter().any(is_alive));
    drop(group);
    fixture.close();
}

#[test]
fn if_one_is_refused_all_stay_as_they_are() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let refused = |one: Option<Candidate>, other: Option<Candidate>, slot: &str, stage: Stage| {
        let error: GroupError = group.reload([one, other]).unwrap_err();
        assert_eq!((error.slot(), error.error().stage()), (slot, stage), "{error}");
        assert_eq!((answers(&group), GroupLease::snapshot(&group.load())), ((1, 1), 1));
        assert_eq!((serving(&fixture.one), serving(&fixture.other)), ((1, 1), (1, 1)));
    };
    for (how, stage) in [("admit=fail", Stage::Admit), ("load=panic", Stage::Load), ("probe=fail", Stage::Probe)] {
        refused(plugin(2), bytes(&format!("p - 2 {how}")), "other", stage);
        assert!(refused_for(&fixture.one, "other"), "{:?}", outcome(&fixture.one));
    }
    refused(bytes("p - 2 load=fail"), plugin(2), "one", Stage::Load);
    refused(bytes("p - 2 hand_over=fail"), plugin(2), "one", Stage::HandOver);
    assert!(refused_for(&fixture.other, "one"));
    refused(plugin(2), bytes("p - 2 restore=fail"), "other", Stage::HandOver);
    assert!(refused_for(&fixture.one, "other"));
    drop(group);
    fixture.close();
}

#[test]
fn a_member_that_changed_meanwhile_refuses_the_commit_of_all() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let staged = group.stage([plugin(2), plugin(2)]).unwrap();
    fixture.other.reload(b"p - 9").unwrap();
    let error = staged.commit().unwrap_err();
    assert_eq!(error.slot(), "other");
    assert_kind!(error.error(), ErrorKind::BaseChanged { base: Some(1), current: 3 });
    assert!(refused_for(&fixture.one, "other"));
    assert_eq!((serving(&fixture.one), serving(&fixture.other)), ((1, 1), (3, 9)));
    // One that serves already is part of the change, too.
    let staged = group.stage([plugin(1), plugin(3)]).unwrap();
    fixture.one.reload(b"p - 8").unwrap();
    assert_eq!(staged.commit().unwrap_err().slot(), "one");
    assert!(refused_for(&fixture.other, "one"));
    eventually("the group follows", || answers(&group) == (8, 9));
    drop(group);
    fixture.close();
}

/// They were tried beside others.
#[test]
fn a_member_that_was_to_stay_and_changed_refuses_the_commit_too() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let staged = group.stage([None, plugin(2)]).unwrap();
    group.reload([plugin(9), None]).unwrap();
    let error = staged.commit().unwrap_err();
    assert_eq!(error.slot(), "pair");
    assert_kind!(error.error(), ErrorKind::BaseChanged { base: Some(1), current: 2 });
    assert!(refused_for(&fixture.other, "pair"));
    // The group has not followed yet, perhaps.
    let staged = group.stage([None, plugin(2)]).unwrap();
    fixture.one.rollback().unwrap();
    assert!(staged.commit().is_err());
    eventually("the group follows", || answers(&group) == (1, 1));
    drop(group);
    fixture.close();
}

#[test]
fn what_was_staged_in_a_group_that_is_gone_changes_nothing() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let staged = group.stage([plugin(2), plugin(2)]).unwrap();
    drop(group);
    let error = staged.commit().unwrap_err();
    assert!(error.to_string().contains("the group was dropped"), "{error}");
    assert_eq!((serving(&fixture.one), serving(&fixture.other)), ((1, 1), (1, 1)));
    fixture.close();
}

#[test]
fn a_change_that_changes_nothing_is_no_snapshot() {
    let fixture = Fixture::new();
    let group = fixture.group();
    group.reload([plugin(2), plugin(2)]).unwrap();
    for _ in 0..3 {
        assert_eq!(group.reload([plugin(2), plugin(2)]).unwrap().snapshot, 2);
        assert_eq!(group.reload([None, None]).unwrap().snapshot, 2);
    }
    group.rollback().unwrap();
    assert_eq!(answers(&group), (1, 1));
    drop(group);
    fixture.close();
}

/// What a snapshot keeps is no caller's.
#[test]
fn what_a_group_keeps_is_not_reported_as_leases() {
    let fixture = Fixture::with(|values| values.builder().drain_timeout(Duration::from_millis(1)));
    let group = fixture.group();
    group.reload([plugin(2), plugin(2)]).unwrap();
    let report = group.reload([plugin(3), plugin(3)]).unwrap();
    assert!(report.members.iter().all(|(_, report)| report.leases_during_hand_over == 0), "{report:?}");
    let events = fixture.one.subscribe();
    // The reaper looks at all that is there.
    drop(fixture.one.stage(b"p - 99").unwrap());
    let is_stuck = wait_for(&events, |event| match event {
        hotslot::Event::Stuck { .. } => Some(true),
        hotslot::Event::Destroyed { generation: 4, .. } => Some(false),
        _ => None,
    });
    assert!(!is_stuck);
    let retired = fixture.one.status().retired;
    assert!(retired.len() == 2 && retired.iter().all(|one| one.leases == 0 && !one.stuck), "{retired:?}");
    // A caller's is, once only that keeps the snapshot.
    let lease = group.load();
    for answer in 4..8 {
        group.reload([plugin(answer), plugin(answer)]).unwrap();
    }
    let stuck = wait_for(&events, |event| match event {
        hotslot::Event::Stuck { generation, leases, .. } => Some((*generation, *leases)),
        _ => None,
    });
    assert_eq!(stuck, (3, 1));
    drop((lease, group));
    fixture.close();
}

/// The members keep what is near to them, and the group what is near to it: what only one of them has is of no use.
#[test]
fn all_that_a_group_lists_can_be_rolled_back_to() {
    let fixture = Fixture::new();
    let group = fixture.group();
    group.reload([None, plugin(2)]).unwrap();
    group.reload([None, plugin(3)]).unwrap();
    group.reload([plugin(2), None]).unwrap();
    group.rollback_to(2).unwrap();
    group.reload([plugin(3), plugin(4)]).unwrap();
    let warm = group.status().warm;
    assert!(!warm.is_empty());
    for snapshot in warm {
        // Each is tried from where the others are, as far as they still are.
        if group.status().warm.contains(&snapshot) {
            group.rollback_to(snapshot).unwrap();
        }
    }
    drop(group);
    fixture.close();
}

#[test]
fn reloads_in_a_row_do_not_stand_in_each_others_way() {
    let fixture = Fixture::with(|values| values.builder().keep_previous(0).max_retired(1));
    let group = fixture.group();
    for answer in 2..40 {
        group.reload([plugin(answer), plugin(answer)]).unwrap();
    }
    drop(group);
    fixture.close();
}

/// The reaper still looks at the old group while the new one changes its members.
#[test]
fn groups_with_the_same_members_in_another_order_do_not_block_each_other() {
    let fixture = Fixture::new();
    let (done, is_done) = std::sync::mpsc::channel();
    let (one, other) = (Arc::clone(&fixture.one), Arc::clone(&fixture.other));
    let regroup = thread::spawn(move || {
        for _ in 0..2_000 {
            drop(SlotGroup::new("there", (Arc::clone(&one), Arc::clone(&other))).unwrap());
            drop(SlotGroup::new("back", (Arc::clone(&other), Arc::clone(&one))).unwrap());
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(PATIENCE).expect("nobody waits for anybody");
    regroup.join().unwrap();
    fixture.close();
}

/// A group does not own its slots.
#[test]
fn a_lease_that_outlives_group_and_slots_keeps_no_slot_open() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let lease = group.load();
    let census = fixture.values.each_ref().map(|values| values.census.clone());
    drop((group, fixture));
    assert!(Lease::is_retired(&lease.0) && Lease::stop_signal(&lease.1).is_raised());
    assert_eq!((lease.0.answer(), census[0].alive()), (1, vec![1]));
    drop(lease);
    eventually("all are destroyed", || census.iter().all(|census| census.alive().is_empty()));
}

#[test]
fn what_was_staged_and_dropped_is_discarded() {
    let fixture = Fixture::new();
    let group = fixture.group();
    drop(group.stage([plugin(2), None]).unwrap());
    assert_eq!((outcome(&fixture.one), answers(&group)), (Outcome::Discarded, (1, 1)));
    drop(group);
    fixture.close();
}

#[test]
fn the_automatic_rollback_of_a_member_takes_the_others_along() {
    let fixture = Fixture::with(|values| values.builder().probation(Probation::new(PATIENCE).max_failures(0)));
    let group = fixture.group();
    group.reload([plugin(2), plugin(2)]).unwrap();
    let events = fixture.other.subscribe();
    Lease::report_failure(&group.load().0, "it fails");
    let reason = wait_for(&events, |event| match event {
        hotslot::Event::Ended(report) => match &report.cause {
            Cause::Automatic { reason } => Some(reason.clone()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(reason, "the group `pair` follows its member `one`");
    eventually("the group has followed", || answers(&group) == (1, 1));
    assert_eq!((serving(&fixture.one), serving(&fixture.other)), ((1, 1), (1, 1)));
    assert_eq!(group.status().snapshot, 1);
    drop(group);
    fixture.close();
}

#[test]
fn a_member_that_is_changed_past_the_group_is_followed() {
    let fixture = Fixture::new();
    let group = fixture.group();
    group.reload([plugin(2), plugin(2)]).unwrap();
    fixture.one.reload(b"p - 3").unwrap();
    eventually("the group follows", || answers(&group) == (3, 2));
    // Back to what it was beside the other one's first plugin.
    fixture.one.rollback_to(1).unwrap();
    eventually("the other one follows", || answers(&group) == (1, 1));
    assert_eq!(serving(&fixture.other), (1, 1));
    drop(group);
    fixture.close();
}

#[test]
fn slots_of_a_group_that_is_gone_can_join_another_one() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let lease = group.load();
    let members = || (Arc::clone(&fixture.one), Arc::clone(&fixture.other));
    let error = SlotGroup::new("second", members()).unwrap_err();
    assert_kind!(error.error(), ErrorKind::Misuse(why) if why.contains("group already"));
    drop(group);
    let next = SlotGroup::new("second", members()).unwrap();
    assert_eq!((lease.0.answer(), answers(&next)), (1, (1, 1)), "a lease outlives its group");
    drop((lease, next));
    fixture.close();
}

#[test]
fn what_cannot_be_a_member_says_why_and_leaves_the_others_free() {
    let fixture = Fixture::new();
    let values = Values::new();
    let holding = Arc::new(values.builder().hold_calls_during_hand_over(PATIENCE).open(b"p - 1").unwrap());
    let error = SlotGroup::new("pair", (Arc::clone(&fixture.one), holding)).unwrap_err();
    assert_kind!(error.error(), ErrorKind::Misuse(why) if why.contains("hold_calls_during_hand_over"));
    let error = SlotGroup::new("twice", (Arc::clone(&fixture.one), Arc::clone(&fixture.one))).unwrap_err();
    assert_kind!(error.error(), ErrorKind::Misuse(_));
    drop(fixture.group());
    fixture.close();
}

#[test]
fn a_change_that_is_asked_for_from_inside_is_misuse() {
    let values = [Values::new(), Values::new()];
    let group: Arc<std::sync::OnceLock<Pair>> = Arc::default();
    let asked = Arc::clone(&group);
    let ask = move |_: &Plugin| match asked.get() {
        Some(group) => group.rollback().map(drop).map_err(|error| error.error().to_string()),
        None => Ok(()),
    };
    let one = Arc::new(values[0].builder().probe(ask).open(b"p - 1").unwrap());
    let other = Arc::new(values[1].builder().open(b"p - 1").unwrap());
    group.set(SlotGroup::new("pair", (one, other)).unwrap()).unwrap();
    let error = group.get().unwrap().reload([plugin(2), plugin(2)]).unwrap_err();
    assert!(error.error().to_string().contains("from inside of it"), "{error}");
    assert_eq!(answers(group.get().unwrap()), (1, 1));
}

#[test]
fn groups_of_three_and_of_other_types_work_alike() {
    let values = Values::new();
    let slots: Vec<Slot> =
        (0..3).map(|at| Arc::new(values_named(&values, at).open(format!("p - {at}").as_bytes()).unwrap())).collect();
    let [one, two, three] = [0, 1, 2].map(|at| Arc::clone(&slots[at]));
    let group = SlotGroup::new("three", (one, two, three)).unwrap();
    group.reload([plugin(10), None, plugin(30)]).unwrap();
    let all = group.load();
    assert_eq!((all.0.answer(), all.1.answer(), all.2.answer()), (10, 1, 30));
}

fn values_named(_: &Values, at: usize) -> hotslot::Builder<Plugin> {
    // A census counts the generations of one slot.
    Values::new().builder().name(format!("slot {at}"))
}

/// Readers in a row and swaps in a row: each snapshot is of plugins that were committed together, and never older than the one
/// before.
fn torture(swaps: u64, reads: u64) -> (u64, Duration) {
    let fixture = Fixture::with(|values| values.builder().max_retired(10_000));
    let group = fixture.group();
    let (done, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        let over = Done(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut count, mut last) = (0, 0);
                while !done.load(Ordering::Relaxed) || read.load(Ordering::Relaxed) + count < reads {
                    let both = group.load();
                    let (one, other) = (both.0.answer(), both.1.answer());
                    assert_eq!(one, other, "torn, in snapshot {}", GroupLease::snapshot(&both));
                    assert!(one >= last || one == 1, "{one} after {last}");
                    last = black_box(one);
                    count += 1;
                    if count % 1_024 == 0 {
                        read.fetch_add(std::mem::take(&mut count), Ordering::Relaxed);
                    }
                }
                read.fetch_add(count, Ordering::Relaxed);
            });
        }
        for answer in 2..swaps + 2 {
            group.reload([plugin(answer), plugin(answer)]).unwrap();
        }
        drop(over);
    });
    let read = read.into_inner();
    drop(group);
    fixture.close();
    (read, began.elapsed())
}

#[test]
fn no_snapshot_is_torn() {
    let (reads, _) = torture(300, 10_000);
    assert!(reads >= 10_000);
}

/// Run it by hand, in release: `cargo test --release -p hotslot-tests --test it -- --ignored no_snapshot_is_torn --nocapture`.
#[test]
#[ignore = "minutes: a hundred million reads beside a hundred thousand swaps"]
fn no_snapshot_is_torn_in_a_hundred_million_reads() {
    let (reads, took) = torture(100_000, 100_000_000);
    println!("{reads} reads beside 100,000 swaps of two slots in {took:.1?}: none torn");
}

#[cfg(target_os = "linux")]
#[test]
fn a_group_in_a_forked_child_answers_instead_of_waiting() {
    alone(|| {
        let fixture = Fixture::new();
        let group = fixture.group();
        let lease = group.load();
        group.reload([plugin(2), plugin(2)]).unwrap();
        let Some(child) = fork() else {
            let forked = |result: Result<(), GroupError>| {
                result.is_err_and(|error| matches!(error.error().kind(), ErrorKind::Forked))
            };
            let answers = [
                forked(group.reload([plugin(3), plugin(3)]).map(drop)),
                forked(group.rollback().map(drop)),
                answers(&group) == (2, 2),
                group.status().snapshot == 0,
            ];
            // The last thing that a lease on a former snapshot does is to wake the reaper.
            drop((lease, group));
            end_with(&answers);
        };
        child.answers_well();
        drop(lease);
        group.reload([plugin(3), plugin(3)]).expect("the parent goes on");
        drop(group);
        fixture.close();
    });
}
