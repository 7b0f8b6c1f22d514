//! A node's part: hears that there is something to read, reads it, and does what the [logic](waf_rollout::Node) says.
//!
//! It never waits for NATS. What serves was started from the node's own archive, and goes on serving whatever becomes of the
//! connection; the hint is quick, and a poll now and then finds what no hint told.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hotslot::{BoxError, Cause, Digest, escape_untrusted};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant as Timer, sleep_until};
use waf_rollout::{Effect, Event, Kind, Labels, Node, NodeId, Phase, Refusal, ReleaseId, Traffic};

use super::disk::{Disk, Swap};
use super::managed::{Managed, ManagedState, Order};
use super::store::{Key, Store, StoreError, Stored};
use super::{Changed, Description, Document, MOST_LABELS, Membership, Problem, Settings, Telling};
use crate::config::{Config, FailurePolicy};
use crate::deploy::{self, Deployments, Made, Ready};
use crate::release::{Module, Release};
use crate::rule_file::RuleFile;

/// How often a node tells that it is there, and how much later that may be.
const BEAT: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(4));
/// The least time between two of them while a wave bakes, and how often it tells in that time: its leader compares what it hears.
const SOONEST_BEAT: Duration = Duration::from_secs(1);
const BEATS_OF_A_WAVE: u32 = 4;
/// How often it reads the document without having heard anything.
const POLL: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How soon it reads after the connection is back: not all nodes at once.
const AGAIN: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(500));
/// How soon it reads again when it could not.
const RETRY_READ: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// How often it looks for the file that holds it.
const LOOK: Duration = Duration::from_millis(500);
/// How much of an error a report has.
pub(super) const MOST_ERROR: usize = 2048;
/// The longest time between two attempts at what may work later.
const LONGEST_REST: u64 = 10_000;

/// The least time, and what chance adds to it at most.
fn jittered((least, more): (Duration, Duration)) -> Timer {
    Timer::now() + least + more.mul_f64(rand::random::<f64>())
}

/// Starts following the fleet. What serves already goes on serving until a document says otherwise.
pub fn start(
    config: &Config,
    membership: &Membership,
    deployments: &Arc<Deployments>,
    runtime: &Runtime,
) -> Result<Managed, BoxError> {
    let labels: Labels = membership.labels.iter().cloned().collect();
    if serde_json::to_vec(&labels)?.len() > MOST_LABELS {
        return Err(format!("the labels of a node have at most {MOST_LABELS} bytes, as JSON: give it fewer").into());
    }
    // Before it is asked what serves: nothing may come in between.
    let events = deployments.guard().slot().subscribe();
    let disk = Disk::open(&config.data)?;
    let name = disk.name(membership.name.as_deref())?;
    let memory = disk.memory()?;
    let (serving, ..) = deployments.what_serves();
    let found = disk.find(&serving)?;
    let store = runtime.block_on(Store::connect(&membership.endpoint, name.as_str()))?;
    tracing::info!(node = %name, release = %found.serving, "in a fleet");

    let (node, first) = Node::start(name.clone(), memory, Some(found.serving));
    let node = node.with_labels(labels);
    let (orders, ordered) = mpsc::channel(4);
    let (tell_ended, ended) = mpsc::unbounded_channel();
    let state = Arc::new(Mutex::new(ManagedState::default()));
    let policies = Policies { failure: *config.failure_policy.get_ref(), deployments: Arc::clone(deployments) };
    policies.apply(found.settings);

    // What the slot does on its own. It ends with the process.
    let (tell, theirs) = (tell_ended.clone(), Arc::clone(deployments));
    std::thread::Builder::new().name("fleet".to_owned()).spawn(move || {
        for event in events {
            let reason = match event {
                hotslot::Event::Ended(report) => match &report.cause {
                    Cause::Automatic { reason } => escape_untrusted(reason).into_owned(),
                    _ => continue,
                },
                // What was missed may have been that the slot went back.
                hotslot::Event::Lagged(_) => "the slot went back, and why was missed".to_owned(),
                _ => continue,
            };
            theirs.follow();
            let _ = tell.send(Ended::WentBack(reason));
        }
    })?;

    let agent = Agent {
        node,
        name,
        fetch_splay: membership.fetch_splay,
        disk,
        store,
        deployments: Arc::clone(deployments),
        policies,
        hold_file: config.data.join("hold"),
        held: false,
        job: 0,
        stages_new: false,
        staged: None,
        commits: Commits::default(),
        heard_at: Instant::now(),
        retry_at: None,
        problem: None,
        change: None,
        settled: None,
        tell_ended,
        state: Arc::clone(&state),
    };
    runtime.spawn(agent.run(first, found.failed, ordered, ended));
    Ok(Managed { orders, state, by_hand: Arc::default() })
}

