//! The world of one run: a queue of events in simulated time, and the invariants, checked as it goes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use waf_rollout::{
    Analysis, Command, Desired, Effect, Event, Kind, Label, Labels, Leader, LeaderEffect, Lease, LeaseTiming, Memory,
    Millis, Node, NodeId, Order, Phase, Plan, Position, Refusal, ReleaseId, Report, Revision, Scope, Traffic, WavePlan,
    WaveSize,
};

/// What a fleet goes through.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    /// Crashes, partitions, delays, lost and stale reads, paused leaders, a store that is away.
    pub(crate) faults: bool,
    /// What the store forgets.
    pub(crate) forgets: Forgets,
    /// How many of a thousand reports are lost.
    pub(crate) lost_reports_per_mille: u64,
    /// How many of a thousand nodes refuse the new release in stage.
    pub(crate) refuse_per_mille: u64,
    /// How many of a thousand nodes find that it fails its probation.
    pub(crate) sick_per_mille: u64,
    /// How many of a thousand calls fail with it.
    pub(crate) errors_per_mille: u64,
    /// Calls that a node serves in a second.
    pub(crate) calls_per_second: u64,
    pub(crate) analysis: Analysis,
    /// Whether somebody gives commands, holds and pins nodes, and starts a second rollout.
    pub(crate) commands: bool,
    /// Whether one of the leaders ends every few seconds and starts again at once, to the end.
    pub(crate) crash_loop: bool,
    /// Whether nodes have labels, and the release is for one of them. A second one is for another.
    pub(crate) labels: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgets {
    Nothing,
    /// It goes back to an earlier state.
    Writes,
    /// It comes back empty.
    Everything,
}

impl Profile {
    pub(crate) fn calm(nodes: usize) -> Self {
        Self {
            name: "calm",
            nodes,
            faults: false,
            forgets: Forgets::Nothing,
            lost_reports_per_mille: 100,
            refuse_per_mille: 0,
            sick_per_mille: 0,
            errors_per_mille: 0,
            calls_per_second: 0,
            analysis: Analysis::NONE,
            commands: false,
            crash_loop: false,
            labels: false,
        }
    }

    /// The same fleet with labels.
    pub(crate) fn labelled(self) -> Self {
        Self { labels: true, ..self }
    }

    pub(crate) fn faulty(nodes: usize) -> Self {
        Self { name: "faults", faults: true, ..Self::calm(nodes) }
    }

    pub(crate) fn refused(nodes: usize) -> Self {
        Self { name: "half refuse", refuse_per_mille: 500, ..Self::faulty(nodes) }
    }

    pub(crate) fn poisoned(nodes: usize) -> Self {
        Self { name: "fails probation everywhere", sick_per_mille: 1000, ..Self::calm(nodes) }
    }

    pub(crate) fn sickly(nodes: usize) -> Self {
        Self { name: "fails probation on 30 %", sick_per_mille: 300, ..Self::calm(nodes) }
    }

    pub(crate) fn sickly_and_faulty(nodes: usize) -> Self {
        Self { name: "fails probation on 30 %, and faults", faults: true, ..Self::sickly(nodes) }
    }

    pub(crate) fn erring(nodes: usize) -> Self {
        Self {
            name: "fails 5 % of the calls",
            errors_per_mille: 50,
            calls_per_second: 100,
            analysis: Analysis::default(),
            ..Self::calm(nodes)
        }
    }

    pub(crate) fn idle(nodes: usize) -> Self {
        Self { name: "no traffic", analysis: Analysis::default(), ..Self::calm(nodes) }
    }

    pub(crate) fn forgetful(nodes: usize) -> Self {
        Self { name: "the store goes back in time", forgets: Forgets::Writes, ..Self::faulty(nodes) }
    }

    pub(crate) fn forgetful_and_deaf(nodes: usize) -> Self {
        Self {
            name: "the store goes back in time, the leaders restart, and most reports are lost",
            lost_reports_per_mille: 900,
            ..Self::forgetful(nodes)
        }
    }

    pub(crate) fn wiped(nodes: usize) -> Self {
        Self { name: "the store comes back empty", forgets: Forgets::Everything, ..Self::faulty(nodes) }
    }

    pub(crate) fn crash_looping(nodes: usize) -> Self {
        Self { name: "a leader ends again and again", crash_loop: true, ..Self::calm(nodes) }
    }

    pub(crate) fn commanded(nodes: usize) -> Self {
        Self { name: "commands", commands: true, ..Self::faulty(nodes) }
    }
}

/// A mistake that an implementation could make, made from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Nodes do not compare the step.
    NoStep,
    /// Nodes do not compare the term.
    NoTerm,
    /// Nodes try again what failed its probation.
    NoCondemnation,
    /// Failures are counted against the fleet.
    FailuresOfTheFleet,
    /// Nodes remember nothing over a restart.
    NoMemory,
    /// Nodes do not keep that a rollout was aborted.
    AbortsForgotten,
    /// Writes name no revision.
    WritesWithoutRevision,
    /// Nodes take every rollout for one that is for them.
    LabelsIgnored,
    /// Nodes do not know of the groups that have a release of their own.
    GroupsForgotten,
    /// A leader takes its own lease at each start.
    ResumesEachTime,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) phase: Phase,
    pub(crate) events: u64,
    pub(crate) swaps: u64,
    pub(crate) repairs: u64,
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

