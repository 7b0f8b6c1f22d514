//! Everything that changes what serves: a new module, new rules, a way back. There are deployments of each module of the node.
//!
//! A reload is two steps. [`stage`](Deployments::stage) does what is slow and what can fail: the module is loaded
//! with its rule file, tried on the samples, and kept in the archive. [`commit`](Deployments::commit) makes it
//! serve. Whoever has to bring several nodes along acknowledges between the two.
//!
//! The slot also rolls back on its own. So what the node has to do after a swap, it does by the slot's history, in the
//! order of the swaps, whoever made them: [`follow`](Deployments::follow).

mod files;
mod fleet;
mod history;
mod mild;
mod modules;
mod rollback;
mod startup;
mod trial;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hotslot::{
    BoxError, Cause, Digest, Error, ErrorKind, Outcome, Report, RetiredStatus, Stage, Staged, escape_untrusted,
};
use parking_lot::Mutex;
use waf_interface::Waf;

pub use self::fleet::Made;
use self::history::History;
pub use self::history::{Record, Trigger};
use self::mild::Mild;
pub use self::modules::{set_mild_rules, start_all, start_on};
pub use self::rollback::{RolledBack, Rules, Target};
pub use self::startup::default_config;
pub use self::trial::Begun;
use crate::archive::{Archive, Contents};
use crate::chain::Named;
use crate::guard::ModuleGuard;
use crate::release::{Module, Release};
use crate::replace_file::replace_file;
use crate::rule_file::{Edit, EditError, RuleFile};
use crate::rules::Engine;
use crate::trial::{Mode, Terms};
use crate::trust::{Trust, Untrusted};
use crate::version::shown;

/// How long the end of a reload waits for requests that came across it, to have measured them all.
const PATIENCE: Duration = Duration::from_secs(1);

/// What changes one module.
pub struct Deployments {
    guard: Arc<ModuleGuard>,
    engine: Engine,
    archive: Archive,
    module_file: PathBuf,
    /// The file that the module is set up with: the rule file, for one that takes rules.
    rule_file: PathBuf,
    takes_rules: bool,
    enabled: bool,
    /// Whose turn it is to reload.
    turn: Mutex<()>,
    /// Who changes what serves, with the records of it; and the last attempt that was [followed](Deployments::follow).
    /// Held over the archive's work, so never by a reader.
    change: Mutex<u64>,
    /// Held for a look or a note.
    served: Mutex<Served>,
    history: History,
    /// Whose signatures count; `None` if anything is taken.
    trust: Option<Arc<Trust>>,
    mild: Mild,
    /// Whether a changed file waits for the end of a trial.
    has_missed_files: AtomicBool,
    trial_terms: Terms,
}

/// What serves, and what can serve again.
struct Served {
    generation: u64,
    version: Option<String>,
    /// The version that served before this one.
    previous_version: Option<String>,
    release: Release,
    /// What the loaded generations were made of, and the one that is to come.
    releases: Vec<Release>,
}

/// What a reload brings.
pub enum Change {
    Module(Module),
    Rules(RuleFile),
    /// Both at once.
    Release(Release),
    /// A change to the rules that serve; refused if `of` is not their digest, as somebody else has changed them.
    Edit {
        edit: Edit,
        of: Option<String>,
    },
}

/// A release that is one commit away from serving.
pub struct Ready {
    staged: Staged<dyn Waf>,
    /// The generation that served when the release was put together.
    base: u64,
    release: Release,
}

