//! Which document comes next.

use std::collections::BTreeMap;

use crate::analysis::{Comparison, Finding, Ledger};
use crate::lease::Keeper;
use crate::{
    Desired, Group, Kind, Label, Lease, LeaseTiming, MOST_GROUPS, Millis, NodeId, Order, Phase, Plan, Position,
    ReleaseId, Report, Revision, Scope, Wave,
};

/// What is asked of a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Start a rollout to this release, for these nodes. One that is under way is superseded.
    Start(Kind, Scope, ReleaseId, Plan),
    /// End the rollout, and go back to the stable release.
    Abort,
    /// Open the next wave now, without waiting for the bake time and the comparison.
    Promote,
    /// Let waves and deadlines stand still.
    Pause,
    /// Go on after a pause or a stop.
    Resume,
    /// Abort what is under way, and start nothing until somebody resumes.
    Stop,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDone {
    /// Another process leads.
    #[error("this orchestrator does not lead: ask {}", leader.as_deref().unwrap_or("again when one does"))]
    NotLeading {
        /// Who does, as far as is known.
        leader: Option<String>,
    },
    /// There is no rollout under way.
    #[error("no rollout is under way")]
    NoRollout,
    /// No wave is open that could be promoted.
    #[error("nothing can be promoted before the nodes have staged the release")]
    NotCommitting,
    /// The fleet is stopped.
    #[error("the fleet is stopped: resume it first")]
    Frozen,
    /// No node has the label that a rollout is for.
    #[error("no node of the fleet has this label")]
    Nobody,
    /// A group's release is one that others do not have: they need one first.
    #[error("the fleet has no release yet: roll one out to everybody first")]
    NoRelease,
    /// Documents would become too large.
    #[error("{MOST_GROUPS} groups have releases of their own, and no more can: roll one out to everybody first")]
    TooManyGroups,
    /// The store has not been read yet, or has lost documents that nodes know of, which is being mended.
    #[error("the state of the fleet is not known yet: try again in a moment")]
    NotKnown,
}

/// What a leader is to do. Each write is followed by a read of the same key, whatever became of the write: an error does
/// not say that it was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are a few at once, and nobody keeps them")]
pub enum LeaderEffect {
    /// Write the lease, if its revision is still this one; `None` if there must be none.
    WriteLease(Option<Revision>, Lease),
    /// Write the document, if its revision is still this one; `None` if there must be none.
    WriteDesired(Option<Revision>, Desired),
    /// Tell people.
    Alarm(Alarm),
}

/// What people should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Nodes have followed documents that the store does not have: it lost acknowledged writes. The rollout is aborted.
    StoreLostWrites {
        /// What the store has.
        stored: Option<Order>,
        /// What nodes have seen.
        seen: Order,
    },
    /// More nodes failed than the plan allows.
    TooManyFailed {
        /// Refused or condemned.
        failed: usize,
        /// Out of so many that the rollout had reached.
        reached: usize,
    },
    /// The nodes of the wave do worse than the rest.
    Worse(Finding),
    /// The deadline of a phase passed, and the rollout was aborted.
    TimedOut(Phase),
}

/// How a rollout stands, in numbers of the nodes that it is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Ever heard of.
    pub known: usize,
    /// Heard of lately, neither held nor pinned.
    pub present: usize,
    /// Of those, the ones that have loaded the target, or serve it.
    pub staged: usize,
    /// Those that have answered and that the open wave admits.
    pub reached: usize,
    /// Of those, the ones that serve the target.
    pub serving: usize,
    /// Those of the open wave that are not heard of any more.
    pub silent: usize,
    /// Present nodes that the rollout has reached and that refused or condemned the target.
    pub failed: usize,
    /// Present nodes that have answered: staged, refused or condemned.
    pub answered: usize,
}

/// How long a node is taken to be present after its last report. Nodes report every 10 ± 2 s.
const PRESENT: Millis = 30_000;
/// How many rollouts, or terms, a report may be ahead of what was read and of what most nodes have seen.
const AHEAD: u64 = 1024;
/// How long a new leader listens before it moves a rollout on, so that nodes can tell of documents that the store has lost.
const LISTEN: Millis = 15_000;

