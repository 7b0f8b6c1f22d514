//! What a node does with the document.

use serde::{Deserialize, Serialize};

use crate::{Desired, Group, Labels, NodeId, Order, Phase, Position, ReleaseId};

/// What a node must find again after a crash. It is on disk before any effect that follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Counts the starts of the node, so that its reports can be ordered.
    pub boot: u64,
    /// The highest term of a leader that it has followed.
    pub term: u64,
    /// The last document that it has followed.
    pub order: Order,
    /// What that document says that the fleet settles on.
    pub settled: Option<ReleaseId>,
    /// The groups that have a release of their own, as that document says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// The last rollout that it has seen aborted. An aborted rollout stays aborted, also for a store that has lost the
    /// document that said so.
    pub aborted: u64,
    /// The target and the stable release of a rollout, if they failed their probation here, and in which rollout.
    pub condemned: [Option<(u64, ReleaseId)>; 2],
    /// Whether somebody has changed this node by hand. It follows no document until it is unpinned.
    pub pinned: bool,
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at once, and nobody keeps it")]
pub enum Event {
    /// The document was read, from whatever server.
    Document(Desired),
    /// The effect [`Effect::Stage`] for this release has ended.
    Staged(ReleaseId, Result<(), Refusal>),
    /// The effect [`Effect::Commit`] for this release has ended.
    Committed(ReleaseId, Result<(), Refusal>),
    /// `failed` did not pass its probation, and the node went back to `serving` on its own. Send it again after a start,
    /// unless the effects of the first one were performed.
    ProbationFailed {
        /// What failed.
        failed: ReleaseId,
        /// What serves instead.
        serving: ReleaseId,
    },
    /// Somebody holds the node, or lets it go: a file in its data folder. A node that is held changes nothing.
    Held(bool),
    /// Somebody has pinned the node, or unpinned it; what it serves then.
    Pinned(bool, Option<ReleaseId>),
    /// The time of [`Effect::RetryLater`] has come.
    Retry,
}

/// Why a release was not staged or committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It may work later: a fetch that timed out, a full disk.
    Transient,
    /// It will not work in this rollout: a check failed.
    Final,
}

/// What a node is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write this to disk, and do not go on before it is there.
    Remember(Memory),
    /// Fetch this release, verify it, load it beside what serves. A stage that is under way is dropped, and its outcome
    /// is not reported.
    Stage(ReleaseId),
    /// Commit this release, which has been staged.
    Commit(ReleaseId),
    /// Tell the leader how the node stands now.
    Report,
    /// Send [`Event::Retry`] after a while, the longer the more attempts there were, with jitter.
    RetryLater {
        /// How many attempts have failed, from 1.
        attempts: u32,
    },
}

/// How a node stands: what it tells the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub node: NodeId,
    /// Counts the starts of the node.
    pub boot: u64,
    /// Counts the reports since the start.
    pub seq: u64,
    /// The highest term that it has followed.
    pub term: u64,
    /// The last document that it has followed.
    #[serde(flatten)]
    pub order: Order,
    /// The last rollout that it has seen aborted.
    pub aborted: u64,
    /// What the last document says that the fleet settles on.
    pub settled: Option<ReleaseId>,
    /// The groups that have a release of their own, as that document says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// What the node says of itself.
    #[serde(default)]
    pub labels: Labels,
    /// Whether the target of this rollout is loaded, or serves.
    pub staged: bool,
    /// Whether this node cannot serve the target of this rollout.
    pub refused: bool,
    /// Whether the target of this rollout failed its probation here.
    pub condemned: bool,
    /// What serves.
    pub serving: Option<ReleaseId>,
    /// Whether somebody has changed it by hand.
    pub pinned: bool,
    /// Whether somebody holds it.
    pub held: bool,
    /// What it has served since it started.
    pub traffic: Traffic,
}

/// What a node has served. Counts never go down within a boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Requests put to the rules.
    pub calls: u64,
    /// Those that the rules did not answer.
    pub errors: u64,
    /// Those that the rules blocked.
    pub blocked: u64,
    /// The 99th percentile of the time for a request lately, in microseconds.
    pub p99_us: u64,
}

/// A node's side of rollouts.
///
/// Nodes follow the newest document that they know, and want one release at any time:
///
/// | phase | the node | wants |
/// |---|---|---|
/// | stage | any | the stable release served, the target staged |
/// | commit | outside of the open wave | the same |
/// | commit | in the wave | the target served |
/// | done | any | the target served |
/// | abort | any | the stable release served |
/// | any | that the rollout is not for | the stable release served |
///
/// The stable release is that of the last group that the node is in, and otherwise the fleet's.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    labels: Labels,
    memory: Memory,
    document: Option<Desired>,
    serving: Option<ReleaseId>,
    staged: Option<ReleaseId>,
    /// What this node cannot serve, and the rollout in which that was found.
    refused: [Option<(u64, ReleaseId)>; 2],
    job: Job,
    /// Failed attempts in a row.
    attempts: u32,
    held: bool,
    seq: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Idle,
    Staging(ReleaseId),
    Committing(ReleaseId),
    /// Waits for [`Event::Retry`].
    Resting,
}

