//! What a slot writes to the log: a line for each decision, in the order of the decisions. Each test has a process of its
//! own, whose log is the test's.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hotslot::{Candidate, HotSlot, Lease, Probation, Rollback, Runner, SlotGroup};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

use crate::support::process::alone;
use crate::support::{Fields, Latch, Log, PATIENCE, Plugin, Values, close, eventually};

/// Where the lines come from.
const TARGET: &str = "hotslot::slot::journal";

#[track_caller]
fn expect(log: &Log, level: Level, parts: &[&str]) {
    let is_there =
        || log.of(TARGET).iter().any(|(of, line)| *of == level && parts.iter().all(|part| line.contains(part)));
    eventually(&format!("the log has {parts:?}"), is_there);
}

#[test]
fn each_attempt_has_a_line_that_says_how_it_ended() {
    alone(|| {
        let log = Log::capture();
        let values = Values::new();
        let probation = Probation::new(PATIENCE).max_failures(0);
        let slot = values.builder().name("prices").probation(probation).open(b"p 1.0.0 1").unwrap();
        slot.reload(Candidate::from(b"p 2.0.0 2").requested_by("an operator").reason("a fix")).unwrap();
        slot.reload(b"p 2.0.0 2").unwrap();
        slot.reload(b"p 3.0.0 3 probe=fail").unwrap_err();
        drop(slot.stage(b"p 3.0.0 3").unwrap());
        slot.rollback().unwrap();
        slot.reload(b"p 4.0.0 4").unwrap();
        Lease::report_failure(&slot.load(), "it fails");
        expect(&log, Level::ERROR, &["rolled back automatically", "it fails"]);
        let expected: [(Level, &[&str]); 8] = [
            (Level::INFO, &["swapped", "attempt=1", "generation=1", "version=1.0.0", "total="]),
            (Level::INFO, &["swapped", "generation=2", "previous=1", "requested_by=an operator", "reason=a fix"]),
            (Level::INFO, &["unchanged", "attempt=3", "generation=2"]),
            (Level::WARN, &["refused", "attempt=4", "stage=probe", "probe fails on purpose", "version=3.0.0"]),
            (Level::INFO, &["discarded", "attempt=5", "version=3.0.0"]),
            (Level::INFO, &["swapped", "attempt=6", "generation=1", "previous=2"]),
            (Level::INFO, &["swapped", "attempt=7", "version=4.0.0"]),
            (Level::ERROR, &["rolled back automatically", "attempt=8", "generation=1"]),
        ];
        let mut lines = log.of(TARGET);
        lines.retain(|(level, _)| *level < Level::DEBUG);
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for ((level, line), (expected, parts)) in lines.into_iter().zip(expected) {
            assert_eq!(level, expected, "{line}");
            assert!(line.contains("slot=\"prices\""), "{line}");
            for part in parts {
                assert!(line.contains(part), "{part} is not in {line:?}");
            }
        }
        close(slot, &values.census);
    });
}

#[test]
fn what_comes_later_is_logged_though_nobody_asks_for_anything() {
    alone(|| {
        let log = Log::capture();
        let values = Values::new();
        let builder = values.builder().keep_previous(0).drain_timeout(Duration::from_millis(10));
        let slot = builder.open(b"p 1.0.0 1 drop=hang").unwrap();
        let lease = slot.load();
        slot.reload(b"p 2.0.0 2").unwrap();
        expect(&log, Level::WARN, &["message=stuck", "generation=1", "leases=1"]);
        drop(lease);
        expect(&log, Level::ERROR, &["message=alarm", "the destructor of generation 1 has not returned"]);
        values.latch.open();
        expect(&log, Level::DEBUG, &["message=destroyed", "generation=1", "release=Freed"]);
        close(slot, &values.census);
    });
}