/// A process that leads the fleet, or would.
///
/// Feed it what is read and reported, and call [`tick`](Self::tick) about twice a second. All times are of the caller's own
/// clock, which goes forward and need not agree with any other.
///
/// What nodes have seen counts for more than what the store says. If a node has followed a later document than the store
/// has, or has seen a rollout aborted that the store has not, the store lost writes; then the leader writes a new rollout
/// above all that was seen, already aborted, so that nobody follows what is gone. What a node says that is too far ahead of
/// what was read and of what most nodes have seen is not believed, and what the fleet settles on is what most nodes say.
#[derive(Debug)]
pub struct Leader {
    keeper: Keeper,
    nodes: BTreeMap<NodeId, Seen>,
    ledger: Ledger,
    /// Whether the store was read at all, and what it says.
    was_read: bool,
    stored: Option<(Revision, Desired)>,
    /// The latest document that was read, even if the store has lost it since.
    latest: Option<Desired>,
    /// How long the phase has lasted, pauses not counted, and when that was last brought up to date.
    elapsed: Millis,
    counted_to: Millis,
    /// When in the phase the whole wave first served, and when that was seen.
    served_after: Option<(Millis, Millis)>,
    /// The term in which this process leads, and since when.
    leading: Option<(u64, Millis)>,
    /// The document that was written last for a reason that people should know: they are told once it is read back.
    reason: Option<(Desired, Alarm)>,
    alarms: Vec<Alarm>,
}

#[derive(Debug)]
struct Seen {
    report: Report,
    at: Millis,
    /// The last rollout in which it staged, refused or condemned the target: then it is of the wave, whatever it reports later.
    answered: Option<u64>,
}

impl Seen {
    /// Returns whether the rollout is for the node, which has answered, and the open wave admits it: who has not answered by the
    /// end of the stage does not hold up those that have.
    fn is_of_wave(&self, document: &Desired) -> bool {
        let rollout = document.order.rollout;
        self.answered == Some(rollout)
            && document.target_for(&self.report.labels).is_some()
            && document.wave.admits(Position::of(&self.report.node, rollout))
    }
}

/// What a document has to differ in for its deadlines to start anew.
fn stretch(document: &Desired) -> (u64, Phase, usize) {
    (document.order.rollout, document.phase, document.wave.index)
}

impl Leader {
    /// Makes one that does not lead yet. `me` is a name that no other process has, nor this one after a restart.
    pub fn new(me: impl Into<String>, timing: LeaseTiming) -> Self {
        Self {
            keeper: Keeper::new(me.into(), timing),
            nodes: BTreeMap::new(),
            ledger: Ledger::default(),
            was_read: false,
            stored: None,
            latest: None,
            elapsed: 0,
            counted_to: 0,
            served_after: None,
            leading: None,
            reason: None,
            alarms: Vec::new(),
        }
    }

    /// Takes note of holders of the lease that have ended: this process before its restarts, and nobody of whom that is only likely.
    /// Their lease is taken over without waiting, unless it was taken in this way the last time and not held for long since: then
    /// somebody else may lead better.
    pub fn have_ended(&mut self, holders: Vec<String>) {
        self.keeper.have_ended(holders);
    }

    /// Takes the lease as it was read.
    pub fn lease_read(&mut self, now: Millis, lease: Option<(Revision, Lease)>) {
        self.keeper.read(now, lease);
    }

    /// Takes the document as it was read.
    pub fn desired_read(&mut self, now: Millis, document: Option<(Revision, Desired)>) {
        self.count(now);
        self.was_read = true;
        self.stored = document;
        let Some((_, document)) = &self.stored else { return };
        if let Some((_, alarm)) = self.reason.take_if(|(written, _)| written == document) {
            self.alarms.push(alarm);
        }
        if self.latest.as_ref().is_none_or(|latest| latest.order < document.order) {
            let before = self.latest.as_ref().map(stretch);
            if before != Some(stretch(document)) {
                self.elapsed = 0;
                self.served_after = None;
                self.ledger.wave_opened();
            }
            if before.map(|(rollout, ..)| rollout) != Some(document.order.rollout) {
                self.ledger.rollout_began();
            }
            self.latest = Some(document.clone());
        }
    }

