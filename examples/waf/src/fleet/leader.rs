//! The leader's task: reads the two documents, hears the nodes, and writes what the [logic](waf_rollout::Leader) says. Several
//! orchestrators may run; one leads, and the others know as much.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use hotslot::{BoxError, escape_untrusted};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant as Timer, sleep_until};
use waf_rollout::{
    Alarm, Command, Desired, Finding, Group, Label, Leader, LeaderEffect, Lease, LeaseTiming, Millis, NodeId, NotDone,
    Phase, ReleaseId, Revision,
};

use super::artifacts::{Artifacts, Tidied};
use super::audit::Audit;
use super::store::{Key, Store, StoreError, Stored, Told};
use super::view::{PRESENT_SECONDS, View};
use super::{About, Document, MOST_TELLING, Telling, Unreadable, plain_name};
use crate::replace_file::replace_file;

/// How often the documents are read when nothing is heard.
const TICK: Duration = Duration::from_millis(500);
/// How long after a report they are read: several come at once.
const SOON: Duration = Duration::from_millis(2);
/// How often a write is tried that finds another revision than it expected.
const ATTEMPTS: usize = 8;

/// How long a command waits to read what it has written: a server that lags may answer.
const READ_BACK: Duration = Duration::from_secs(5);

/// What a command rests on. If that has changed meanwhile, it is not carried out: whoever asked did not ask for this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// Nothing: to stop is right whatever is under way.
    Nothing,
    /// This rollout is the current one.
    Rollout(u64),
    /// This wave of this rollout is open.
    Wave(u64, Phase, usize),
    /// This rollout is the last one, and this is what the fleet and its groups settle on: the command replaces all of it.
    Settled(Option<u64>, Option<ReleaseId>, Vec<Group>),
}

impl Basis {
    /// Returns what a command rests on that replaces what `document` says.
    pub fn settled(document: Option<&Desired>) -> Basis {
        let groups = document.map(Desired::settled_groups).unwrap_or_default();
        Basis::Settled(document.map(|document| document.order.rollout), document.and_then(Desired::settled), groups)
    }

    /// Returns what a command rests on that is about the open wave.
    pub fn wave(document: &Desired) -> Basis {
        Basis::Wave(document.order.rollout, document.phase, document.wave.index)
    }

    fn holds(&self, document: Option<&Desired>) -> bool {
        match self {
            Basis::Nothing => true,
            Basis::Rollout(number) => document.is_some_and(|document| document.order.rollout == *number),
            Basis::Wave(..) => document.map(Basis::wave).as_ref() == Some(self),
            Basis::Settled(..) => Basis::settled(document) == *self,
        }
    }
}

/// Where a write of this process is, by the revision that is read.
#[derive(Debug, PartialEq, Eq)]
enum ReadBack {
    /// A server that lags has answered: nothing may be decided on that.
    Late,
    /// It was read, or what came after it.
    Seen,
}

impl ReadBack {
    fn of(written: Revision, read: Option<Revision>) -> ReadBack {
        if read.is_some_and(|read| read >= written) { ReadBack::Seen } else { ReadBack::Late }
    }
}

/// What is asked of the leader.
pub(super) enum Ask {
    Command(Box<(Command, About, Basis)>, oneshot::Sender<Result<u64, AskError>>),
    /// Forget a node that is gone for good.
    Forget(NodeId, oneshot::Sender<Result<(), NotDone>>),
    /// Note what somebody asked for.
    Audit(serde_json::Value),
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    NotDone(#[from] NotDone),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the nodes could not fetch the release: {0}")]
    Unavailable(String),
    #[error("the document has changed again and again: try again")]
    Contended,
    #[error("the fleet has changed since this was asked for: look at it, and ask again")]
    Overtaken,
}

/// Who has the leader's task work for it, and sees what it knows.
#[derive(Clone)]
pub(super) struct Desk {
    pub view: Arc<Mutex<View>>,
    /// Counts the changes of the view.
    pub changes: watch::Receiver<u64>,
    asks: mpsc::Sender<Ask>,
}

impl Desk {
    /// Has a command carried out if what it rests on still holds.
    pub async fn command(&self, command: Command, about: About, basis: Basis) -> Result<u64, AskError> {
        let (done, answer) = oneshot::channel();
        let _ = self.asks.send(Ask::Command(Box::new((command, about, basis)), done)).await;
        answer.await.unwrap_or(Err(AskError::NotDone(NotDone::NotKnown)))
    }