/// Why what serves did not change.
#[derive(Debug)]
pub enum Refusal {
    /// The configuration does not allow reloads.
    Disabled,
    /// What was sent makes no rule file.
    Rules(EditError),
    /// The rules that were to be changed do not serve any more.
    RulesChanged,
    /// Nothing has served before.
    NothingBefore(&'static str),
    /// Its manifest does not hold, is too old, or is missing.
    Untrusted(Untrusted),
    /// The slot refused it.
    Slot(Error),
    /// It is older than what serves.
    Version { expected: String, got: String, error: Error },
    /// It could not be archived.
    Archive(BoxError),
    /// It is not in the archive.
    NotArchived(BoxError),
    /// Another generation serves than the one whose module or rules it keeps.
    Overtaken,
    /// Another version is tried, and would be overtaken.
    TrialUnderWay { mode: Mode, version: Option<String>, generation: u64, module: Digest, rules: Digest },
    /// No version is tried.
    NoTrial,
    /// What was asked of a trial cannot be done.
    Trial(BoxError),
    /// It was tried, and does not serve.
    TrialEnded { mode: Mode, reason: String },
}

impl Named for Deployments {
    fn name(&self) -> &str {
        self.guard.name()
    }
}

impl Deployments {
    /// Replaces the module or the rules.
    pub fn reload(&self, change: Change, trigger: Trigger) -> Result<Record, Refusal> {
        if !self.enabled {
            return Err(Refusal::Disabled);
        }
        let _turn = self.turn.lock();
        self.refuse_during_trial()?;
        self.follow();
        let (base, serving) = {
            let served = self.served.lock();
            (served.generation, served.release.clone())
        };
        let mut reason = None;
        let release = match change {
            Change::Module(module) => Release { module, rules: serving.rules },
            Change::Rules(rules) => Release { module: serving.module, rules },
            Change::Release(release) => release,
            Change::Edit { of: Some(of), .. } if of != serving.rules.digest().to_string() => {
                return Err(Refusal::RulesChanged);
            }
            Change::Edit { edit, .. } => {
                let (rules, did) = serving.rules.edited(edit).map_err(Refusal::Rules)?;
                reason = Some(escape_untrusted(&did).into_owned());
                Release { module: serving.module, rules }
            }
        };
        self.expect(&release);
        let (began, window) = (Instant::now(), self.guard.holds().open());
        let result = self.stage(&release, base, trigger, reason).and_then(|ready| self.commit(ready));
        let result = result.map(|(report, _)| report).map_err(|refusal| with_versions(refusal, &release));
        let took = began.elapsed();
        self.follow();
        let held = window.close(PATIENCE);
        self.guard.metrics().reloaded(took, result.is_ok());
        match result {
            Ok(report) => Ok(self.history.succeeded(&report, held)),
            Err(refusal) => {
                self.history.refused(&refusal, &release, held);
                Err(refusal)
            }
        }
    }

    /// Loads and proves a release beside the serving one, and archives it.
    pub fn stage(
        &self,
        release: &Release,
        base: u64,
        trigger: Trigger,
        reason: Option<String>,
    ) -> Result<Ready, Refusal> {
        let candidate = release.candidate().requested_by(trigger.name());
        let candidate = match reason {
            Some(reason) => candidate.reason(reason),
            None => candidate,
        };
        self.announce_new(release);
        let staged = self.guard.slot().stage(candidate).map_err(Refusal::Slot)?;
        if !staged.is_unchanged() {
            self.archive.keep(release).map_err(Refusal::Archive)?;
        }
        Ok(Ready { staged, base, release: release.clone() })
    }

    /// Makes a release serve, unless another one than its base does by now. Says when it did.
    pub fn commit(&self, Ready { staged, base, release }: Ready) -> Result<(Report, Instant), Refusal> {
        let mut last = self.change.lock();
        self.follow_from(&mut last);
        // The slot refuses what was staged before another swap; the release may be older than that.
        if self.served.lock().generation != base {
            return Err(Refusal::Overtaken);
        }
        self.accept(&release)?;
        self.guard.take_tally();
        let report = staged.commit().map_err(Refusal::Slot)?;
        let at = Instant::now();
        self.follow_from(&mut last);
        Ok((report, at))
    }

    /// Remembers what a generation that is to come is made of, and forgets those that are gone. Takes a turn.
    fn expect(&self, release: &Release) {
        let status = self.guard.slot().status();
        let mut served = self.served.lock();
        let Served { release: serving, releases, .. } = &mut *served;
        releases.retain(|loaded| {
            let is_it = |retired: &RetiredStatus| {
                retired.config_digest.is_some_and(|rules| loaded.is_of(retired.digest, rules))
            };
            loaded == serving || status.retired.iter().any(is_it)
        });
        releases.push(release.clone());
    }

    /// Takes up the swaps since the last time, and records the attempts that ended.
    pub fn follow(&self) {
        self.follow_from(&mut self.change.lock());
    }

    fn follow_from(&self, last: &mut u64) {
        let history = self.guard.slot().history();
        let new = history.iter().rposition(|report| report.attempt == *last).map_or(0, |at| at + 1);
        for report in &history[new..] {
            if let Outcome::Swapped { generation, .. } = report.outcome {
                self.swapped(generation, report);
            }
            self.history.add(report);
            *last = report.attempt;
        }
    }

