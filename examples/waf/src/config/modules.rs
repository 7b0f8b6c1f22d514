//! The modules that a node runs: the one that `[waf.wasm]` names, and those of `[[waf.wasm.modules]]`, each with settings of
//! its own. What one of those does not say is as `[waf.wasm]` says it for all of them.

use std::path::{Path, PathBuf};

use hotslot::BoxError;
use serde::Deserialize;
use toml::{Table, Value};

use super::values::versions;
use super::{Config, FailurePolicy, Limits, Probation, Reload, Sample, Uninspected, Wasm};
use crate::chain::{NAME_LIMIT, is_name};
use crate::policy::Mode;

/// More of them would only make every request slow.
const MOST: usize = 16;

/// A module, and how it is run and replaced.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Module {
    /// How it is called in routes, metrics and logs: as its file is, if the configuration does not say.
    pub name: String,
    pub file: PathBuf,
    /// The file that it is set up with, if not the usual one: for a module that takes rules, the rule file.
    pub config: PathBuf,
    /// Whether it is the one whose rules the API changes.
    pub rules: bool,
    /// Whether its verdicts are enforced, where those of the node are.
    pub mode: Mode,
    pub failure_policy: FailurePolicy,
    /// Whether it can be replaced at all while the node runs.
    pub hot_reload_enabled: bool,
    #[serde(deserialize_with = "versions")]
    pub keep_previous_versions: usize,
    /// Whether a new version has to pass the samples before it serves. Its format is always checked.
    pub validate_before_reload: bool,
    pub reload: Reload,
    pub limits: Limits,
    pub probation: Probation,
    /// Requests with the verdict that it has to give on them. If not set, a module that takes rules has those of `[waf.wasm]`.
    pub golden: Option<Vec<Sample>>,
}

impl Default for Module {
    fn default() -> Module {
        let usual = Wasm::default();
        Module {
            name: String::new(),
            file: PathBuf::new(),
            config: PathBuf::new(),
            rules: false,
            mode: Mode::default(),
            failure_policy: FailurePolicy::Closed,
            hot_reload_enabled: usual.hot_reload_enabled,
            keep_previous_versions: usual.keep_previous_versions,
            validate_before_reload: usual.validate_before_reload,
            reload: usual.reload,
            limits: usual.limits,
            probation: usual.probation,
            golden: None,
        }
    }
}

impl Module {
    /// Returns the requests that a new version is tried on.
    pub fn samples(&self) -> &[Sample] {
        match &self.golden {
            Some(golden) if self.validate_before_reload => golden,
            _ => &[],
        }
    }

    /// Returns whether files that change are taken up while the node runs.
    pub fn watches_files(&self) -> bool {
        self.hot_reload_enabled && self.reload.auto_reload_on_file_change
    }

    fn title(&self) -> String {
        match self.name.as_str() {
            "" => stem(&self.file).unwrap_or_default().to_owned(),
            name => name.to_owned(),
        }
    }
}

fn stem(file: &Path) -> Option<&str> {
    file.file_stem()?.to_str()
}

/// Gives each module what its node says for all of them, where it says nothing itself. Every value has been read before, with
/// the line of its mistakes.
pub(super) fn inherit(wasm: &mut Wasm, text: &str) -> Result<(), toml::de::Error> {
    let table: Table = toml::from_str(text)?;
    let waf = table.get("waf").and_then(Value::as_table).cloned().unwrap_or_default();
    let mut common = waf.get("wasm").and_then(Value::as_table).cloned().unwrap_or_default();
    wasm.names_module = common.remove("module").is_some();
    let own = common.remove("modules");
    common.remove("golden");
    if let Some(policy) = waf.get("failure_policy") {
        common.insert("failure_policy".to_owned(), policy.clone());
    }
    let own = own.as_ref().and_then(Value::as_array).into_iter().flatten();
    for (module, own) in wasm.modules.iter_mut().zip(own) {
        let own = own.as_table().cloned().unwrap_or_default();
        *module.get_mut() = merged(common.clone(), own).try_into()?;
    }
    Ok(())
}

fn merged(mut common: Table, own: Table) -> Table {
    for (key, value) in own {
        let value = match (common.remove(&key), value) {
            (Some(Value::Table(common)), Value::Table(own)) => Value::Table(merged(common, own)),
            (_, value) => value,
        };
        common.insert(key, value);
    }
    common
}

