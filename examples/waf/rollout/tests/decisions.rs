//! Single decisions of a node and of a leader, each by its rule.

use waf_rollout::{
    Alarm, Analysis, Command, Comparison, Desired, Effect, Event, Finding, Group, Kind, Label, Labels, Leader,
    LeaderEffect, Lease, LeaseTiming, MOST_GROUPS, MOST_LABEL, Memory, Millis, Node, NodeId, NotALabel, NotDone, Order,
    Phase, Plan, Position, Refusal, ReleaseId, Report, Revision, Scope, Traffic, Wave, WavePlan, WaveSize,
};

const OLD: ReleaseId = ReleaseId::new([1; 32]);
const NEW: ReleaseId = ReleaseId::new([2; 32]);
const OTHER: ReleaseId = ReleaseId::new([3; 32]);

fn plan() -> Plan {
    Plan {
        waves: vec![
            WavePlan { size: WaveSize::Nodes(1), bake: 60_000 },
            WavePlan { size: WaveSize::PerMille(100), bake: 30_000 },
        ],
        bake: 20_000,
        analysis: Analysis::NONE,
        ..Plan::default()
    }
}

fn document(rollout: u64, step: u64, phase: Phase) -> Desired {
    Desired {
        term: 1,
        order: Order { rollout, step },
        kind: Kind::Release,
        phase,
        target: NEW,
        stable: Some(OLD),
        wave: Wave { index: 0, below: if phase == Phase::Commit { Wave::EVERYBODY } else { 0 } },
        plan: plan(),
        paused: false,
        frozen: false,
        scope: Scope::Everybody,
        groups: Vec::new(),
    }
}

fn node() -> Node {
    Node::start(NodeId::new("node-1"), Memory::default(), Some(OLD)).0
}

/// What a node does beside remembering and reporting.
fn does(effects: Vec<Effect>) -> Vec<Effect> {
    effects.into_iter().filter(|it| !matches!(it, Effect::Remember(_) | Effect::Report)).collect()
}

#[test]
fn a_node_stages_then_commits_when_its_wave_opens() {
    let mut node = node();
    let effects = node.handle(Event::Document(document(2, 0, Phase::Stage)));
    assert!(
        matches!(&effects[0], Effect::Remember(memory) if memory.order == Order { rollout: 2, step: 0 }),
        "on disk first"
    );
    assert_eq!(does(effects), [Effect::Stage(NEW)]);
    assert_eq!(does(node.handle(Event::Staged(NEW, Ok(())))), []);
    let report = node.report(Traffic::default());
    assert!(report.staged && !report.refused && report.serving == Some(OLD));

    let closed = Desired { wave: Wave::NOBODY, ..document(2, 1, Phase::Commit) };
    assert_eq!(does(node.handle(Event::Document(closed))), [], "the wave is not its own");
    assert_eq!(does(node.handle(Event::Document(document(2, 2, Phase::Commit)))), [Effect::Commit(NEW)]);
    node.handle(Event::Committed(NEW, Ok(())));
    assert_eq!(node.serving(), Some(NEW));
}

#[test]
fn a_wave_admits_exactly_the_positions_below_it() {
    // As pinned below.
    let position = Position::of(&NodeId::new("node-1"), 2);
    for (below, admitted) in [
        (0, false),
        (3_728_932_680, false),
        (3_728_932_681, true),
        (Wave::EVERYBODY - 1, true),
        (Wave::EVERYBODY, true),
    ] {
        let wave = Wave { index: 0, below };
        assert_eq!(wave.admits(position), admitted, "below {below}");
        assert_eq!(wave.is_everybody(), below == Wave::EVERYBODY);
    }
    let node = NodeId::new("node-1");
    assert_eq!((node.as_str(), node.to_string()), ("node-1", "node-1".to_owned()));
}

/// Nodes of different versions must agree on who is a canary.
#[test]
fn positions_are_what_they_were() {
    let position = |node, rollout| format!("{:?}", Position::of(&NodeId::new(node), rollout));
    assert_eq!(position("node-1", 1), "Position(2542149710)");
    assert_eq!(position("node-1", 2), "Position(3728932680)");
    assert_eq!(position("node-2", 1), "Position(1227159690)");
}

/// The canary of a rollout is as good as drawn by lot.
#[test]
fn positions_are_spread() {
    let mut halves = [0; 2];
    for number in 0..1_000 {
        let position = Position::of(&NodeId::new(format!("node-{number}")), 7);
        halves[usize::from(Wave { index: 0, below: Wave::EVERYBODY / 2 }.admits(position))] += 1;
    }
    assert!(halves.iter().all(|half| (400..600).contains(half)), "{halves:?}");
}

#[test]
fn older_documents_are_ignored_and_equal_ones_change_nothing() {
    let mut node = node();
    node.handle(Event::Document(Desired { term: 5, ..document(2, 3, Phase::Stage) }));
    let before = node.memory().clone();
    for old in [
        Desired { term: 5, ..document(2, 2, Phase::Commit) },
        Desired { term: 9, ..document(1, 9, Phase::Done) },
        Desired { term: 4, ..document(7, 0, Phase::Done) },
        Desired { term: 5, ..document(2, 3, Phase::Stage) },
    ] {
        assert_eq!(node.handle(Event::Document(old)), []);
        assert_eq!(*node.memory(), before);
    }
}

#[test]
fn a_node_that_restarts_remembers() {
    let mut first = node();
    first.handle(Event::Document(document(2, 3, Phase::Abort)));
    let (mut second, remember) = Node::start(NodeId::new("node-1"), first.memory().clone(), Some(OLD));
    assert_eq!(remember, Effect::Remember(second.memory().clone()));
    assert_eq!(second.memory().boot, 2);
    assert_eq!(second.handle(Event::Document(document(2, 2, Phase::Commit))), [], "from before the abort");
    let (mut drifted, _) = Node::start(NodeId::new("node-1"), first.memory().clone(), Some(OTHER));
    assert_eq!(
        does(drifted.handle(Event::Document(document(2, 3, Phase::Abort)))),
        [Effect::Stage(OLD)],
        "the same again"
    );
    let revived = document(2, 4, Phase::Commit);
    assert_eq!(does(second.handle(Event::Document(revived))), [], "an aborted rollout stays aborted");
    let report = second.report(Traffic::default());
    assert_eq!((report.boot, report.seq, report.aborted, report.settled), (2, 1, 2, Some(OLD)));
}

#[test]
fn what_failed_its_probation_is_tried_in_a_later_rollout_only() {
    let mut node = node();
    node.handle(Event::Document(document(2, 0, Phase::Commit)));
    node.handle(Event::Staged(NEW, Ok(())));
    node.handle(Event::Committed(NEW, Ok(())));
    node.handle(Event::ProbationFailed { failed: NEW, serving: OLD });
    assert!(node.report(Traffic::default()).condemned);
    assert_eq!(does(node.handle(Event::Document(document(2, 1, Phase::Done)))), []);
    assert_eq!(does(node.handle(Event::Document(document(3, 0, Phase::Stage)))), [Effect::Stage(NEW)]);
    assert!(!node.report(Traffic::default()).condemned);
}

#[test]
fn a_stable_release_that_fails_condemns_no_target() {
    let mut node = Node::start(NodeId::new("node-1"), Memory::default(), Some(OLD)).0;
    node.handle(Event::Document(document(2, 0, Phase::Commit)));
    node.handle(Event::ProbationFailed { failed: OLD, serving: OTHER });
    assert!(!node.report(Traffic::default()).condemned);
    node.handle(Event::Staged(NEW, Ok(())));
    node.handle(Event::Committed(NEW, Ok(())));
    node.handle(Event::ProbationFailed { failed: NEW, serving: OTHER });
    assert!(node.report(Traffic::default()).condemned);
    // Both are known: neither is tried again in this rollout, and an abort does not go round in circles.
    assert_eq!(does(node.handle(Event::Document(document(2, 1, Phase::Stage)))), []);
    assert_eq!(does(node.handle(Event::Document(document(2, 2, Phase::Abort)))), []);
    assert_eq!(node.serving(), Some(OTHER));
}

#[test]
fn what_is_transient_is_tried_again_and_what_is_final_is_not() {
    let mut node = node();
    node.handle(Event::Document(document(2, 0, Phase::Stage)));
    for attempts in 1..4 {
        let effects = node.handle(Event::Staged(NEW, Err(Refusal::Transient)));
        assert_eq!(does(effects), [Effect::RetryLater { attempts }]);
        assert!(!node.report(Traffic::default()).refused);
        assert_eq!(does(node.handle(Event::Retry)), [Effect::Stage(NEW)]);
        assert_eq!(does(node.handle(Event::Retry)), [], "it is under way");
    }
    node.handle(Event::Staged(NEW, Err(Refusal::Final)));
    assert!(node.report(Traffic::default()).refused);
    assert_eq!(does(node.handle(Event::Retry)), []);
    assert_eq!(does(node.handle(Event::Document(document(2, 1, Phase::Commit)))), []);
    assert_eq!(does(node.handle(Event::Document(document(3, 0, Phase::Stage)))), [Effect::Stage(NEW)], "a new rollout");
    let effects = node.handle(Event::Staged(NEW, Err(Refusal::Transient)));
    assert_eq!(does(effects), [Effect::RetryLater { attempts: 1 }], "counted anew");
}