    /// Takes a node's report. Reports that come late or twice change nothing.
    pub fn reported(&mut self, now: Millis, report: Report) {
        // Nobody counts that far: the next number must exist. And a node follows the abort of a rollout with its document.
        const MOST: u64 = 1 << 48;
        if report.order.rollout.max(report.order.step).max(report.term) > MOST || report.aborted > report.order.rollout
        {
            return;
        }
        let last = self.nodes.get(&report.node);
        // A node that was installed anew begins to count anew: believed once the old one is absent.
        let is_late = |last: &Seen| {
            (report.boot, report.seq) <= (last.report.boot, last.report.seq) && now < last.at.saturating_add(PRESENT)
        };
        if last.is_some_and(is_late) {
            return;
        }
        let answers = report.staged || report.refused || report.condemned;
        let answered = if answers { Some(report.order.rollout) } else { last.and_then(|last| last.answered) };
        self.ledger.add(&report, self.stored.as_ref().map(|(_, document)| document));
        self.nodes.insert(report.node.clone(), Seen { report, at: now, answered });
    }

    /// Forgets a node that is gone for good, so that it counts as absent no longer.
    pub fn removed(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.ledger.forget(node);
    }

    /// Returns the last report of every node, and when it came.
    pub fn reports(&self) -> impl Iterator<Item = (&Report, Millis)> {
        self.nodes.values().map(|seen| (&seen.report, seen.at))
    }

    /// Returns the last report of a node, and when it came.
    pub fn report_of(&self, node: &NodeId) -> Option<(&Report, Millis)> {
        self.nodes.get(node).map(|seen| (&seen.report, seen.at))
    }

    /// Returns the document that was last read.
    pub fn desired(&self) -> Option<&Desired> {
        self.stored.as_ref().map(|(_, document)| document)
    }

    /// Returns the revision of the document that was last read.
    pub fn revision(&self) -> Option<Revision> {
        self.stored.as_ref().map(|(revision, _)| *revision)
    }

    /// Returns the term in which this process leads now.
    pub fn term(&self, now: Millis) -> Option<u64> {
        let term = self.keeper.term(now)?;
        self.desired().is_none_or(|document| document.term <= term).then_some(term)
    }

    /// Returns how the rollout of the document that was last read stands.
    pub fn standing(&self, now: Millis) -> Standing {
        self.desired().map(|document| self.standing_of(document, now)).unwrap_or_default()
    }

    /// Compares the wave that is open with the rest.
    pub fn comparison(&self) -> Option<Comparison> {
        let document = self.desired()?;
        Some(self.ledger.compare(document))
    }

    /// Returns what to do now.
    pub fn tick(&mut self, now: Millis) -> Vec<LeaderEffect> {
        self.count(now);
        let mut effects = Vec::new();
        if let Some((revision, lease)) = self.keeper.tick(now, self.highest_term()) {
            effects.push(LeaderEffect::WriteLease(revision, lease));
        }
        match (self.term(now), self.leading) {
            (Some(term), Some((known, _))) if term == known => {}
            (Some(term), _) => self.leading = Some((term, now)),
            (None, _) => self.leading = None,
        }
        if let Some((term, since)) = self.leading
            && let Some((revision, document)) = self.decide(now, term, now < since.saturating_add(LISTEN))
        {
            effects.push(LeaderEffect::WriteDesired(revision, document));
        }
        effects.extend(std::mem::take(&mut self.alarms).into_iter().map(LeaderEffect::Alarm));
        effects
    }

