//! Rules from outside: what comes in a burst becomes one rollout.
//!
//! A rule that arrives opens a window; what arrives within it, and until the rollout that is under way has ended, goes into the
//! next one. So twenty rules in five seconds are two rollouts at most, and no rule waits for more than one of others.
//!
//! What waits is on the disk before anybody is told that it does, and an orchestrator that is started anew goes on with it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hotslot::BoxError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};
use waf_rollout::{Command, Desired, Group, Kind, Label, NotDone, Plan, ReleaseId, Scope};

use super::artifacts::Artifacts;
use super::examiner::{Examiner, Use};
use super::leader::{AskError, Basis, Desk};
use super::orchestrator::{Problem, start_rollout};
use super::{About, Settings};
use crate::release::Release;
use crate::replace_file::replace_file;
use crate::rule_file::{Edit, RuleFile};

/// How long a first rule waits for others.
const WINDOW: Duration = Duration::from_secs(1);

/// How often a rollout of rules is prepared that others come before.
const ATTEMPTS: usize = 8;

/// How long rules wait that cannot be rolled out now: another orchestrator leads, the fleet is stopped, or NATS is away.
const RETRY: Duration = Duration::from_secs(10);

/// A change of the fleet's rule file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// All of it, as it was sent.
    Replace(String),
    Add(Value),
}

impl Change {
    /// Returns the rule file with this change.
    pub fn apply(&self, rules: &RuleFile) -> Result<RuleFile, String> {
        match self {
            Change::Replace(text) => Ok(RuleFile::new(text.as_bytes().to_vec())),
            Change::Add(rule) => {
                let edited = rules.edited(Edit::Put(rule.clone())).map_err(|error| error.to_string())?;
                Ok(edited.0)
            }
        }
    }
}

/// What somebody wants of the rules, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wanted {
    change: Change,
    by: String,
    /// The last rollout when it was accepted.
    after: Option<u64>,
}

struct Wish {
    number: u64,
    wanted: Wanted,
    /// Whoever waits to hear what becomes of it; nobody after a restart.
    done: Option<oneshot::Sender<Result<u64, Problem>>>,
}

impl Wish {
    fn is_waited_for(&self) -> bool {
        self.done.as_ref().is_some_and(|done| !done.is_closed())
    }
}

/// The wishes that wait, on the disk.
struct Kept {
    path: PathBuf,
    wishes: Mutex<(u64, BTreeMap<u64, Wanted>)>,
}

impl Kept {
    fn open(data: &Path) -> Result<Kept, BoxError> {
        let path = data.join("queue.json");
        let wishes: BTreeMap<u64, Wanted> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!("{}: {error}: move it away, and the rules that wait there are not rolled out", path.display())
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        let next = wishes.last_key_value().map_or(0, |(last, _)| last + 1);
        Ok(Kept { path, wishes: Mutex::new((next, wishes)) })
    }

    async fn add(&self, wanted: Wanted) -> Result<u64, BoxError> {
        let (next, wishes) = &mut *self.wishes.lock().await;
        let number = *next;
        *next += 1;
        wishes.insert(number, wanted);
        let written = self.write(wishes).await;
        if written.is_err() {
            wishes.remove(&number);
        }
        written.map(|()| number)
    }

    async fn remove(&self, numbers: impl Iterator<Item = u64>) {
        let (_, wishes) = &mut *self.wishes.lock().await;
        numbers.for_each(|number| drop(wishes.remove(&number)));
        if let Err(error) = self.write(wishes).await {
            tracing::error!(%error, "rules that have been rolled out will be once more after a restart");
        }
    }

    async fn write(&self, wishes: &BTreeMap<u64, Wanted>) -> Result<(), BoxError> {
        let (path, bytes) = (self.path.clone(), serde_json::to_vec(wishes).expect("texts and numbers"));
        let written = tokio::task::spawn_blocking(move || replace_file(&path, &bytes)).await?;
        written.map_err(|error| format!("{}: {error}", self.path.display()).into())
    }
}

#[derive(Clone)]
pub(super) struct Queue {
    wishes: mpsc::Sender<Wish>,
    kept: Arc<Kept>,
    desk: Desk,
}