    /// Brings everything in line with another generation that serves.
    fn swapped(&self, generation: u64, report: &Report) {
        let Some(release) = self.release_of(report) else {
            tracing::error!(generation, "what serves is neither remembered nor in the archive");
            return;
        };
        let version = report.version.as_ref().map(ToString::to_string);
        let (was, left) = {
            let mut served = self.served.lock();
            served.previous_version = std::mem::replace(&mut served.version, version);
            let was = std::mem::replace(&mut served.generation, generation);
            (was, std::mem::replace(&mut served.release, release.clone()))
        };
        let is_rollback = matches!(report.cause, Cause::Rollback | Cause::Automatic { .. });
        if is_rollback {
            self.guard.metrics().rolled_back(history::trigger(report));
        }
        // A rollback can also go forward again; what is loaded anew is taken for a way back.
        let is_back = is_rollback && (generation < was || report.duration_of(Stage::Load).is_some());
        complain(if is_back { self.archive.rolled_back(&left, &release) } else { self.archive.serves(&release) });
        self.write_rule_file(&release);
        self.follow_mild();
    }

    fn release_of(&self, report: &Report) -> Option<Release> {
        self.releases_of(report.digest?, report.config_digest?)
    }

    /// Returns the release of these digests, remembered or archived.
    fn releases_of(&self, module: Digest, rules: Digest) -> Option<Release> {
        let loaded = self.served.lock().releases.iter().find(|loaded| loaded.is_of(module, rules)).cloned();
        loaded.or_else(|| self.archive.release(&module.to_string(), &rules.to_string()).ok())
    }

    /// Brings the rule file in line with the rules that serve, if it is not.
    fn write_rule_file(&self, release: &Release) {
        let rules = &release.rules;
        match std::fs::read(&self.rule_file).map(|bytes| Digest::of(&bytes)) {
            Ok(same) if same == rules.digest() => {}
            // Somebody has changed it in the meantime: that is for the watcher to take up.
            Ok(unknown) if !self.archive.has_seen_rule_file(unknown) => return,
            // What is not written is not seen either: the next start would take the file for somebody's change.
            _ => {
                if let Err(error) = replace_file(&self.rule_file, rules.bytes()) {
                    return complain(Err(format!("{}: {error}", self.rule_file.display()).into()));
                }
            }
        }
        complain(self.archive.saw_rule_file(rules.digest()));
    }

    /// Has the fallback run what serves, once that is through its probation, in the place of what it runs.
    pub fn promote_fallback(&self, stands_by: &mut Release) {
        let Some(fallback) = self.guard.fallback() else { return };
        let Some(serving) = self.guard.slot().status().serving else { return };
        let release = {
            let served = self.served.lock();
            if served.generation != serving.generation {
                return;
            }
            served.release.clone()
        };
        if serving.on_probation || serving.objection.is_some() || *stands_by == release {
            return;
        }
        self.announce_return(&release);
        match fallback.stage(release.candidate()).and_then(Staged::commit) {
            Ok(_) => *stands_by = release,
            Err(error) => complain(Err(error.into())),
        }
    }

    pub fn serving_module(&self) -> Digest {
        self.served.lock().release.module.digest()
    }

    fn serving(&self) -> Release {
        self.served.lock().release.clone()
    }

    pub fn serving_rules(&self) -> RuleFile {
        self.served.lock().release.rules.clone()
    }

    /// Returns the rules with this digest, from the archive.
    pub fn archived_rules(&self, digest: &str) -> Result<RuleFile, Refusal> {
        self.archive.rules(digest).map_err(Refusal::NotArchived)
    }

    /// Returns the rules that served before those that do.
    pub fn previous_rules(&self) -> Result<RuleFile, Refusal> {
        let digest =
            self.archive.previous_rules().ok_or(Refusal::NothingBefore("no other rules have served before"))?;
        self.archived_rules(&digest)
    }

    /// Returns the digests of the module and of the rules that a rollback goes to.
    pub fn before(&self) -> (Option<String>, Option<String>) {
        (self.archive.previous_module(), self.archive.previous_rules())
    }

    /// Returns the version that a module had when it last served.
    pub fn version_of(&self, module: &str) -> Option<String> {
        self.history.version_of(module)
    }

    /// Returns what can come back.
    pub fn archived(&self) -> Result<Contents, Refusal> {
        self.archive.contents().map_err(Refusal::NotArchived)
    }

    pub fn previous_version(&self) -> Option<String> {
        self.served.lock().previous_version.clone()
    }

