//! What an orchestrator knows: the document, the nodes, the rollouts and what happened in them. Anybody may look at any time;
//! only the [leader's task](super::leader) changes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime};

use hotslot::BoxError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use waf_rollout::{Desired, Kind, Label, Labels, NodeId, Phase, ReleaseId, Scope, Standing};

use super::{About, Asked, Document, Telling};
use crate::json::moment;
use crate::replace_file::replace_file;

/// How many rollouts and events are remembered.
const ROLLOUTS: usize = 64;
const EVENTS: usize = 4096;
/// After so long without a word a node counts as missing; the logic says so, too.
pub(super) const PRESENT_SECONDS: u64 = 30;

pub(super) struct View {
    /// Who this process is, and who leads.
    pub me: String,
    pub term: Option<u64>,
    pub leader: Option<String>,
    pub document: Option<Document>,
    pub standing: Standing,
    pub nodes: BTreeMap<NodeId, Heard>,
    pub rollouts: BTreeMap<u64, Rollout>,
    events: VecDeque<Event>,
    last_event: u64,
    /// Takes the history to the disk, outside of whatever holds the view.
    writer: Sender<Vec<u8>>,
    is_saved: bool,
    saved_at: Instant,
}

/// A node, as it was last heard.
pub(super) struct Heard {
    pub telling: Telling,
    pub at: Instant,
}

impl Heard {
    pub fn is_present(&self) -> bool {
        self.at.elapsed().as_secs() < PRESENT_SECONDS
    }

    /// Whether it is there, and nobody holds it or has changed it by hand.
    fn takes_part(&self) -> bool {
        self.is_present() && !self.telling.report.pinned && !self.telling.report.held
    }
}

/// What happened, for whoever follows a rollout.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub id: u64,
    pub rollout: u64,
    pub kind: &'static str,
    pub data: Value,
}

/// A rollout, as far as this process has seen it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rollout {
    pub rollout: u64,
    pub kind: Kind,
    pub target: ReleaseId,
    /// What the target takes the place of.
    pub stable: Option<ReleaseId>,
    /// Whom it is for.
    #[serde(default)]
    pub scope: Scope,
    pub about: About,
    pub phase: Phase,
    pub paused: bool,
    pub frozen: bool,
    pub wave: usize,
    pub below: u64,
    pub waves: usize,
    /// When this process first saw it.
    pub began_at: String,
    /// How far it came and when, in milliseconds from then on this process's own clock.
    pub steps: Vec<Step>,
    /// The nodes that have served the target because of it.
    pub served: BTreeMap<NodeId, Served>,
    /// Those that refused it or found it bad, and why.
    pub failures: BTreeMap<NodeId, String>,
    pub alarms: Vec<String>,
    /// A later one began before it had ended.
    pub superseded: bool,
    #[serde(skip)]
    began: Option<Instant>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub state: String,
    pub after_ms: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Served {
    pub after_ms: f64,
    pub wave: usize,
    pub after_hint_ms: Option<f64>,
    pub downtime_ms: f64,
}

impl Rollout {
    fn of(Document { desired, about, .. }: &Document) -> Rollout {
        Rollout {
            rollout: desired.order.rollout,
            kind: desired.kind,
            target: desired.target,
            stable: stable_of(desired, &desired.scope),
            scope: desired.scope.clone(),
            about: about.clone(),
            phase: desired.phase,
            paused: desired.paused,
            frozen: desired.frozen,
            wave: desired.wave.index,
            below: desired.wave.below,
            waves: desired.plan.waves.len() + 1,
            began_at: moment(SystemTime::now()),
            steps: Vec::new(),
            served: BTreeMap::new(),
            failures: BTreeMap::new(),
            alarms: Vec::new(),
            superseded: false,
            began: Some(Instant::now()),
        }
    }

    /// Returns what it has a node serve, if it is for this node.
    fn target_for(&self, labels: &Labels) -> Option<ReleaseId> {
        self.scope.target_for(self.target, labels)
    }

