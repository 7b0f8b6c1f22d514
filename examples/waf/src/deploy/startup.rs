//! What serves first: the last good version of the archive, or else what the configuration names.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hotslot::{BoxError, Cause, Event};
use hotslot_trust::Purpose;
use parking_lot::Mutex;

use super::history::History;
use super::mild::Mild;
use super::{Deployments, Served};
use crate::archive::Archive;
use crate::config::{Config, FailurePolicy};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::release::{Module, Release};
use crate::replace_file::replace_file;
use crate::rule_file::RuleFile;
use crate::rules::{self, Engine};
use crate::trust;

/// A rule file that changes nothing about the built-in rules.
pub const NO_RULES: &[u8] = b"{\n  \"dynamic\": []\n}\n";

/// How often the rules of the fallback are looked at.
const PROMOTE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether what serves is through its probation.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// Opens the slot, and starts what looks after it. Must not be called on a worker of the runtime.
///
/// What a fleet manages does not take up files that were changed by hand.
pub fn start(
    config: &Config,
    name: &str,
    engine: &Engine,
    archive: Archive,
    is_managed: bool,
) -> Result<Arc<Deployments>, BoxError> {
    let wasm = &config.wasm;
    let samples = if wasm.validate_before_reload { wasm.golden.clone() } else { Vec::new() };
    let open = |name: &str, release: &Release| rules::open(config, name, engine, release, &samples);

    let (theirs, engine_for_mild) = (config.clone(), engine.clone());
    // What it says is never a reason to roll back, and it is tried on nothing: it lets through more than the rules that serve.
    let open_mild = move |name: &str, release: &Release| rules::open(&theirs, name, &engine_for_mild, release, &[]);

    let archived = archive.releases().find_map(|release| match open(name, &release) {
        Ok(slot) => Some((slot, release)),
        Err(error) => {
            tracing::error!(module = release.module.digest().short(), %error, "skipped in the archive");
            None
        }
    });
    let rule_file = config.rule_file();
    let (slot, release) = match archived {
        Some(opened) => opened,
        None => {
            let module = std::fs::read(&wasm.module).map_err(|error| format!("{}: {error}", wasm.module.display()))?;
            let module = Module::new(module).with_manifest(trust::beside(&wasm.module));
            let release = Release { module, rules: read_rules(&rule_file)? };
            let slot = open(name, &release).map_err(|error| format!("{}: {error}", wasm.module.display()))?;
            (slot, release)
        }
    };
    let fallback = (*config.failure_policy.get_ref() == FailurePolicy::LastGood)
        .then(|| open("last-good", &release))
        .transpose()?;

    let serving = slot.status().serving.ok_or("the slot closed by itself")?;
    let (history, opened) = (History::open(config.data.join("history.jsonl"))?, slot.history());
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
    let mut metrics = Metrics::new(name);
    if let Some(trust) = engine.trust() {
        metrics.trust(trust.refusals());
    }
    let guard = Guard::new(slot, fallback, *config.failure_policy.get_ref(), metrics);
    let deployments = Arc::new(Deployments {
        guard: Arc::new(guard),
        archive,
        rule_file,
        enabled: wasm.hot_reload_enabled,
        turn: Mutex::default(),
        change: Mutex::new(opened.last().map_or(0, |report| report.attempt)),
        served: Mutex::new(served),
        history,
        trust: engine.trust().cloned(),
        mild: Mild { rules: Mutex::default(), open: Box::new(open_mild) },
    });
    deployments.set_mild_rules(config.policy()?.mild_rules());
    match is_managed {
        true => deployments.write_rule_file(&release),
        false => deployments.catch_up(&wasm.module)?,
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
                theirs.promote(&mut stands_by);
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

/// The rule file as it is, or a new one.
pub(super) fn read_rules(path: &Path) -> Result<RuleFile, BoxError> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::read(path) {
        Ok(bytes) => Ok(RuleFile::new(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            replace_file(path, NO_RULES).map_err(named)?;
            Ok(RuleFile::new(NO_RULES))
        }
        Err(error) => Err(named(error).into()),
    }
}

impl Deployments {
    /// Takes up what was changed in the files while the node was down, and brings the rule file in line otherwise.
    fn catch_up(&self, module_file: &Path) -> Result<(), BoxError> {
        let rules = read_rules(&self.rule_file)?;
        if self.archive.has_seen_rule_file(rules.digest()) {
            let release = self.served.lock().release.clone();
            self.write_rule_file(&release);
        } else {
            self.rule_file_changed(&self.rule_file);
        }
        self.module_file_changed(module_file);
        Ok(())
    }
}