impl Queue {
    /// Starts with what waited when the orchestrator stopped.
    pub async fn start(
        data: &Path,
        desk: Desk,
        artifacts: Artifacts,
        examiner: Arc<Examiner>,
    ) -> Result<Queue, BoxError> {
        let kept = Arc::new(Kept::open(data)?);
        let waiting = kept.wishes.lock().await.1.clone();
        let (wishes, wished) = mpsc::channel(1024);
        let worker = Worker { desk: desk.clone(), artifacts, examiner, kept: Arc::clone(&kept) };
        let waiting = waiting.into_iter().map(|(number, wanted)| Wish { number, wanted, done: None });
        tokio::spawn(worker.run(waiting.collect(), wished));
        Ok(Queue { wishes, kept, desk })
    }

    /// Puts a change in the next rollout of rules. It is kept when this returns; what is returned waits for the number of the
    /// rollout once that has begun.
    pub async fn push(
        &self,
        change: Change,
        by: String,
    ) -> Result<impl Future<Output = Result<u64, Problem>> + use<>, Problem> {
        let stopped =
            || Problem::unavailable("the orchestrator stops, and goes on with the rules when it is started again");
        let after = self.desk.view.lock().document.as_ref().map(|document| document.desired.order.rollout);
        let (queue, wanted) = (self.clone(), Wanted { change, by, after });
        let (done, answer) = oneshot::channel();
        // What is kept is sent, too, also if whoever asks has gone by then.
        let kept = tokio::spawn(async move {
            let number = queue.kept.add(wanted.clone()).await;
            let number = number.map_err(|error| Problem::unavailable(format!("the rules cannot be kept: {error}")))?;
            queue.wishes.send(Wish { number, wanted, done: Some(done) }).await.map_err(|_| stopped())
        });
        kept.await.unwrap_or_else(|_| Err(stopped()))?;
        Ok(async move { answer.await.unwrap_or_else(|_| Err(stopped())) })
    }
}

/// Why a rollout has not begun.
enum NotBegun {
    /// The fleet has changed since it was prepared.
    Overtaken,
    /// It may begin later.
    Later(Problem),
    Never(Problem),
}

impl From<AskError> for NotBegun {
    fn from(error: AskError) -> NotBegun {
        match error {
            AskError::Overtaken => NotBegun::Overtaken,
            AskError::NotDone(NotDone::NotLeading { .. } | NotDone::NotKnown | NotDone::Frozen)
            | AskError::Store(_)
            | AskError::Unavailable(_)
            | AskError::Contended => NotBegun::Later(error.into()),
            AskError::NotDone(_) => NotBegun::Never(error.into()),
        }
    }
}

struct Worker {
    desk: Desk,
    artifacts: Artifacts,
    examiner: Arc<Examiner>,
    kept: Arc<Kept>,
}

impl Worker {
    async fn run(self, waiting: Vec<Wish>, mut wished: mpsc::Receiver<Wish>) {
        let mut wishes = self.still_wanted(waiting).await;
        loop {
            if wishes.is_empty() {
                let Some(first) = wished.recv().await else { return };
                wishes.push(first);
            }
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
            wishes = self.roll_out(wishes).await;
            if !wishes.is_empty() {
                if let Ok(Some(wish)) = tokio::time::timeout(RETRY, wished.recv()).await {
                    wishes.push(wish);
                }
                wishes = self.still_wanted(wishes).await;
            }
        }
    }

    /// Waits to know how the fleet stands, and gives up what nobody waits for and would take back what has come after it.
    async fn still_wanted(&self, waiting: Vec<Wish>) -> Vec<Wish> {
        if waiting.is_empty() {
            return waiting;
        }
        let mut changes = self.desk.changes.clone();
        let rollout = loop {
            let known = self.desk.view.lock().document.as_ref().map(|document| document.desired.order.rollout);
            match known {
                Some(rollout) => break rollout,
                None if changes.changed().await.is_err() => return Vec::new(),
                None => {}
            }
        };
        let mut wanted = Vec::new();
        for wish in waiting {
            let is_whole = matches!(wish.wanted.change, Change::Replace(_));
            if is_whole && !wish.is_waited_for() && wish.wanted.after.is_none_or(|after| after < rollout) {
                let problem =
                    "the fleet has changed since this rule file was accepted: send it again if it is still right";
                self.finish(vec![wish], Err(Problem::conflict(problem))).await;
            } else {
                wanted.push(wish);
            }
        }
        wanted
    }