/// The part of a node's configuration that a release may set.
struct Policies {
    /// What the node's own configuration says.
    failure: FailurePolicy,
    deployments: Arc<Deployments>,
}

impl Policies {
    fn check(&self, settings: Settings) -> Result<(), String> {
        let failure = settings.failure_policy.unwrap_or(self.failure);
        if failure == FailurePolicy::LastGood && self.deployments.guard().fallback().is_none() {
            return Err(
                "the release sets the failure policy last_good, and this node keeps no fallback: set it in the \
                        node's configuration, too"
                    .to_owned(),
            );
        }
        settings.check()
    }

    fn apply(&self, settings: Settings) {
        let failure = settings.failure_policy.unwrap_or(self.failure);
        self.deployments.guard().set_policies(failure, settings.uninspected);
    }
}

/// A release that is one commit away from serving.
struct Staged {
    id: ReleaseId,
    settings: Settings,
    how: How,
}

enum How {
    /// As a reload: the version rule holds, and it goes through its probation.
    Forward(Box<Ready>),
    /// As a rollback: to something that served before, or should have.
    Back(Release),
}

/// How a release may come to serve.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    /// Whoever was away while the fleet went back, and then on to something else, serves what is newer than that, and has to go
    /// back for it.
    Either,
    Back,
}

/// What has ended.
enum Ended {
    Staged {
        job: u64,
        id: ReleaseId,
        outcome: Result<Box<Staged>, Failed>,
    },
    Committed {
        id: ReleaseId,
        settings: Settings,
        outcome: Result<Made, Failed>,
    },
    /// The slot rolled back on its own, or may have.
    WentBack(String),
}

/// Puts what the slot does on its own after the commit that it follows: a release can fail its probation before the task
/// that committed it has ended, and then what the node thinks that it serves is still the release before.
#[derive(Default)]
struct Commits {
    committing: bool,
    went_back: Option<String>,
}

impl Commits {
    fn begins(&mut self) {
        self.committing = true;
    }

    /// Returns the reason if it is time to look what serves.
    fn went_back(&mut self, reason: String) -> Option<String> {
        if !self.committing {
            return Some(reason);
        }
        self.went_back = Some(reason);
        None
    }

    /// Returns why the slot went back since the commit began, if it did.
    fn ends(&mut self) -> Option<String> {
        self.committing = false;
        self.went_back.take()
    }
}

/// Returns what has failed its probation: what was thought to serve, unless it still does.
fn failed(thought: ReleaseId, serving: ReleaseId) -> Option<ReleaseId> {
    (thought != serving).then_some(thought)
}

/// Why a release is not staged or does not serve.
struct Failed {
    refusal: Refusal,
    stage: &'static str,
    error: String,
}

impl Failed {
    fn for_good(stage: &'static str, error: String) -> Failed {
        Failed { refusal: Refusal::Final, stage, error }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed { refusal: Refusal::Transient, stage: "fetch", error: error.to_string() }
    }
}

impl From<deploy::Refusal> for Failed {
    fn from(error: deploy::Refusal) -> Failed {
        let refusal = if error.is_transient() { Refusal::Transient } else { Refusal::Final };
        Failed { refusal, stage: error.stage(), error: escape_untrusted(&error.to_string()).into_owned() }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        Failed { refusal: Refusal::Transient, stage: "disk", error: error.to_string() }
    }
}