#[test]
fn a_commit_that_fails_for_good_is_a_refusal() {
    let mut node = node();
    node.handle(Event::Document(document(2, 0, Phase::Commit)));
    node.handle(Event::Staged(NEW, Ok(())));
    node.handle(Event::Committed(NEW, Err(Refusal::Final)));
    let report = node.report(Traffic::default());
    assert!(report.refused && report.serving == Some(OLD));
}

#[test]
fn going_back_does_not_wait_for_a_stage_or_for_a_retry() {
    let mut node = Node::start(NodeId::new("node-1"), Memory::default(), Some(OTHER)).0;
    assert_eq!(does(node.handle(Event::Document(document(2, 0, Phase::Done)))), [Effect::Stage(NEW)]);
    assert_eq!(does(node.handle(Event::Document(document(3, 0, Phase::Abort)))), [Effect::Stage(OLD)]);
    assert_eq!(does(node.handle(Event::Staged(NEW, Ok(())))), [], "what was dropped says nothing");
    node.handle(Event::Staged(OLD, Err(Refusal::Transient)));
    assert_eq!(does(node.handle(Event::Document(document(4, 0, Phase::Abort)))), [Effect::Stage(OLD)]);
    assert_eq!(does(node.handle(Event::Staged(OLD, Ok(())))), [Effect::Commit(OLD)]);
    assert_eq!(does(node.handle(Event::Document(document(5, 0, Phase::Done)))), [], "a commit is not interrupted");
    assert_eq!(does(node.handle(Event::Committed(OLD, Ok(())))), [Effect::Stage(NEW)]);
}

#[test]
fn a_node_that_is_late_goes_to_what_the_fleet_serves() {
    let mut late = Node::start(NodeId::new("node-1"), Memory::default(), Some(OTHER)).0;
    assert_eq!(does(late.handle(Event::Document(document(9, 4, Phase::Stage)))), [Effect::Stage(OLD)]);
    late.handle(Event::Staged(OLD, Ok(())));
    assert_eq!(does(late.handle(Event::Committed(OLD, Ok(())))), [Effect::Stage(NEW)], "and then takes part");

    let mut empty = Node::start(NodeId::new("node-2"), Memory::default(), None).0;
    let first = Desired { stable: None, ..document(1, 0, Phase::Stage) };
    assert_eq!(does(empty.handle(Event::Document(first))), [Effect::Stage(NEW)]);
    empty.handle(Event::Staged(NEW, Ok(())));
    let done = Desired { stable: None, ..document(1, 1, Phase::Done) };
    assert_eq!(does(empty.handle(Event::Document(done))), [Effect::Commit(NEW)]);
}

#[test]
fn a_node_that_is_held_or_pinned_changes_nothing_and_catches_up() {
    for (on, off) in
        [(Event::Held(true), Event::Held(false)), (Event::Pinned(true, Some(OTHER)), Event::Pinned(false, Some(OTHER)))]
    {
        let mut node = node();
        assert!(node.handle(on).contains(&Effect::Report));
        assert_eq!(does(node.handle(Event::Document(document(2, 0, Phase::Done)))), []);
        let report = node.report(Traffic::default());
        assert!(report.held || report.pinned);
        assert_eq!(does(node.handle(off)), [Effect::Stage(NEW)]);
    }
}

/// What it staged is given up by whoever pins it.
#[test]
fn a_node_that_is_pinned_while_it_stages_begins_again() {
    for staged in [false, true] {
        let mut node = node();
        assert_eq!(does(node.handle(Event::Document(document(2, 0, Phase::Stage)))), [Effect::Stage(NEW)]);
        if staged {
            assert_eq!(does(node.handle(Event::Staged(NEW, Ok(())))), []);
        }
        assert_eq!(does(node.handle(Event::Pinned(true, Some(OLD)))), []);
        assert_eq!(does(node.handle(Event::Pinned(false, Some(OLD)))), [Effect::Stage(NEW)]);
        assert_eq!(does(node.handle(Event::Staged(NEW, Ok(())))), []);
        assert!(node.report(Traffic::default()).staged);
    }
}

#[test]
fn a_node_that_serves_the_target_already_stays_with_it() {
    let mut node = Node::start(NodeId::new("node-1"), Memory::default(), Some(NEW)).0;
    assert_eq!(does(node.handle(Event::Document(document(2, 0, Phase::Stage)))), []);
    assert!(node.report(Traffic::default()).staged);
}

#[test]
fn rules_from_outside_have_one_canary_for_ten_seconds() {
    let mut fleet = Fleet::new(3);
    fleet.start(Plan::rules());
    fleet.pass(500);
    let start = fleet.now;
    fleet.stage(0..3);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 1);
    let opened = fleet.now;
    while !fleet.desired().wave.is_everybody() {
        fleet.pass(500);
    }
    assert!(fleet.now - opened <= 10_500 && fleet.now - start < 13_000, "no traffic is asked for");
    assert_eq!(fleet.commit(), 3);
    fleet.pass(1_000);
    assert_eq!(fleet.phase(), Phase::Done);

    let mut fleet = Fleet::new(3);
    fleet.start(Plan::rules());
    fleet.pass(500);
    let start = fleet.now;
    while fleet.phase() == Phase::Stage {
        fleet.pass(500);
    }
    assert_eq!(fleet.now - start, 30_500);
    let mut fleet = Fleet::new(3);
    fleet.start(Plan::rules());
    fleet.stage(0..3);
    fleet.pass(1_000);
    let start = fleet.now;
    while fleet.phase() == Phase::Commit {
        fleet.pass(500);
    }
    assert!((40_000..41_000).contains(&(fleet.now - start)), "{}", fleet.now - start);
}

#[test]
fn a_frozen_fleet_commits_nothing() {
    let mut node = node();
    let frozen = Desired { frozen: true, ..document(2, 0, Phase::Commit) };
    assert_eq!(does(node.handle(Event::Document(frozen))), [Effect::Stage(NEW)]);
    assert_eq!(does(node.handle(Event::Staged(NEW, Ok(())))), []);
}

#[test]
fn documents_are_written_as_the_fleet_reads_them() {
    let document = document(42, 3, Phase::Commit);
    let text = serde_json::to_value(&document).unwrap();
    assert_eq!((&text["rollout"], &text["step"], &text["phase"]), (&42.into(), &3.into(), &"commit".into()));
    assert_eq!(text["target"], "02".repeat(32));
    assert_eq!(serde_json::from_value::<Desired>(text).unwrap(), document);
    let mixed = "0123456789abcdef".repeat(4);
    assert_eq!(mixed.parse::<ReleaseId>().unwrap().to_string(), mixed);
    assert_eq!(mixed.parse::<ReleaseId>().unwrap().digest()[..3], [0x01, 0x23, 0x45]);
    for bad in ["", "02", &"0g".repeat(32), &"é".repeat(32), &"02".repeat(33)] {
        assert!(bad.parse::<ReleaseId>().is_err(), "{bad}");
    }
}

// The leader.

/// A fleet without faults: what is written is stored, and nodes do what their documents say.
struct Fleet {
    leader: Leader,
    now: Millis,
    revision: Revision,
    lease: Option<(Revision, Lease)>,
    desired: Option<(Revision, Desired)>,
    reports: Vec<Report>,
    alarms: Vec<Alarm>,
}

impl Fleet {
    fn new(nodes: usize) -> Self {
        let reports = (0..nodes).map(|number| Report {
            node: NodeId::new(format!("node-{number}")),
            boot: 1,
            seq: 0,
            term: 0,
            order: Order { rollout: 1, step: 0 },
            aborted: 0,
            settled: Some(OLD),
            groups: Vec::new(),
            labels: Labels::new(),
            staged: true,
            refused: false,
            condemned: false,
            serving: Some(OLD),
            pinned: false,
            held: false,
            traffic: Traffic::default(),
        });
        let done = Desired { target: OLD, stable: None, term: 0, ..document(1, 0, Phase::Done) };
        let mut fleet = Self {
            leader: Leader::new("leader", LeaseTiming::default()),
            now: 1_000_000,
            revision: 7,
            lease: None,
            desired: Some((7, done)),
            reports: reports.collect(),
            alarms: Vec::new(),
        };
        fleet.pass(20_000);
        assert_eq!(fleet.leader.term(fleet.now), Some(1));
        fleet
    }

    /// Lets time pass, half a second at once.
    fn pass(&mut self, time: Millis) {
        for _ in 0..time / 500 {
            self.now += 500;
            for report in &mut self.reports {
                report.seq += 1;
                self.leader.reported(self.now, report.clone());
            }
            self.leader.lease_read(self.now, self.lease.clone());
            self.leader.desired_read(self.now, self.desired.clone());
            for effect in self.leader.tick(self.now) {
                self.store(effect);
            }
        }
    }

    fn store(&mut self, effect: LeaderEffect) {
        match effect {
            LeaderEffect::WriteLease(expected, lease) => {
                assert_eq!(expected, self.lease.as_ref().map(|(revision, _)| *revision));
                self.revision += 1;
                self.lease = Some((self.revision, lease));
            }
            LeaderEffect::WriteDesired(expected, desired) => {
                assert_eq!(expected, self.desired.as_ref().map(|(revision, _)| *revision));
                self.revision += 1;
                self.desired = Some((self.revision, desired));
            }
            LeaderEffect::Alarm(alarm) => self.alarms.push(alarm),
        }
    }