    /// Has wishes wait no longer. If nobody hears of it, the audit does.
    async fn finish(&self, wishes: Vec<Wish>, became: Result<u64, Problem>) {
        if wishes.is_empty() {
            return;
        }
        self.kept.remove(wishes.iter().map(|wish| wish.number)).await;
        for Wish { wanted, done, .. } in wishes {
            if done.is_some_and(|done| done.send(became.clone()).is_ok()) {
                continue;
            }
            let mut line = json!({ "what": "rules that had to wait", "by": wanted.by });
            match &became {
                Ok(rollout) => line["rollout"] = (*rollout).into(),
                Err(problem) => {
                    tracing::error!(error = %problem.body["error"], "rules that were accepted are not rolled out");
                    line["error"] = problem.body["error"].clone();
                }
            }
            self.desk.audit(line).await;
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

    /// Returns what is to be tried again: what cannot be rolled out now, and was accepted.
    async fn roll_out(&self, wishes: Vec<Wish>) -> Vec<Wish> {
        let Some((wishes, began)) = self.prepare(wishes).await else { return Vec::new() };
        let (again, became) = match began {
            Ok(number) => {
                tracing::info!(rollout = number, rules = wishes.len(), "rules from outside: a rollout");
                (false, Ok(number))
            }
            Err(NotBegun::Later(problem)) => (true, Err(problem)),
            Err(NotBegun::Never(problem)) => (false, Err(problem)),
            Err(NotBegun::Overtaken) => (true, Err(AskError::Overtaken.into())),
        };
        // Whoever hears of it may send it again.
        let (left, ended): (Vec<Wish>, _) = wishes.into_iter().partition(|wish| again && !wish.is_waited_for());
        self.finish(ended, became.clone()).await;
        if let (false, Err(problem)) = (left.is_empty(), &became) {
            tracing::warn!(error = %problem.body["error"], rules = left.len(), "rules that were accepted have to wait");
        }
        left
    }

    /// Starts the rollout of what is valid, and answers the rest: anew if the fleet has got another release meanwhile.
    async fn prepare(&self, mut wishes: Vec<Wish>) -> Option<(Vec<Wish>, Result<u64, NotBegun>)> {
        for _ in 0..ATTEMPTS {
            let (valid, started) = self.try_prepare(wishes).await?;
            if !matches!(started, Err(NotBegun::Overtaken)) {
                return Some((valid, started));
            }
            wishes = valid;
            self.rollout_ended().await;
        }
        Some((wishes, Err(NotBegun::Overtaken)))
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
                Err(NotBegun::Never(Problem::conflict("the fleet has no release yet: POST /api/v1/wasm/reload-fleet"))),
            ));
        };
        let version = self.desk.view.lock().version_of(settled);
        // A group that has a release of its own keeps its module, and gets the rules, too.
        let mut bases = Vec::new();
        let groups = groups.into_iter().map(|group| (Some(group.label), group.release));
        for (label, id) in [(None, settled)].into_iter().chain(groups) {
            match Base::read(&self.artifacts, label, id).await {
                Ok(base) => bases.push(base),
                Err(error) => return Some((wishes, Err(NotBegun::Later(error)))),
            }
        }
        // Each on top of those before it: one bad rule must not take the others with it.
        let mut valid = Vec::new();
        for wish in wishes {
            match self.examine(&wish.wanted.change, &bases).await {
                Ok(changed) => {
                    bases.iter_mut().zip(changed).for_each(|(base, rules)| base.release.rules = rules);
                    valid.push(wish);
                }
                Err(problem) => self.finish(vec![wish], Err(problem)).await,
            }
        }
        if valid.is_empty() {
            return None;
        }
        let (mut target, mut groups) = (settled, Vec::new());
        for Base { label, settings, release } in bases {
            let published = match self.artifacts.publish(&release, settings).await {
                Ok(published) => published,
                Err(error) => return Some((valid, Err(NotBegun::Later(Problem::unavailable(error.to_string()))))),
            };
            match label {
                None => target = published,
                Some(label) => groups.push(Group { label, release: published }),
            }
        }
        let scope = if groups.is_empty() { Scope::Everybody } else { Scope::Each(groups) };
        let mut by: Vec<String> = valid.iter().map(|wish| wish.wanted.by.clone()).collect();
        by.dedup();
        let reason = match valid.len() {
            1 => "a rule from outside".to_owned(),
            count => format!("{count} rules from outside"),
        };
        let about = About { by: by.join(", "), reason, version, ..About::default() };
        let command = Command::Start(Kind::Release, scope, target, Plan::rules());
        let started = start_rollout(&self.desk, command, about, basis).await;
        Some((valid, started.map_err(NotBegun::from)))
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