impl Node {
    /// Starts a node with what it had on disk and what it serves from its own archive; it waits for nobody. Perform the
    /// returned effect first.
    pub fn start(id: NodeId, memory: Memory, serving: Option<ReleaseId>) -> (Self, Effect) {
        let memory = Memory { boot: memory.boot.saturating_add(1), ..memory };
        let node = Self {
            id,
            labels: Labels::new(),
            memory: memory.clone(),
            document: None,
            serving,
            staged: None,
            refused: [None; 2],
            job: Job::Idle,
            attempts: 0,
            held: false,
            seq: 0,
        };
        (node, Effect::Remember(memory))
    }

    /// Says which labels the node has, before anything happens to it.
    pub fn with_labels(self, labels: Labels) -> Self {
        Self { labels, ..self }
    }

    /// Returns what the document has this node serve, if it asks something of this node.
    pub fn target(&self) -> Option<ReleaseId> {
        self.document.as_ref()?.target_for(&self.labels)
    }

    /// Returns what the document has this node serve if its rollout does not succeed, or is not for this node.
    pub fn stable(&self) -> Option<ReleaseId> {
        self.document.as_ref()?.stable_for(&self.labels)
    }

    /// Returns what the node serves.
    pub fn serving(&self) -> Option<ReleaseId> {
        self.serving
    }

    /// Returns what the node has on disk.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns the document that the node follows.
    pub fn document(&self) -> Option<&Desired> {
        self.document.as_ref()
    }

    /// Writes a report, which says how the node stands now.
    pub fn report(&mut self, traffic: Traffic) -> Report {
        self.seq = self.seq.saturating_add(1);
        let rollout = self.memory.order.rollout;
        // After a start it is not known yet what the rollout wants of this node.
        let is_target = |(of, release): (u64, ReleaseId)| {
            of == rollout && (self.document.is_none() || self.target() == Some(release))
        };
        Report {
            node: self.id.clone(),
            boot: self.memory.boot,
            seq: self.seq,
            term: self.memory.term,
            order: self.memory.order,
            aborted: self.memory.aborted,
            settled: self.memory.settled,
            groups: self.memory.groups.clone(),
            labels: self.labels.clone(),
            staged: self.target().is_some_and(|target| self.has_ready(target)),
            refused: self.refused.into_iter().flatten().any(is_target),
            condemned: self.memory.condemned.into_iter().flatten().any(is_target),
            serving: self.serving,
            pinned: self.memory.pinned,
            held: self.held,
            traffic,
        }
    }

    /// Replaces what the node remembers, so that a test can make it forget.
    #[doc(hidden)]
    pub fn forget_to(&mut self, memory: Memory) {
        self.memory = memory;
    }