const OLD: ReleaseId = ReleaseId::new([1; 32]);
const NEW: ReleaseId = ReleaseId::new([2; 32]);
const NEWER: ReleaseId = ReleaseId::new([3; 32]);

/// Faults happen before this, and everything has healed by `HEALED`.
const FAULTS_END: Millis = 260_000;
const HEALED: Millis = 340_000;
const END: Millis = 1_000_000;

const MAX_FAILED_PER_MILLE: u32 = 50;

enum Happening {
    Poll(usize),
    Read(usize),
    Document(usize, u64, Desired),
    Beat(usize),
    Staged(usize, u64, u64, ReleaseId),
    Committed(usize, u64, ReleaseId),
    Sick(usize, u64, ReleaseId),
    Retry(usize, u64),
    NodeDown(usize),
    NodeUp(usize),
    Cut(usize, bool),
    Hold(usize, bool),
    Pin(usize, bool),
    Reported(usize, Report),
    Tick(usize),
    LeaderDown(usize),
    LeaderUp(usize),
    LeaderPaused(usize, Millis),
    /// A leader ends and starts again, and will after at most so long.
    CrashLoop(usize, Millis),
    LeaseArrives(Option<Revision>, Lease),
    DesiredArrives(Option<Revision>, Desired),
    Store(bool),
    StoreForgets,
    Command(Command),
}

/// A key of the store: what it holds, and what it held.
struct Key<T> {
    revision: Revision,
    history: Vec<(Revision, T)>,
}

impl<T: Clone> Key<T> {
    fn new() -> Self {
        Self { revision: 0, history: Vec::new() }
    }

    fn current(&self) -> Option<(Revision, T)> {
        self.history.last().cloned()
    }

    fn write(&mut self, expected: Option<Revision>, value: T, checked: bool) -> bool {
        if checked && expected != self.history.last().map(|(revision, _)| *revision) {
            return false;
        }
        self.revision += 1;
        self.history.push((self.revision, value));
        true
    }

    /// Goes back by `writes`, revision included.
    fn forget(&mut self, writes: usize) {
        let keep = self.history.len().saturating_sub(writes);
        self.history.truncate(keep);
        self.revision = self.history.last().map_or(0, |(revision, _)| *revision);
    }
}

struct SimNode {
    node: Option<Node>,
    /// What is on its disk.
    memory: Memory,
    archive: Option<ReleaseId>,
    /// A release that failed its probation, until that is on the node's disk: told again after a start.
    failed: Option<ReleaseId>,
    cut: bool,
    held: bool,
    /// Counts starts: what was under way in an earlier one ends nowhere.
    life: u64,
    stage: u64,
    traffic: Traffic,
    counted_to: Millis,
    // What it is held to.
    term: u64,
    order: Order,
    aborted: BTreeSet<u64>,
    condemned: BTreeSet<(u64, ReleaseId)>,
}

struct SimLeader {
    leader: Option<Leader>,
    life: u64,
    asleep_until: Millis,
    /// Thousandths that its clock runs fast or slow by, and where it started.
    drift: i64,
    epoch: Millis,
}

impl SimLeader {
    fn clock(&self, now: Millis) -> Millis {
        self.epoch + (now as i64 * (1000 + self.drift) / 1000) as Millis
    }
}

struct World<'a> {
    profile: &'a Profile,
    mistake: Option<Mistake>,
    random: Random,
    queue: BinaryHeap<Reverse<(Millis, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    now: Millis,
    nodes: Vec<SimNode>,
    leaders: Vec<SimLeader>,
    lease: Key<Lease>,
    desired: Key<Desired>,
    /// Everything that was ever stored, for reads that come from the past.
    past: Vec<Desired>,
    store_up: bool,
    /// By rollout: the largest wave that was ever opened, and the targets.
    opened: BTreeMap<u64, u64>,
    refusing: Vec<bool>,
    /// Who has ever served which release but the old one.
    ever_new: BTreeSet<(ReleaseId, usize)>,
    /// An invariant that was found broken where no error can be returned.
    broken: Option<String>,
    followed_done: Option<(u64, ReleaseId)>,
    /// Whom each release was ever meant for, by who asked for it.
    meant: Vec<(ReleaseId, Scope)>,
    swaps: u64,
    repairs: u64,
    events: u64,
}

fn name(node: usize) -> NodeId {
    NodeId::new(format!("node-{node}"))
}

