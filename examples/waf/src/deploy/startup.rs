//! What serves first: the last good version of the archive, or else what the configuration names.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hotslot::{BoxError, Cause, Event};
use hotslot_trust::Purpose;
use parking_lot::Mutex;

use super::history::History;
use super::mild::Mild;
use super::{Deployments, Served};
use crate::archive::Archive;
use crate::config::{FailurePolicy, Module};
use crate::guard::{ModuleGuard, ModuleParts};
use crate::live::Traffic;
use crate::metrics::ModuleMetrics;
use crate::release::{self, Release};
use crate::replace_file::replace_file;
use crate::rule_file::RuleFile;
use crate::rules::{self, Engine};
use crate::trial::Terms;
use crate::trust;

/// A rule file that changes nothing about the built-in rules.
const NO_RULES: &[u8] = b"{\n  \"dynamic\": []\n}\n";
/// What a module is set up with that takes no rules.
const NOTHING: &[u8] = b"{}\n";

/// How often the rules of the fallback are looked at.
const PROMOTE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether what serves is through its probation.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// Returns what is in the file that a module is set up with if there is no such file.
pub fn default_config(module: &Module) -> &'static [u8] {
    if module.rules { NO_RULES } else { NOTHING }
}

/// A module that is to be started.
pub(super) struct Start<'a> {
    pub module: &'a Module,
    pub engine: Engine,
    pub archive: Archive,
    /// Where the module keeps what it must not forget.
    pub folder: &'a Path,
    pub traffic: Arc<Traffic>,
    pub metrics: ModuleMetrics,
    pub trial_terms: Terms,
    /// Whether a fleet says what serves. Then files that were changed by hand are not taken up.
    pub is_managed: bool,
}

/// Opens the slot of a module, and starts what looks after it. Must not be called on a worker of the runtime.
pub(super) fn start(start: Start<'_>) -> Result<Arc<Deployments>, BoxError> {
    let Start { module, engine, archive, folder, traffic, metrics, trial_terms, is_managed } = start;
    let name = module.name.as_str();
    let open = |name: &str, release: &Release| rules::open(name, &engine, release, module.samples());

    let engine_for_mild = engine.clone();
    // What it says is never a reason to roll back, and it is tried on nothing: it lets through more than the rules that serve.
    let open_mild = move |name: &str, release: &Release| rules::open(name, &engine_for_mild, release, &[]);

    let archived = archive.releases().find_map(|release| match open(name, &release) {
        Ok(slot) => Some((slot, release)),
        Err(error) => {
            tracing::error!(module = name, digest = release.module.digest().short(), %error, "skipped in the archive");
            None
        }
    });
    let (slot, release) = match archived {
        Some(opened) => opened,
        None => {
            let file = &module.file;
            let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
            let bytes = std::fs::read(file).map_err(|error| named(&error))?;
            let signed = release::Module::new(bytes).with_manifest(trust::beside(file));
            let release = Release { module: signed, rules: read_config(module)? };
            (open(name, &release).map_err(|error| named(&error))?, release)
        }
    };
    let keeps_last_good = module.failure_policy == FailurePolicy::LastGood;
    let fallback = keeps_last_good.then(|| open("last-good", &release)).transpose()?;

    let serving = slot.status().serving.ok_or("the slot closed by itself")?;
    let (history, opened) = (History::open(folder.join("history.jsonl"))?, slot.history());
    opened.iter().for_each(|report| history.add(report));
    if let Some(trust) = engine.trust() {
        trust.accept(&release.module, Purpose::Rollback)?;
    }
    archive.keep(&release)?;
    archive.starts_on(&release)?;
    let served = Served {
        generation: serving.generation,
        version: serving.version.map(|version| version.to_string()),
        previous_version: archive.previous_module().and_then(|module| history.version_of(&module)),
        release: release.clone(),
        releases: vec![release.clone()],
    };
    let (mode, policy) = (module.mode, module.failure_policy);
    let guard = ModuleGuard::new(ModuleParts { name: name.into(), mode, slot, fallback, policy, traffic, metrics });
    let deployments = Arc::new(Deployments {
        guard: Arc::new(guard),
        trust: engine.trust().cloned(),
        engine,
        archive,
        module_file: module.file.clone(),
        rule_file: module.config.clone(),
        takes_rules: module.rules,
        enabled: module.hot_reload_enabled,
        turn: Mutex::default(),
        change: Mutex::new(opened.last().map_or(0, |report| report.attempt)),
        served: Mutex::new(served),
        history,
        mild: Mild { rules: Mutex::default(), open: Box::new(open_mild) },
        has_missed_files: AtomicBool::new(false),
        trial_terms,
    });
    match is_managed {
        true => deployments.write_rule_file(&release),
        false => deployments.catch_up(module)?,
    }

    // They end with the process: what they look after does, too.
    let (theirs, events) = (Arc::clone(&deployments), deployments.guard.slot().subscribe());
    std::thread::Builder::new().name("rollback".to_owned()).spawn(move || {
        // If events were missed, there may have been a rollback among them.
        let concerns = |event: &Event| match event {
            Event::Ended(report) => matches!(report.cause, Cause::Automatic { .. }),
            event => matches!(event, Event::Lagged(_)),
        };
        events.filter(concerns).for_each(|_| theirs.follow());
    })?;
    if deployments.guard.fallback().is_some() {
        let theirs = Arc::clone(&deployments);
        std::thread::Builder::new().name("fallback".to_owned()).spawn(move || {
            let mut stands_by = release;
            loop {
                std::thread::sleep(PROMOTE_EVERY);
                theirs.promote_fallback(&mut stands_by);
            }
        })?;
    }
    // A fleet says itself when something serves for good.
    if deployments.trust.is_some() && !is_managed {
        let theirs = Arc::clone(&deployments);
        std::thread::Builder::new().name("trust".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(SETTLE_EVERY);
                theirs.settle_what_serves();
            }
        })?;
    }
    Ok(deployments)
}

/// The file that a module is set up with, as it is, or a new one.
fn read_config(module: &Module) -> Result<RuleFile, BoxError> {
    let path = &module.config;
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::read(path) {
        Ok(bytes) => Ok(RuleFile::new(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            replace_file(path, default_config(module)).map_err(named)?;
            Ok(RuleFile::new(default_config(module)))
        }
        Err(error) => Err(named(error).into()),
    }
}

impl Deployments {
    /// Takes up what was changed in the files while the node was down, and brings the rule file in line otherwise.
    fn catch_up(&self, module: &Module) -> Result<(), BoxError> {
        let rules = read_config(module)?;
        if self.archive.has_seen_rule_file(rules.digest()) {
            let release = self.served.lock().release.clone();
            self.write_rule_file(&release);
        } else {
            self.rule_file_changed(&self.rule_file);
        }
        self.module_file_changed(&module.file);
        Ok(())
    }
}
