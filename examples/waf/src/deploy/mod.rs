//! Everything that changes what serves: a new module, new rules, a way back.
//!
//! A reload is two steps. [`stage`](Deployments::stage) does what is slow and what can fail: the module is loaded
//! with its rule file, tried on the samples, and kept in the archive. [`commit`](Deployments::commit) makes it
//! serve. Whoever has to bring several nodes along acknowledges between the two.

mod files;
mod history;
mod startup;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hotslot::{BoxError, Digest, Error, ErrorKind, Report, Stage, Staged};
use parking_lot::Mutex;
use waf_interface::Waf;

use self::history::History;
pub use self::history::{Place, Record, Trigger};
pub use self::startup::start;
use crate::archive::Archive;
use crate::guard::{Condemned, Guard};
use crate::release::{Module, Release, RuleFile};

/// How long the end of a reload waits for requests that came across it, to have measured them all.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Deployments {
    guard: Arc<Guard>,
    archive: Archive,
    rule_file: PathBuf,
    enabled: bool,
    /// Whose turn it is to reload.
    turn: Mutex<()>,
    /// Who changes what serves, with the records of it. Held over the archive's work, so never by a reader.
    change: Mutex<()>,
    /// Held for a look or a note.
    served: Mutex<Served>,
    history: History,
}

/// What serves, and what can serve again.
struct Served {
    generation: u64,
    version: Option<String>,
    /// The version that served before this one.
    previous_version: Option<String>,
    /// What each loaded generation was made of.
    releases: BTreeMap<u64, Release>,
}

impl Served {
    fn release(&self) -> &Release {
        &self.releases[&self.generation]
    }
}

/// What a reload brings.
pub enum Change {
    Module(Module),
    Rules(RuleFile),
    /// A dynamic rule more.
    Rule(serde_json::Value),
}

/// A release that is one commit away from serving.
pub struct Ready {
    staged: Staged<dyn Waf>,
    release: Release,
}

/// Why what serves did not change.
#[derive(Debug)]
pub enum Refusal {
    /// The configuration does not allow reloads.
    Disabled,
    /// What was sent makes no rule file.
    Rules(String),
    /// The slot refused it.
    Slot(Error),
    /// It could not be archived.
    Archive(BoxError),
}

impl Deployments {
    /// Replaces the module or the rules.
    pub fn reload(&self, change: Change, trigger: Trigger) -> Result<Record, Refusal> {
        if !self.enabled {
            return Err(Refusal::Disabled);
        }
        let _turn = self.turn.lock();
        let serving = self.served.lock().release().clone();
        let release = match change {
            Change::Module(module) => Release { module, rules: serving.rules },
            Change::Rules(rules) => Release { module: serving.module, rules },
            Change::Rule(rule) => {
                let rules = serving.rules.with_rule(rule).map_err(Refusal::Rules)?;
                Release { module: serving.module, rules }
            }
        };
        let (at, began, window) = (SystemTime::now(), Instant::now(), self.guard.holds().open());
        let result = self.stage(release.clone()).and_then(|ready| self.commit(ready));
        let place = result.as_ref().map_or_else(|_| self.history.place(), |(_, place)| *place);
        let result = result.map(|(report, _)| report);
        let took = began.elapsed();
        let held = window.close(PATIENCE);
        self.guard.metrics().reloaded(took, result.is_ok());
        let version = match &result {
            Ok(report) => version(report),
            Err(_) => self.version_of(release.module.digest()),
        };
        let outcome = result.as_ref();
        let record = self.history.add(place, Record::of_change(at, trigger, &release, took, held, version, outcome));
        result.map(|_| record)
    }

    /// Loads and proves a release beside the serving one, and archives it.
    pub fn stage(&self, release: Release) -> Result<Ready, Refusal> {
        let staged = self.guard.slot().stage(release.candidate()).map_err(Refusal::Slot)?;
        if !staged.is_unchanged() {
            self.archive.keep(&release).map_err(Refusal::Archive)?;
        }
        Ok(Ready { staged, release })
    }

    /// Makes a release serve. Says also where in the history that belongs.
    pub fn commit(&self, ready: Ready) -> Result<(Report, Place), Refusal> {
        let _change = self.change.lock();
        let report = ready.staged.commit().map_err(Refusal::Slot)?;
        if let Some(generation) = report.generation().filter(|_| report.is_swap()) {
            self.swapped(generation, &report, ready.release.clone());
            complain(self.archive.serves(&ready.release));
            self.write_rule_file(&ready.release);
        }
        Ok((report, self.history.place()))
    }

    /// Goes back to the version before, or to a generation that is still loaded.
    pub fn roll_back(&self, to: Option<u64>, reason: String) -> Result<Record, Refusal> {
        self.roll_back_if(to, Trigger::Rollback { reason }, |_| true).map(|record| record.expect("no condition"))
    }

    /// Goes back from a version that failed in its probation, unless it has been replaced already.
    pub fn roll_back_from(&self, Condemned { generation, objection }: Condemned) {
        let trigger = Trigger::Automatic { reason: objection.clone() };
        match self.roll_back_if(None, trigger, |served| served.generation == generation) {
            Ok(Some(_)) => tracing::error!(generation, objection, "rolled back automatically"),
            Ok(None) => {}
            Err(error) => tracing::error!(generation, objection, %error, "fails, and cannot be rolled back"),
        }
    }

