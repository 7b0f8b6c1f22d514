//! Random sequences of transitions, against a model that is plainly right: no threads, no clocks, no leases to count.

use std::collections::BTreeMap;

use hotslot::{Error, ErrorKind, HotSlot, Lease, Outcome, Report, Staged};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::support::{Plugin, Values, close, eventually, warm};

/// Something that a program does with a slot. Numbers that stand for one of several things are taken modulo how many
/// there are.
#[derive(Clone, Debug)]
enum Step {
    Reload(Plan),
    Stage(Plan),
    Commit(usize),
    Discard(usize),
    Rollback,
    RollbackTo(u64),
    TakeLease,
    DropLease(usize),
}

/// An artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    version: u64,
    answer: u64,
    fault: Option<&'static str>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![
        5 => Just(None),
        1 => Just(Some("admit")),
        1 => Just(Some("load")),
        1 => Just(Some("probe")),
        1 => Just(Some("hand_over")),
    ];
    let plan =
        || (1..4_u64, 0..2_u64, fault.clone()).prop_map(|(version, answer, fault)| Plan { version, answer, fault });
    let step = prop_oneof![
        6 => plan().prop_map(Step::Reload),
        3 => plan().prop_map(Step::Stage),
        2 => any::<usize>().prop_map(Step::Commit),
        1 => any::<usize>().prop_map(Step::Discard),
        3 => Just(Step::Rollback),
        2 => (1..12_u64).prop_map(Step::RollbackTo),
        3 => Just(Step::TakeLease),
        2 => any::<usize>().prop_map(Step::DropLease),
    ];
    vec(step, 1..40)
}

impl Plan {
    fn bytes(self) -> Vec<u8> {
        let Plan { version, answer, fault } = self;
        let fault = fault.map(|step| format!(" {step}=fail")).unwrap_or_default();
        format!("p {version}.0.0 {answer}{fault}").into_bytes()
    }
}

/// How an attempt ends, as far as the model says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Swapped(Option<u64>, u64),
    Unchanged(u64),
    Refused(&'static str),
    Discarded,
}

/// The model.
struct Model {
    keep: usize,
    next: u64,
    serving: u64,
    known: BTreeMap<u64, (Plan, Option<u64>)>,
    /// Warm generations, the longest retired first.
    warm: Vec<u64>,
    staged: Vec<Beside>,
    leases: Vec<u64>,
    history: Vec<End>,
    swaps: usize,
}

/// A staged plugin.
#[derive(Clone, Copy)]
struct Beside {
    /// How many swaps there had been.
    epoch: usize,
    /// `None` if it was unchanged.
    generation: Option<u64>,
}

impl Model {
    fn plan(&self, generation: u64) -> Plan {
        self.known[&generation].0
    }

    fn epoch(&self) -> usize {
        self.swaps
    }

    fn stage(&mut self, plan: Plan) -> Result<Beside, End> {
        let base = self.serving;
        if self.plan(base) == plan {
            return Ok(Beside { epoch: self.epoch(), generation: None });
        }
        if plan.fault == Some("admit") {
            return Err(End::Refused("admit"));
        }
        if plan.version < self.plan(base).version {
            return Err(End::Refused("version"));
        }
        let generation = self.next;
        self.next += 1;
        match plan.fault {
            Some(fault @ ("load" | "probe")) => Err(End::Refused(fault)),
            _ => {
                self.known.insert(generation, (plan, Some(base)));
                Ok(Beside { epoch: self.epoch(), generation: Some(generation) })
            }
        }
    }

    fn commit(&mut self, Beside { epoch, generation }: Beside) -> End {
        match generation {
            // Also if the base has been replaced and brought back.
            _ if epoch != self.epoch() => End::Refused("base"),
            None => End::Unchanged(self.serving),
            Some(generation) if self.plan(generation).fault == Some("hand_over") => End::Refused("hand_over"),
            Some(generation) => self.swap(generation),
        }
    }

    fn roll_back(&mut self, wanted: Option<u64>) -> End {
        match wanted {
            Some(wanted) if wanted == self.serving => End::Refused("serving"),
            Some(wanted) if self.warm.contains(&wanted) => self.swap(wanted),
            _ => End::Refused("kept"),
        }
    }

    fn swap(&mut self, new: u64) -> End {
        self.swaps += 1;
        let old = std::mem::replace(&mut self.serving, new);
        self.warm.retain(|&generation| generation != new);
        self.warm.push(old);
        // Where rollbacks would go comes first, then what was retired last.
        let mut wanted = Vec::new();
        let mut next = self.known[&new].1;
        while let Some(generation) = next.filter(|generation| self.warm.contains(generation)) {
            wanted.push(generation);
            next = self.known[&generation].1;
        }
        wanted.extend(
            self.warm.iter().rev().filter(|&generation| !wanted.contains(generation)).copied().collect::<Vec<_>>(),
        );
        wanted.truncate(self.keep);
        self.warm.retain(|generation| wanted.contains(generation));
        End::Swapped(Some(old), new)
    }

    /// The generations that must be alive once the slot has come to rest.
    fn alive(&self) -> Vec<u64> {
        let staged = self.staged.iter().filter_map(|staged| staged.generation);
        let mut alive: Vec<u64> = self.warm.iter().chain(&self.leases).copied().chain(staged).collect();
        alive.push(self.serving);
        alive.sort_unstable();
        alive.dedup();
        alive
    }
}