#[test]
fn trials_and_runs_are_logged() {
    alone(|| {
        let log = Log::capture();
        let values = Values::new();
        let slot = values.builder().probation(Probation::new(PATIENCE).max_failures(0)).open(b"p 1.0.0 1").unwrap();
        let canary = slot.stage(b"p 2.0.0 2").unwrap().serve_share(1.0).unwrap();
        expect(&log, Level::INFO, &["served to a share", "generation=2", "share=1"]);
        Lease::report_failure(&slot.load_for("a client"), "it fails");
        expect(&log, Level::ERROR, &["no longer served to a share", "generation=2", "it fails"]);
        drop(canary);
        let runner = Runner::start(slot).unwrap();
        runner.slot().reload(b"p 3.0.0 3 run=fail").unwrap();
        expect(&log, Level::ERROR, &["the run failed", "generation=3", "run fails on purpose"]);
        close(runner.stop(), &values.census);
    });
}

/// Holds up whoever writes the next line about the slots whose names begin like this, once it has a latch: lines about slots
/// that were closed may still come.
#[derive(Clone, Default)]
struct Slow {
    log: Log,
    holds_up: Arc<Mutex<Option<HoldsUp>>>,
}

/// How many lines there are about the slots of a round before the change.
const PREPARED: usize = 2;

/// Which line, and who lets it go on.
type HoldsUp = (String, Arc<Latch>);

impl Slow {
    fn capture() -> Slow {
        let slow = Slow::default();
        tracing::subscriber::set_global_default(slow.clone()).expect("this process has no other log");
        slow
    }

    fn hold_up_the_next_line(&self, names: &str) -> Arc<Latch> {
        let names = format!(" slot=\"{names}");
        // Their opening, and what they were made before: another thread may be writing those.
        let are_written = || self.log.of(TARGET).iter().filter(|(_, line)| line.contains(&names)).count() == PREPARED;
        eventually("the lines so far are written", are_written);
        let latch = Arc::new(Latch::default());
        *self.holds_up.lock().unwrap() = Some((names, Arc::clone(&latch)));
        latch
    }
}