    fn command(&mut self, command: Command) -> Result<(), NotDone> {
        self.leader.desired_read(self.now, self.desired.clone());
        let effect = self.leader.command(self.now, command)?;
        self.store(effect);
        Ok(())
    }

    fn start(&mut self, plan: Plan) {
        self.command(Command::Start(Kind::Release, Scope::Everybody, NEW, plan)).unwrap();
        self.follow();
    }

    fn desired(&self) -> &Desired {
        &self.desired.as_ref().unwrap().1
    }

    fn phase(&self) -> Phase {
        self.desired().phase
    }

    /// Nodes follow the document, all but the staging.
    fn follow(&mut self) {
        let desired = self.desired.as_ref().unwrap().1.clone();
        for report in &mut self.reports {
            if report.order.rollout != desired.order.rollout {
                (report.staged, report.refused, report.condemned) = (false, false, false);
            }
            (report.term, report.order) = (desired.term, desired.order);
        }
    }

    fn stage(&mut self, nodes: impl Iterator<Item = usize>) {
        self.follow();
        nodes.for_each(|node| self.reports[node].staged = true);
    }

    /// Nodes that the wave admits serve the target.
    fn commit(&mut self) -> usize {
        self.follow();
        let desired = self.desired.as_ref().unwrap().1.clone();
        let admitted = self
            .reports
            .iter_mut()
            .filter(|report| report.staged && desired.wave.admits(Position::of(&report.node, desired.order.rollout)));
        let served = admitted.filter_map(|report| {
            report.serving = Some(desired.target_for(&report.labels)?);
            report.serving
        });
        served.count()
    }
}

#[test]
fn a_rollout_goes_through_its_waves_and_bakes() {
    let mut fleet = Fleet::new(50);
    fleet.start(plan());
    fleet.stage(0..49);
    fleet.pass(5_000);
    assert_eq!(fleet.phase(), Phase::Stage, "one has not answered");
    fleet.stage(49..50);
    fleet.pass(1_000);
    assert_eq!((fleet.phase(), fleet.commit()), (Phase::Commit, 1), "one canary");
    fleet.pass(59_000);
    assert_eq!(fleet.desired().wave.index, 0, "still baking");
    fleet.pass(3_000);
    assert_eq!((fleet.desired().wave.index, fleet.commit()), (1, 5), "a tenth, the canary included");
    fleet.pass(32_000);
    assert!(fleet.desired().wave.is_everybody());
    assert_eq!(fleet.commit(), 50);
    fleet.pass(16_000);
    assert_eq!(fleet.phase(), Phase::Commit);
    fleet.pass(6_000);
    assert_eq!((fleet.phase(), fleet.desired().settled()), (Phase::Done, Some(NEW)));
    assert_eq!(fleet.alarms, []);
    let order = fleet.desired().order;
    fleet.pass(60_000);
    assert_eq!(fleet.desired().order, order, "nothing more is written");
}

#[test]
fn nodes_that_refuse_abort_a_rollout_if_they_are_too_many() {
    for (refuse, phase) in [(2, Phase::Commit), (3, Phase::Abort)] {
        let mut fleet = Fleet::new(40);
        fleet.start(plan());
        fleet.stage(refuse..40);
        (0..refuse).for_each(|node| fleet.reports[node].refused = true);
        fleet.pass(2_000);
        assert_eq!(fleet.phase(), phase, "{refuse} of 40");
        let alarms: Vec<_> =
            (refuse == 3).then_some(Alarm::TooManyFailed { failed: 3, reached: 40 }).into_iter().collect();
        assert_eq!(fleet.alarms, alarms);
    }
}

#[test]
fn the_stage_ends_at_its_deadline() {
    for (staged, phase) in [(48, Phase::Commit), (47, Phase::Abort)] {
        let mut fleet = Fleet::new(50);
        fleet.start(plan());
        fleet.stage(0..staged);
        fleet.pass(119_000);
        assert_eq!(fleet.phase(), Phase::Stage);
        fleet.pass(3_000);
        assert_eq!(fleet.phase(), phase, "{staged} of 50");
    }
}

#[test]
fn a_wave_that_is_late_bakes_all_the_same() {
    let mut fleet = Fleet::new(50);
    fleet.start(plan());
    fleet.stage(0..50);
    fleet.pass(1_000);
    fleet.pass(70_000);
    assert_eq!(fleet.commit(), 1);
    fleet.pass(59_000);
    assert_eq!(fleet.desired().wave.index, 0, "it has served for less than a minute");
    fleet.pass(3_000);
    assert_eq!(fleet.desired().wave.index, 1);
}

#[test]
fn a_release_that_kills_its_hosts_is_not_promoted_by_the_one_that_is_left() {
    let mut fleet = Fleet::new(50);
    fleet.start(plan());
    fleet.stage(0..50);
    fleet.pass(1_000);
    fleet.commit();
    fleet.command(Command::Promote).unwrap();
    assert_eq!(fleet.commit(), 5);
    let last = fleet.reports.iter().rposition(|report| report.serving == Some(NEW)).unwrap();
    let last = fleet.reports[last].node.clone();
    fleet.reports.retain(|report| report.serving == Some(OLD) || report.node == last);
    for _ in 0..400 {
        fleet.pass(500);
        assert!(!fleet.desired().wave.is_everybody());
    }
    assert_eq!((fleet.phase(), &fleet.alarms[..]), (Phase::Abort, &[Alarm::TimedOut(Phase::Commit)][..]));
}

#[test]
fn a_new_leader_promotes_nobody_before_it_has_listened() {
    let mut fleet = Fleet::new(50);
    fleet.start(plan());
    fleet.stage(0..50);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 1);
    fleet.reports.clear();
    fleet.leader = Leader::new("second", LeaseTiming::default());
    while fleet.desired().term == 1 {
        fleet.pass(500);
    }
    fleet.pass(500);
    assert_eq!(fleet.command(Command::Promote), Err(NotDone::NotKnown));
}

/// The first that it hears is the one that refused.
#[test]
fn a_new_leader_gives_nothing_up_before_it_has_listened() {
    let mut fleet = Fleet::new(50);
    fleet.start(plan());
    fleet.stage(1..50);
    fleet.reports[0].refused = true;
    let others = fleet.reports.split_off(1);
    fleet.leader = Leader::new("second", LeaseTiming::default());
    while fleet.desired().term == 1 {
        fleet.pass(500);
    }
    fleet.pass(5_000);
    assert_eq!(fleet.phase(), Phase::Stage);
    fleet.reports.extend(others);
    fleet.follow();
    fleet.pass(15_000);
    assert_eq!((fleet.phase(), &fleet.alarms[..]), (Phase::Commit, &[][..]));
}

#[test]
fn a_node_that_counts_to_the_end_of_the_numbers_is_not_believed() {
    let mut fleet = Fleet::new(3);
    fleet.reports[0].order.rollout = u64::MAX;
    fleet.reports[1].term = u64::MAX;
    fleet.pass(20_000);
    assert_eq!((fleet.desired().order, fleet.desired().term), (Order { rollout: 1, step: 1 }, 1));
}

#[test]
fn a_node_that_was_installed_anew_is_heard_again() {
    let mut fleet = Fleet::new(1);
    let anew = Report { boot: 0, seq: 1, serving: Some(OTHER), ..fleet.reports[0].clone() };
    fleet.leader.reported(fleet.now + 29_999, anew.clone());
    assert_eq!(fleet.leader.reports().next().unwrap().0.serving, Some(OLD));
    fleet.leader.reported(fleet.now + 30_000, anew);
    assert_eq!(fleet.leader.reports().next().unwrap().0.serving, Some(OTHER));
}

#[test]
fn deadlines_are_passed_when_more_time_has_passed() {
    let mut fleet = Fleet::new(2);
    fleet.start(Plan { stage_deadline: 119_800, max_failed_per_mille: 500, ..plan() });
    fleet.stage(0..1);
    fleet.pass(500);
    let start = fleet.now;
    while fleet.phase() == Phase::Stage {
        fleet.pass(500);
    }
    assert_eq!(fleet.now - start, 120_000);
    fleet.pass(500);
    let start = fleet.now;
    while fleet.phase() == Phase::Commit {
        fleet.pass(500);
    }
    assert_eq!(fleet.now - start, 120_500, "a minute of baking and one more");
    let mut fleet = Fleet::new(2);
    fleet.start(plan());
    fleet.pass(500);
    let start = fleet.now;
    while fleet.phase() == Phase::Stage {
        fleet.pass(500);
    }
    assert_eq!(fleet.now - start, 120_500);
}

#[test]
fn a_canary_that_vanishes_is_no_success() {
    let mut fleet = Fleet::new(10);
    fleet.start(plan());
    fleet.stage(0..10);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 1);
    fleet.reports.retain(|report| report.serving == Some(OLD));
    fleet.pass(110_000);
    assert_eq!((fleet.phase(), fleet.desired().wave.index), (Phase::Commit, 0));
    fleet.pass(15_000);
    assert_eq!(fleet.phase(), Phase::Abort);
}