    /// Returns the write that carries out `command`. It counts once the document that is read next is the one written, or
    /// follows it.
    ///
    /// # Errors
    /// [`NotDone`] says why the command cannot be carried out now.
    pub fn command(&mut self, now: Millis, command: Command) -> Result<LeaderEffect, NotDone> {
        let leader = self.keeper.holder().map(|lease| lease.holder.clone());
        let term = self.term(now).ok_or(NotDone::NotLeading { leader })?;
        let listens = self.leading.is_none_or(|(of, since)| of != term || now < since.saturating_add(LISTEN));
        // A wave is chosen among the nodes that were heard, and a store that looks empty may only have lost everything.
        let rests_on_nodes = self.stored.is_none() || command == Command::Promote;
        if !self.was_read || self.lost().is_some() || (listens && rests_on_nodes) {
            return Err(NotDone::NotKnown);
        }
        let revision = self.stored.as_ref().map(|(revision, _)| *revision);
        let document = match (command, self.desired()) {
            (Command::Start(kind, scope, target, plan), current) => {
                if current.is_some_and(|current| current.frozen) {
                    return Err(NotDone::Frozen);
                }
                let groups = current.map(Desired::settled_groups).unwrap_or_default();
                self.can_be_for(&scope, &groups, listens)?;
                Desired {
                    term,
                    order: Order {
                        rollout: current.map_or(0, |current| current.order.rollout).saturating_add(1),
                        step: 0,
                    },
                    kind,
                    phase: Phase::Stage,
                    target,
                    stable: current.and_then(Desired::settled),
                    wave: Wave::NOBODY,
                    plan,
                    paused: false,
                    frozen: false,
                    scope,
                    groups,
                }
            }
            (_, None) => return Err(NotDone::NoRollout),
            (Command::Stop, Some(current)) => Desired { frozen: true, paused: false, ..aborted(current, term) },
            (Command::Resume, Some(current)) => Desired { frozen: false, paused: false, ..current.next(term) },
            (_, Some(current)) if current.has_ended() => return Err(NotDone::NoRollout),
            (Command::Abort, Some(current)) => aborted(current, term),
            (Command::Pause, Some(current)) => Desired { paused: true, ..current.next(term) },
            (Command::Promote, Some(current)) if current.phase == Phase::Stage => return Err(NotDone::NotCommitting),
            (Command::Promote, Some(current)) => Desired { paused: false, ..self.after_wave(current, term, now) },
        };
        Ok(LeaderEffect::WriteDesired(revision, document))
    }

    /// Returns why there cannot be a rollout for these nodes, if that is so.
    fn can_be_for(&self, scope: &Scope, groups: &[Group], listens: bool) -> Result<(), NotDone> {
        let label = match scope {
            Scope::Everybody => return Ok(()),
            Scope::Group(label) => Some(label),
            Scope::Each(_) => None,
        };
        if self.desired().and_then(Desired::settled).is_none() {
            return Err(NotDone::NoRelease);
        }
        let Some(label) = label else { return Ok(()) };
        if !self.nodes.values().any(|seen| label.is_of(&seen.report.labels)) {
            return Err(if listens { NotDone::NotKnown } else { NotDone::Nobody });
        }
        let others = groups.iter().filter(|group| group.label != *label).count();
        if others < MOST_GROUPS { Ok(()) } else { Err(NotDone::TooManyGroups) }
    }

    fn count(&mut self, now: Millis) {
        if !self.desired().is_some_and(|document| document.paused) {
            self.elapsed = self.elapsed.saturating_add(now.saturating_sub(self.counted_to));
        }
        self.counted_to = now;
    }

    fn highest_term(&self) -> u64 {
        let nodes = self.believed().map(|report| report.term).max().unwrap_or(0);
        nodes.max(self.latest.as_ref().map_or(0, |latest| latest.term))
    }

    fn present(&self, now: Millis) -> impl Iterator<Item = &Report> {
        self.taking_part().filter(move |seen| now < seen.at.saturating_add(PRESENT)).map(|seen| &seen.report)
    }

    /// Returns the nodes that nobody holds or has pinned.
    fn taking_part(&self) -> impl Iterator<Item = &Seen> {
        self.nodes.values().filter(|seen| !seen.report.pinned && !seen.report.held)
    }

    /// Returns the present nodes that have answered and that the open wave admits.
    fn of_wave<'a>(&'a self, document: &'a Desired, now: Millis) -> impl Iterator<Item = &'a Seen> {
        let is_present = move |seen: &&Seen| now < seen.at.saturating_add(PRESENT);
        self.taking_part().filter(is_present).filter(|seen| seen.is_of_wave(document))
    }