struct Agent {
    node: Node,
    name: NodeId,
    fetch_splay: Duration,
    disk: Disk,
    store: Store,
    deployments: Arc<Deployments>,
    policies: Policies,
    hold_file: PathBuf,
    held: bool,
    /// Counts stages: the outcome of an earlier one is not wanted any more.
    job: u64,
    /// Whether the last stage was of something new.
    stages_new: bool,
    staged: Option<Staged>,
    commits: Commits,
    /// When the node heard of the document that it follows.
    heard_at: Instant,
    retry_at: Option<Timer>,
    problem: Option<Problem>,
    change: Option<Changed>,
    /// What the fleet has settled on, as far as this node has taken note.
    settled: Option<ReleaseId>,
    tell_ended: mpsc::UnboundedSender<Ended>,
    state: Arc<Mutex<ManagedState>>,
}

impl Agent {
    async fn run(
        mut self,
        first: Effect,
        failed: Option<ReleaseId>,
        mut orders: mpsc::Receiver<Order>,
        mut ended: mpsc::UnboundedReceiver<Ended>,
    ) {
        let hints = loop {
            match self.store.hints().await {
                Ok(hints) => break hints,
                Err(error) => tracing::error!(%error, "no hints: trying again"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let mut hints = pin!(hints);
        self.perform(first).await;
        // What somebody has put there by hand is nobody's failure.
        if let Some(failed) = failed.filter(|_| !self.node.memory().pinned) {
            let serving = self.serving();
            self.condemn(failed, serving).await;
        }
        self.look_for_hold().await;
        let (mut poll, mut beat, mut look) = (Timer::now(), Timer::now(), Timer::now() + LOOK);
        let connected = self.store.connected_again();
        loop {
            let retry = self.retry_at;
            let (least, more) = self.beat();
            beat = beat.min(Timer::now() + least + more);
            tokio::select! {
                hint = hints.next() => match hint {
                    Some(()) => poll = self.read(Instant::now()).await,
                    // The client has given up, which it never does by itself.
                    None => return,
                },
                () = connected.notified() => {
                    poll = poll.min(jittered(AGAIN));
                    beat = Timer::now();
                }
                () = sleep_until(poll) => poll = self.read(Instant::now()).await,
                () = sleep_until(beat) => {
                    self.tell(false).await;
                    beat = jittered(self.beat());
                }
                () = sleep_until(look) => {
                    self.look_for_hold().await;
                    look = Timer::now() + LOOK;
                }
                () = async { sleep_until(retry.expect("checked")).await }, if retry.is_some() => {
                    self.retry_at = None;
                    self.handle(Event::Retry).await;
                }
                // What serves is not known while a commit is under way.
                Some(order) = orders.recv(), if !self.commits.committing => self.obey(order).await,
                Some(ended) = ended.recv() => self.ended(ended).await,
            }
        }
    }

    /// Returns how often to tell that the node is there, and how much later that may be.
    fn beat(&self) -> (Duration, Duration) {
        let document = self.node.document().filter(|document| document.phase == Phase::Commit);
        let bakes = document.filter(|document| !document.paused);
        let wave = bakes.and_then(|document| document.plan.waves.get(document.wave.index)).filter(|wave| wave.bake > 0);
        wave.map_or(BEAT, |wave| beat_within(Duration::from_millis(wave.bake)))
    }

    fn serving(&self) -> ReleaseId {
        self.node.serving().expect("a node always serves something")
    }

    /// Reads the document, and says when to read it again.
    async fn read(&mut self, heard_at: Instant) -> Timer {
        let read = self.store.read(Key::Desired).await;
        self.state.lock().connected = read.is_ok();
        let bytes = match read {
            Ok(Stored { bytes: Some(bytes), .. }) => bytes,
            Ok(Stored { bytes: None, .. }) => return jittered(POLL),
            Err(error) => {
                tracing::debug!(%error, "the document cannot be read");
                return jittered(RETRY_READ);
            }
        };
        match Document::read(&bytes) {
            Ok(document) => {
                if self.node.document() != Some(&document.desired) {
                    self.heard_at = heard_at;
                    self.handle(Event::Document(document.desired)).await;
                }
            }
            Err(error) => tracing::error!(%error, "what is stored is not followed"),
        }
        jittered(POLL)
    }

    async fn look_for_hold(&mut self) {
        let held = self.hold_file.exists();
        if held != self.held {
            self.held = held;
            tracing::warn!(held, file = %self.hold_file.display(), "this node is held, or not any more");
            self.handle(Event::Held(held)).await;
        }
    }

    async fn obey(&mut self, Order { pin, done }: Order) {
        let was_pinned = self.node.memory().pinned;
        let (release, ..) = self.deployments.what_serves();
        // What somebody has put there by hand has a name, too, so that the fleet can show it.
        let serving = match self.disk.find(&release) {
            Ok(found) => found.serving,
            Err(error) => {
                tracing::error!(%error, "what serves has no name");
                self.serving()
            }
        };
        self.staged = None;
        self.job += 1;
        self.settle(serving).await;
        self.handle(Event::Pinned(pin, Some(serving))).await;
        if !pin {
            self.state.lock().pinned_because = None;
        }
        let _ = done.send(was_pinned);
    }

    async fn handle(&mut self, event: Event) {
        self.handle_all([event]).await;
    }

    /// Takes events of which nobody should see one without the others: reports say how the node stands after all of them.
    async fn handle_all(&mut self, events: impl IntoIterator<Item = Event>) {
        let effects: Vec<Effect> = events.into_iter().flat_map(|event| self.node.handle(event)).collect();
        for effect in effects {
            self.perform(effect).await;
        }
        // What was staged for a rollout that was aborted is in nobody's way, and takes memory.
        if self.node.document().is_some_and(|document| document.phase == Phase::Abort) {
            let target = self.node.target();
            self.staged = self.staged.take().filter(|staged| Some(staged.id) != target);
        }
        self.state.lock().document = self.node.document().cloned();
        self.settle_release();
    }

    /// Has what the fleet has settled on revoke what it says: not before, because all may still go back.
    fn settle_release(&mut self) {
        let is_done = self.node.document().is_some_and(|document| document.phase == Phase::Done);
        let settled = self.node.target().filter(|target| is_done && self.node.serving() == Some(*target));
        let Some(id) = settled.filter(|_| settled != self.settled) else { return };
        self.settled = settled;
        let (disk, deployments) = (self.disk.clone(), Arc::clone(&self.deployments));
        tokio::task::spawn_blocking(move || {
            let (release, ..) = deployments.what_serves();
            if disk.description(id).is_some_and(|description| description.is_of(&release)) {
                deployments.settle(&release);
            }
        });
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Remember(memory) => {
                // Nothing may follow from what is not on the disk: so it waits for the disk, and goes on serving meanwhile.
                loop {
                    let (disk, memory) = (self.disk.clone(), memory.clone());
                    let written = tokio::task::spawn_blocking(move || disk.remember(&memory)).await;
                    match written {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => {
                            tracing::error!(%error, "the node's memory cannot be written: it follows nobody until it can")
                        }
                        Err(error) => tracing::error!(%error, "the node's memory"),
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Effect::Stage(id) => self.stage(id),
            Effect::Commit(id) => self.commit(id),
            Effect::Report => self.tell(true).await,
            Effect::RetryLater { attempts } => {
                let most = (200_u64 << attempts.min(10)).min(LONGEST_REST);
                self.retry_at = Some(Timer::now() + Duration::from_millis(rand::random_range(0..=most)));
            }
        }
    }

    /// Tells how the node stands.
    async fn tell(&mut self, changed: bool) {
        let guard = self.deployments.guard();
        let (calls, errors, blocked) = guard.traffic().totals();
        let traffic = Traffic { calls, errors, blocked, p99_us: guard.traffic().recent_p99_us() };
        let (release, generation, version) = self.deployments.what_serves();
        let telling = Telling {
            report: self.node.report(traffic),
            version: version.map(shortened),
            module: release.module.digest().to_string(),
            rules: release.rules.digest().to_string(),
            generation,
            problem: self.problem.clone(),
            change: self.change,
        };
        self.state.lock().report = Some(telling.report.clone());
        let bytes = serde_json::to_vec(&telling).expect("texts and numbers");
        if let Err(error) = self.store.tell(&self.name, changed, bytes).await {
            tracing::debug!(%error, "nobody hears how this node stands");
        }
    }

    /// Begins to stage a release; an earlier stage is not wanted any more.
    fn stage(&mut self, id: ReleaseId) {
        self.staged = None;
        self.job += 1;
        let way = self.way_to(id);
        self.stages_new = way != Way::Back;
        let (job, store, disk, tell) = (self.job, self.store.clone(), self.disk.clone(), self.tell_ended.clone());
        // Whoever has fallen behind, or goes back, does not wait.
        let may_wait = self.stages_new && self.node.document().is_some_and(|document| document.phase == Phase::Stage);
        let rollout = self.node.memory().order.rollout;
        let wait = if may_wait { share_of(self.fetch_splay, &self.name, rollout) } else { Duration::ZERO };
        let deployments = Arc::clone(&self.deployments);
        tracing::info!(release = %id, rollout = self.node.memory().order.rollout, "staging");
        tokio::spawn(async move {
            if !wait.is_zero() && disk.description(id).is_none() {
                tokio::time::sleep(wait).await;
            }
            let fetched = fetch(&store, &disk, &deployments, id).await;
            let staged = match fetched {
                Ok((description, release)) => {
                    let work = move || prepare(&disk, &deployments, description, release, way);
                    let done = tokio::task::spawn_blocking(work).await;
                    done.unwrap_or_else(|panic| Err(Failed::for_good("load", panic.to_string())))
                }
                Err(failed) => Err(failed),
            };
            let _ = tell.send(Ended::Staged { job, id, outcome: staged.map(Box::new) });
        });
    }

    fn way_to(&self, id: ReleaseId) -> Way {
        let is_settled = self.node.document().is_some_and(|document| document.phase == Phase::Done);
        // Who is late takes no part in the trial: what it serves may be newer than what the others try something new after.
        let is_late = self.node.stable().is_some() && self.node.serving() != self.node.stable();
        match self.is_new(id) {
            true if is_settled || is_late => Way::Either,
            true => Way::Forward,
            false => Way::Back,
        }
    }

    /// Returns whether the version rule and the least interval are for this release. What the fleet settled on before is not new,
    /// nor is what it goes back to or is brought together on.
    fn is_new(&self, id: ReleaseId) -> bool {
        let is_release = self.node.document().is_some_and(|document| document.kind == Kind::Release);
        is_release && self.node.target() == Some(id) && self.node.stable() != Some(id)
    }

    fn commit(&mut self, id: ReleaseId) {
        self.commits.begins();
        let tell = self.tell_ended.clone();
        let Some(Staged { settings, how, .. }) = self.staged.take().filter(|staged| staged.id == id) else {
            let failed = Failed { refusal: Refusal::Transient, stage: "commit", error: "nothing is staged".to_owned() };
            let _ = tell.send(Ended::Committed { id, settings: Settings::default(), outcome: Err(failed) });
            return;
        };
        let (disk, deployments) = (self.disk.clone(), Arc::clone(&self.deployments));
        let swap = Swap { from: self.serving(), to: id, done: false };
        let reason = format!("rollout {}", self.node.memory().order.rollout);
        let work = move || -> Result<Made, Failed> {
            disk.write_swap(&swap)?;
            let made = match how {
                How::Forward(ready) => deployments.commit_release(*ready)?,
                How::Back(release) => deployments.go_back_to(&release, &reason)?,
            };
            // It serves already. If this is not written, the next start finds it by what serves.
            if let Err(error) = disk.write_swap(&Swap { done: true, ..swap }) {
                tracing::error!(%error, "after a swap");
            }
            Ok(made)
        };
        tokio::spawn(async move {
            let outcome = tokio::task::spawn_blocking(work).await;
            let outcome = outcome.unwrap_or_else(|panic| Err(Failed::for_good("commit", panic.to_string())));
            let _ = tell.send(Ended::Committed { id, settings, outcome });
        });
    }

    async fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Staged { job, id, outcome } => {
                if job != self.job {
                    return;
                }
                let outcome = match outcome {
                    Ok(staged) => match self.policies.check(staged.settings) {
                        Ok(()) => {
                            self.staged = Some(*staged);
                            Ok(())
                        }
                        Err(error) => Err(self.note(Failed::for_good("configuration", error))),
                    },
                    // A rollback or a sync has come while it was staged as something new: that is not how it will be tried now.
                    Err(failed) if self.stages_new && !self.is_new(id) => {
                        Err(self.note(Failed { refusal: Refusal::Transient, ..failed }))
                    }
                    Err(failed) => Err(self.note(failed)),
                };
                self.handle(Event::Staged(id, outcome)).await;
            }
            Ended::Committed { id, settings, outcome } => {
                let outcome = match outcome {
                    Ok(made) => {
                        self.policies.apply(settings);
                        let after_hint = made.at.saturating_duration_since(self.heard_at);
                        self.change = Some(Changed {
                            rollout: self.node.memory().order.rollout,
                            release: id,
                            after_hint_ms: after_hint.as_secs_f64() * 1e3,
                            downtime_ms: made.downtime_ms,
                            requests: made.requests,
                        });
                        tracing::info!(release = %id, ?after_hint, downtime_ms = made.downtime_ms, "serves");
                        Ok(())
                    }
                    Err(failed) => Err(self.note(failed)),
                };
                let went_back = self.commits.ends();
                let thought = if outcome.is_ok() { id } else { self.serving() };
                let failed = match went_back {
                    Some(reason) => self.look(thought, reason),
                    None => None,
                };
                let serving = failed.map(|(_, serving)| serving);
                let failed = failed.map(|(failed, serving)| Event::ProbationFailed { failed, serving });
                self.handle_all([Event::Committed(id, outcome)].into_iter().chain(failed)).await;
                if let Some(serving) = serving {
                    self.settle(serving).await;
                }
            }
            Ended::WentBack(reason) => {
                let Some(reason) = self.commits.went_back(reason) else { return };
                if let Some((failed, serving)) = self.look(self.serving(), reason) {
                    self.condemn(failed, serving).await;
                }
            }
        }
    }

    /// Looks whether the slot has left what is thought to serve, and returns that with what serves instead.
    fn look(&mut self, thought: ReleaseId, reason: String) -> Option<(ReleaseId, ReleaseId)> {
        let (release, ..) = self.deployments.what_serves();
        let found = match self.disk.find(&release) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "what serves has no name");
                return None;
            }
        };
        // It is about a release that was left before.
        let failed = failed(thought, found.serving)?;
        self.policies.apply(found.settings);
        self.staged = None;
        self.note(Failed::for_good("probation", reason));
        Some((failed, found.serving))
    }