    /// Has a node forgotten, by the one who leads: everybody else would go on counting it.
    pub async fn forget(&self, node: NodeId) -> Result<(), AskError> {
        let (done, answer) = oneshot::channel();
        let _ = self.asks.send(Ask::Forget(node, done)).await;
        Ok(answer.await.unwrap_or(Err(NotDone::NotKnown))?)
    }

    pub async fn audit(&self, what: serde_json::Value) {
        let _ = self.asks.send(Ask::Audit(what)).await;
    }
}

/// Starts the leader's task, as `me`.
pub(super) async fn start(
    me: &str,
    data: &Path,
    store: Store,
    artifacts: Artifacts,
    replicas: usize,
    keep_releases: usize,
) -> Result<Desk, BoxError> {
    // The same process is somebody else after a restart.
    let me = format!("{me}.{:08x}", rand::random::<u32>());
    let ended = names_before(&me, data)?;
    let view = Arc::new(Mutex::new(View::open(me.clone(), data)?));
    let audit = Audit::open(data)?;
    let (asks, asked) = mpsc::channel(64);
    let (changed, changes) = watch::channel(0);
    let reports = store.reports().await?;
    let hints = store.hints().await?;
    let (recorder, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
    let theirs = store.clone();
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if let Err(error) = theirs.record(line).await {
                tracing::debug!(%error, "a line of the audit is in the file only");
            }
        }
    });
    let mut leader = Leader::new(me, LeaseTiming::default());
    leader.have_ended(ended);
    let task = Task {
        leader,
        started: Instant::now(),
        store,
        vacancies: Vacancies::default(),
        artifacts,
        replicas,
        keep_releases,
        tidied: None,
        is_prepared: false,
        view: Arc::clone(&view),
        changed,
        audit,
        recorder,
    };
    tokio::spawn(task.run(reports, hints, asked));
    Ok(Desk { view, changes, asks })
}

/// Returns the names that this orchestrator had before, and writes its new one beside them before anybody hears of it. They have
/// ended if the folder is locked: it is one process's.
fn names_before(me: &str, data: &Path) -> Result<Vec<String>, BoxError> {
    /// It leads, or tries to, after each start.
    const MOST: usize = 64;
    let path = data.join("names.json");
    // Without it, it waits as for anybody else.
    let before: Vec<String> =
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let mut names = before[before.len().saturating_sub(MOST - 1)..].to_vec();
    names.push(me.to_owned());
    replace_file(&path, &serde_json::to_vec(&names)?).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(if crate::life::is_locked(data) { before } else { Vec::new() })
}

struct Task {
    leader: Leader,
    started: Instant,
    store: Store,
    vacancies: Vacancies,
    artifacts: Artifacts,
    replicas: usize,
    /// So many releases stay in the store, beside what the document names.
    keep_releases: usize,
    /// The rollout after which the store was last tidied up.
    tidied: Option<u64>,
    is_prepared: bool,
    view: Arc<Mutex<View>>,
    changed: watch::Sender<u64>,
    audit: Audit,
    recorder: mpsc::UnboundedSender<Vec<u8>>,
}

/// What the next write of each key replaces where the logic knows of nothing.
#[derive(Default)]
struct Vacancies {
    lease: Vacancy,
    desired: Vacancy,
}

/// The revision of what is of no use: what somebody deleted, or stored there and no orchestrator wrote. 0 if nothing is there.
#[derive(Default)]
struct Vacancy(Revision);

impl Vacancy {
    /// Returns what is stored, unless it is of no use. Then it is remembered as what the next write replaces.
    fn unless<T, E: std::fmt::Display>(
        &mut self,
        revision: Revision,
        read: Option<Result<T, E>>,
        what: &str,
    ) -> Option<(Revision, T)> {
        let error = match read {
            Some(Ok(value)) => return Some((revision, value)),
            Some(Err(error)) => error.to_string(),
            None => "it was deleted".to_owned(),
        };
        if std::mem::replace(&mut self.0, revision) != revision && revision > 0 {
            tracing::error!(error, revision, "{what} is lost, and will be written again");
        }
        None
    }
}