    /// Whom it is for, as the API takes it.
    pub fn scope_name(&self) -> String {
        match &self.scope {
            Scope::Everybody => "all".to_owned(),
            Scope::Group(label) => format!("label:{label}"),
            Scope::Each(_) => "each".to_owned(),
        }
    }

    fn elapsed_ms(&self) -> f64 {
        self.began.map_or(0.0, |began| began.elapsed().as_secs_f64() * 1e3)
    }

    pub fn has_ended(&self) -> bool {
        self.superseded || matches!(self.phase, Phase::Done | Phase::Abort)
    }

    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Done => "done",
            Phase::Abort => "aborted",
            _ if self.superseded => "superseded",
            _ if self.paused => "paused",
            Phase::Stage => "staging",
            Phase::Commit => "committing",
        }
    }

    /// The time between the first and the last node of a wave, as their reports came in; the largest over the waves.
    fn skew_ms(&self) -> f64 {
        let mut waves: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for served in self.served.values() {
            let (first, last) = waves.entry(served.wave).or_insert((served.after_ms, served.after_ms));
            (*first, *last) = (first.min(served.after_ms), last.max(served.after_ms));
        }
        waves.values().map(|(first, last)| last - first).fold(0.0, f64::max)
    }
}

/// Returns what nodes serve before a rollout with this scope: those of a group what the group has, and all others the fleet's.
pub(super) fn stable_of(desired: &Desired, scope: &Scope) -> Option<ReleaseId> {
    let group = match scope {
        Scope::Group(label) => desired.groups.iter().find(|group| group.label == *label),
        _ => None,
    };
    group.map(|group| group.release).or(desired.stable)
}

/// Returns whether a rollout is under way that is for all of these nodes.
fn changes(desired: &Desired, scope: &Scope) -> bool {
    let is_for_all = !matches!(desired.scope, Scope::Group(_));
    !desired.has_ended() && (is_for_all || desired.scope == *scope)
}

/// Returns what such nodes settle on.
pub(super) fn settled_of(desired: &Desired, scope: &Scope) -> Option<ReleaseId> {
    let group = match scope {
        Scope::Group(label) => desired.settled_groups().into_iter().find(|group| group.label == *label),
        _ => None,
    };
    group.map(|group| group.release).or_else(|| desired.settled())
}

/// Starts what writes the history: the last one, if several wait.
fn write_to(file: PathBuf) -> std::io::Result<Sender<Vec<u8>>> {
    let (writer, texts) = std::sync::mpsc::channel::<Vec<u8>>();
    std::thread::Builder::new().name("history".to_owned()).spawn(move || {
        while let Ok(first) = texts.recv() {
            let last = texts.try_iter().last().unwrap_or(first);
            if let Err(error) = replace_file(&file, &last) {
                tracing::error!(%error, file = %file.display(), "the history of rollouts cannot be written");
            }
        }
    })?;
    Ok(writer)
}