    async fn condemn(&mut self, failed: ReleaseId, serving: ReleaseId) {
        self.handle(Event::ProbationFailed { failed, serving }).await;
        // It is remembered by now, and not to be found again at the next start.
        self.settle(serving).await;
    }

    /// Notes that what serves got there by no swap of the fleet.
    async fn settle(&self, serving: ReleaseId) {
        let (disk, swap) = (self.disk.clone(), Swap { from: serving, to: serving, done: true });
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || disk.write_swap(&swap)).await {
            tracing::error!(%error, "what serves cannot be noted");
        }
    }

    /// Keeps a problem to be told.
    fn note(&mut self, Failed { refusal, stage, error }: Failed) -> Refusal {
        tracing::error!(stage, error, ?refusal, "a release of the fleet");
        let rollout = self.node.memory().order.rollout;
        self.problem = Some(Problem { rollout, stage: stage.to_owned(), error: shortened(error) });
        refusal
    }
}

/// Returns a release with its description: from the node's own disk, and what is not there from the store.
async fn fetch(
    store: &Store,
    disk: &Disk,
    deployments: &Arc<Deployments>,
    id: ReleaseId,
) -> Result<(Description, Release), Failed> {
    let description = match disk.description(id) {
        Some(description) => description,
        None => {
            let bytes = store.artifact(&id.to_string()).await?;
            Description::read(id, &bytes).map_err(|error| Failed::for_good("fetch", error))?
        }
    };
    let (module, rules, theirs) = (description.module.clone(), description.rules.clone(), Arc::clone(deployments));
    let archived = tokio::task::spawn_blocking(move || theirs.archived_release(&module, &rules).ok()).await;
    if let Ok(Some(Release { module, rules })) = archived {
        let module = module.with_manifest(description.manifest());
        return Ok((description, Release { module, rules }));
    }
    // One of the two has usually not changed.
    let (serving, ..) = deployments.what_serves();
    let is = |digest: Digest, wanted: &str| digest.to_string() == wanted;
    let module = match is(serving.module.digest(), &description.module) {
        true => serving.module,
        false => Module::new(store.artifact(&description.module).await?),
    };
    let rules = match is(serving.rules.digest(), &description.rules) {
        true => serving.rules,
        false => RuleFile::new(store.artifact(&description.rules).await?.to_vec()),
    };
    let module = module.with_manifest(description.manifest());
    Ok((description, Release { module, rules }))
}