/// The first in the order of positions cannot be the canary if it has nothing to commit.
#[test]
fn a_canary_is_a_node_that_has_staged() {
    let mut fleet = Fleet::new(10);
    fleet.start(Plan { max_failed_per_mille: 500, ..plan() });
    let first = (0..10).min_by_key(|node| Position::of(&fleet.reports[*node].node, 2)).unwrap();
    fleet.stage((0..10).filter(|node| *node != first));
    while fleet.phase() == Phase::Stage {
        fleet.pass(500);
    }
    assert_eq!((fleet.phase(), fleet.commit()), (Phase::Commit, 1));
}

#[test]
fn a_canary_that_never_serves_ends_the_rollout() {
    let mut fleet = Fleet::new(10);
    fleet.start(plan());
    fleet.stage(0..10);
    fleet.pass(1_000);
    assert_eq!(fleet.phase(), Phase::Commit);
    fleet.pass(118_000);
    assert_eq!(fleet.phase(), Phase::Commit);
    fleet.pass(4_000);
    assert_eq!((fleet.phase(), &fleet.alarms[..]), (Phase::Abort, &[Alarm::TimedOut(Phase::Commit)][..]));
}

#[test]
fn a_node_that_cannot_follow_at_the_end_does_not_undo_the_rollout() {
    let mut fleet = Fleet::new(30);
    fleet.start(Plan { waves: Vec::new(), ..plan() });
    fleet.stage(0..30);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 30);
    fleet.reports[3].serving = Some(OLD);
    fleet.pass(78_000);
    assert_eq!(fleet.phase(), Phase::Commit);
    fleet.pass(4_000);
    assert_eq!((fleet.phase(), &fleet.alarms[..]), (Phase::Done, &[][..]));
}

#[test]
fn absent_nodes_leave_the_barrier_but_not_too_many() {
    for (present, phase) in [(5, Phase::Commit), (4, Phase::Abort)] {
        let mut fleet = Fleet::new(10);
        fleet.reports.truncate(present);
        fleet.pass(31_000);
        fleet.start(plan());
        fleet.stage(0..present);
        fleet.pass(2_000);
        if phase == Phase::Abort {
            assert_eq!(fleet.phase(), Phase::Stage, "too few to go on");
            fleet.pass(120_000);
        }
        assert_eq!(fleet.phase(), phase, "{present} of 10");
    }
    // Held and pinned nodes take no part.
    let mut fleet = Fleet::new(10);
    (fleet.reports[0].held, fleet.reports[1].pinned) = (true, true);
    fleet.start(plan());
    fleet.stage(2..10);
    fleet.pass(2_000);
    assert_eq!((fleet.phase(), fleet.leader.standing(fleet.now).present), (Phase::Commit, 8));
    // Nodes that are gone for good are not known any longer.
    let mut fleet = Fleet::new(10);
    let gone: Vec<_> = fleet.reports.drain(3..).map(|report| report.node).collect();
    gone.iter().for_each(|node| fleet.leader.removed(node));
    fleet.pass(31_000);
    fleet.start(plan());
    fleet.stage(0..3);
    fleet.pass(2_000);
    assert_eq!(fleet.phase(), Phase::Commit);
    assert_eq!(fleet.leader.reports().count(), 3);
}

#[test]
fn commands_need_a_leader_and_a_rollout() {
    let mut nobody = Leader::new("nobody", LeaseTiming::default());
    assert_eq!(nobody.command(0, Command::Abort), Err(NotDone::NotLeading { leader: None }));
    let mut fleet = Fleet::new(3);
    nobody.lease_read(0, fleet.lease.clone());
    assert_eq!(nobody.command(0, Command::Abort), Err(NotDone::NotLeading { leader: Some("leader".to_owned()) }));
    for command in [Command::Abort, Command::Promote, Command::Pause] {
        assert_eq!(fleet.command(command), Err(NotDone::NoRollout));
    }
    fleet.start(plan());
    assert_eq!(fleet.command(Command::Promote), Err(NotDone::NotCommitting));
    fleet.stage(0..3);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 1);
    fleet.command(Command::Promote).unwrap();
    assert_eq!((fleet.desired().wave.index, fleet.commit()), (1, 2), "a wave has more than the one before");
    fleet.command(Command::Promote).unwrap();
    assert_eq!(fleet.commit(), 3);
    fleet.command(Command::Promote).unwrap();
    assert_eq!(fleet.phase(), Phase::Done);
}

/// What it reported when it began to serve says nothing of what it served since.
#[test]
fn a_wave_is_over_when_its_nodes_were_heard_again() {
    let waves = vec![WavePlan { size: WaveSize::Nodes(1), bake: 2_000 }];
    let mut fleet = Fleet::new(3);
    fleet.start(Plan { waves, analysis: Analysis { min_calls: 0, ..Analysis::default() }, ..plan() });
    fleet.stage(0..3);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 1);
    fleet.pass(500);
    // All are silent for longer than the bake time.
    let reports = std::mem::take(&mut fleet.reports);
    fleet.pass(20_000);
    assert_eq!((fleet.desired().wave.index, fleet.phase()), (0, Phase::Commit), "nothing is known of it");
    fleet.reports = reports;
    let canary = fleet.reports.iter_mut().find(|report| report.serving == Some(NEW)).unwrap();
    (canary.traffic.calls, canary.traffic.errors) = (100, 100);
    fleet.pass(1_000);
    assert_eq!((fleet.phase(), &fleet.alarms[..]), (Phase::Abort, &[Alarm::Worse(Finding::Errors)][..]));
}

/// Also one whose wave has no bake time: nothing comes in between.
#[test]
fn a_canary_only_rollout_is_paused_by_the_document_that_opens_its_wave() {
    let waves = vec![WavePlan { size: WaveSize::Nodes(1), bake: 0 }];
    let plan = Plan { waves, canary_only: true, analysis: Analysis::NONE, ..plan() };
    let canary = || {
        let mut fleet = Fleet::new(3);
        fleet.start(plan.clone());
        fleet.stage(0..3);
        while fleet.phase() == Phase::Stage {
            fleet.pass(500);
        }
        assert!(fleet.desired().paused, "it is said in the same breath");
        assert_eq!(fleet.commit(), 1);
        fleet.pass(120_000);
        assert_eq!((fleet.desired().wave.index, fleet.phase()), (0, Phase::Commit), "it waits");
        fleet
    };
    let mut promoted = canary();
    promoted.command(Command::Promote).unwrap();
    assert_eq!((promoted.desired().paused, promoted.commit()), (false, 3));
    let mut resumed = canary();
    resumed.command(Command::Resume).unwrap();
    resumed.pass(1_000);
    assert_eq!((resumed.desired().paused, resumed.commit()), (false, 3), "it goes on as planned");
    // Without waves there is no canary.
    let mut at_once = Fleet::new(3);
    at_once.start(Plan { waves: Vec::new(), ..plan });
    at_once.stage(0..3);
    at_once.pass(1_000);
    assert_eq!((at_once.desired().paused, at_once.commit()), (false, 3));
}

#[test]
fn a_rollback_that_nobody_can_take_ends_where_it_began() {
    let mut fleet = Fleet::new(3);
    fleet.command(Command::Start(Kind::Rollback, Scope::Everybody, OTHER, Plan::at_once())).unwrap();
    fleet.follow();
    fleet.reports.iter_mut().for_each(|report| report.refused = true);
    fleet.pass(29_000);
    assert_eq!(fleet.phase(), Phase::Stage);
    fleet.pass(3_000);
    assert_eq!((fleet.phase(), fleet.desired().settled()), (Phase::Abort, Some(OLD)));
}

#[test]
fn a_pause_holds_a_stage_too_and_ends_with_a_promotion_or_a_stop() {
    let mut fleet = Fleet::new(3);
    fleet.start(plan());
    fleet.command(Command::Pause).unwrap();
    fleet.stage(0..3);
    fleet.pass(10_000);
    assert_eq!((fleet.phase(), fleet.desired().paused), (Phase::Stage, true));
    fleet.command(Command::Resume).unwrap();
    fleet.pass(1_000);
    assert_eq!(fleet.phase(), Phase::Commit);
    fleet.command(Command::Pause).unwrap();
    fleet.command(Command::Promote).unwrap();
    assert_eq!((fleet.desired().wave.index, fleet.desired().paused), (1, false));
    fleet.command(Command::Pause).unwrap();
    fleet.command(Command::Stop).unwrap();
    assert_eq!((fleet.phase(), fleet.desired().paused), (Phase::Abort, false));
}

#[test]
fn a_node_is_absent_half_a_minute_after_its_last_report() {
    let mut fleet = Fleet::new(1);
    fleet.pass(500);
    let present = |after| fleet.leader.standing(fleet.now + after).present;
    assert_eq!((present(29_999), present(30_000)), (1, 0));
}

#[test]
fn a_leader_that_learns_of_a_higher_term_takes_one_above_and_listens_again() {
    let mut fleet = Fleet::new(1);
    fleet.start(plan());
    fleet.reports[0].term = 5;
    while fleet.desired().term == 1 {
        fleet.pass(500);
    }
    assert_eq!(fleet.desired().term, 6);
    let since = fleet.now;
    fleet.stage(0..1);
    while fleet.phase() == Phase::Stage {
        fleet.pass(500);
    }
    assert_eq!(fleet.now - since, 15_000);
}