    /// Takes an event and returns what to do, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Document(document) => self.follow(document, &mut effects),
            Event::Staged(release, outcome) => self.staged(release, outcome, &mut effects),
            Event::Committed(release, outcome) => self.committed(release, outcome, &mut effects),
            Event::ProbationFailed { failed, serving } => self.condemn(failed, serving, &mut effects),
            Event::Held(held) => {
                self.held = held;
                effects.push(Effect::Report);
            }
            Event::Pinned(pinned, serving) => {
                self.serving = serving;
                self.memory.pinned = pinned;
                // Whoever pins gives up what is being staged, and says nothing more of it.
                self.staged = None;
                if let Job::Staging(_) = self.job {
                    self.job = Job::Idle;
                }
                effects.extend([Effect::Remember(self.memory.clone()), Effect::Report]);
            }
            Event::Retry if self.job == Job::Resting => self.job = Job::Idle,
            Event::Retry => {}
        }
        self.act(&mut effects);
        effects
    }

    /// Follows `document` unless it is older than what the node has followed already: an older leader's, a server's that
    /// lags, a store's that has lost writes.
    fn follow(&mut self, document: Desired, effects: &mut Vec<Effect>) {
        if document.term < self.memory.term || document.order < self.memory.order {
            return;
        }
        if self.document.as_ref() == Some(&document) {
            return;
        }
        if document.order.rollout > self.memory.order.rollout {
            self.refused = [None; 2];
            self.memory.condemned = [None; 2];
            self.attempts = 0;
        }
        self.memory.term = document.term;
        self.memory.order = document.order;
        self.memory.settled = document.settled();
        self.memory.groups = document.settled_groups();
        if document.phase == Phase::Abort {
            self.memory.aborted = document.order.rollout;
        }
        self.document = Some(document);
        // Going back must not wait for what is only in its way.
        if self.job == Job::Resting {
            self.job = Job::Idle;
        }
        effects.extend([Effect::Remember(self.memory.clone()), Effect::Report]);
    }

    fn staged(&mut self, release: ReleaseId, outcome: Result<(), Refusal>, effects: &mut Vec<Effect>) {
        if self.job != Job::Staging(release) {
            return;
        }
        self.job = Job::Idle;
        match outcome {
            Ok(()) => {
                self.staged = Some(release);
                self.attempts = 0;
                effects.push(Effect::Report);
            }
            Err(refusal) => self.failed(release, refusal, effects),
        }
    }

    fn committed(&mut self, release: ReleaseId, outcome: Result<(), Refusal>, effects: &mut Vec<Effect>) {
        if self.job != Job::Committing(release) {
            return;
        }
        self.job = Job::Idle;
        self.staged = None;
        match outcome {
            Ok(()) => {
                self.serving = Some(release);
                self.attempts = 0;
                effects.push(Effect::Report);
            }
            Err(refusal) => self.failed(release, refusal, effects),
        }
    }

    fn failed(&mut self, release: ReleaseId, refusal: Refusal, effects: &mut Vec<Effect>) {
        self.attempts = self.attempts.saturating_add(1);
        if refusal == Refusal::Final {
            note(&mut self.refused, (self.memory.order.rollout, release));
            effects.push(Effect::Report);
        }
        self.job = Job::Resting;
        effects.push(Effect::RetryLater { attempts: self.attempts });
    }

    fn condemn(&mut self, failed: ReleaseId, serving: ReleaseId, effects: &mut Vec<Effect>) {
        self.serving = Some(serving);
        note(&mut self.memory.condemned, (self.memory.order.rollout, failed));
        effects.extend([Effect::Remember(self.memory.clone()), Effect::Report]);
    }

    /// Starts the next step towards what the document wants.
    fn act(&mut self, effects: &mut Vec<Effect>) {
        let Some(document) = &self.document else { return };
        if self.held || self.memory.pinned || matches!(self.job, Job::Committing(_) | Job::Resting) {
            return;
        }
        let goal = self.goal(document);
        let Some(release) = goal.serve.filter(|_| goal.serve != self.serving).or(goal.stage) else {
            self.job = Job::Idle;
            return;
        };
        if self.has_ready(release) {
            self.job = Job::Idle;
            if goal.serve == Some(release) && self.serving != Some(release) {
                self.job = Job::Committing(release);
                effects.push(Effect::Commit(release));
            }
        } else if self.job != Job::Staging(release) {
            self.staged = None;
            self.job = Job::Staging(release);
            effects.push(Effect::Stage(release));
        }
    }

    /// Returns what the document wants of this node.
    fn goal(&self, document: &Desired) -> Goal {
        let rollout = document.order.rollout;
        let usable = |release: &ReleaseId| {
            let found = Some((rollout, *release));
            !self.refused.contains(&found) && !self.memory.condemned.contains(&found)
        };
        let stable = document.stable_for(&self.labels);
        let Some(target) = document.target_for(&self.labels) else {
            return Goal { serve: stable.filter(usable), stage: None };
        };
        // The way back is taken whatever happened there before: there is no other.
        if document.phase == Phase::Abort || self.memory.aborted == rollout {
            // But for one that has failed here, too: then what serves is no worse, unless it is the target.
            let fails = |stable: &ReleaseId| {
                self.memory.condemned.contains(&Some((rollout, *stable))) && self.serving != Some(target)
            };
            return Goal { serve: stable.filter(|stable| !fails(stable)), stage: None };
        }
        let (is_served, target, stable) =
            (self.serving == Some(target), Some(target).filter(usable), stable.filter(usable));
        match document.phase {
            Phase::Done => Goal { serve: target, stage: None },
            Phase::Commit if !document.frozen && document.wave.admits(Position::of(&self.id, rollout)) => {
                Goal { serve: target.or(stable), stage: None }
            }
            // Who is late, drifted, or comes from a rollout that was superseded goes to the stable release first.
            _ if is_served => Goal { serve: None, stage: None },
            _ => Goal { serve: stable, stage: target },
        }
    }

    fn has_ready(&self, release: ReleaseId) -> bool {
        self.serving == Some(release) || self.staged == Some(release)
    }
}

/// Notes a release, beside at most one other of the same rollout: its target and its stable release are two.
fn note(known: &mut [Option<(u64, ReleaseId)>; 2], found: (u64, ReleaseId)) {
    if !known.contains(&Some(found)) {
        known.rotate_right(1);
        known[0] = Some(found);
    }
}

/// What a node should do next: serve `serve`, and if it does, have `stage` ready.
struct Goal {
    serve: Option<ReleaseId>,
    stage: Option<ReleaseId>,
}