/// How an attempt ended in truth, in the model's words.
fn end(result: &Result<Report, Error>) -> End {
    match result {
        Ok(report) => match report.outcome {
            Outcome::Swapped { generation, previous } => End::Swapped(previous, generation),
            Outcome::Unchanged { generation } => End::Unchanged(generation),
            ref other => panic!("not the outcome of a success: {other:?}"),
        },
        Err(error) => End::Refused(match error.kind() {
            ErrorKind::Version(_) => "version",
            ErrorKind::BaseChanged { .. } => "base",
            ErrorKind::NotWarm { .. } => "kept",
            ErrorKind::AlreadyServing(_) => "serving",
            ErrorKind::Refused(reason) => {
                let reason = reason.to_string();
                let steps = ["admit", "load", "probe", "hand_over"];
                steps.into_iter().find(|step| reason.starts_with(step)).expect("a fault on purpose")
            }
            other => panic!("unexpected: {other:?}"),
        }),
    }
}

/// Takes one of several, if there are any.
fn pick<V>(from: &mut Vec<V>, number: usize) -> Option<V> {
    (!from.is_empty()).then(|| from.remove(number % from.len()))
}

fn check(keep: usize, steps: Vec<Step>) {
    let values = Values::new();
    let first = Plan { version: 1, answer: 0, fault: None };
    let slot: HotSlot<Plugin> = values.builder().keep_previous(keep).open(first.bytes()).unwrap();
    let mut model = Model {
        keep,
        next: 2,
        serving: 1,
        known: BTreeMap::from([(1, (first, None))]),
        warm: Vec::new(),
        staged: Vec::new(),
        leases: Vec::new(),
        history: vec![End::Swapped(None, 1)],
        swaps: 1,
    };
    let mut staged: Vec<Staged<Plugin>> = Vec::new();
    let mut leases: Vec<Lease<Plugin>> = Vec::new();

    for step in steps {
        match step {
            Step::Reload(plan) => {
                let expected = model.stage(plan).map_or_else(|end| end, |beside| model.commit(beside));
                assert_eq!(end(&slot.reload(plan.bytes())), expected);
                model.history.push(expected);
            }
            Step::Stage(plan) => match (slot.stage(plan.bytes()), model.stage(plan)) {
                (Ok(real), Ok(beside)) => {
                    assert_eq!(real.generation_number(), beside.generation);
                    staged.push(real);
                    model.staged.push(beside);
                }
                (real, modelled) => {
                    let expected = modelled.map(drop).unwrap_err();
                    assert_eq!(end(&Err(real.map(drop).unwrap_err())), expected);
                    model.history.push(expected);
                }
            },
            Step::Commit(number) => {
                let (Some(real), Some(beside)) = (pick(&mut staged, number), pick(&mut model.staged, number)) else {
                    continue;
                };
                let expected = model.commit(beside);
                assert_eq!(end(&real.commit()), expected);
                model.history.push(expected);
            }
            Step::Discard(number) => {
                if pick(&mut staged, number).and(pick(&mut model.staged, number)).is_some() {
                    model.history.push(End::Discarded);
                }
            }
            Step::Rollback => {
                let expected = model.roll_back(model.known[&model.serving].1);
                assert_eq!(end(&slot.rollback()), expected);
                model.history.push(expected);
            }
            Step::RollbackTo(wanted) => {
                let expected = model.roll_back(Some(wanted));
                assert_eq!(end(&slot.rollback_to(wanted)), expected);
                model.history.push(expected);
            }
            Step::TakeLease => {
                leases.push(slot.load());
                model.leases.push(model.serving);
            }
            Step::DropLease(number) => {
                let _ = (pick(&mut leases, number), pick(&mut model.leases, number));
            }
        }

        let lease = slot.load();
        assert_eq!(lease.generation(), model.serving);
        assert_eq!(Lease::digest(&lease), hotslot::Digest::of(&model.plan(model.serving).bytes()));
        assert_eq!(slot.status().serving.unwrap().digest, Lease::digest(&lease), "what is reported is what serves");
        assert_eq!(warm(&slot), model.warm);
        for (real, &generation) in leases.iter().zip(&model.leases) {
            assert_eq!((real.generation(), real.answer()), (generation, model.plan(generation).answer));
            assert_eq!(Lease::is_retired(real), generation != model.serving);
        }
        drop(lease);
        eventually("what is of no use is destroyed", || values.census.alive() == model.alive());
    }

    let history: Vec<_> = slot.history().iter().map(recorded).collect();
    let expected: Vec<_> = model.history.iter().map(coarse).collect();
    assert_eq!(history, expected);
    let counters = slot.status().counters;
    let count = |wanted: fn(&End) -> bool| model.history.iter().filter(|end| wanted(end)).count() as u64;
    assert_eq!(counters.swaps, count(|end| matches!(end, End::Swapped(..))));
    assert_eq!(counters.refused, count(|end| matches!(end, End::Refused(_))));
    drop((staged, leases));
    close(slot, &values.census);
}

/// An entry of the history, as far as it must agree with the model: the words of a refusal are checked elsewhere.
fn recorded(report: &Report) -> End {
    match report.outcome {
        Outcome::Swapped { generation, previous } => End::Swapped(previous, generation),
        Outcome::Unchanged { generation } => End::Unchanged(generation),
        Outcome::Refused { .. } => End::Refused(""),
        _ => End::Discarded,
    }
}

fn coarse(end: &End) -> End {
    match end {
        End::Refused(_) => End::Refused(""),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(Config { cases: 512, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_slot_does_what_the_model_does(keep in 0..4_usize, steps in steps()) {
        check(keep, steps);
    }
}