#[test]
fn each_wave_and_each_rollout_is_judged_by_its_own_calls() {
    let mut fleet = Fleet::new(30);
    fleet.start(Plan { analysis: Analysis::default(), ..plan() });
    fleet.stage(0..30);
    fleet.pass(1_000);
    fleet.commit();
    fleet.pass(500);
    fleet.reports.iter_mut().for_each(|report| report.traffic.calls += 1_000);
    fleet.pass(500);
    assert_eq!(fleet.leader.comparison(), Some(Comparison::AsGood));
    fleet.command(Command::Promote).unwrap();
    fleet.pass(500);
    assert_eq!(fleet.leader.comparison(), Some(Comparison::TooFewCalls), "a new wave");

    // A fleet of one is compared with its past, but not with the past of another rollout.
    let mut fleet = Fleet::new(1);
    (fleet.reports[0].traffic.calls, fleet.reports[0].traffic.errors) = (1_000, 500);
    fleet.pass(500);
    fleet.start(Plan { analysis: Analysis::default(), ..plan() });
    fleet.stage(0..1);
    fleet.pass(1_000);
    fleet.commit();
    fleet.pass(500);
    fleet.reports[0].traffic.calls += 100;
    fleet.reports[0].traffic.errors += 2;
    fleet.pass(1_000);
    assert_eq!(fleet.alarms, [Alarm::Worse(Finding::Errors)]);

    // What a node has served before it was forgotten is nobody's.
    let mut fleet = Fleet::new(1);
    fleet.start(Plan { analysis: Analysis::default(), waves: Vec::new(), ..plan() });
    fleet.stage(0..1);
    fleet.pass(1_000);
    fleet.commit();
    fleet.pass(500);
    fleet.leader.removed(&NodeId::new("node-0"));
    fleet.reports[0].traffic.calls += 1_000;
    fleet.pass(500);
    assert_eq!(fleet.leader.comparison(), Some(Comparison::TooFewCalls));
}

#[test]
fn deadlines_and_waves_stand_still_in_a_pause_and_failures_do_not() {
    let mut fleet = Fleet::new(3);
    fleet.start(plan());
    fleet.stage(0..3);
    fleet.pass(1_000);
    fleet.commit();
    fleet.command(Command::Pause).unwrap();
    fleet.pass(500_000);
    assert_eq!((fleet.phase(), fleet.desired().wave.index), (Phase::Commit, 0));
    fleet.command(Command::Resume).unwrap();
    fleet.pass(50_000);
    assert_eq!(fleet.desired().wave.index, 0, "the bake time goes on where it stood");
    fleet.pass(15_000);
    assert_eq!(fleet.desired().wave.index, 1);
    fleet.command(Command::Pause).unwrap();
    fleet.commit();
    fleet.reports.iter_mut().for_each(|report| report.condemned = true);
    fleet.pass(1_000);
    assert_eq!(fleet.phase(), Phase::Abort);
}

#[test]
fn a_stopped_fleet_is_stable_and_starts_nothing() {
    let mut fleet = Fleet::new(3);
    fleet.start(plan());
    fleet.command(Command::Stop).unwrap();
    assert_eq!((fleet.phase(), fleet.desired().settled(), fleet.desired().frozen), (Phase::Abort, Some(OLD), true));
    let start = Command::Start(Kind::Release, Scope::Everybody, OTHER, plan());
    assert_eq!(fleet.command(start.clone()), Err(NotDone::Frozen));
    fleet.command(Command::Resume).unwrap();
    fleet.command(start).unwrap();
    assert_eq!((fleet.desired().order, fleet.desired().stable), (Order { rollout: 3, step: 0 }, Some(OLD)));
    // Stopped after the end, it stays on what it has.
    let mut fleet = Fleet::new(3);
    fleet.command(Command::Stop).unwrap();
    assert_eq!((fleet.phase(), fleet.desired().settled(), fleet.desired().frozen), (Phase::Done, Some(OLD), true));
}

#[test]
fn a_rollback_is_one_commit_and_takes_whom_it_can() {
    let mut fleet = Fleet::new(10);
    fleet.command(Command::Start(Kind::Rollback, Scope::Everybody, OTHER, Plan::at_once())).unwrap();
    fleet.stage(0..3);
    (3..9).for_each(|node| fleet.reports[node].refused = true);
    fleet.pass(31_000);
    assert!(fleet.phase() == Phase::Commit && fleet.desired().wave.is_everybody());
    fleet.commit();
    fleet.pass(1_000);
    assert_eq!((fleet.phase(), fleet.desired().settled()), (Phase::Done, Some(OTHER)));
}

/// Traffic of ten calls a second and node, for as long as a wave bakes.
fn compare(wave: Traffic, rest: Traffic) -> (Fleet, Option<Comparison>) {
    let mut fleet = Fleet::new(10);
    fleet.start(Plan { analysis: Analysis::default(), ..plan() });
    fleet.stage(0..10);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 1);
    for _ in 0..58 {
        fleet.pass(1_000);
        for report in &mut fleet.reports {
            let add = if report.serving == Some(NEW) { wave } else { rest };
            report.traffic.calls += add.calls;
            report.traffic.errors += add.errors;
            report.traffic.blocked += add.blocked;
            report.traffic.p99_us = add.p99_us;
        }
    }
    let worse = fleet.alarms.iter().find_map(|alarm| match alarm {
        Alarm::Worse(finding) => Some(Comparison::Worse(*finding)),
        _ => None,
    });
    let comparison = worse.or_else(|| fleet.leader.comparison());
    (fleet, comparison)
}

#[test]
fn a_wave_that_does_worse_than_the_rest_ends_the_rollout() {
    let normal = Traffic { calls: 100, errors: 1, blocked: 10, p99_us: 10_000 };
    let worse = |finding| Some(Comparison::Worse(finding));
    for (wave, found) in [
        (normal, Some(Comparison::AsGood)),
        (Traffic { errors: 2, ..normal }, Some(Comparison::AsGood)),
        (Traffic { errors: 3, ..normal }, worse(Finding::Errors)),
        (Traffic { blocked: 30, ..normal }, Some(Comparison::AsGood)),
        (Traffic { blocked: 31, ..normal }, worse(Finding::Verdicts)),
        (Traffic { p99_us: 20_000, ..normal }, Some(Comparison::AsGood)),
        (Traffic { p99_us: 20_001, ..normal }, worse(Finding::Latency)),
        (Traffic { calls: 0, errors: 0, blocked: 0, p99_us: 0 }, Some(Comparison::TooFewCalls)),
    ] {
        let (fleet, comparison) = compare(wave, normal);
        assert_eq!(comparison, found, "{wave:?}");
        let aborted = matches!(found, Some(Comparison::Worse(_)));
        assert_eq!(fleet.phase() == Phase::Abort, aborted, "{wave:?}");
    }
    // Small differences of small times are nobody's fault.
    let quick = Traffic { p99_us: 100, ..normal };
    assert_eq!(compare(Traffic { p99_us: 5_100, ..normal }, quick).1, Some(Comparison::AsGood));
    assert_eq!(compare(Traffic { p99_us: 5_101, ..normal }, quick).1, worse(Finding::Latency));
    // Nobody else has traffic: then a release without errors is what it is compared with.
    let none = Traffic::default();
    assert_eq!(compare(Traffic { errors: 1, ..normal }, none).1, Some(Comparison::AsGood));
    assert_eq!(compare(Traffic { errors: 2, ..normal }, none).1, worse(Finding::Errors));
}

#[test]
fn no_data_is_no_success() {
    let none = Traffic::default();
    let (mut fleet, _) = compare(none, none);
    fleet.pass(10_000);
    assert_eq!(fleet.desired().wave.index, 0, "nothing is known after the bake time");
    fleet.pass(60_000);
    fleet.pass(1_000);
    assert_eq!((fleet.phase(), &fleet.alarms[..]), (Phase::Abort, &[Alarm::TimedOut(Phase::Commit)][..]));
}

/// If all nodes are in the wave, what they served before stands for the rest.
#[test]
fn a_fleet_of_one_is_compared_with_its_past() {
    for (errors, found) in [(2, Comparison::AsGood), (3, Comparison::Worse(Finding::Errors))] {
        let mut fleet = Fleet::new(1);
        fleet.start(Plan { analysis: Analysis::default(), ..plan() });
        fleet.pass(1_000);
        (fleet.reports[0].traffic.calls, fleet.reports[0].traffic.errors) = (200, 2);
        fleet.pass(1_000);
        fleet.stage(0..1);
        fleet.pass(1_000);
        assert_eq!(fleet.commit(), 1);
        fleet.pass(1_000);
        fleet.reports[0].traffic.calls += 100;
        fleet.reports[0].traffic.errors += errors;
        fleet.leader.reported(fleet.now, Report { seq: u64::MAX, ..fleet.reports[0].clone() });
        assert_eq!(fleet.leader.comparison(), Some(found));
    }
}