impl Task {
    async fn run(
        mut self,
        mut reports: impl Stream<Item = Told> + Unpin,
        mut hints: impl Stream<Item = ()> + Unpin,
        mut asked: mpsc::Receiver<Ask>,
    ) {
        let mut next = Timer::now();
        loop {
            tokio::select! {
                Some(report) = reports.next() => {
                    self.heard(&report);
                    next = next.min(Timer::now() + SOON);
                }
                Some(()) = hints.next() => next = next.min(Timer::now() + SOON),
                ask = asked.recv() => match ask {
                    Some(ask) => self.asked(ask).await,
                    None => return,
                },
                () = sleep_until(next) => {
                    if let Err(error) = self.tick().await {
                        tracing::debug!(%error, "the fleet cannot be led now");
                        if matches!(error, StoreError::NoStream(_)) {
                            self.is_prepared = false;
                        }
                    }
                    self.show();
                    next = Timer::now() + TICK;
                }
            }
        }
    }

    fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    fn heard(&mut self, told: &Told) {
        let Some(telling) = telling(told) else { return };
        let before = self.leader.report_of(&telling.report.node);
        // As the logic has it: a node that was installed anew counts anew, and is believed once the old one is absent.
        let is_late = before.is_some_and(|(report, at)| {
            (telling.report.boot, telling.report.seq) <= (report.boot, report.seq)
                && self.now() < at + PRESENT_SECONDS * 1000
        });
        self.leader.reported(self.now(), telling.report.clone());
        if !is_late {
            self.view.lock().told(telling);
        }
        self.changed.send_modify(|count| *count += 1);
    }