impl View {
    pub fn open(me: String, data: &Path) -> Result<View, BoxError> {
        let file = data.join("rollouts.json");
        let rollouts = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!("{}: {error}: move it away, and the orchestrator starts without a history", file.display())
            })?,
            Err(_) => BTreeMap::new(),
        };
        Ok(View {
            me,
            term: None,
            leader: None,
            document: None,
            standing: Standing::default(),
            nodes: BTreeMap::new(),
            rollouts,
            events: VecDeque::new(),
            last_event: 0,
            writer: write_to(file)?,
            is_saved: true,
            saved_at: Instant::now(),
        })
    }

    /// Takes the document that was read. Returns what changed, for the audit.
    pub fn read(&mut self, document: Option<&Document>) -> Option<Value> {
        let Some(document) = document else {
            self.document = None;
            return None;
        };
        if self.document.as_ref() == Some(document) {
            return None;
        }
        let older = self.document.as_ref().is_some_and(|known| known.desired.order > document.desired.order);
        self.document = Some(document.clone());
        // A server that lags, or one that has lost what it knew: the logic sees to that.
        if older {
            return None;
        }
        let number = document.desired.order.rollout;
        for (_, earlier) in self.rollouts.range_mut(..number) {
            earlier.superseded |= !earlier.has_ended();
        }
        let rollout = self.rollouts.entry(number).or_insert_with(|| Rollout::of(document));
        let desired = &document.desired;
        rollout.about = document.about.clone();
        (rollout.phase, rollout.paused, rollout.frozen) = (desired.phase, desired.paused, desired.frozen);
        (rollout.wave, rollout.below) = (desired.wave.index, desired.wave.below);
        let state = match (rollout.state(), desired.frozen) {
            ("committing", _) => format!("committing wave {} of {}", rollout.wave + 1, rollout.waves),
            (state, true) => format!("{state}, stopped"),
            (state, false) => state.to_owned(),
        };
        let after_ms = rollout.elapsed_ms();
        if rollout.steps.last().is_none_or(|step| step.state != state) {
            rollout.steps.push(Step { state: state.clone(), after_ms });
        }
        let change = json!({
            "rollout": number, "step": desired.order.step, "term": desired.term, "kind": desired.kind, "state": state,
            "wave": { "index": desired.wave.index, "below": desired.wave.below },
            "target": desired.target, "stable": desired.stable, "for": rollout.scope_name(), "paused": desired.paused, "frozen": desired.frozen,
            "by": document.about.by, "reason": document.about.reason, "after_ms": after_ms,
        });
        while self.rollouts.len() > ROLLOUTS {
            self.rollouts.pop_first();
        }
        self.happened(number, "state", change.clone());
        // What nodes told before this process had read the document.
        let tellings: Vec<Telling> = self.nodes.values().map(|heard| heard.telling.clone()).collect();
        tellings.iter().for_each(|telling| self.note(telling));
        self.save();
        Some(change)
    }

    /// Takes what a node tells.
    pub fn told(&mut self, telling: Telling) {
        self.note(&telling);
        let node = telling.report.node.clone();
        let before = self.nodes.insert(node, Heard { telling, at: Instant::now() });
        drop(before);
    }

    fn note(&mut self, telling: &Telling) {
        let report = &telling.report;
        let Some(rollout) = self.rollouts.get_mut(&report.order.rollout) else { return };
        let (mut news, mut has_changed) = (Vec::new(), false);
        let after_ms = rollout.elapsed_ms();
        let node = &report.node;
        // What failed its probation has served, also if it was over before it could be told.
        let target = rollout.target_for(&report.labels);
        if target.is_some() && (report.serving == target || report.condemned) {
            let change = telling.change.filter(|change| change.rollout == rollout.rollout);
            let is_new = !rollout.served.contains_key(node);
            let wave = rollout.wave;
            let served = rollout.served.entry(node.clone()).or_insert(Served {
                after_ms,
                wave,
                after_hint_ms: None,
                downtime_ms: 0.0,
            });
            if let Some(change) = change {
                let figures = (Some(change.after_hint_ms), change.downtime_ms);
                has_changed |= figures != (served.after_hint_ms, served.downtime_ms);
                (served.after_hint_ms, served.downtime_ms) = figures;
            }
            if is_new {
                has_changed = true;
                news.push(json!({ "node": node, "state": "serving", "after_ms": after_ms, "wave": wave,
                    "after_hint_ms": change.map(|change| change.after_hint_ms) }));
            }
        }
        if report.refused || report.condemned {
            let problem = telling.problem.as_ref().filter(|problem| problem.rollout == rollout.rollout);
            let why = problem.map_or_else(
                || "it has failed there before".to_owned(),
                |problem| format!("{}: {}", problem.stage, problem.error),
            );
            let known = rollout.failures.insert(node.clone(), why.clone());
            has_changed |= known.as_ref() != Some(&why);
            if known.is_none() {
                let state = if report.condemned { "condemned" } else { "refused" };
                news.push(json!({ "node": node, "state": state, "after_ms": after_ms, "error": why }));
            }
        } else if report.staged && !rollout.served.contains_key(node) {
            let was_staged = self.nodes.get(node).is_some_and(|heard| {
                heard.telling.report.staged && heard.telling.report.order.rollout == report.order.rollout
            });
            if !was_staged {
                news.push(json!({ "node": node, "state": "staged", "after_ms": after_ms }));
            }
        }
        let number = rollout.rollout;
        news.into_iter().for_each(|data| self.happened(number, "node", data));
        self.is_saved &= !has_changed;
    }

    pub fn alarm(&mut self, text: String) {
        let Some(document) = &self.document else { return };
        let number = document.desired.order.rollout;
        if let Some(rollout) = self.rollouts.get_mut(&number) {
            rollout.alarms.push(text.clone());
        }
        self.happened(number, "alarm", json!({ "alarm": text }));
        self.save();
    }

    fn happened(&mut self, rollout: u64, kind: &'static str, data: Value) {
        self.last_event += 1;
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { id: self.last_event, rollout, kind, data });
    }

    /// The events of a rollout after one of them. An event that this process does not know is before all of them.
    pub fn events_after(&self, rollout: u64, after: u64) -> Vec<Event> {
        let after = if after > self.last_event { 0 } else { after };
        self.events.iter().filter(|event| event.rollout == rollout && event.id > after).cloned().collect()
    }

    /// Saves what nodes have told, once in a while.
    pub fn save_lazily(&mut self) {
        if !self.is_saved && self.saved_at.elapsed().as_secs() >= 1 {
            self.save();
        }
    }

    fn save(&mut self) {
        (self.is_saved, self.saved_at) = (true, Instant::now());
        let bytes = serde_json::to_vec(&self.rollouts).expect("texts and numbers");
        let _ = self.writer.send(bytes);
    }

    /// Returns the rollout that a request with this key began, and what it asked for.
    pub fn by_request(&self, key: &str) -> Option<(u64, &Asked)> {
        let seen = self.rollouts.values().rev().filter_map(|it| Some((it.rollout, it.about.asked.as_ref()?)));
        let before = self.document.iter().flat_map(|document| &document.about.asked_before);
        let told = before.map(|(rollout, asked)| (*rollout, asked));
        seen.chain(told).find(|(_, asked)| asked.key == key)
    }

    /// Returns the version of a release, as far as a rollout has said.
    pub fn version_of(&self, release: ReleaseId) -> Option<String> {
        let rollout = self.rollouts.values().rev().find(|rollout| rollout.target == release);
        let told = || self.nodes.values().find(|heard| heard.telling.report.serving == Some(release));
        match rollout {
            Some(rollout) => rollout.about.version.clone(),
            None => told().and_then(|heard| heard.telling.version.clone()),
        }
    }

    /// Returns the labels that there are, with the nodes that have them.
    pub fn labels(&self) -> BTreeMap<Label, Vec<&NodeId>> {
        let mut labels: BTreeMap<Label, Vec<&NodeId>> = BTreeMap::new();
        for (node, heard) in &self.nodes {
            for (key, value) in &heard.telling.report.labels {
                labels.entry(Label::new(key, value)).or_default().push(node);
            }
        }
        labels
    }

    /// Returns the releases that the last rollouts were for, so many of them, the latest first.
    pub fn last_releases(&self, most: usize) -> Vec<ReleaseId> {
        let mut releases = Vec::new();
        let of_groups = |rollout: &Rollout| match &rollout.scope {
            Scope::Each(groups) => groups.iter().map(|group| group.release).collect(),
            _ => Vec::new(),
        };
        let targets = |rollout: &Rollout| [rollout.target].into_iter().chain(of_groups(rollout)).collect::<Vec<_>>();
        for target in self.rollouts.values().rev().flat_map(targets) {
            if releases.len() == most {
                break;
            }
            if !releases.contains(&target) {
                releases.push(target);
            }
        }
        releases
    }

    /// Returns what was served before a release: what its own rollout replaced, and not what a rollback has left for it, which
    /// was left for a reason.
    pub fn before(&self, release: ReleaseId, scope: &Scope) -> Option<ReleaseId> {
        let brought = |rollout: &&Rollout| {
            rollout.kind == Kind::Release
                && rollout.phase == Phase::Done
                && rollout.target == release
                && (rollout.scope == *scope || !matches!(rollout.scope, Scope::Group(_)))
        };
        let replaced = self.rollouts.values().rev().filter(brought).filter_map(|rollout| rollout.stable);
        replaced.into_iter().find(|stable| *stable != release)
    }

    /// Returns what a rollback of these nodes leads to that names nothing: what they had before the rollout that is under way for
    /// them, and before their release if it is for others. Whoever asks while they go back already, is on the way.
    pub fn way_back(&self, desired: &Desired, scope: &Scope) -> Option<ReleaseId> {
        if changes(desired, scope) {
            return match desired.kind {
                Kind::Rollback => Some(desired.target),
                _ => stable_of(desired, scope),
            };
        }
        settled_of(desired, scope).and_then(|settled| self.before(settled, scope))
    }

    /// Returns the release that somebody means who names it, for a rollback of these nodes, by version, by the beginning of its
    /// digest, or by all of it. A version is one that was rolled out to them or to all: that of a group may have other rules.
    pub fn named(&self, desired: &Desired, scope: &Scope, to: &str) -> Option<ReleaseId> {
        let plain = |version: &str| version.trim_start_matches('v').to_owned();
        let has_digest = |release: ReleaseId| to.len() >= 8 && release.to_string().starts_with(to);
        let has_version = |version: Option<&str>| version.is_some_and(|version| plain(version) == plain(to));
        let settled = settled_of(desired, scope);
        // What they have settled on is no way back, but from a rollout that is under way for them, and for everybody from groups.
        let is_way_back = match scope {
            Scope::Everybody => !desired.has_ended() || !desired.settled_groups().is_empty(),
            _ => changes(desired, scope),
        };
        let is_it = |release: ReleaseId| has_digest(release) || has_version(self.version_of(release).as_deref());
        if let Some(settled) = settled.filter(|settled| is_way_back && is_it(*settled)) {
            return Some(settled);
        }
        let done = || {
            let done = self.rollouts.values().rev().filter(|rollout| rollout.phase == Phase::Done);
            done.filter(|rollout| is_way_back || Some(rollout.target) != settled)
        };
        let theirs = |rollout: &&Rollout| rollout.scope == *scope || !matches!(rollout.scope, Scope::Group(_));
        let by_version = done().filter(theirs).find(|rollout| has_version(rollout.about.version.as_deref()));
        let found = by_version.or_else(|| done().find(|rollout| has_digest(rollout.target)));
        found.map(|rollout| rollout.target).or_else(|| to.parse().ok())
    }

    /// Returns the present nodes that serve something, by the release that they serve; those that were changed or are held by
    /// hand are left out.
    pub fn serving(&self) -> BTreeMap<ReleaseId, Vec<&Heard>> {
        let mut serving: BTreeMap<ReleaseId, Vec<&Heard>> = BTreeMap::new();
        for heard in self.nodes.values().filter(|heard| heard.takes_part()) {
            if let Some(release) = heard.telling.report.serving {
                serving.entry(release).or_default().push(heard);
            }
        }
        serving
    }

    /// Returns what has become of a rollout, in the words of the API.
    pub fn outcome(&self, rollout: &Rollout) -> Value {
        let is_current = self.document.as_ref().is_some_and(|it| it.desired.order.rollout == rollout.rollout);
        let deployed: Vec<&NodeId> = match is_current {
            true => {
                let serves = |(_, heard): &(&NodeId, &Heard)| {
                    let report = &heard.telling.report;
                    report.serving.is_some()
                        && report.serving == rollout.target_for(&report.labels)
                        && heard.telling.report.order.rollout == rollout.rollout
                };
                self.nodes.iter().filter(serves).map(|(node, _)| node).collect()
            }
            false if rollout.phase == Phase::Done => rollout.served.keys().collect(),
            false => Vec::new(),
        };
        let failed: BTreeSet<&NodeId> = rollout.failures.keys().collect();
        // Who is not concerned is nothing that it lacks.
        let of_it =
            || self.nodes.iter().filter(|(_, heard)| rollout.target_for(&heard.telling.report.labels).is_some());
        let missing: Vec<&NodeId> = of_it().filter(|(_, heard)| !heard.is_present()).map(|it| it.0).collect();
        let drifted: Vec<&NodeId> = of_it().filter(|(_, heard)| heard.telling.report.pinned).map(|it| it.0).collect();
        let lags = |(_, heard): &(&NodeId, &Heard)| {
            let report = &heard.telling.report;
            heard.takes_part() && report.serving != rollout.target_for(&report.labels)
        };
        // What nodes serve now says nothing of a rollout that another one has followed, or that was aborted.
        let is_asked = is_current && rollout.phase == Phase::Done;
        let behind: Vec<&NodeId> = of_it().filter(lags).filter(|_| is_asked).map(|it| it.0).collect();
        // Whoever says so has waited for longer than nothing: the longest delay of a request on each node.
        let downtime: f64 = rollout.served.values().map(|served| served.downtime_ms).sum();
        let hint = rollout
            .served
            .values()
            .filter_map(|served| served.after_hint_ms)
            .fold(None, |most: Option<f64>, it| Some(most.map_or(it, |most| most.max(it))));
        json!({
            "success": rollout.phase == Phase::Done && failed.is_empty() && behind.is_empty(),
            "rollout": rollout.rollout,
            "kind": rollout.kind,
            "for": rollout.scope_name(),
            "state": rollout.state(),
            "version": rollout.about.version,
            "deployed_to": deployed,
            "failed": failed,
            "failures": rollout.failures,
            "missing": missing,
            "behind": behind,
            "drifted": drifted,
            "total_downtime_ms": downtime,
            "commit_skew_ms": rollout.skew_ms(),
            "hint_to_commit_ms": hint,
            "served": rollout.served,
            "wave": { "index": rollout.wave, "of": rollout.waves },
            "paused": rollout.paused,
            "stopped": rollout.frozen,
            "target": rollout.target,
            "stable": rollout.stable,
            "by": rollout.about.by,
            "reason": rollout.about.reason,
            "began_at": rollout.began_at,
            "steps": rollout.steps,
            "alarms": rollout.alarms,
        })
    }
}