#[test]
fn counts_of_another_boot_are_not_subtracted() {
    let mut fleet = Fleet::new(1);
    fleet.start(Plan { analysis: Analysis::default(), waves: Vec::new(), ..plan() });
    fleet.stage(0..1);
    fleet.pass(1_000);
    fleet.commit();
    fleet.reports[0].traffic.calls = 1_000;
    fleet.pass(500);
    let reset =
        Report { boot: 2, seq: 0, traffic: Traffic { calls: 5_000, ..Traffic::default() }, ..fleet.reports[0].clone() };
    fleet.leader.reported(fleet.now, reset);
    assert_eq!(fleet.leader.comparison(), Some(Comparison::TooFewCalls));
}

#[test]
fn a_new_leader_marks_the_document_and_listens_before_it_goes_on() {
    let mut fleet = Fleet::new(3);
    fleet.start(plan());
    fleet.stage(0..3);
    fleet.leader = Leader::new("second", LeaseTiming::default());
    fleet.pass(14_500);
    assert_eq!(fleet.desired().term, 1, "the lease stands still for 15 s first");
    fleet.pass(2_000);
    assert_eq!((fleet.desired().term, fleet.phase()), (2, Phase::Stage));
    assert_eq!(fleet.desired().order, Order { rollout: 2, step: 1 });
    fleet.pass(13_000);
    assert_eq!(fleet.phase(), Phase::Stage, "it listens");
    fleet.pass(3_000);
    assert_eq!(fleet.phase(), Phase::Commit);
}

#[test]
fn a_leader_stops_before_another_starts() {
    let mut first = Leader::new("first", LeaseTiming::default());
    let lease = Lease { holder: "first".to_owned(), term: 1, beat: 0, resumed: false };
    first.lease_read(0, None);
    assert_eq!(first.tick(0), [LeaderEffect::WriteLease(None, lease.clone())]);
    assert_eq!(first.term(0), None, "not before it was read back");
    first.lease_read(100, Some((1, lease.clone())));
    assert_eq!(first.term(100), Some(1));
    assert_eq!(first.tick(4_999), []);
    let renewed = Lease { beat: 1, ..lease.clone() };
    assert_eq!(first.tick(5_000), [LeaderEffect::WriteLease(Some(1), renewed.clone())]);
    assert_eq!((first.term(9_999), first.term(10_000)), (Some(1), None), "nothing says that it was renewed");
    first.lease_read(10_001, Some((2, renewed)));
    assert_eq!((first.term(14_999), first.term(15_000)), (Some(1), None), "it counts from when it was sent");

    let mut second = Leader::new("second", LeaseTiming::default());
    second.lease_read(50_000, Some((1, lease.clone())));
    assert_eq!(second.tick(64_999), []);
    second.lease_read(64_999, Some((1, lease.clone())));
    let taken = Lease { holder: "second".to_owned(), term: 2, beat: 0, resumed: false };
    assert_eq!(second.tick(65_000), [LeaderEffect::WriteLease(Some(1), taken)], "its own clock");
    first.lease_read(16_000, Some((3, Lease { holder: "second".to_owned(), term: 2, beat: 0, resumed: false })));
    assert_eq!(first.term(14_000), None, "somebody else leads");
}

#[test]
fn a_leader_that_starts_again_does_not_wait_for_itself_and_does_for_others() {
    let lease = |holder: &str, term| Lease { holder: holder.to_owned(), term, beat: 3, resumed: false };
    let again = |stored: Lease| {
        let mut leader = Leader::new("me.2", LeaseTiming::default());
        leader.have_ended(vec!["me.0".to_owned(), "me.1".to_owned()]);
        leader.lease_read(0, Some((7, stored)));
        leader
    };
    let mine = Lease { holder: "me.2".to_owned(), term: 5, beat: 0, resumed: true };
    let mut leader = again(lease("me.1", 4));
    assert_eq!(leader.tick(0), [LeaderEffect::WriteLease(Some(7), mine.clone())]);
    assert_eq!(leader.term(0), None, "not before it was read back");
    assert_eq!(leader.tick(100), [], "it has asked");
    leader.lease_read(200, Some((8, mine)));
    assert_eq!(leader.term(200), Some(5), "above the term of the one that has ended");

    // A renewal of the one that has ended arrives late: it is no sign of life.
    let mut leader = again(lease("me.1", 4));
    leader.tick(0);
    leader.lease_read(200, Some((8, Lease { beat: 4, ..lease("me.1", 4) })));
    assert_eq!(leader.term(200), None);
    let [LeaderEffect::WriteLease(Some(8), _)] = leader.tick(5_000)[..] else { panic!("it asks again") };

    let mut leader = again(lease("another.1", 4));
    assert_eq!((leader.tick(0), leader.tick(14_999)), (vec![], vec![]), "that one may live");
}

#[test]
fn a_leader_that_ends_again_and_again_waits_like_anybody_else() {
    let again = |beat, resumed| {
        let mut leader = Leader::new("me.2", LeaseTiming::default());
        leader.have_ended(vec!["me.1".to_owned()]);
        leader.lease_read(0, Some((7, Lease { holder: "me.1".to_owned(), term: 4, beat, resumed })));
        leader
    };
    // Whatever it did in between: it has not waited the last time.
    for beat in [0, 3, 4, 60, 119] {
        let mut leader = again(beat, true);
        assert_eq!((leader.tick(0), leader.tick(14_999)), (vec![], vec![]), "{beat}");
        let waited = Lease { holder: "me.2".to_owned(), term: 5, beat: 0, resumed: false };
        assert_eq!(leader.tick(15_000), [LeaderEffect::WriteLease(Some(7), waited)], "{beat}");
    }
    let taken = Lease { holder: "me.2".to_owned(), term: 5, beat: 0, resumed: true };
    for (beat, resumed) in [(0, false), (4, false), (120, true)] {
        let wanted = [LeaderEffect::WriteLease(Some(7), taken.clone())];
        assert_eq!(again(beat, resumed).tick(0), wanted, "{beat}: it has led, or has waited before");
    }
    // Renewals say so as well, and so does a lease that is taken anew because nodes know of a higher term.
    let mut leader = again(0, false);
    leader.tick(0);
    leader.lease_read(100, Some((8, taken.clone())));
    let renewed = Lease { beat: 1, ..taken };
    assert_eq!(leader.tick(5_000), [LeaderEffect::WriteLease(Some(8), renewed)]);
}

#[test]
fn a_lease_from_before_leases_said_that_they_were_resumed_is_read() {
    let text = r#"{"holder":"me.1","term":4,"beat":3}"#;
    let lease: Lease = serde_json::from_str(text).unwrap();
    assert_eq!(lease, Lease { holder: "me.1".to_owned(), term: 4, beat: 3, resumed: false });
    assert_eq!(serde_json::to_string(&lease).unwrap(), text);
}

#[test]
fn what_nodes_have_seen_counts_for_more_than_what_the_store_says() {
    let ahead = Order { rollout: 4, step: 2 };
    let mut fleet = Fleet::new(3);
    fleet.reports[1].order = ahead;
    for report in &mut fleet.reports[1..] {
        report.settled = Some(OTHER);
    }
    fleet.pass(1_000);
    let desired = fleet.desired();
    assert_eq!((desired.order, desired.phase), (Order { rollout: 5, step: 0 }, Phase::Abort));
    assert_eq!(desired.settled(), Some(OTHER), "as most nodes know it");
    let stored = Some(Order { rollout: 1, step: 1 });
    assert_eq!(fleet.alarms, [Alarm::StoreLostWrites { stored, seen: ahead }]);

    // A rollout that a node has seen aborted is not revived by a store that has lost the abort.
    let mut fleet = Fleet::new(3);
    fleet.start(plan());
    fleet.stage(0..2);
    fleet.pass(1_000);
    assert_eq!(fleet.phase(), Phase::Stage);
    fleet.reports[0].aborted = 2;
    fleet.pass(1_000);
    assert_eq!((fleet.desired().order, fleet.phase()), (Order { rollout: 3, step: 0 }, Phase::Abort));

    // An empty store, and a leader that remembers.
    let mut fleet = Fleet::new(3);
    fleet.start(plan());
    fleet.pass(1_000);
    fleet.desired = None;
    fleet.leader.desired_read(fleet.now, None);
    assert_eq!(fleet.leader.command(fleet.now, Command::Abort), Err(NotDone::NotKnown));
    fleet.pass(1_000);
    assert_eq!((fleet.desired().order, fleet.phase()), (Order { rollout: 3, step: 0 }, Phase::Abort));
    assert_eq!(fleet.desired().settled(), Some(OLD));
}