impl Subscriber for Slow {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Lines that the reaper makes come at any time.
        metadata.target() == TARGET && *metadata.level() < Level::DEBUG
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.log.new_span(span)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let text = Fields::of(event).all;
        let latch = self.holds_up.lock().unwrap().take_if(|(names, _)| text.contains(&**names));
        if let Some((_, latch)) = latch {
            latch.pass();
        }
        self.log.event(event);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Does `change` to the slots whose names begin with `what`, on a thread of its own that the subscriber holds up, and asks for
/// `other` meanwhile.
#[track_caller]
fn beside<R>(slow: &Slow, what: &str, change: impl FnOnce() + Send, other: impl FnOnce() -> Result<R, hotslot::Error>) {
    let latch = slow.hold_up_the_next_line(what);
    thread::scope(|scope| {
        let change = scope.spawn(change);
        latch.wait_for(1);
        let result = other().map(drop);
        latch.open();
        change.join().unwrap();
        result.unwrap_or_else(|error| panic!("after {what}: {error}"));
    });
}

/// Nobody waits for it but the one who writes, and the last lines are those that are kept.
#[test]
fn a_subscriber_that_hangs_holds_up_one_thread_and_a_bounded_number_of_lines() {
    alone(|| {
        let slow = Slow::capture();
        let values = Values::new();
        let slot = values.builder().name("a refusal").open(b"p 1.0.0 1").unwrap();
        slot.reload(b"p 1.1.0 1").unwrap();
        let refuse = || drop(slot.reload(b"p 2.0.0 2 vet=fail").unwrap_err());
        let others = || {
            (0..1_100).for_each(|_| refuse());
            Ok(())
        };
        beside(&slow, "a refusal", refuse, others);
        // The attempts from 80 on: the last 1,024 of 1,103.
        let refused = |attempt: u64| format!("message=refused slot=\"a refusal\" attempt={attempt} ");
        eventually("the last one is written", || slow.log.of(TARGET).last().unwrap().1.contains(&refused(1_103)));
        let lines = slow.log.of(TARGET).split_off(PREPARED);
        assert_eq!(lines.len(), 1 + 1_024);
        for ((_, line), attempt) in lines.iter().zip([3].into_iter().chain(80..)) {
            assert!(line.contains(&refused(attempt)), "{attempt} is not in {line:?}");
        }
        close(slot, &values.census);
    });
}

#[test]
fn while_a_line_about_a_change_is_written_the_next_change_is_made() {
    type Change = fn(&HotSlot<Plugin>);
    let changes: [(&str, Change); 9] = [
        ("a swap", |slot| drop(slot.reload(b"p 3.0.0 3").unwrap())),
        ("no change", |slot| drop(slot.reload(b"p 2.0.0 2").unwrap())),
        ("a refusal", |slot| drop(slot.reload(b"p 3.0.0 3 probe=fail").unwrap_err())),
        ("a hand-over that failed", |slot| drop(slot.reload(b"p 3.0.0 3 hand_over=fail").unwrap_err())),
        ("what was staged and dropped", |slot| drop(slot.stage(b"p 3.0.0 3").unwrap())),
        ("a commit", |slot| drop(slot.stage(b"p 3.0.0 3").unwrap().commit().unwrap())),
        ("a rollback", |slot| drop(slot.rollback().unwrap())),
        ("a rollback to bytes", |slot| drop(slot.rollback_to(Rollback::to_artifact(b"p 1.5.0 1")).unwrap())),
        ("a reload soon", |slot| assert!(slot.reload_soon(b"p 3.0.0 3").is_ok())),
    ];
    alone(|| {
        let slow = Slow::capture();
        for (what, change) in changes {
            let values = Values::new();
            let slot = values.builder().name(what).open(b"p 1.0.0 1").unwrap();
            slot.reload(b"p 2.0.0 2").unwrap();
            beside(&slow, what, || change(&slot), || slot.reload(b"p 9.0.0 9"));
            close(slot, &values.census);
        }
    });
}

/// Also while others of the group have their turn for it.
#[test]
fn while_a_line_about_a_group_is_written_its_members_are_changed() {
    alone(|| {
        let slow = Slow::capture();
        for refused in ["probe=fail", "hand_over=fail", ""] {
            let what = format!("a change of the group to `{refused}`");
            let open = |of| Arc::new(Values::new().builder().name(format!("{what}, {of}")).open(b"p 1.0.0 1").unwrap());
            let (first, second) = (open("first"), open("second"));
            let group = SlotGroup::new("pair", (Arc::clone(&first), Arc::clone(&second))).unwrap();
            let bytes = format!("p 2.0.0 2 {refused}").into_bytes();
            // A line that the reaper writes comes in the midst of it: then a member has changed past the group.
            let change = || drop(group.reload([Some(b"p 2.0.0 2".into()), Some(bytes.into())]));
            beside(&slow, &what, change, || {
                second.reload(b"p 9.0.0 9")?;
                first.reload(b"p 9.0.0 9")
            });
        }
    });
}

#[test]
fn while_a_line_about_a_run_is_written_the_next_plugin_runs() {
    alone(|| {
        let slow = Slow::capture();
        for refused in ["probe=fail", "hand_over=fail", ""] {
            let values = Values::new();
            let what = format!("a reload of the runner to `{refused}`");
            let runner = Runner::start(values.builder().name(&*what).open(b"p 1.0.0 1").unwrap()).unwrap();
            runner.reload(b"p 1.1.0 1").unwrap();
            let bytes = format!("p 2.0.0 2 {refused}").into_bytes();
            let change = || assert_eq!(runner.reload(bytes).is_ok(), refused.is_empty());
            beside(&slow, &what, change, || runner.reload(b"p 9.0.0 9"));
            close(runner.stop(), &values.census);
        }
    });
}