    fn standing_of(&self, document: &Desired, now: Millis) -> Standing {
        let rollout = document.order.rollout;
        let concerns = |seen: &&Seen| document.target_for(&seen.report.labels).is_some();
        let known = self.nodes.values().filter(concerns).count();
        let mut standing = Standing { known, ..Standing::default() };
        for seen in self.taking_part().filter(concerns) {
            let report = &seen.report;
            let target = document.target_for(&report.labels);
            let here = report.order.rollout == rollout;
            let (staged, failed) = (here && report.staged, here && (report.refused || report.condemned));
            let of_wave = seen.is_of_wave(document);
            if now >= seen.at.saturating_add(PRESENT) {
                standing.silent += usize::from(of_wave);
                continue;
            }
            standing.present += 1;
            standing.staged += usize::from(staged);
            standing.answered += usize::from(staged || failed);
            standing.reached += usize::from(of_wave);
            standing.serving += usize::from(of_wave && report.serving == target);
            // Failures count against the nodes that the rollout has reached, and not against the fleet: one canary that
            // fails is all of the canaries.
            standing.failed += usize::from(failed && (of_wave || document.phase == Phase::Stage));
        }
        standing
    }

    /// Returns what nodes report, but for what is too far ahead to be true: of what this process has read, and of what most
    /// nodes have seen. So one node alone can neither use the numbers up nor have the fleet follow it there.
    fn believed(&self) -> impl Iterator<Item = &Report> {
        let of_most = |number: fn(&Report) -> u64| {
            // A node that is new has seen nothing, and knows no better.
            let old = self.nodes.values().map(|seen| &seen.report).filter(|report| report.order != Order::default());
            let mut numbers: Vec<u64> = old.map(number).collect();
            numbers.sort_unstable();
            // More than half have seen this, or more.
            numbers.len().checked_sub(1).map_or(0, |last| numbers[last / 2])
        };
        let latest = self.latest.as_ref();
        let rollout = of_most(|report| report.order.rollout).max(latest.map_or(0, |latest| latest.order.rollout));
        let term = of_most(|report| report.term).max(latest.map_or(0, |latest| latest.term));
        self.nodes.values().map(|seen| &seen.report).filter(move |report| {
            report.order.rollout <= rollout.saturating_add(AHEAD) && report.term <= term.saturating_add(AHEAD)
        })
    }

    /// Returns the highest order that anybody has seen, if the store does not have it any longer.
    fn lost(&self) -> Option<Order> {
        let stored = self.desired();
        let reports = || self.believed();
        let seen = reports().map(|report| report.order).chain(self.latest.as_ref().map(|latest| latest.order)).max();
        // A node that is new has followed nothing that could be lost.
        let seen = seen.filter(|seen| *seen != Order::default())?;
        // A node knows that a rollout was aborted: whatever the store says of it is from before.
        let aborted = reports().map(|report| report.aborted).max().unwrap_or(0);
        let revived = stored.is_some_and(|stored| stored.order.rollout <= aborted && stored.phase != Phase::Abort);
        (stored.is_none_or(|stored| stored.order < seen) || revived).then_some(seen)
    }

    /// Returns the document that should follow, and the revision that it replaces.
    fn decide(&mut self, now: Millis, term: u64, listening: bool) -> Option<(Option<Revision>, Desired)> {
        if !self.was_read {
            return None;
        }
        if let Some(seen) = self.lost() {
            // The first to report need not be those that know most.
            let knows = self.latest.as_ref().is_some_and(|latest| latest.order >= seen);
            return if listening && !knows { None } else { self.repair(seen, term) };
        }
        let (revision, document) = self.stored.as_ref()?;
        let revision = Some(*revision);
        // A new leader marks the document before it does anything else: then its predecessor cannot write it any more.
        if document.term < term {
            return Some((revision, document.next(term)));
        }
        if document.has_ended() {
            return None;
        }
        let document = document.clone();
        let next = match self.judge(&document, now) {
            // What rests on who has not been heard yet can wait.
            Judgement::Abort(Alarm::TimedOut(_) | Alarm::TooManyFailed { .. }) if listening => return None,
            Judgement::Abort(alarm) => {
                let next = aborted(&document, term);
                self.reason = Some((next.clone(), alarm));
                next
            }
            Judgement::Advance if listening || document.paused => return None,
            Judgement::Advance => self.after_wave(&document, term, now),
            Judgement::Wait => return None,
        };
        Some((revision, next))
    }