    /// Every attempt to change what serves, the latest one last, with whether it was since the node's start.
    pub fn history(&self) -> Vec<(Record, bool)> {
        self.history.all()
    }

    pub fn guard(&self) -> &ModuleGuard {
        &self.guard
    }

    /// The guard, for whoever outlives this borrow.
    pub fn guard_handle(&self) -> Arc<ModuleGuard> {
        Arc::clone(&self.guard)
    }

    /// Returns how versions are tried where nobody says otherwise.
    pub fn trial_terms(&self) -> &Terms {
        &self.trial_terms
    }

    /// Returns whether it is the module whose rules the API changes.
    pub fn takes_rules(&self) -> bool {
        self.takes_rules
    }

    /// Has the metrics say how the module is now.
    pub fn note_state(&self) {
        self.guard.note_state(&self.engine);
    }
}

impl Refusal {
    /// The stage that refused.
    pub fn stage(&self) -> &'static str {
        if self.untrusted().is_some() {
            return "trust";
        }
        match self {
            Refusal::Untrusted(_) => "trust",
            Refusal::Disabled => "configuration",
            Refusal::Rules(_) | Refusal::RulesChanged => "rules",
            Refusal::NothingBefore(_) => "gate",
            Refusal::Slot(error) | Refusal::Version { error, .. } => match error.stage() {
                Stage::Gate => "gate",
                Stage::Admit => "admit",
                Stage::Load => "load",
                Stage::Probe => "probe",
                Stage::HandOver => "hand_over",
                _ => "commit",
            },
            Refusal::Archive(_) | Refusal::NotArchived(_) => "archive",
            Refusal::Overtaken => "commit",
            Refusal::TrialUnderWay { .. } | Refusal::NoTrial => "gate",
            Refusal::Trial(_) | Refusal::TrialEnded { .. } => "trial",
        }
    }

    /// When to try again, if it was only too soon.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::Slot(error) => match error.kind() {
                ErrorKind::TooSoon { retry_after } => Some(*retry_after),
                _ => None,
            },
            _ => None,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Disabled => f.write_str("hot_reload_enabled is false in the configuration"),
            Refusal::Rules(problem) => problem.fmt(f),
            Refusal::RulesChanged => f.write_str("other rules serve by now than those in If-Match: read them again"),
            Refusal::NothingBefore(problem) => f.write_str(problem),
            Refusal::Untrusted(error) => error.fmt(f),
            Refusal::Slot(error) | Refusal::Version { error, .. } => error.fmt(f),
            Refusal::Archive(error) | Refusal::NotArchived(error) | Refusal::Trial(error) => error.fmt(f),
            Refusal::Overtaken => f.write_str("another version began to serve meanwhile: try again"),
            Refusal::TrialUnderWay { mode, version, generation, module, rules } => {
                let (mode, module, rules) = (mode.name(), module.short(), rules.short());
                let name = version.as_deref().map_or_else(|| module.to_string(), shown);
                write!(
                    f,
                    "{name} (generation {generation}, module {module}, rules {rules}) is being tried as a {mode}: promote it or \
                     abort it first"
                )
            }
            Refusal::NoTrial => {
                f.write_str("no version is being tried: POST reload with mode=shadow or mode=canary begins a trial")
            }
            Refusal::TrialEnded { mode, reason } => write!(f, "it was tried as a {}, and ended: {reason}", mode.name()),
        }
    }
}

/// Adds to a refusal for the version which ones they are. The slot's error has only one of them.
fn with_versions(refusal: Refusal, release: &Release) -> Refusal {
    match refusal {
        Refusal::Slot(error) if matches!(error.kind(), ErrorKind::Version(_)) => {
            let inspection = hotslot::inspect(release.module.bytes()).ok();
            let manifest = inspection.and_then(|inspection| inspection.manifest);
            let got = manifest.and_then(|manifest| manifest.version);
            let expected = error.serving().and_then(|serving| serving.version.as_ref());
            match (expected, got) {
                (Some(expected), Some(got)) => {
                    Refusal::Version { expected: expected.to_string(), got: got.to_string(), error }
                }
                _ => Refusal::Slot(error),
            }
        }
        refusal => refusal,
    }
}

/// For what must not undo a swap that has happened: it is told, and the node serves on.
fn complain(result: Result<(), BoxError>) {
    if let Err(error) = result {
        tracing::error!(%error, "after a swap");
    }
}