    fn roll_back_if(
        &self,
        to: Option<u64>,
        trigger: Trigger,
        condition: impl FnOnce(&Served) -> bool,
    ) -> Result<Option<Record>, Refusal> {
        let change = self.change.lock();
        let (left, was) = {
            let served = self.served.lock();
            if !condition(&served) {
                return Ok(None);
            }
            (served.release().clone(), served.generation)
        };
        let (at, began, window) = (SystemTime::now(), Instant::now(), self.guard.holds().open());
        let slot = self.guard.slot();
        let result = to.map_or_else(|| slot.rollback(), |generation| slot.rollback_to(generation));
        let took = began.elapsed();
        let report = result.map_err(Refusal::Slot)?;
        let generation = report.generation().expect("a rollback that succeeds ends in a generation");
        let release = self.served.lock().releases[&generation].clone();
        self.swapped(generation, &report, release.clone());
        complain(if generation < was {
            self.archive.rolled_back(&left, &release)
        } else {
            self.archive.serves(&release)
        });
        self.write_rule_file(&release);
        let place = self.history.place();
        drop(change);
        self.guard.metrics().rolled_back(trigger.name());
        let held = window.close(PATIENCE);
        let version = version(&report);
        let record = Record::of_change(at, trigger, &release, took, held, version, Ok(&report));
        Ok(Some(self.history.add(place, record)))
    }

    /// Writes down that another generation serves, and forgets those that are gone.
    fn swapped(&self, generation: u64, report: &Report, release: Release) {
        let retired = self.guard.slot().status().retired;
        let mut served = self.served.lock();
        served.previous_version = std::mem::replace(&mut served.version, version(report));
        served.releases.retain(|loaded, _| retired.iter().any(|retired| retired.generation == *loaded));
        served.releases.insert(generation, release);
        served.generation = generation;
    }

    /// Brings the rule file in line with the rules that serve, if it is not.
    fn write_rule_file(&self, release: &Release) {
        let rules = &release.rules;
        match std::fs::read(&self.rule_file).map(|bytes| Digest::of(&bytes)) {
            Ok(same) if same == rules.digest() => {}
            // Somebody has changed it in the meantime: that is for the watcher to take up.
            Ok(unknown) if !self.archive.has_seen_rule_file(unknown) => return,
            _ => complain(replace_file(&self.rule_file, rules.bytes()).map_err(Into::into)),
        }
        complain(self.archive.saw_rule_file(rules.digest()));
    }

    /// Has the fallback run what serves, once that is through its probation, in the place of what it runs.
    pub fn promote(&self, stands_by: &mut Release) {
        let Some(fallback) = self.guard.fallback() else { return };
        let (generation, release) = {
            let served = self.served.lock();
            (served.generation, served.release().clone())
        };
        let passed = self.guard.trials().find(generation).is_some_and(|trial| trial.is_passed());
        if !passed || *stands_by == release {
            return;
        }
        match fallback.stage(release.candidate()).and_then(Staged::commit) {
            Ok(_) => *stands_by = release,
            Err(error) => complain(Err(error.into())),
        }
    }

    /// The version that a module said it has, if the slot got as far as asking it.
    fn version_of(&self, module: Digest) -> Option<String> {
        let history = self.guard.slot().history();
        let attempt = history.iter().rev().find(|attempt| attempt.digest == Some(module))?;
        attempt.version.as_ref().map(ToString::to_string)
    }

    pub fn serving_module(&self) -> Digest {
        self.served.lock().release().module.digest()
    }

    pub fn serving_rules(&self) -> RuleFile {
        self.served.lock().release().rules.clone()
    }

    pub fn previous_version(&self) -> Option<String> {
        self.served.lock().previous_version.clone()
    }

    /// Every attempt to change what serves, the latest one last.
    pub fn history(&self) -> Vec<Record> {
        self.history.all()
    }

    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The guard, for whoever outlives this borrow.
    pub fn guard_handle(&self) -> Arc<Guard> {
        Arc::clone(&self.guard)
    }
}

impl Refusal {
    /// The stage that refused.
    pub fn stage(&self) -> &'static str {
        match self {
            Refusal::Disabled => "configuration",
            Refusal::Rules(_) => "rules",
            Refusal::Slot(error) => match error.stage() {
                Stage::Gate => "gate",
                Stage::Admit => "admit",
                Stage::Load => "load",
                Stage::Probe => "probe",
                Stage::HandOver => "hand_over",
                _ => "commit",
            },
            Refusal::Archive(_) => "archive",
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
            Refusal::Rules(problem) => f.write_str(problem),
            Refusal::Slot(error) => error.fmt(f),
            Refusal::Archive(error) => error.fmt(f),
        }
    }
}

fn version(report: &Report) -> Option<String> {
    report.version.as_ref().map(ToString::to_string)
}

/// For what must not undo a swap that has happened: it is told, and the node serves on.
fn complain(result: Result<(), BoxError>) {
    if let Err(error) = result {
        tracing::error!(%error, "after a swap");
    }
}

/// Replaces a file as a whole: whoever reads it finds the old content or the new one.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}