    fn show(&self) {
        let now = self.now();
        let mut view = self.view.lock();
        view.term = self.leader.term(now);
        view.standing = self.leader.standing(now);
        view.save_lazily();
        drop(view);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Makes the streams, and gives them what they may have lost.
    async fn prepare(&mut self) -> Result<(), StoreError> {
        self.store.prepare(self.replicas).await?;
        for report in self.store.last_reports().await? {
            self.heard(&report);
        }
        let releases = {
            let view = self.view.lock();
            let document = view.document.as_ref().map(|document| &document.desired);
            document.map_or(Vec::new(), |it| [it.targets(), it.stables()].concat())
        };
        for release in releases {
            if let Err(error) = self.artifacts.restore(release).await {
                tracing::warn!(%release, %error, "the store cannot be given this release again");
            }
        }
        self.is_prepared = true;
        Ok(())
    }

    /// Reads, decides, writes, and once more for as long as there is something to write.
    async fn tick(&mut self) -> Result<(), StoreError> {
        if !self.is_prepared {
            self.prepare().await?;
        }
        for _ in 0..ATTEMPTS {
            let read = self.feed().await?;
            let effects = self.leader.tick(self.now());
            let alarms = effects.iter().filter_map(|effect| match effect {
                LeaderEffect::Alarm(alarm) => Some(describe(*alarm)),
                _ => None,
            });
            self.publish(read, alarms.collect()).await;
            let mut has_written = false;
            for effect in effects {
                match effect {
                    LeaderEffect::WriteLease(expected, lease) => {
                        has_written = true;
                        self.write_lease(expected, &lease).await;
                    }
                    LeaderEffect::WriteDesired(expected, desired) => {
                        has_written = true;
                        let about = self.about(&desired);
                        let _ = self.write_desired(expected, desired, about).await;
                    }
                    LeaderEffect::Alarm(_) => {}
                }
            }
            if !has_written {
                break;
            }
        }
        self.tidy().await;
        Ok(())
    }

    /// Removes from the store what no release of the fleet is made of any longer, once a rollout has ended. Nothing else of this
    /// task runs meanwhile, and a rollout is begun by it only after its release was restored: so what is being uploaded is not lost.
    async fn tidy(&mut self) {
        let ended = self.leader.desired().filter(|desired| desired.has_ended());
        let Some(desired) = ended.filter(|_| self.leader.term(self.now()).is_some()) else { return };
        let rollout = desired.order.rollout;
        if self.tidied == Some(rollout) {
            return;
        }
        let mut releases = self.view.lock().last_releases(self.keep_releases);
        releases.extend(desired.targets().into_iter().chain(desired.stables()));
        let tidied = self.artifacts.tidy(&releases).await;
        // What is left over is next.
        self.tidied = Some(rollout).filter(|_| !tidied.as_ref().is_ok_and(|tidied| tidied.is_cut_short));
        match tidied {
            Ok(Tidied { removed: 0, .. }) => {}
            Ok(Tidied { removed, .. }) => {
                tracing::info!(removed, "removed from the store what no release is made of");
                self.note(json!({ "what": "tidied", "artifacts": removed })).await;
            }
            Err(error) => tracing::warn!(%error, "the store is not tidied up"),
        }
    }

    async fn read(&mut self) -> Result<(), StoreError> {
        let read = self.feed().await?;
        self.publish(read, Vec::new()).await;
        Ok(())
    }

    /// Reads both documents for the logic.
    async fn feed(&mut self) -> Result<Read, StoreError> {
        let Stored { revision, bytes } = self.store.read(Key::Lease).await?;
        let read = bytes.as_deref().map(serde_json::from_slice::<Lease>);
        let lease = self.vacancies.lease.unless(revision, read, "the lease");
        self.leader.lease_read(self.now(), lease.clone());
        let Stored { revision, bytes } = self.store.read(Key::Desired).await?;
        let read = bytes.as_deref().map(Document::read);
        if let Some(Err(error @ Unreadable::Format(_))) = read {
            // Whoever has written it knows better.
            tracing::error!(%error, "the document cannot be read");
            return Err(StoreError::Refused(error.to_string()));
        }
        let document = self.vacancies.desired.unless(revision, read, "the document");
        let desired = document.as_ref().map(|(revision, document)| (*revision, document.desired.clone()));
        self.leader.desired_read(self.now(), desired);
        Ok(Read { holder: lease.map(|(_, lease)| lease.holder), document: document.map(|(_, document)| document) })
    }

    /// Shows what was read, together with why it was written: whoever sees that a rollout was aborted sees the reason.
    async fn publish(&mut self, Read { holder, document }: Read, alarms: Vec<String>) {
        let change = {
            let mut view = self.view.lock();
            view.leader = holder;
            let change = view.read(document.as_ref());
            alarms.iter().for_each(|alarm| view.alarm(alarm.clone()));
            change
        };
        if change.is_some() || !alarms.is_empty() {
            self.changed.send_modify(|count| *count += 1);
        }
        if let Some(change) = change {
            tracing::info!(rollout = %change["rollout"], state = %change["state"], "rollout");
            self.note(json!({ "what": "document", "document": change })).await;
        }
        for alarm in alarms {
            tracing::error!(alarm);
            self.note(json!({ "what": "alarm", "alarm": alarm })).await;
        }
    }

    async fn write_lease(&mut self, expected: Option<Revision>, lease: &Lease) {
        let bytes = serde_json::to_vec(lease).expect("texts and numbers");
        let replaced = expected.unwrap_or(self.vacancies.lease.0);
        if let Err(error) = self.store.write(Key::Lease, replaced, bytes).await {
            tracing::debug!(%error, "the lease");
        }
    }

    async fn write_desired(
        &mut self,
        expected: Option<Revision>,
        desired: Desired,
        about: About,
    ) -> Result<Revision, StoreError> {
        let bytes = serde_json::to_vec(&Document::new(desired, about)).expect("texts and numbers");
        let replaced = expected.unwrap_or(self.vacancies.desired.0);
        let written = self.store.write(Key::Desired, replaced, bytes).await;
        written.inspect_err(|error| tracing::warn!(%error, "the document"))
    }

    /// What people want to know of a document: the same as of the one before it in its rollout.
    fn about(&self, desired: &Desired) -> About {
        let view = self.view.lock();
        let same = view.document.as_ref().filter(|it| it.desired.order.rollout == desired.order.rollout);
        same.map(|document| document.about.clone()).unwrap_or_else(|| {
            let reason = "the store has lost what nodes have seen".to_owned();
            About { by: view.me.clone(), reason, ..About::default() }.after(view.document.as_ref())
        })
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Command(asked, done) => {
                let (command, about, basis) = *asked;
                let result = self.command(command, about, basis).await;
                self.show();
                let _ = done.send(result);
            }
            Ask::Forget(node, done) => {
                if self.leader.term(self.now()).is_none() {
                    let leader = self.view.lock().leader.clone();
                    let _ = done.send(Err(NotDone::NotLeading { leader }));
                    return;
                }
                self.leader.removed(&node);
                self.view.lock().nodes.remove(&node);
                if let Err(error) = self.store.forget(node.as_str()).await {
                    tracing::warn!(%node, %error, "the store cannot forget this node");
                }
                self.show();
                let _ = done.send(Ok(()));
            }
            Ask::Audit(what) => self.note(what).await,
        }
    }

