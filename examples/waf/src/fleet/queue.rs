//! Rules from outside: what comes in a burst becomes one rollout.
//!
//! A rule that arrives opens a window; what arrives within it, and until the rollout that is under way has ended, goes into the
//! next one. So twenty rules in five seconds are two rollouts at most, and no rule waits for more than one of others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use waf_rollout::{Command, Desired, Group, Kind, Label, Plan, ReleaseId, Scope};

use super::artifacts::Artifacts;
use super::examiner::{Examiner, Use};
use super::leader::{AskError, Basis, Desk};
use super::orchestrator::{Problem, start_rollout};
use super::{About, Settings};
use crate::release::Release;
use crate::rule_file::{Edit, RuleFile};

/// How long a first rule waits for others.
const WINDOW: Duration = Duration::from_secs(1);

/// How often a rollout of rules is prepared that others come before.
const ATTEMPTS: usize = 8;

/// A change of the fleet's rule file.
#[derive(Clone)]
pub(super) enum Change {
    Replace(RuleFile),
    Add(serde_json::Value),
}

impl Change {
    /// Returns the rule file with this change.
    pub fn apply(&self, rules: &RuleFile) -> Result<RuleFile, String> {
        match self {
            Change::Replace(rules) => Ok(rules.clone()),
            Change::Add(rule) => {
                let edited = rules.edited(Edit::Put(rule.clone())).map_err(|error| error.to_string())?;
                Ok(edited.0)
            }
        }
    }
}

struct Wish {
    change: Change,
    by: String,
    done: oneshot::Sender<Result<u64, Problem>>,
}

#[derive(Clone)]
pub(super) struct Queue(mpsc::Sender<Wish>);

impl Queue {
    pub fn start(desk: Desk, artifacts: Artifacts, examiner: Arc<Examiner>) -> Queue {
        let (wishes, wished) = mpsc::channel(1024);
        tokio::spawn(Worker { desk, artifacts, examiner }.run(wished));
        Queue(wishes)
    }