/// Does what is slow and what can fail.
fn prepare(
    disk: &Disk,
    deployments: &Deployments,
    description: Description,
    release: Release,
    way: Way,
) -> Result<Staged, Failed> {
    deployments.check_config(&release, &description.config.bytes())?;
    disk.keep(&description)?;
    let staged = match way {
        Way::Back => None,
        Way::Forward | Way::Either => match deployments.stage_release(&release) {
            Err(refusal) if way == Way::Either && refusal.is_too_old() => None,
            staged => Some(staged?),
        },
    };
    let how = match staged {
        Some(ready) => How::Forward(Box::new(ready)),
        None => {
            deployments.archive_release(&release)?;
            How::Back(release)
        }
    };
    Ok(Staged { id: description.id(), settings: description.config, how })
}

/// Returns how often a node tells that it is there while a wave bakes for so long.
fn beat_within(bake: Duration) -> (Duration, Duration) {
    let (least, more) = BEAT;
    let least = (bake / BEATS_OF_A_WAVE).clamp(SOONEST_BEAT, least);
    (least, more.min(least / 2))
}

/// Returns how long this node waits in this rollout, so that not all fetch at once: each has another turn in each.
fn share_of(splay: Duration, node: &NodeId, rollout: u64) -> Duration {
    let digest = Digest::of(format!("{node} {rollout}").as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    splay.mul_f64(f64::from(u32::from_le_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0))
}

/// Cuts what a report would be too large with, as JSON has it: the log has all of it.
fn shortened(mut error: String) -> String {
    let in_json = |char: char| match char {
        '"' | '\\' => 2,
        '\0'..='\x1f' => 6,
        other => other.len_utf8(),
    };
    let mut bytes = 0;
    let cut = error.char_indices().find(|(_, char)| {
        bytes += in_json(*char);
        bytes > MOST_ERROR
    });
    if let Some((end, _)) = cut {
        error.truncate(end);
        error.push('…');
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_that_fails_before_its_commit_has_ended_is_what_failed() {
        let (old, new) = (ReleaseId::new([1; 32]), ReleaseId::new([2; 32]));
        let mut commits = Commits::default();
        commits.begins();
        assert_eq!(commits.went_back("trap".to_owned()), None, "what is thought to serve is still the one before");
        assert_eq!(commits.ends(), Some("trap".to_owned()));
        assert_eq!(failed(new, old), Some(new));
        assert_eq!(commits.ends(), None, "it is told once");
        assert_eq!(commits.went_back("trap".to_owned()), Some("trap".to_owned()), "nothing is under way");
        assert_eq!(failed(old, old), None, "and what serves is what should");
    }

    #[test]
    fn fetches_are_spread_evenly_and_differently_in_each_rollout() {
        let splay = Duration::from_secs(30);
        let turns = |rollout: u64| -> Vec<Duration> {
            (0..1000).map(|node| share_of(splay, &NodeId::new(format!("node-{node}")), rollout)).collect()
        };
        let first = turns(1);
        for second in 0..30 {
            let (from, to) = (Duration::from_secs(second), Duration::from_secs(second + 1));
            let count = first.iter().filter(|turn| (from..to).contains(*turn)).count();
            assert!((10..70).contains(&count), "{count} of 1000 in second {second}");
        }
        assert_eq!(first, turns(1));
        assert_ne!(first, turns(2));
        assert!(share_of(Duration::ZERO, &NodeId::new("a"), 1).is_zero());
    }

    #[test]
    fn an_error_of_any_length_fits_a_report() {
        for text in ["ä", "x", "\"", "\\", "\n", "\u{1}", "\u{7f}", "😀"] {
            let told = serde_json::to_string(&shortened(text.repeat(1 << 18))).unwrap();
            assert!(told.len() <= MOST_ERROR + '…'.len_utf8() + 2, "{text:?}: {}", told.len());
        }
        assert_eq!(shortened("x".repeat(MOST_ERROR)), "x".repeat(MOST_ERROR));
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