#[cfg(test)]
mod tests {
    use waf_rollout::{Group, Order, Plan, Wave};

    use super::*;
    use crate::fleet::FORMAT;

    fn telling(seq: u64, step: u64, serving: &str) -> Telling {
        serde_json::from_value(json!({
            "node": "node-1", "boot": 1, "seq": seq, "term": 1, "rollout": 2, "step": step, "aborted": 0, "settled": null,
            "staged": true, "refused": false, "condemned": false, "serving": serving, "pinned": false, "held": false,
            "traffic": {}, "labels": {}, "version": "1.0.0", "module": "", "rules": "", "generation": 1, "problem": null,
            "change": null,
        }))
        .unwrap()
    }

    fn desired(rollout: u64, phase: Phase, scope: Scope, target: u8, stable: u8, groups: &[(&str, u8)]) -> Desired {
        let group = |(label, release): &(&str, u8)| Group { label: label.parse().unwrap(), release: id(*release) };
        Desired {
            term: 1,
            order: Order { rollout, step: 0 },
            kind: Kind::Release,
            phase,
            target: id(target),
            stable: Some(id(stable)),
            wave: Wave::NOBODY,
            plan: Plan::default(),
            paused: false,
            frozen: false,
            scope,
            groups: groups.iter().map(group).collect(),
        }
    }