impl Config {
    /// The module that `[waf.wasm]` describes.
    fn single(&self) -> Module {
        let Wasm { module, hot_reload_enabled, keep_previous_versions, validate_before_reload, .. } = &self.wasm;
        Module {
            name: stem(module).unwrap_or_default().to_owned(),
            file: module.clone(),
            config: self.rule_file(),
            rules: true,
            mode: Mode::Enforce,
            failure_policy: *self.failure_policy.get_ref(),
            hot_reload_enabled: *hot_reload_enabled,
            keep_previous_versions: *keep_previous_versions,
            validate_before_reload: *validate_before_reload,
            reload: self.wasm.reload.clone(),
            limits: self.wasm.limits.clone(),
            probation: self.wasm.probation,
            golden: Some(self.wasm.golden.clone()),
        }
    }

    /// Returns the modules that the node runs, in order, each with everything that holds for it.
    pub fn modules(&self) -> Result<Vec<Module>, BoxError> {
        let own = (self.wasm.modules.is_empty() || self.wasm.names_module).then(|| self.single());
        if own.as_ref().is_some_and(|own| own.name.is_empty()) {
            return Err("the module has no name".into());
        }
        // The only one takes the rules, whatever it says.
        let is_only = own.is_none() && self.wasm.modules.len() == 1;
        let listed = self.wasm.modules.iter().map(|listed| {
            let mut module = listed.get_ref().clone();
            module.name = module.title();
            module.rules |= is_only;
            if module.config.as_os_str().is_empty() {
                module.config = match module.rules {
                    true => self.rule_file(),
                    false => self.module_folder(&module.name).join("config.json"),
                };
            }
            let golden = || if module.rules { self.wasm.golden.clone() } else { Vec::new() };
            module.golden = Some(module.golden.take().unwrap_or_else(golden));
            module
        });
        Ok(own.into_iter().chain(listed).collect())
    }

    /// Returns where a module keeps what it must not forget, if that is not the node's own folder.
    pub fn module_folder(&self, name: &str) -> PathBuf {
        self.data.join("modules").join(name)
    }

    /// Refuses more than one module, for what can have only one. `who` says what that is.
    pub fn has_one_module(&self, who: &str) -> Result<(), BoxError> {
        match self.modules()?.len() {
            1 => Ok(()),
            count => Err(format!(
                "waf.wasm.modules: {who} has one module, because a release of a fleet is one module with its rules, and here are \
                 {count}: take [[waf.wasm.modules]] out, or serve outside of the fleet"
            )
            .into()),
        }
    }

    /// What no single value of a module gets wrong. Gives the place in the text and the problem.
    pub(super) fn check_modules(&self) -> Result<(), (usize, String)> {
        // Those that are listed come last.
        let modules = self.modules().map_err(|error| (0, error.to_string()))?;
        let unlisted = modules.len() - self.wasm.modules.len();
        for (number, (module, listed)) in modules[unlisted..].iter().zip(&self.wasm.modules).enumerate() {
            let others = &modules[..unlisted + number];
            if let Err(problem) = self.check_module(module, others) {
                return Err((listed.span().start, format!("[[waf.wasm.modules]]: {problem}")));
            }
        }
        Ok(())
    }

    fn check_module(&self, module: &Module, others: &[Module]) -> Result<(), String> {
        let name = &module.name;
        if module.file.as_os_str().is_empty() {
            return Err("a module needs its `file`".to_owned());
        }
        if !is_name(name) {
            return Err(format!(
                "{name:?} cannot be the `name` of a module, which has 1 to {NAME_LIMIT} letters, digits, `-`, `_` or `.`, and begins \
                 with no dot: set another `name`"
            ));
        }
        // Names are folders, and some file systems do not tell letters apart by their case.
        if others.iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
            return Err(format!("there are two by the name {name}: set another `name`"));
        }
        if others.len() >= MOST {
            return Err(format!("a node has at most {MOST}"));
        }
        if let Some(other) = others.iter().find(|other| other.rules && module.rules) {
            return Err(format!("{} takes the rules already: `rules = true` is for one module", other.name));
        }
        if module.rules && self.rules.file.as_ref().is_some_and(|file| *file != module.config) {
            return Err(format!("`config` of {name} and `file` in [waf.rules] are the same setting: take one out"));
        }
        if let Some(other) = others.iter().find(|other| other.config == module.config) {
            return Err(format!("{name} and {} cannot both be set up with {}", other.name, module.config.display()));
        }
        if module.failure_policy == FailurePolicy::LastGood && module.keep_previous_versions == 0 {
            return Err("the failure policy last_good needs keep_previous_versions of at least 1".to_owned());
        }
        let is_open = module.failure_policy == FailurePolicy::Open && self.uninspected != Uninspected::Log;
        let is_backed = !module.rules
            && self.modules().is_ok_and(|all| all.iter().any(|other| other.failure_policy != FailurePolicy::Open));
        if is_open && !is_backed {
            return Err(format!(
                "the failure policy open of {name} lets through what no rules have seen: it needs uninspected = \"log\""
            ));
        }
        Ok(())
    }
}