    fn judge(&mut self, document: &Desired, now: Millis) -> Judgement {
        let plan = &document.plan;
        let standing = self.standing_of(document, now);
        let denominator = if document.phase == Phase::Stage { standing.present } else { standing.reached };
        let most = plan.max_failed_per_mille.min(1000) as usize;
        if standing.failed * 1000 > denominator.max(1) * most {
            return Judgement::Abort(Alarm::TooManyFailed { failed: standing.failed, reached: denominator });
        }
        let enough_of = |part: usize, whole: usize| part > 0 && part * 1000 >= whole * (1000 - most);
        let enough_of_all = |part: usize, whole: usize| part * 1000 >= whole * plan.min_present_per_mille as usize;
        // A release that kills its hosts must not be promoted by those that are left.
        let enough_present = enough_of_all(standing.present, standing.known)
            && enough_of_all(standing.reached, standing.reached + standing.silent);
        if document.phase == Phase::Stage {
            let everybody = standing.answered == standing.present;
            let late = self.elapsed > plan.stage_deadline;
            return match () {
                () if enough_present && standing.staged > 0 && everybody => Judgement::Advance,
                () if late && enough_present && enough_of(standing.staged, standing.present) => Judgement::Advance,
                () if late => Judgement::Abort(Alarm::TimedOut(Phase::Stage)),
                () => Judgement::Wait,
            };
        }
        let last = document.wave.is_everybody();
        let bake = if last { plan.bake } else { plan.waves.get(document.wave.index).map_or(0, |wave| wave.bake) };
        let comparison = self.ledger.compare(document);
        if let Comparison::Worse(finding) = comparison {
            return Judgement::Abort(Alarm::Worse(finding));
        }
        let served = standing.serving > 0 && standing.serving + standing.failed >= standing.reached;
        // Once everybody has the target, waves before have shown that it does well; a plan without waves asks for nothing.
        let known = last || comparison == Comparison::AsGood;
        // A wave bakes from when all of it serves.
        if served {
            self.served_after.get_or_insert((self.elapsed, now));
        }
        let baked = self.served_after.is_some_and(|(after, seen)| {
            // What was served meanwhile is in the reports after that, and in no earlier one.
            let is_heard = last || bake == 0 || self.of_wave(document, now).all(|node| node.at > seen);
            is_heard && self.elapsed >= after.saturating_add(bake)
        });
        let served_after = self.served_after.map_or(0, |(after, _)| after);
        let deadline = served_after.saturating_add(bake).saturating_add(plan.commit_deadline);
        let late = self.elapsed > deadline;
        match () {
            () if baked && served && enough_present && known => Judgement::Advance,
            () if late && last && enough_of(standing.serving, standing.reached) => Judgement::Advance,
            () if late => Judgement::Abort(Alarm::TimedOut(Phase::Commit)),
            () => Judgement::Wait,
        }
    }

    /// Returns the document that opens the next wave, or ends the rollout after the last.
    fn after_wave(&self, document: &Desired, term: u64, now: Millis) -> Desired {
        let next = document.next(term);
        let index = match document.phase {
            Phase::Stage => 0,
            _ if document.wave.is_everybody() => return Desired { phase: Phase::Done, ..next },
            _ => document.wave.index.saturating_add(1),
        };
        let below = match document.plan.waves.get(index) {
            None => Wave::EVERYBODY,
            // Chosen from the positions of the nodes that can commit, so that a wave is never empty: of a hash alone, 1 % of
            // fifty nodes is nobody in 60 % of rollouts.
            Some(wave) => {
                let rollout = document.order.rollout;
                let ready = self.present(now).filter(|report| report.order.rollout == rollout && report.staged);
                let mut positions: Vec<_> = ready.map(|report| Position::of(&report.node, rollout)).collect();
                positions.sort_unstable();
                let admitted = positions.iter().filter(|position| document.wave.admits(**position)).count();
                let size = wave.size.of(positions.len()).max(admitted + 1);
                positions.get(size - 1).map_or(Wave::EVERYBODY, |last| Wave::below_to_admit(*last))
            }
        };
        let wave = Wave { index, below: below.max(document.wave.below) };
        // Not by a later document: without a bake time the next wave could open before that.
        let paused = document.paused || (document.plan.canary_only && index == 0 && !wave.is_everybody());
        Desired { phase: Phase::Commit, wave, paused, ..next }
    }