    fn id(number: u8) -> ReleaseId {
        ReleaseId::new([number; 32])
    }

    fn of(label: &str) -> Scope {
        Scope::Group(label.parse().unwrap())
    }

    /// A view that has seen rollouts end well: whom each was for, what it brought, in which version, and instead of what.
    fn seen(folder: &Path, rollouts: &[(Scope, u8, &str, u8)]) -> View {
        let mut view = View::open("me".to_owned(), folder).unwrap();
        for (number, (scope, target, version, stable)) in (1..).zip(rollouts) {
            let groups: Vec<(String, u8)> = match scope {
                Scope::Group(label) => vec![(label.to_string(), *stable)],
                _ => Vec::new(),
            };
            let groups: Vec<(&str, u8)> = groups.iter().map(|(label, release)| (label.as_str(), *release)).collect();
            let desired = desired(number, Phase::Done, scope.clone(), *target, *stable, &groups);
            let about = About { version: Some((*version).to_owned()), ..About::default() };
            view.read(Some(&Document::new(desired, about))).unwrap();
        }
        view
    }

    #[test]
    fn a_rollback_takes_back_what_is_under_way_for_its_nodes_and_for_others_what_they_serve() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, all) = (of("ring=a"), of("ring=b"), Scope::Everybody);
        let view = seen(
            folder.path(),
            &[(all.clone(), 1, "1.0.0", 9), (all.clone(), 2, "2.0.0", 1), (b.clone(), 3, "3.0.0", 2)],
        );
        let back = |desired: &Desired| [&a, &b, &all].map(|scope| view.way_back(desired, scope));
        let under_way = |scope: &Scope| desired(4, Phase::Commit, scope.clone(), 5, 2, &[("ring=b", 3)]);
        // 3 is what B serves, and is bad: that A gets 5 meanwhile is nothing to it. Nor is it to what all the others serve.
        assert_eq!(back(&under_way(&a)), [Some(id(2)), Some(id(2)), Some(id(1))]);
        assert_eq!(back(&under_way(&b)), [Some(id(1)), Some(id(3)), Some(id(1))]);
        assert_eq!(back(&under_way(&all)), [Some(id(2)), Some(id(3)), Some(id(2))], "it is for all of them");
        let rules = Scope::Each(vec![Group { label: "ring=b".parse().unwrap(), release: id(6) }]);
        assert_eq!(back(&under_way(&rules)), [Some(id(2)), Some(id(3)), Some(id(2))], "so are rules");
        let ended = desired(4, Phase::Abort, a.clone(), 5, 2, &[("ring=b", 3)]);
        assert_eq!(back(&ended), [Some(id(1)), Some(id(2)), Some(id(1))]);
        // Asked for twice, it does not go forward again.
        let going_back = |scope: &Scope| Desired { kind: Kind::Rollback, ..under_way(scope) };
        assert_eq!(back(&going_back(&all)), [Some(id(5)); 3]);
        assert_eq!(back(&going_back(&a)), [Some(id(5)), Some(id(2)), Some(id(1))]);
    }

    #[test]
    fn a_version_that_is_named_is_not_that_of_another_group_with_other_rules() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, all) = (of("ring=a"), of("ring=b"), Scope::Everybody);
        // Release 3 is the same version as 2, with rules that only B was to have.
        let view = seen(
            folder.path(),
            &[
                (all.clone(), 1, "1.0.0", 9),
                (all.clone(), 2, "2.0.0", 1),
                (b.clone(), 3, "2.0.0", 2),
                (b.clone(), 4, "4.0.0", 3),
            ],
        );
        let now = desired(4, Phase::Done, b.clone(), 4, 2, &[("ring=b", 3)]);
        for to in ["2.0.0", "v2.0.0"] {
            assert_eq!(view.named(&now, &all, to), Some(id(2)), "what all others serve: the groups end");
            assert_eq!(view.named(&now, &b, to), Some(id(3)), "its own");
        }
        assert_eq!(view.named(&now, &all, "4.0.0"), None, "it was never for everybody");
        assert_eq!(view.named(&now, &a, "4.0.0"), None, "nor for them");
        assert_eq!(view.named(&now, &a, "1.0.0"), Some(id(1)), "everybody had it");
        assert_eq!(view.named(&now, &b, "4.0.0"), None, "they are there");
        // A digest names one release, whoever had it.
        for to in ["04040404", &id(4).to_string()] {
            assert_eq!(view.named(&now, &all, to), Some(id(4)));
        }
        assert_eq!(view.named(&now, &all, "02020202"), Some(id(2)));
        assert_eq!(view.named(&now, &all, "0404"), None, "too short to name one");
        let unknown = id(77);
        assert_eq!(view.named(&now, &all, &unknown.to_string()), Some(unknown), "the store may have it");
        // From a rollout that is under way, back to what it takes the place of.
        let under_way = desired(5, Phase::Commit, all.clone(), 5, 2, &[]);
        assert_eq!(view.named(&under_way, &all, "2.0.0"), Some(id(2)));
        let settled = desired(5, Phase::Abort, all.clone(), 5, 2, &[]);
        assert_eq!(view.named(&settled, &all, "2.0.0"), None, "they are there");
    }

    #[test]
    fn a_rollout_that_is_done_without_a_node_that_is_there_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = View::open("me".to_owned(), folder.path()).unwrap();
        let document = |number| {
            let desired = desired(number, Phase::Done, Scope::Everybody, 2, 1, &[]);
            Document::new(desired, About::default())
        };
        view.read(Some(&document(2))).unwrap();
        view.told(telling(1, 0, &id(1).to_string()));
        let outcome = |view: &View| view.outcome(&view.rollouts[&2]);
        assert_eq!((&outcome(&view)["success"], &outcome(&view)["behind"]), (&json!(false), &json!(["node-1"])));
        view.told(telling(2, 0, &id(2).to_string()));
        assert_eq!((&outcome(&view)["success"], &outcome(&view)["behind"]), (&json!(true), &json!([])));
        // What it serves later is of a later rollout.
        view.read(Some(&document(3))).unwrap();
        view.told(telling(3, 0, &id(3).to_string()));
        assert_eq!((&outcome(&view)["success"], &outcome(&view)["behind"]), (&json!(true), &json!([])));
    }

    #[test]
    fn the_history_is_saved_when_it_has_changed_and_not_for_each_report() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (ReleaseId::new([1; 32]), ReleaseId::new([2; 32]));
        let mut view = View::open("me".to_owned(), folder.path()).unwrap();
        let desired = Desired {
            term: 1,
            order: Order { rollout: 2, step: 0 },
            kind: Kind::Release,
            phase: Phase::Stage,
            target: new,
            stable: Some(old),
            wave: Wave::NOBODY,
            plan: Plan::default(),
            paused: false,
            frozen: false,
            scope: Scope::Everybody,
            groups: Vec::new(),
        };
        view.read(Some(&Document { format: FORMAT, desired, about: About::default() })).unwrap();
        let mut saved = |told| {
            view.is_saved = true;
            view.told(told);
            view.is_saved
        };
        assert!(saved(telling(1, 0, &old.to_string())), "what is staged is an event, and no part of the history");
        assert!(saved(telling(2, 0, &old.to_string())), "a heartbeat");
        assert!(!saved(telling(3, 0, &new.to_string())), "it serves the target");
        assert!(saved(telling(4, 0, &new.to_string())), "and still does");
    }
}