    /// Puts a change in the next rollout of rules, and returns its number once it has begun.
    pub async fn push(&self, change: Change, by: String) -> Result<u64, Problem> {
        let (done, answer) = oneshot::channel();
        let stopped = || Problem::unavailable("the orchestrator stops");
        self.0.send(Wish { change, by, done }).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Why a rollout has not begun.
enum NotBegun {
    /// The fleet has changed since it was prepared.
    Overtaken,
    Not(Problem),
}

struct Worker {
    desk: Desk,
    artifacts: Artifacts,
    examiner: Arc<Examiner>,
}

impl Worker {
    async fn run(self, mut wished: mpsc::Receiver<Wish>) {
        while let Some(first) = wished.recv().await {
            let mut wishes = vec![first];
            let mut window = Box::pin(tokio::time::sleep(WINDOW));
            let mut ended = Box::pin(async {
                window.as_mut().await;
                self.rollout_ended().await;
            });
            loop {
                tokio::select! {
                    () = &mut ended => break,
                    Some(wish) = wished.recv() => wishes.push(wish),
                }
            }
            drop(ended);
            while let Ok(wish) = wished.try_recv() {
                wishes.push(wish);
            }
            self.roll_out(wishes).await;
        }
    }

    async fn rollout_ended(&self) {
        let mut changes = self.desk.changes.clone();
        let under_way = || {
            let view = self.desk.view.lock();
            view.document.as_ref().is_some_and(|document| !document.desired.has_ended())
        };
        while under_way() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn roll_out(&self, wishes: Vec<Wish>) {
        match self.prepare(wishes).await {
            None => {}
            Some((wishes, Ok(number))) => {
                tracing::info!(rollout = number, rules = wishes.len(), "rules from outside: a rollout");
                wishes.into_iter().for_each(|wish| drop(wish.done.send(Ok(number))));
            }
            Some((wishes, Err(problem))) => {
                wishes.into_iter().for_each(|wish| drop(wish.done.send(Err(problem.clone()))));
            }
        }
    }

    /// Starts the rollout of what is valid, and answers the rest: anew if the fleet has got another release meanwhile.
    async fn prepare(&self, mut wishes: Vec<Wish>) -> Option<(Vec<Wish>, Result<u64, Problem>)> {
        for _ in 0..ATTEMPTS {
            let (valid, started) = self.try_prepare(wishes).await?;
            match started {
                Ok(number) => return Some((valid, Ok(number))),
                Err(NotBegun::Overtaken) => wishes = valid,
                Err(NotBegun::Not(problem)) => return Some((valid, Err(problem))),
            }
            self.rollout_ended().await;
        }
        Some((wishes, Err(AskError::Overtaken.into())))
    }

    async fn try_prepare(&self, wishes: Vec<Wish>) -> Option<(Vec<Wish>, Result<u64, NotBegun>)> {
        let (settled, groups, basis) = {
            let view = self.desk.view.lock();
            let desired = view.document.as_ref().map(|document| &document.desired);
            let groups = desired.map(Desired::settled_groups).unwrap_or_default();
            (desired.and_then(Desired::settled), groups, Basis::settled(desired))
        };
        let Some(settled) = settled else {
            return Some((
                wishes,
                Err(NotBegun::Not(Problem::conflict("the fleet has no release yet: POST /api/v1/wasm/reload-fleet"))),
            ));
        };
        let version = self.desk.view.lock().version_of(settled);
        // A group that has a release of its own keeps its module, and gets the rules, too.
        let mut bases = Vec::new();
        let groups = groups.into_iter().map(|group| (Some(group.label), group.release));
        for (label, id) in [(None, settled)].into_iter().chain(groups) {
            match Base::read(&self.artifacts, label, id).await {
                Ok(base) => bases.push(base),
                Err(error) => return Some((wishes, Err(NotBegun::Not(error)))),
            }
        }
        // Each on top of those before it: one bad rule must not take the others with it.
        let mut valid = Vec::new();
        for wish in wishes {
            match self.examine(&wish.change, &bases).await {
                Ok(changed) => {
                    bases.iter_mut().zip(changed).for_each(|(base, rules)| base.release.rules = rules);
                    valid.push(wish);
                }
                Err(problem) => drop(wish.done.send(Err(problem))),
            }
        }
        if valid.is_empty() {
            return None;
        }
        let (mut target, mut groups) = (settled, Vec::new());
        for Base { label, settings, release } in bases {
            let published = match self.artifacts.publish(&release, settings).await {
                Ok(published) => published,
                Err(error) => return Some((valid, Err(NotBegun::Not(Problem::unavailable(error.to_string()))))),
            };
            match label {
                None => target = published,
                Some(label) => groups.push(Group { label, release: published }),
            }
        }
        let scope = if groups.is_empty() { Scope::Everybody } else { Scope::Each(groups) };
        let mut by: Vec<String> = valid.iter().map(|wish| wish.by.clone()).collect();
        by.dedup();
        let reason = match valid.len() {
            1 => "a rule from outside".to_owned(),
            count => format!("{count} rules from outside"),
        };
        let about = About { by: by.join(", "), reason, version, ..About::default() };
        let command = Command::Start(Kind::Release, scope, target, Plan::rules());
        let started = start_rollout(&self.desk, command, about, basis).await;
        let started = started.map_err(|error| match error {
            AskError::Overtaken => NotBegun::Overtaken,
            error => NotBegun::Not(error.into()),
        });
        Some((valid, started))
    }

    /// Returns the rule files with this change, one for each of these, if all of them can have it.
    async fn examine(&self, change: &Change, bases: &[Base]) -> Result<Vec<RuleFile>, Problem> {
        let mut changed = Vec::new();
        for Base { settings, release, .. } in bases {
            let rules = change.apply(&release.rules).map_err(|problem| Problem::invalid("rules", problem))?;
            let wanted = Use::New { settled: Some(release.module.clone()) };
            let release = Release { module: release.module.clone(), rules: rules.clone() };
            let examined = self.examiner.examine(release, *settings, wanted).await;
            examined.map_err(|unfit| unfit.problem("rules"))?;
            changed.push(rules);
        }
        Ok(changed)
    }
}

/// What rules are changed of: the fleet's release, or that of a group.
struct Base {
    label: Option<Label>,
    settings: Settings,
    release: Release,
}

impl Base {
    async fn read(artifacts: &Artifacts, label: Option<Label>, id: ReleaseId) -> Result<Base, Problem> {
        let found = artifacts.release(id).await.map_err(|error| Problem::unavailable(error.to_string()))?;
        Ok(Base { label, settings: found.0.config, release: found.1 })
    }
}