    /// Returns what more than half of the nodes that have followed a document say that it settles on.
    fn settled_of_most(&self) -> Option<Settled> {
        let settled: Vec<Settled> = self.followers().map(Settled::of_report).collect();
        let count = |wanted: &Settled| settled.iter().filter(|settled| *settled == wanted).count();
        settled.iter().find(|wanted| count(wanted) * 2 > settled.len()).cloned()
    }

    /// Returns whether more than half of the nodes that have followed a document serve what it would be settled to serve: of each
    /// group, and of those outside of groups. A majority elsewhere speaks for no group, nor does a group without nodes.
    fn is_served_by_most(&self, settled: &Settled) -> bool {
        let mut parts: BTreeMap<Option<&Label>, (usize, usize)> =
            settled.groups.iter().map(|group| (Some(&group.label), (0, 0))).collect();
        for report in self.followers() {
            let group = Group::of(&settled.groups, &report.labels);
            let (serving, all) = parts.entry(group.map(|group| &group.label)).or_default();
            *all += 1;
            *serving += usize::from(report.serving == group.map(|group| group.release).or(settled.stable));
        }
        parts.values().all(|(serving, all)| serving * 2 > *all)
    }

    /// Returns the reports of nodes that have followed a document.
    fn followers(&self) -> impl Iterator<Item = &Report> {
        self.believed().filter(|report| report.order != Order::default())
    }

    /// Returns a rollout above all that was seen, aborted, to what the latest known document settles on.
    fn repair(&mut self, seen: Order, term: u64) -> Option<(Option<Revision>, Desired)> {
        let revision = self.stored.as_ref().map(|(revision, _)| *revision);
        let stored = self.desired();
        let highest = self.believed().max_by_key(|report| report.order);
        let latest = self.latest.as_ref().filter(|latest| highest.is_none_or(|highest| highest.order <= latest.order));
        // This process may know the latest document, or only nodes do. One of them is not believed against the others, unless what
        // it says is what they serve: it may be the only one that has heard the last word.
        let Settled { stable, groups } = match (latest, highest) {
            (Some(latest), _) => Settled::of(latest),
            (None, Some(highest)) => match (self.settled_of_most(), &self.latest) {
                _ if self.is_served_by_most(&Settled::of_report(highest)) => Settled::of_report(highest),
                (Some(settled), _) => settled,
                (None, Some(latest)) => Settled::of(latest),
                (None, None) => Settled::of_report(highest),
            },
            (None, None) => return None,
        };
        let base = latest.or(self.latest.as_ref()).or(stored);
        let target = base.map(|base| base.target).or(stable)?;
        let stored = stored.map(|stored| stored.order);
        let document = Desired {
            term,
            order: Order { rollout: seen.rollout.saturating_add(1), step: 0 },
            kind: Kind::Sync,
            phase: Phase::Abort,
            target,
            stable,
            wave: Wave::NOBODY,
            plan: base.map_or_else(Plan::at_once, |base| base.plan.clone()),
            paused: false,
            frozen: base.is_some_and(|base| base.frozen),
            scope: base.map(|base| base.scope.clone()).unwrap_or_default(),
            groups,
        };
        self.reason = Some((document.clone(), Alarm::StoreLostWrites { stored, seen }));
        Some((revision, document))
    }
}

/// What a fleet settles on.
#[derive(Clone, PartialEq, Eq)]
struct Settled {
    stable: Option<ReleaseId>,
    groups: Vec<Group>,
}

impl Settled {
    fn of(document: &Desired) -> Self {
        Self { stable: document.settled(), groups: document.settled_groups() }
    }

    fn of_report(report: &Report) -> Self {
        Self { stable: report.settled, groups: report.groups.clone() }
    }
}

/// What the leader makes of how a rollout stands.
enum Judgement {
    Wait,
    Advance,
    Abort(Alarm),
}

/// Returns the document that aborts the rollout, unless it has ended.
fn aborted(document: &Desired, term: u64) -> Desired {
    let phase = if document.has_ended() { document.phase } else { Phase::Abort };
    Desired { phase, ..document.next(term) }
}