    async fn command(&mut self, command: Command, about: About, basis: Basis) -> Result<u64, AskError> {
        for _ in 0..ATTEMPTS {
            self.read().await?;
            // Whether this process knows the fleet at all and leads it comes first.
            let asked = self.leader.command(self.now(), command.clone())?;
            if !basis.holds(self.leader.desired()) {
                return Err(AskError::Overtaken);
            }
            if let (Command::Start(..), LeaderEffect::WriteDesired(_, desired)) = (&command, asked) {
                for target in desired.targets() {
                    let restored = self.artifacts.restore(target).await;
                    restored.map_err(|error| AskError::Unavailable(error.to_string()))?;
                }
            }
            let effect = self.leader.command(self.now(), command.clone())?;
            let LeaderEffect::WriteDesired(expected, desired) = effect else { return Err(AskError::Contended) };
            let about = match command {
                Command::Start(..) => about.clone().after(self.view.lock().document.as_ref()),
                _ => self.about(&desired),
            };
            let written = self.write_desired(expected, desired.clone(), about).await;
            if let Ok(revision) = written {
                // It is done, once. What is read of before it must not have it done again on top of itself.
                self.read_back(revision).await;
                if let Err(error) = self.tick().await {
                    tracing::debug!(%error, "after a command");
                }
                return Ok(desired.order.rollout);
            }
            // An error is no "no": what is stored says what became of it.
            let read = self.read().await;
            if self.leader.desired() == Some(&desired) {
                // It may be decided already what follows.
                if let Err(error) = self.tick().await {
                    tracing::debug!(%error, "after a command");
                }
                return Ok(desired.order.rollout);
            }
            match (written, read) {
                (Ok(_) | Err(StoreError::Conflict), Ok(())) => {}
                (Err(error), _) | (_, Err(error)) => return Err(error.into()),
            }
        }
        Err(AskError::Contended)
    }