#[test]
fn one_node_alone_neither_steers_the_fleet_nor_uses_its_numbers_up() {
    // Whatever it says, the numbers that are left are enough, and nobody serves what it names.
    let far = [1_u64 << 47, 1 << 48, u64::MAX];
    let order = |rollout, step| Order { rollout, step };
    let lies = far.iter().flat_map(|far| {
        let far = *far;
        let lie = move |change: fn(&mut Report, u64)| (far, change);
        [
            lie(|report, far| report.order.rollout = far),
            lie(|report, far| report.order.step = far),
            lie(|report, far| report.term = far),
            lie(|report, far| report.aborted = far),
            lie(|report, far| (report.order.rollout, report.aborted) = (far, far)),
            lie(|report, far| (report.order, report.term) = (Order { rollout: far, step: far }, far)),
        ]
    });
    for (number, (far, lie)) in lies.enumerate() {
        let mut fleet = Fleet::new(3);
        lie(&mut fleet.reports[1], far);
        fleet.reports[1].settled = Some(OTHER);
        fleet.pass(40_000);
        assert!(fleet.desired().order.rollout <= 2, "{number}: {:?}", fleet.desired());
        assert!(fleet.desired().term <= 2, "{number}: {:?}", fleet.desired());
        assert_eq!(fleet.desired().settled(), Some(OLD), "{number}");
        fleet.command(Command::Start(Kind::Release, Scope::Everybody, NEW, plan())).unwrap();
        fleet.pass(1_000);
        assert_eq!((fleet.phase(), fleet.desired().target), (Phase::Stage, NEW), "{number}");
    }

    // Nearer than that it is believed that something was lost, and no more.
    let mut fleet = Fleet::new(3);
    (fleet.reports[1].order, fleet.reports[1].settled) = (order(9, 0), Some(OTHER));
    fleet.pass(1_000);
    assert_eq!((fleet.desired().order, fleet.desired().settled()), (order(10, 0), Some(OLD)));

    // Unless it says what most serve: it may have heard the last word alone.
    for (number, serving, settled) in [(0, [OTHER, OTHER, OLD], OTHER), (1, [OLD, OTHER, OLD], OLD)] {
        let mut fleet = Fleet::new(3);
        for (report, serving) in fleet.reports.iter_mut().zip(serving) {
            report.serving = Some(serving);
        }
        (fleet.reports[1].order, fleet.reports[1].settled) = (order(9, 0), Some(OTHER));
        fleet.pass(1_000);
        assert_eq!((fleet.desired().order, fleet.desired().settled()), (order(10, 0), Some(settled)), "{number}");
    }

    // A group has its release from its own nodes: that most of the others serve what theirs is says nothing of it.
    let groups = |release| vec![Group { label: "region=eu".parse().unwrap(), release }];
    for (number, eu, expected) in [(0, OLD, vec![]), (1, NEW, groups(NEW)), (2, NEW, vec![])] {
        let mut fleet = Fleet::new(5);
        for report in &mut fleet.reports[..2] {
            report.labels = [("region".to_owned(), if number == 2 { "us" } else { "eu" }.to_owned())].into();
            report.serving = Some(eu);
        }
        (fleet.reports[4].order, fleet.reports[4].groups) = (order(9, 0), groups(NEW));
        fleet.pass(1_000);
        assert_eq!((fleet.desired().order, fleet.desired().settled_groups()), (order(10, 0), expected), "{number}");
        assert_eq!(fleet.desired().settled(), Some(OLD), "{number}");
    }

    // If most nodes are so far ahead, the store is what is behind.
    let mut fleet = Fleet::new(3);
    for report in &mut fleet.reports[1..] {
        (report.order, report.settled) = (order(5_000, 1), Some(OTHER));
    }
    fleet.pass(1_000);
    assert_eq!((fleet.desired().order, fleet.desired().settled()), (order(5_001, 0), Some(OTHER)));
}

#[test]
fn a_plan_with_times_that_never_end_is_neither_promoted_at_once_nor_a_panic() {
    for plan in [
        Plan { waves: Vec::new(), bake: u64::MAX, commit_deadline: u64::MAX, ..plan() },
        Plan { waves: vec![WavePlan { size: WaveSize::Nodes(1), bake: u64::MAX }], ..plan() },
        Plan { waves: vec![WavePlan { size: WaveSize::PerMille(1), bake: u64::MAX - 1 }], ..plan() },
        Plan { stage_deadline: u64::MAX, commit_deadline: u64::MAX, ..plan() },
    ] {
        let mut fleet = Fleet::new(3);
        fleet.start(plan.clone());
        fleet.stage(0..3);
        fleet.pass(1_000);
        let wave = fleet.desired().wave;
        fleet.commit();
        fleet.pass(1_000);
        if plan.waves.first().map_or(plan.bake, |wave| wave.bake) > 1 << 60 {
            fleet.pass(600_000);
            assert_eq!((fleet.phase(), fleet.desired().wave), (Phase::Commit, wave), "{plan:?}");
        }
    }
}

#[test]
fn reports_that_come_late_or_twice_change_nothing() {
    let mut fleet = Fleet::new(1);
    let late = Report { seq: 1, serving: Some(OTHER), ..fleet.reports[0].clone() };
    fleet.leader.reported(fleet.now, late.clone());
    assert_eq!(fleet.leader.reports().next().unwrap().0.serving, Some(OLD));
    fleet.leader.reported(fleet.now, Report { boot: 2, ..late });
    assert_eq!(fleet.leader.reports().next().unwrap().0.serving, Some(OTHER), "a later boot");
}

#[test]
fn a_first_release_has_nothing_to_go_back_to() {
    first_release(&[]);
}

#[test]
fn nodes_that_have_followed_nothing_miss_nothing_in_an_empty_store() {
    let new = Report { order: Order::default(), settled: None, staged: false, ..Fleet::new(1).reports[0].clone() };
    first_release(&[new]);
}