/// Half of the nodes are of `ring=a`, and each third one, of either ring, of `tier=1`.
fn labels_of(profile: &Profile, node: usize) -> Labels {
    let ring = if node.is_multiple_of(2) { "a" } else { "b" };
    let tier = if node.is_multiple_of(3) { "1" } else { "2" };
    let labels = [("ring", ring), ("tier", tier)].into_iter().filter(|_| profile.labels);
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn scope(profile: &Profile, key: &str, value: &str) -> Scope {
    if profile.labels { Scope::Group(Label::new(key, value)) } else { Scope::Everybody }
}

/// Whether a node is one of those, as a reader of the label's text sees it.
fn is_meant(scope: &Scope, labels: &Labels) -> bool {
    match scope {
        Scope::Group(label) => labels.iter().any(|(key, value)| label.to_string() == format!("{key}={value}")),
        _ => true,
    }
}

fn plan(profile: &Profile, mistake: Option<Mistake>) -> Plan {
    // Failures that count against the fleet, as the second wave, a tenth of it, would see them.
    let scale = if mistake == Some(Mistake::FailuresOfTheFleet) { profile.nodes as u32 / 5 } else { 1 };
    Plan {
        waves: vec![
            WavePlan { size: WaveSize::Nodes(1), bake: 60_000 },
            WavePlan { size: WaveSize::PerMille(100), bake: 30_000 },
        ],
        bake: 30_000,
        stage_deadline: 60_000,
        commit_deadline: 30_000,
        max_failed_per_mille: MAX_FAILED_PER_MILLE * scale,
        min_present_per_mille: 500,
        analysis: profile.analysis,
        canary_only: false,
    }
}

/// Runs a fleet through the profile, or says which invariant it broke.
pub(crate) fn run(seed: u64, profile: &Profile, mistake: Option<Mistake>) -> Result<Outcome, String> {
    let mut world = World::new(seed, profile, mistake);
    while let Some(Reverse((now, _, index))) = world.queue.pop() {
        if now > END {
            break;
        }
        world.now = now;
        world.events += 1;
        let happening = world.happenings[index].take().expect("happens once");
        let broken = world.happen(happening).err().or_else(|| world.broken.take());
        if let Some(why) = broken {
            return Err(format!("at {now} ms: {why}"));
        }
    }
    world.end()
}

impl<'a> World<'a> {
    fn new(seed: u64, profile: &'a Profile, mistake: Option<Mistake>) -> Self {
        let mut random = Random(seed ^ 0x5eed_0000_0000);
        let refusing = (0..profile.nodes).map(|_| random.chance(profile.refuse_per_mille)).collect();
        let mut world = Self {
            profile,
            mistake,
            random,
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            now: 0,
            nodes: Vec::new(),
            leaders: Vec::new(),
            lease: Key::new(),
            desired: Key::new(),
            past: Vec::new(),
            store_up: true,
            opened: BTreeMap::new(),
            refusing,
            ever_new: BTreeSet::new(),
            broken: None,
            followed_done: None,
            meant: Vec::new(),
            swaps: 0,
            repairs: 0,
            events: 0,
        };
        let first = Desired {
            term: 0,
            order: Order { rollout: 1, step: 0 },
            kind: Kind::Release,
            phase: Phase::Done,
            target: OLD,
            stable: None,
            wave: waf_rollout::Wave { index: 0, below: waf_rollout::Wave::EVERYBODY },
            plan: plan(profile, mistake),
            paused: false,
            frozen: false,
            scope: Scope::Everybody,
            groups: Vec::new(),
        };
        world.store_desired(None, first);
        for node in 0..profile.nodes {
            world.nodes.push(SimNode {
                node: None,
                memory: Memory::default(),
                archive: Some(OLD),
                failed: None,
                cut: false,
                held: false,
                life: 0,
                stage: 0,
                traffic: Traffic::default(),
                counted_to: 0,
                term: 0,
                order: Order::default(),
                aborted: BTreeSet::new(),
                condemned: BTreeSet::new(),
            });
            let (up, poll, beat) = (world.random.below(500), world.random.below(20_000), world.random.below(10_000));
            world.at(up, Happening::NodeUp(node));
            world.at(500 + poll, Happening::Poll(node));
            world.at(500 + beat, Happening::Beat(node));
        }
        for leader in 0..2 {
            let (drift, epoch) = (world.random.below(100) as i64 - 50, world.random.below(1 << 40));
            world.leaders.push(SimLeader { leader: None, life: 0, asleep_until: 0, drift, epoch });
            world.at(50 + leader as u64 * 20, Happening::LeaderUp(leader));
            world.at(100 + leader as u64 * 33, Happening::Tick(leader));
        }
        let first = scope(profile, "ring", "a");
        world.at(20_000, Happening::Command(Command::Start(Kind::Release, first, NEW, plan(profile, mistake))));
        // What comes after the first rollout has ended must leave its group alone, but for the nodes that are of both.
        if profile.labels && !profile.commands {
            let second = Command::Start(Kind::Release, scope(profile, "tier", "1"), NEWER, plan(profile, mistake));
            world.at(HEALED + 60_000, Happening::Command(second));
        }
        world.plan_faults();
        world
    }

    fn plan_faults(&mut self) {
        let nodes = self.nodes.len();
        if self.profile.crash_loop {
            // Too often to ever lead, or to lead for a bake time.
            let most = if self.random.chance(500) { 14_000 } else { 50_000 };
            self.at(1_000, Happening::CrashLoop(0, most));
        }
        if self.profile.faults {
            for _ in 0..(nodes / 5).max(3) {
                let (node, at) =
                    (self.random.below(nodes as u64) as usize, 15_000 + self.random.below(FAULTS_END - 15_000));
                self.at(at, Happening::NodeDown(node));
                let after = 100 + self.random.below(60_000);
                self.at(at + after, Happening::NodeUp(node));
                let (node, at) =
                    (self.random.below(nodes as u64) as usize, 15_000 + self.random.below(FAULTS_END - 15_000));
                self.at(at, Happening::Cut(node, true));
                let after = self.random.below(80_000);
                self.at(at + after, Happening::Cut(node, false));
            }
            for _ in 0..4 {
                let (leader, at) = (self.random.below(2) as usize, self.random.below(FAULTS_END));
                let after = self.random.below(40_000);
                if self.random.chance(500) {
                    self.at(at, Happening::LeaderDown(leader));
                    self.at(at + after, Happening::LeaderUp(leader));
                } else {
                    self.at(at, Happening::LeaderPaused(leader, at + after));
                }
            }
            for _ in 0..2 {
                let (at, after) = (self.random.below(FAULTS_END), self.random.below(30_000));
                self.at(at, Happening::Store(false));
                self.at(at + after, Happening::Store(true));
            }
        }
        if self.profile.forgets != Forgets::Nothing {
            let at = 22_000 + self.random.below(200_000);
            self.at(at, Happening::StoreForgets);
            if self.random.chance(500) {
                for leader in 0..2 {
                    self.at(at + 1, Happening::LeaderDown(leader));
                    self.at(at + 2, Happening::LeaderUp(leader));
                }
            }
        }
        if self.profile.commands {
            for _ in 0..4 {
                let at = 22_000 + self.random.below(FAULTS_END - 22_000);
                let command = match self.random.below(6) {
                    0 => Command::Abort,
                    1 => Command::Promote,
                    2 => Command::Pause,
                    3 => Command::Stop,
                    4 => {
                        let to = match self.random.below(3) {
                            0 => Scope::Everybody,
                            1 => scope(self.profile, "tier", "1"),
                            _ => scope(self.profile, "ring", "b"),
                        };
                        Command::Start(Kind::Release, to, NEWER, plan(self.profile, self.mistake))
                    }
                    _ => {
                        let all = self.random.chance(500);
                        let to = if all { Scope::Everybody } else { scope(self.profile, "ring", "a") };
                        Command::Start(Kind::Rollback, to, OLD, Plan::at_once())
                    }
                };
                self.at(at, Happening::Command(command));
                let (node, after) = (self.random.below(nodes as u64) as usize, self.random.below(60_000));
                if self.random.chance(500) {
                    self.at(at, Happening::Hold(node, true));
                    self.at(at + after, Happening::Hold(node, false));
                } else {
                    self.at(at, Happening::Pin(node, true));
                    self.at(at + after, Happening::Pin(node, false));
                }
            }
            self.at(HEALED, Happening::Command(Command::Resume));
        }
        // Whatever is broken heals.
        for node in 0..nodes {
            self.at(HEALED, Happening::NodeUp(node));
            self.at(HEALED, Happening::Cut(node, false));
            self.at(HEALED, Happening::Hold(node, false));
            if self.profile.commands {
                self.at(HEALED, Happening::Pin(node, false));
            }
        }
        self.at(HEALED, Happening::Store(true));
        for leader in 0..2 {
            self.at(HEALED, Happening::LeaderUp(leader));
        }
    }

    fn at(&mut self, time: Millis, happening: Happening) {
        let index = self.happenings.len();
        self.happenings.push(Some(happening));
        self.queue.push(Reverse((time, index as u64, index)));
    }

    fn after(&mut self, delay: Millis, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn fault(&mut self, per_mille: u64) -> bool {
        self.profile.faults && self.now < HEALED && self.random.chance(per_mille)
    }

    fn store_desired(&mut self, expected: Option<Revision>, document: Desired) -> bool {
        self.may_open(&document);
        let checked = self.mistake != Some(Mistake::WritesWithoutRevision);
        let before = self.desired.current().map(|(_, document)| document.order);
        let stored = self.desired.write(expected, document.clone(), checked);
        if stored {
            let forgets = self.profile.forgets != Forgets::Nothing;
            if let Some(before) = before.filter(|before| *before >= document.order && !forgets) {
                self.broken.get_or_insert(format!("{:?} replaces {before:?} in the store", document.order));
            }
            let opened = match document.phase {
                Phase::Done => waf_rollout::Wave::EVERYBODY,
                _ => document.wave.below,
            };
            let largest = self.opened.entry(document.order.rollout).or_default();
            *largest = opened.max(*largest);
            self.past.push(document);
            for node in 0..self.nodes.len() {
                if !self.fault(100) {
                    let delay = 1 + self.random.below(40);
                    self.after(delay, Happening::Read(node));
                }
            }
        }
        stored
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Poll(node) => {
                let next = 20_000 + self.random.below(20_000);
                self.after(next, Happening::Poll(node));
                self.after(1, Happening::Read(node));
            }
            Happening::Read(node) => self.read(node),
            Happening::Document(node, life, document) => {
                if self.nodes[node].life == life && !self.nodes[node].cut {
                    self.give(node, Event::Document(document))?;
                }
            }
            Happening::Beat(node) => {
                let next = 8_000 + self.random.below(4_000);
                self.after(next, Happening::Beat(node));
                self.report(node);
            }
            Happening::Staged(node, life, stage, release) => {
                let it = &self.nodes[node];
                if it.life == life && it.stage == stage && it.node.is_some() {
                    let outcome = if release != OLD && self.refusing[node] {
                        Err(Refusal::Final)
                    } else if it.cut || !self.store_up || self.fault(50) {
                        Err(Refusal::Transient)
                    } else {
                        Ok(())
                    };
                    self.give(node, Event::Staged(release, outcome))?;
                }
            }
            Happening::Committed(node, life, release) => {
                if self.nodes[node].life == life && self.nodes[node].node.is_some() {
                    let outcome = if self.fault(20) { Err(Refusal::Transient) } else { Ok(()) };
                    if outcome.is_ok() {
                        self.serve(node, release);
                    }
                    self.give(node, Event::Committed(release, outcome))?;
                }
            }
            Happening::Sick(node, life, failed) => {
                let it = &mut self.nodes[node];
                if it.life == life && it.archive == Some(failed) {
                    self.swaps += 1;
                    it.archive = Some(OLD);
                    it.failed = Some(failed);
                    let rollout = it.memory.order.rollout;
                    it.condemned.insert((rollout, failed));
                    self.give(node, Event::ProbationFailed { failed, serving: OLD })?;
                }
            }
            Happening::Retry(node, life) => {
                if self.nodes[node].life == life {
                    self.give(node, Event::Retry)?;
                }
            }
            Happening::NodeDown(node) => {
                self.nodes[node].node = None;
                self.nodes[node].life += 1;
            }
            Happening::NodeUp(node) => self.node_up(node)?,
            Happening::Cut(node, cut) => {
                self.nodes[node].cut = cut;
                let delay = self.random.below(4_000);
                self.after(delay, Happening::Read(node));
            }
            Happening::Hold(node, held) => {
                self.nodes[node].held = held;
                self.give(node, Event::Held(held))?;
            }
            Happening::Pin(node, pinned) => {
                if pinned && self.nodes[node].node.is_some() {
                    self.nodes[node].archive = Some(NEWER);
                }
                let serving = self.nodes[node].archive;
                // What is being staged is dropped.
                self.nodes[node].stage += 1;
                self.give(node, Event::Pinned(pinned, serving))?;
            }
            Happening::Reported(leader, report) => {
                let now = self.leaders[leader].clock(self.now);
                if let Some(it) = &mut self.leaders[leader].leader {
                    it.reported(now, report);
                }
            }
            Happening::Tick(leader) => {
                self.after(700, Happening::Tick(leader));
                self.tick(leader);
            }
            Happening::CrashLoop(leader, most) => {
                let next = 2_000 + self.random.below(most - 2_000);
                self.after(next, Happening::CrashLoop(leader, most));
                self.leaders[leader].leader = None;
                self.happen(Happening::LeaderUp(leader))?;
            }
            Happening::LeaderDown(leader) => self.leaders[leader].leader = None,
            Happening::LeaderUp(leader) => {
                let it = &mut self.leaders[leader];
                if it.leader.is_none() {
                    it.life += 1;
                    let name = |life| format!("leader-{leader}-{life}");
                    let mut started = Leader::new(name(it.life), LeaseTiming::default());
                    started.have_ended((1..it.life).map(name).collect());
                    it.leader = Some(started);
                }
            }
            Happening::LeaderPaused(leader, until) => self.leaders[leader].asleep_until = until,
            Happening::LeaseArrives(expected, lease) => {
                if self.store_up {
                    self.lease.write(expected, lease, true);
                }
            }
            Happening::DesiredArrives(expected, document) => {
                if self.store_up {
                    self.store_desired(expected, document);
                }
            }
            Happening::Store(up) => self.store_up = up,
            Happening::StoreForgets => match self.profile.forgets {
                Forgets::Nothing => {}
                Forgets::Writes => {
                    let (desired, lease) = (1 + self.random.below(4) as usize, self.random.below(4) as usize);
                    // The very first document is not lost: a fleet without any serves on, and has nothing to roll out.
                    self.desired.forget(desired.min(self.desired.history.len() - 1));
                    self.lease.forget(lease);
                }
                Forgets::Everything => {
                    (self.desired, self.lease) = (Key::new(), Key::new());
                }
            },
            Happening::Command(command) => self.command(command),
        }
        Ok(())
    }

    fn read(&mut self, node: usize) {
        let it = &self.nodes[node];
        if it.node.is_none() || it.cut || !self.store_up {
            return;
        }
        let life = it.life;
        let document = if self.fault(100) {
            let index = self.random.below(self.past.len() as u64) as usize;
            Some(self.past[index].clone())
        } else {
            self.desired.current().map(|(_, document)| document)
        };
        let Some(document) = document else { return };
        let slow = if self.fault(50) { 5_000 } else { 60 };
        let delay = 1 + self.random.below(slow);
        self.after(delay, Happening::Document(node, life, document.clone()));
        if self.fault(50) {
            let delay = 1 + self.random.below(10_000);
            self.after(delay, Happening::Document(node, life, document));
        }
    }

    fn node_up(&mut self, node: usize) -> Result<(), String> {
        let it = &mut self.nodes[node];
        if it.node.is_some() {
            return Ok(());
        }
        if self.mistake == Some(Mistake::NoMemory) {
            it.memory = Memory { boot: it.memory.boot, ..Memory::default() };
        }
        let (started, remember) = Node::start(name(node), it.memory.clone(), it.archive);
        it.node = Some(started.with_labels(labels_of(self.profile, node)));
        it.life += 1;
        it.traffic = Traffic::default();
        it.counted_to = self.now;
        let (held, failed) = (it.held, it.failed);
        self.perform(node, vec![remember])?;
        if let Some(failed) = failed {
            self.give(node, Event::ProbationFailed { failed, serving: OLD })?;
        }
        self.give(node, Event::Held(held))?;
        self.may_fall_sick(node);
        self.after(1, Happening::Read(node));
        Ok(())
    }

    /// Gives an event to a node and performs what it answers.
    fn give(&mut self, node: usize, event: Event) -> Result<(), String> {
        let it = &mut self.nodes[node];
        let Some(sim) = &mut it.node else { return Ok(()) };
        let mut event = event;
        if let Event::Document(document) = &mut event
            && let Some(mistake) = self.mistake
        {
            match mistake {
                Mistake::LabelsIgnored => document.scope = Scope::Everybody,
                Mistake::GroupsForgotten => document.groups.clear(),
                _ => {}
            }
            let mut memory = sim.memory().clone();
            match mistake {
                Mistake::NoStep => memory.order.step = 0,
                Mistake::NoTerm => memory.term = 0,
                Mistake::NoCondemnation => memory.condemned = [None; 2],
                Mistake::AbortsForgotten => memory.aborted = 0,
                _ => {}
            }
            sim.forget_to(memory);
        }
        let effects = sim.handle(event);
        self.perform(node, effects)
    }

    fn perform(&mut self, node: usize, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            // A node may crash between any two effects.
            if self.fault(1) {
                let after = 100 + self.random.below(20_000);
                self.nodes[node].node = None;
                self.nodes[node].life += 1;
                self.after(after, Happening::NodeUp(node));
                return Ok(());
            }
            let life = self.nodes[node].life;
            match effect {
                Effect::Remember(memory) => self.remember(node, memory)?,
                Effect::Stage(release) => {
                    self.nodes[node].stage += 1;
                    let stage = self.nodes[node].stage;
                    let slow = if self.fault(20) { 40_000 } else { 900 };
                    let delay = 20 + self.random.below(slow);
                    self.after(delay, Happening::Staged(node, life, stage, release));
                }
                Effect::Commit(release) => {
                    self.may_commit(node, release)?;
                    self.after(1, Happening::Committed(node, life, release));
                }
                Effect::Report => self.report(node),
                Effect::RetryLater { attempts } => {
                    let delay = self.random.below((500 << attempts.min(5)).min(10_000));
                    self.after(1 + delay, Happening::Retry(node, life));
                }
            }
        }
        Ok(())
    }

    /// Holds a document that opens a wave against what has become of the nodes of the last one.
    fn may_open(&mut self, document: &Desired) {
        let opened = self.opened.get(&document.order.rollout).copied().unwrap_or(0);
        // Where there are faults, the leader cannot know.
        if self.profile.faults || document.phase != Phase::Commit || document.wave.below <= opened {
            return;
        }
        let rollout = document.order.rollout;
        let wave = waf_rollout::Wave { index: 0, below: opened };
        let reached = (0..self.nodes.len())
            .filter(|node| is_meant(&document.scope, &labels_of(self.profile, *node)))
            .filter(|node| wave.admits(Position::of(&name(*node), rollout)));
        let (mut all, mut failed) = (0, 0);
        for node in reached {
            all += 1;
            failed += usize::from(self.nodes[node].condemned.iter().any(|(of, _)| *of == rollout));
        }
        if failed * 1000 > all * MAX_FAILED_PER_MILLE as usize {
            self.broken.get_or_insert(format!("a wave opens though {failed} of {all} nodes have failed"));
        }
    }

    /// Writes a node's memory to its disk, which is when it has followed a document.
    fn remember(&mut self, node: usize, memory: Memory) -> Result<(), String> {
        let it = &mut self.nodes[node];
        it.failed = it.failed.filter(|failed| !memory.condemned.iter().flatten().any(|(_, known)| known == failed));
        it.memory = memory;
        let Some(document) = it.node.as_ref().and_then(Node::document) else { return Ok(()) };
        let (term, order) = (document.term, document.order);
        if term < it.term || order < it.order {
            return Err(format!(
                "node {node} followed {order:?} of term {term} after {:?} of term {}",
                it.order, it.term
            ));
        }
        (it.term, it.order) = (term, order);
        if document.phase == Phase::Abort {
            it.aborted.insert(order.rollout);
        }
        let everybody = document.scope.is_everybody();
        if document.phase == Phase::Done
            && everybody
            && self.followed_done.is_none_or(|(rollout, _)| rollout < order.rollout)
        {
            self.followed_done = Some((order.rollout, document.target));
        }
        Ok(())
    }

    /// Holds a commit against the invariants.
    fn may_commit(&self, node: usize, release: ReleaseId) -> Result<(), String> {
        let it = &self.nodes[node];
        let document = it.node.as_ref().and_then(Node::document).expect("a document asks for it");
        let labels = labels_of(self.profile, node);
        let (rollout, target) = (document.order.rollout, document.target_for(&labels) == Some(release));
        let going_back = document.stable_for(&labels) == Some(release);
        if !target && !going_back {
            return Err(format!("node {node} commits {release}, which its document does not name for it"));
        }
        if it.held || it.memory.pinned {
            return Err(format!("node {node} changes though it is held or pinned"));
        }
        let meant = self.meant.iter().any(|(what, scope)| *what == release && is_meant(scope, &labels));
        if release != OLD && !meant {
            return Err(format!("node {node} commits {release}, which was never meant for it"));
        }
        if it.aborted.contains(&rollout) && target && !going_back {
            return Err(format!("node {node} commits a release whose rollout {rollout} it has seen aborted"));
        }
        if it.condemned.contains(&(rollout, release)) && !going_back {
            return Err(format!("node {node} commits again what failed its probation there"));
        }
        if target && !going_back && self.refusing[node] && release != OLD {
            return Err(format!("node {node} commits what it refused"));
        }
        let opened = self.opened.get(&rollout).copied().unwrap_or(0);
        let admitted = waf_rollout::Wave { index: 0, below: opened }.admits(Position::of(&name(node), rollout));
        if target && !going_back && !admitted {
            return Err(format!("node {node} commits before its wave is open"));
        }
        Ok(())
    }

    fn serve(&mut self, node: usize, release: ReleaseId) {
        self.swaps += 1;
        self.nodes[node].archive = Some(release);
        if release != OLD {
            self.ever_new.insert((release, node));
        }
        self.may_fall_sick(node);
    }

    /// What a node serves may fail its probation, which begins anew when the node starts.
    fn may_fall_sick(&mut self, node: usize) {
        let Some(release) = self.nodes[node].archive.filter(|release| *release != OLD) else { return };
        if self.random.chance(self.profile.sick_per_mille) {
            let (life, delay) = (self.nodes[node].life, 1_000 + self.random.below(9_000));
            self.after(delay, Happening::Sick(node, life, release));
        }
    }

    fn report(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let Some(sim) = &mut it.node else { return };
        let calls = self.profile.calls_per_second * (now - it.counted_to) / 1000;
        if calls > 0 {
            it.counted_to = now;
            it.traffic.calls += calls;
            if it.archive != Some(OLD) {
                it.traffic.errors += calls * self.profile.errors_per_mille / 1000;
            }
        }
        let report = sim.report(it.traffic);
        if it.cut || !self.store_up {
            return;
        }
        for leader in 0..self.leaders.len() {
            if self.fault(self.profile.lost_reports_per_mille) {
                continue;
            }
            let slow = if self.fault(50) { 5_000 } else { 20 };
            let delay = 1 + self.random.below(slow);
            self.after(delay, Happening::Reported(leader, report.clone()));
            if self.fault(30) {
                let delay = 1 + self.random.below(20_000);
                self.after(delay, Happening::Reported(leader, report.clone()));
            }
        }
    }

    fn tick(&mut self, leader: usize) {
        let clock = self.leaders[leader].clock(self.now);
        if self.now < self.leaders[leader].asleep_until || !self.store_up {
            return;
        }
        // A server that lags answers from the past, with the revision of then.
        let (lag_lease, lag_desired) = (self.fault(30), self.fault(30));
        let back = |length: usize, lags: bool| length.checked_sub(1 + usize::from(lags));
        let lease = back(self.lease.history.len(), lag_lease).map(|index| self.lease.history[index].clone());
        let desired = back(self.desired.history.len(), lag_desired).map(|index| self.desired.history[index].clone());
        let mut lease: Option<(Revision, Lease)> = lease;
        let me = format!("leader-{leader}-{}", self.leaders[leader].life);
        if let Some((_, lease)) = lease.as_mut().filter(|(_, lease)| lease.holder != me)
            && self.mistake == Some(Mistake::ResumesEachTime)
        {
            lease.resumed = false;
        }
        let Some(it) = &mut self.leaders[leader].leader else { return };
        it.lease_read(clock, lease);
        it.desired_read(clock, desired);
        for effect in it.tick(clock) {
            self.write(effect);
        }
    }

    fn write(&mut self, effect: LeaderEffect) {
        // Nobody knows what became of a write: it may be lost, or be applied long after it timed out.
        if self.fault(50) {
            return;
        }
        let slow = if self.fault(50) { 30_000 } else { 10 };
        let delay = 1 + self.random.below(slow);
        match effect {
            LeaderEffect::WriteLease(expected, lease) => self.after(delay, Happening::LeaseArrives(expected, lease)),
            LeaderEffect::WriteDesired(expected, document) => {
                self.after(delay, Happening::DesiredArrives(expected, document))
            }
            LeaderEffect::Alarm(waf_rollout::Alarm::StoreLostWrites { .. }) => self.repairs += 1,
            LeaderEffect::Alarm(_) => {}
        }
    }

    /// Asks every leader; the one that leads carries it out. Asks again if none does.
    fn command(&mut self, command: Command) {
        if let Command::Start(_, scope, target, _) = &command {
            self.meant.push((*target, scope.clone()));
        }
        for leader in 0..self.leaders.len() {
            let clock = self.leaders[leader].clock(self.now);
            let awake = self.now >= self.leaders[leader].asleep_until && self.store_up;
            let Some(it) = self.leaders[leader].leader.as_mut().filter(|_| awake) else { continue };
            match it.command(clock, command.clone()) {
                Ok(effect) => {
                    let LeaderEffect::WriteDesired(expected, document) = effect else { continue };
                    // A revision from the past: read and try again.
                    if self.store_desired(expected, document) {
                        return;
                    }
                    break;
                }
                Err(waf_rollout::NotDone::NotLeading { .. } | waf_rollout::NotDone::NotKnown) => {}
                Err(_) => return,
            }
        }
        self.after(1_000, Happening::Command(command));
    }

    /// Holds the end against the invariants: one release, everywhere, and the one that the document names.
    fn end(self) -> Result<Outcome, String> {
        let (_, document) = self.desired.current().ok_or("the store is empty at the end")?;
        if !document.has_ended() {
            return Err(format!("still in {:?} at the end: {document:?}", document.phase));
        }
        let holder = self.lease.current().map(|(_, lease)| lease.holder);
        if self.profile.crash_loop && !holder.as_deref().is_some_and(|holder| holder.starts_with("leader-1-")) {
            return Err(format!("{holder:?} leads at the end, which ends again and again, and not the other one"));
        }
        let rollout = document.order.rollout;
        // Nodes with the same labels are one group: they serve the same at the end, whatever the document says.
        let mut by_labels: BTreeMap<Labels, (usize, Option<ReleaseId>)> = BTreeMap::new();
        for (index, it) in self.nodes.iter().enumerate() {
            let Some(sim) = &it.node else { return Err(format!("node {index} is down at the end")) };
            if sim.serving() != it.archive {
                return Err(format!("node {index} believes to serve something else than it does"));
            }
            let labels = labels_of(self.profile, index);
            let settled = document.settled_for(&labels);
            // A release that a node cannot bear is not everybody's fault: the target that was refused, or what failed its probation
            // there, which may be a group's own that was rolled out before.
            let mut condemned = it.memory.condemned.iter().flatten();
            let is_sick = condemned.any(|(of, release)| *of == rollout && Some(*release) == settled);
            let excused = is_sick || self.refusing[index] && document.phase == Phase::Done;
            if sim.serving() != settled && !excused {
                return Err(format!(
                    "node {index} serves {:?} at the end, and not {settled:?}: {:?}; {document:?}",
                    sim.serving(),
                    sim.memory()
                ));
            }
            if !excused {
                let (first, same) = *by_labels.entry(labels).or_insert((index, sim.serving()));
                if sim.serving() != same {
                    return Err(format!("nodes {first} and {index} have the same labels and serve different releases"));
                }
            }
        }
        let settled = document.settled();
        if let Some((_, done)) = self.followed_done.filter(|_| !self.profile.commands)
            && settled != Some(done)
        {
            return Err(format!("a node was told that {done} is done, and the fleet settled on {settled:?}"));
        }
        let canaries = 1;
        let stops_at_canary =
            (self.profile.sick_per_mille == 1000 || self.profile.errors_per_mille > 0) && !self.profile.faults;
        for release in [NEW, NEWER] {
            let served = self.ever_new.iter().filter(|(what, _)| *what == release).count();
            if stops_at_canary && served > canaries {
                return Err(format!("{served} nodes served a release that its canary could not bear"));
            }
        }
        Ok(Outcome { phase: document.phase, events: self.events, swaps: self.swaps, repairs: self.repairs })
    }
}