    /// Waits until a write can be read. One that never can be was lost by the store, which the logic sees to.
    async fn read_back(&mut self, written: Revision) {
        let began = Instant::now();
        while began.elapsed() < READ_BACK {
            if self.read().await.is_ok() && ReadBack::of(written, self.leader.revision()) == ReadBack::Seen {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tracing::warn!(written, "what was written cannot be read back");
    }

    async fn note(&mut self, what: serde_json::Value) {
        match self.audit.add(what) {
            // The stream is for others, and may be away: nothing here waits for it.
            Ok(line) => drop(self.recorder.send(line)),
            Err(error) => tracing::error!(%error, "the audit cannot be written"),
        }
    }
}

/// Returns what a node says of itself: nobody speaks for another one.
fn telling(Told { from, bytes }: &Told) -> Option<Telling> {
    // A node that was forgotten leaves an empty message.
    if bytes.is_empty() {
        return None;
    }
    if bytes.len() > MOST_TELLING || plain_name(from).is_err() {
        tracing::warn!(
            from = &*escape_untrusted(from),
            bytes = bytes.len(),
            "a report that no node of this fleet makes"
        );
        return None;
    }
    let telling = serde_json::from_slice::<Telling>(bytes).ok();
    let Some(mine) = telling.filter(|telling| telling.report.node.as_str() == from) else {
        tracing::warn!(from, "a report that is none, or another node's");
        return None;
    };
    if let Err(error) = Label::check_all(&mine.report.labels) {
        tracing::warn!(from, %error, "a report with a label that no node of this fleet has");
        return None;
    }
    Some(mine)
}

/// What was read.
struct Read {
    holder: Option<String>,
    document: Option<Document>,
}

fn describe(alarm: Alarm) -> String {
    match alarm {
        Alarm::StoreLostWrites { stored, seen } => {
            let stored = stored.map_or("nothing".to_owned(), |order| format!("{}.{}", order.rollout, order.step));
            format!(
                "the store has lost writes: it has {stored}, and nodes have seen {}.{}; the rollout is aborted",
                seen.rollout, seen.step
            )
        }
        Alarm::TooManyFailed { failed, reached } => {
            format!("halted: {failed} of the {reached} nodes that the rollout has reached failed")
        }
        Alarm::Worse(Finding::Errors) => "halted: more calls fail on the nodes that changed".to_owned(),
        Alarm::Worse(Finding::Latency) => "halted: calls take longer on the nodes that changed".to_owned(),
        Alarm::Worse(Finding::Verdicts) => "halted: other requests are blocked on the nodes that changed".to_owned(),
        Alarm::TimedOut(phase) => format!("aborted: the deadline of the phase {phase:?} has passed").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use waf_rollout::{Kind, Order, Plan, Scope, Wave};

    use super::*;

    fn document(rollout: u64, step: u64, phase: Phase) -> Desired {
        Desired {
            term: 1,
            order: Order { rollout, step },
            kind: Kind::Release,
            phase,
            target: ReleaseId::new([2; 32]),
            stable: Some(ReleaseId::new([1; 32])),
            wave: Wave::NOBODY,
            plan: Plan::default(),
            paused: false,
            frozen: false,
            scope: Scope::Everybody,
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_command_holds_for_what_it_was_decided_on_and_for_nothing_else() {
        let before = document(2, 1, Phase::Commit);
        let later = Desired { paused: true, ..document(2, 2, Phase::Commit) };
        let next_wave = Desired { wave: Wave { index: 1, below: 7 }, ..document(2, 2, Phase::Commit) };
        let (done, other) = (document(2, 3, Phase::Done), document(3, 0, Phase::Stage));
        let holds = |basis: Basis| [&before, &later, &next_wave, &done, &other].map(|it| basis.holds(Some(it)));
        assert_eq!(holds(Basis::Nothing), [true; 5]);
        assert_eq!(holds(Basis::Rollout(2)), [true, true, true, true, false]);
        assert_eq!(holds(Basis::wave(&before)), [true, true, false, false, false], "promoted once");
        assert_eq!(holds(Basis::settled(Some(&before))), [true, true, true, false, false], "rules may have come");
        assert_eq!(holds(Basis::settled(None)), [false; 5], "nothing was known");
        assert!(Basis::settled(None).holds(None) && !Basis::Rollout(2).holds(None));
    }

    #[test]
    fn a_write_is_seen_by_its_revision_and_not_before() {
        assert_eq!(ReadBack::of(7, None), ReadBack::Late);
        assert_eq!(ReadBack::of(7, Some(6)), ReadBack::Late);
        assert_eq!(ReadBack::of(7, Some(7)), ReadBack::Seen);
        assert_eq!(ReadBack::of(7, Some(9)), ReadBack::Seen, "somebody else has written after it");
    }

    #[test]
    fn a_node_speaks_for_itself_only() {
        let text = |node: &str, more: &str| {
            format!(
                r#"{{"node":"{node}","boot":1,"seq":1,"term":1,"rollout":1,"step":0,"aborted":0,"settled":null,"staged":false,
                "refused":false,"condemned":false,"serving":null,"pinned":false,"held":false,"traffic":{{}},"labels":{{}},
                "version":{more:?},"module":"","rules":"","generation":1,"problem":null,"change":null}}"#
            )
        };
        let heard = |from: &str, text: String| telling(&Told { from: from.to_owned(), bytes: text.into() });
        assert!(heard("node-1", text("node-1", "")).is_some());
        assert!(heard("node-2", text("node-1", "")).is_none(), "another node's");
        assert!(heard("node-1", text("node-1", &"x".repeat(MOST_TELLING))).is_none(), "too large");
        assert!(heard("node-1", String::new()).is_none(), "forgotten");
        let labelled =
            |value: &str| text("node-1", "").replace(r#""labels":{}"#, &format!(r#""labels":{{"region":{value:?}}}"#));
        assert!(heard("node-1", labelled("eu")).is_some());
        assert!(heard("node-1", labelled(&"x".repeat(128))).is_none(), "a label that is too long");
        for name in ["", "a b", "*", &"x".repeat(65), "é", "../x"] {
            assert!(heard(name, text(name, "")).is_none(), "{name}");
        }
    }
}
