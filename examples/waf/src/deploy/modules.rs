//! The modules of a node, each with its own slot, engine, archive and history.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotslot::BoxError;
use tokio::runtime::Handle;

use super::startup::{Start, start};
use super::{Deployments, mild};
use crate::archive::{Archive, Owner};
use crate::chain::Chain;
use crate::config::{Config, Module};
use crate::live::Traffic;
use crate::metrics::{Metrics, ModuleMetrics};
use crate::rules::Engine;
use crate::trust::Trust;

/// Starts all modules of a configuration, in order. Must not be called on a worker of the runtime.
///
/// What a fleet manages does not take up files that were changed by hand.
pub fn start_all(
    config: &Config,
    runtime: &Handle,
    traffic: &Arc<Traffic>,
    metrics: &Arc<Metrics>,
    is_managed: bool,
) -> Result<Chain<Deployments>, BoxError> {
    start_with(config, runtime, traffic, metrics, is_managed, None)
}

/// The same for one of several nodes of a fleet in one process, on one engine for all of them.
pub fn start_on(
    engine: &Engine,
    config: &Config,
    runtime: &Handle,
    traffic: &Arc<Traffic>,
    metrics: &Arc<Metrics>,
) -> Result<Chain<Deployments>, BoxError> {
    start_with(config, runtime, traffic, metrics, true, Some(engine))
}

fn start_with(
    config: &Config,
    runtime: &Handle,
    traffic: &Arc<Traffic>,
    metrics: &Arc<Metrics>,
    is_managed: bool,
    shared: Option<&Engine>,
) -> Result<Chain<Deployments>, BoxError> {
    let modules = config.modules()?;
    let archive = Archive::open(config, runtime.clone())?;
    let owner = owner(&archive, config, &modules);
    // A single module may be called otherwise the next time.
    let is_remembered = !config.wasm.modules.is_empty() || matches!(archive.owner(), Owner::Named(_));
    let mut started = Vec::new();
    for module in &modules {
        let has_root = owner.as_deref() == Some(&module.name);
        let folder = if has_root { config.data.clone() } else { config.module_folder(&module.name) };
        let deployments = open(module, config, &folder, shared).and_then(|engine| {
            let archive = archive.of_module(&module.name, has_root, is_remembered)?;
            let trust = Trust::open(config, &folder, &module.name, is_managed, archive.served_manifests())?;
            let trust = trust.map(|trust| Arc::new(trust.counting(metrics.trust_refusals().clone())));
            start(Start {
                module,
                engine: engine.trusting(trust),
                archive,
                folder: &folder,
                traffic: Arc::clone(traffic),
                metrics: ModuleMetrics::new(Arc::clone(metrics), &module.name),
                trial_terms: config.trial.clone(),
                is_managed,
            })
        });
        started.push(deployments.map_err(|error| if modules.len() == 1 { error } else { named(module, &error) })?);
    }
    let started = Chain::new(started);
    set_mild_rules(&started, config.policy()?.mild_rules());
    Ok(started)
}

fn open(module: &Module, config: &Config, folder: &Path, shared: Option<&Engine>) -> Result<Engine, BoxError> {
    let named = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(named)?;
    // The file that it is set up with may be made there, whoever has the folder.
    let own: PathBuf = config.module_folder(&module.name);
    if module.config.starts_with(&own) {
        std::fs::create_dir_all(own).map_err(named)?;
    }
    match shared {
        Some(engine) => Ok(engine.clone()),
        None => Engine::of(module.clone(), config, Some(&folder.join("compiled"))),
    }
}

fn named(module: &Module, error: &BoxError) -> BoxError {
    format!("the module {}: {error}", module.name).into()
}

/// The module whose state lies in the node's own folder, where that of a node with one module has always been. It stays there in
/// whatever order the modules are listed. A folder that is nobody's goes to the module that takes the rules.
fn owner(archive: &Archive, config: &Config, modules: &[Module]) -> Option<String> {
    let heir = || modules.iter().find(|module| module.rules).or(modules.first()).map(|module| module.name.clone());
    let is_here = |name: &String| modules.iter().any(|module| module.name == *name);
    match archive.owner() {
        Owner::Named(name) => Some(name),
        // Written down by a node that had one module only.
        Owner::Likely(name) if !config.wasm.modules.is_empty() && is_here(&name) => Some(name),
        Owner::Likely(_) | Owner::Nobody => heir(),
    }
}

/// Takes up which rules are mild somewhere. Those that no module has are told, and taken for mild nowhere.
pub fn set_mild_rules(modules: &Chain<Deployments>, rules: Vec<String>) {
    let known: Vec<String> = modules.iter().flat_map(|module| module.set_mild_rules(rules.clone())).collect();
    for rule in rules.iter().filter(|rule| *rule != mild::OWN && !known.contains(rule)) {
        tracing::warn!(rule, "there is no such rule to make an exception from");
    }
}