fn first_release(nodes: &[Report]) {
    let mut leader = Leader::new("leader", LeaseTiming::default());
    nodes.iter().for_each(|report| leader.reported(0, report.clone()));
    leader.lease_read(0, None);
    let [LeaderEffect::WriteLease(None, lease)] = &leader.tick(0)[..] else { panic!("it takes the lease") };
    leader.lease_read(1, Some((1, lease.clone())));
    let start = Command::Start(Kind::Release, Scope::Everybody, NEW, plan());
    assert_eq!(leader.command(1, start.clone()), Err(NotDone::NotKnown), "the store was not read");
    leader.desired_read(2, None);
    assert_eq!(leader.tick(2), []);
    assert_eq!(
        leader.command(9_000, start.clone()),
        Err(NotDone::NotKnown),
        "nodes may know of what the store has lost"
    );
    let mut renew = |now: Millis| {
        leader.desired_read(now, None);
        for effect in leader.tick(now) {
            let LeaderEffect::WriteLease(_, lease) = effect else { panic!("there is nothing to decide") };
            leader.lease_read(now, Some((now, lease)));
        }
    };
    (1..=8).for_each(|step| renew(step * 2_000));
    leader.tick(16_001);
    let Ok(LeaderEffect::WriteDesired(None, first)) = leader.command(17_003, start) else { panic!("it starts") };
    assert_eq!((first.order, first.stable, first.settled()), (Order { rollout: 1, step: 0 }, None, None));
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn labels(of: &[&str]) -> Labels {
    of.iter().filter_map(|text| text.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn group(of: &str, release: ReleaseId) -> Group {
    Group { label: label(of), release }
}

fn labelled(of: &[&str]) -> Node {
    Node::start(NodeId::new("node-1"), Memory::default(), Some(OLD)).0.with_labels(labels(of))
}

#[test]
fn a_label_is_a_key_and_a_value() {
    assert!(label("region=eu").is_of(&labels(&["region=eu", "tier=1"])));
    assert!(!label("region=eu").is_of(&labels(&["region=us"])) && !label("region=eu").is_of(&labels(&[])));
    assert_eq!(label("a=b=c"), Label::new("a", "b=c"));
    for wrong in ["", "region", "=eu"] {
        assert!(wrong.parse::<Label>().is_err(), "{wrong}");
    }
}

/// What has no groups is written as it was before there were any.
#[test]
fn documents_and_memories_without_groups_are_what_they_were() {
    let plain = serde_json::to_value(document(2, 0, Phase::Stage)).unwrap();
    assert!(plain.get("scope").is_none() && plain.get("groups").is_none(), "{plain}");
    assert_eq!(serde_json::from_value::<Desired>(plain).unwrap(), document(2, 0, Phase::Stage));
    let scoped = Desired {
        scope: Scope::Group(label("region=eu")),
        groups: vec![group("tier=1", OTHER)],
        ..document(2, 0, Phase::Stage)
    };
    let text = serde_json::to_value(&scoped).unwrap();
    assert_eq!((&text["scope"]["group"], &text["groups"][0]["label"]), (&"region=eu".into(), &"tier=1".into()));
    assert_eq!(serde_json::from_value::<Desired>(text).unwrap(), scoped);
    assert!(serde_json::to_value(Memory::default()).unwrap().get("groups").is_none());
}

#[test]
fn a_node_that_a_rollout_is_not_for_keeps_what_it_serves_in_every_phase() {
    let scope = Scope::Group(label("region=eu"));
    for (outside, stable) in [(labelled(&["region=us"]), OLD), (labelled(&[]), OLD), (labelled(&["tier=1"]), OTHER)] {
        let mut node = outside;
        node.handle(Event::Pinned(false, Some(stable)));
        for (step, phase) in [Phase::Stage, Phase::Commit, Phase::Done, Phase::Abort].into_iter().enumerate() {
            let asked = Desired {
                scope: scope.clone(),
                groups: vec![group("tier=1", OTHER)],
                ..document(2, step as u64, phase)
            };
            assert_eq!(does(node.handle(Event::Document(asked))), [], "{phase:?}");
            let report = node.report(Traffic::default());
            assert_eq!((report.staged, report.serving), (false, Some(stable)));
        }
    }
    let mut inside = labelled(&["region=eu"]);
    let asked = Desired { scope, ..document(2, 0, Phase::Stage) };
    assert_eq!(does(inside.handle(Event::Document(asked))), [Effect::Stage(NEW)]);
}

#[test]
fn a_late_joiner_takes_the_release_of_its_group_and_of_the_last_one_if_it_is_in_several() {
    let settled = Desired {
        target: OLD,
        groups: vec![group("region=eu", NEW), group("tier=1", OTHER)],
        scope: Scope::Group(label("nobody=here")),
        stable: Some(OLD),
        ..document(7, 3, Phase::Done)
    };
    for (of, release) in [
        (&["region=us"][..], None),
        (&["region=eu"], Some(NEW)),
        (&["tier=1"], Some(OTHER)),
        (&["region=eu", "tier=1"], Some(OTHER)),
    ] {
        let mut node = labelled(of);
        let wanted: Vec<Effect> = release.map(Effect::Stage).into_iter().collect();
        assert_eq!(does(node.handle(Event::Document(settled.clone()))), wanted, "{of:?}");
        assert_eq!(settled.settled_for(&labels(of)), Some(release.unwrap_or(OLD)));
    }
}

#[test]
fn what_a_fleet_settles_on_after_a_rollout_to_a_label_to_each_and_to_everybody() {
    let with = |phase, scope| Desired {
        scope,
        groups: vec![group("region=eu", OLD), group("tier=1", OTHER)],
        ..document(3, 0, phase)
    };
    let settles = |desired: &Desired| (desired.settled(), desired.settled_groups());
    let eu = Scope::Group(label("region=eu"));
    let before = (Some(OLD), vec![group("region=eu", OLD), group("tier=1", OTHER)]);
    assert_eq!(settles(&with(Phase::Commit, eu.clone())), before);
    assert_eq!(settles(&with(Phase::Abort, Scope::Everybody)), before);
    let after = vec![group("tier=1", OTHER), group("region=eu", NEW)];
    assert_eq!(settles(&with(Phase::Done, eu)), (Some(OLD), after), "the last word counts");
    assert_eq!(settles(&with(Phase::Done, Scope::Everybody)), (Some(NEW), vec![]), "all of it is over");
    let each = vec![group("region=eu", OTHER), group("tier=1", OLD)];
    let done = with(Phase::Done, Scope::Each(each.clone()));
    assert_eq!(settles(&done), (Some(NEW), each));
    assert_eq!(done.settled_for(&labels(&["region=eu"])), Some(OTHER));
}

/// A fleet of four, two of them in Europe.
fn fleet_in_two_regions() -> Fleet {
    let mut fleet = Fleet::new(4);
    for (number, report) in fleet.reports.iter_mut().enumerate() {
        report.labels = labels(&[if number < 2 { "region=eu" } else { "region=us" }]);
    }
    fleet.pass(500);
    fleet
}

#[test]
fn a_rollout_to_a_label_waits_for_its_nodes_only_and_counts_no_others() {
    let mut fleet = fleet_in_two_regions();
    let start = |of: &str| Command::Start(Kind::Release, Scope::Group(label(of)), NEW, plan());
    assert_eq!(fleet.command(start("region=asia")), Err(NotDone::Nobody));
    fleet.command(start("region=eu")).unwrap();
    fleet.follow();
    fleet.pass(1_000);
    let standing = fleet.leader.standing(fleet.now);
    assert_eq!((standing.known, standing.present, standing.answered), (2, 2, 0));
    fleet.stage(0..2);
    fleet.pass(1_000);
    assert_eq!(fleet.phase(), Phase::Commit, "the others are not waited for");
    assert_eq!(fleet.commit(), 1, "one canary, of this group");
    for _ in 0..4 {
        fleet.pass(62_000);
        fleet.commit();
    }
    assert_eq!(fleet.phase(), Phase::Done);
    let serving: Vec<_> = fleet.reports.iter().map(|report| report.serving.unwrap()).collect();
    assert_eq!(serving, [NEW, NEW, OLD, OLD]);
    assert_eq!(
        (fleet.desired().settled(), fleet.desired().settled_groups()),
        (Some(OLD), vec![group("region=eu", NEW)])
    );

    // The next one, to the other label: the first keeps its own, also when it is aborted.
    let us = Command::Start(Kind::Release, Scope::Group(label("region=us")), OTHER, plan());
    fleet.command(us).unwrap();
    fleet.command(Command::Abort).unwrap();
    assert_eq!(fleet.desired().settled_for(&labels(&["region=eu"])), Some(NEW));
    assert_eq!(fleet.desired().settled_for(&labels(&["region=us"])), Some(OLD));
}

#[test]
fn canaries_of_a_label_are_compared_with_nodes_of_the_label() {
    let mut fleet = fleet_in_two_regions();
    let analysis = Analysis { min_calls: 10, ..Analysis::default() };
    let waves = vec![WavePlan { size: WaveSize::Nodes(1), bake: 5_000 }];
    let plan = Plan { waves, analysis, ..plan() };
    fleet.command(Command::Start(Kind::Release, Scope::Group(label("region=eu")), NEW, plan)).unwrap();
    fleet.stage(0..2);
    fleet.pass(1_000);
    assert_eq!(fleet.commit(), 1);
    fleet.pass(1_000);
    // Nearly all that Europe's visitors ask for is blocked, whatever serves; elsewhere nothing is.
    for report in &mut fleet.reports {
        report.traffic.calls += 1_000;
        report.traffic.blocked += if report.labels == labels(&["region=eu"]) { 900 } else { 0 };
    }
    fleet.pass(1_000);
    assert_eq!(fleet.leader.comparison(), Some(Comparison::AsGood));
    fleet.pass(10_000);
    assert!(fleet.desired().wave.is_everybody());
}

#[test]
fn groups_need_a_fleet_with_a_release_and_are_not_without_number() {
    let mut fleet = fleet_in_two_regions();
    let groups = (0..MOST_GROUPS).map(|number| group(&format!("group={number}"), OTHER)).collect();
    fleet.desired.as_mut().unwrap().1.groups = groups;
    fleet.desired.as_mut().unwrap().1.phase = Phase::Abort;
    fleet.desired.as_mut().unwrap().1.stable = Some(OLD);
    let eu = Command::Start(Kind::Release, Scope::Group(label("region=eu")), NEW, plan());
    assert_eq!(fleet.command(eu.clone()), Err(NotDone::TooManyGroups));
    fleet.desired.as_mut().unwrap().1.groups.pop();
    assert_eq!(fleet.command(eu.clone()), Ok(()));
    let mut first = fleet_in_two_regions();
    let desired = &mut first.desired.as_mut().unwrap().1;
    (desired.phase, desired.stable) = (Phase::Abort, None);
    assert_eq!(first.command(eu), Err(NotDone::NoRelease));
}

#[test]
fn a_store_that_has_lost_everything_gets_the_groups_back_from_the_nodes() {
    let mut fleet = fleet_in_two_regions();
    for report in &mut fleet.reports {
        (report.order, report.settled) = (Order { rollout: 9, step: 4 }, Some(OLD));
        report.groups = vec![group("region=eu", NEW)];
    }
    fleet.pass(1_000);
    let desired = fleet.desired();
    assert_eq!((desired.order.rollout, desired.phase), (10, Phase::Abort));
    assert_eq!(desired.settled_for(&labels(&["region=eu"])), Some(NEW));
    assert_eq!(desired.settled_for(&labels(&["region=us"])), Some(OLD));
}

#[test]
fn a_label_is_short_enough_for_sixteen_of_them_in_each_report() {
    let of = |bytes: usize| format!("k={}", "v".repeat(bytes - 2));
    assert_eq!(of(MOST_LABEL).parse::<Label>().unwrap().to_string(), of(MOST_LABEL));
    for (text, refused) in [
        (of(MOST_LABEL + 1), NotALabel::TooLong { bytes: MOST_LABEL + 1 }),
        (format!("{}=", "k".repeat(4096)), NotALabel::TooLong { bytes: 4097 }),
        (format!("k={}", "ä".repeat(64)), NotALabel::TooLong { bytes: 130 }),
        ("k=a\u{1}b".to_owned(), NotALabel::ControlCharacter),
        ("k\n=a".to_owned(), NotALabel::ControlCharacter),
        ("k".to_owned(), NotALabel::NoKey),
        ("=v".to_owned(), NotALabel::NoKey),
        (String::new(), NotALabel::NoKey),
    ] {
        assert_eq!(text.parse::<Label>(), Err(refused), "{text:?}");
        // What a node says of itself is held to the same.
        let Some((key, value)) = text.split_once('=') else { continue };
        let labels: Labels = [(key.to_owned(), value.to_owned())].into();
        assert_eq!(Label::check_all(&labels), Err(refused), "{text:?}");
    }
    assert_eq!(Label::check_all(&labels(&["region=eu", "tier="])), Ok(()));
    // A document that has a longer one, from before there was a limit, is read all the same.
    let old: Label = serde_json::from_value(of(4096).into()).unwrap();
    assert_eq!(old.to_string(), of(4096));
}
