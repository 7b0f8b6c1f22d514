//! Ways back. Module and rules go back apart: whoever takes back a bad module keeps the rule that was added in an emergency
//! since, and whoever takes back a bad rule keeps the module.

use hotslot::{Phase, Report, Rollback};

use super::{Deployments, PATIENCE, Record, Refusal};
use crate::release::Release;
use crate::rule_file::RuleFile;
use crate::version::shown;

/// Where a rollback goes.
pub enum Target {
    /// To the module that the serving one took the place of.
    Module(Rules),
    /// To the module of a generation that is still loaded.
    Generation(u64, Rules),
    /// To the module with this digest, loaded or only archived.
    ModuleOf(String, Rules),
    /// To the rules that the serving ones took the place of.
    Rules,
    /// To the rules with this digest.
    RulesOf(String),
}

/// What becomes of the rules when a module goes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Those that serve stay, unless they are of another engine.
    Keep,
    /// The module's own come back with it.
    Restore,
}

/// A rollback that succeeded: what serves, and what was done.
pub struct RolledBack {
    pub record: Record,
    pub did: String,
    pub module_changed: bool,
    pub rules_changed: bool,
}

impl Deployments {
    /// Goes back to an earlier module or to earlier rules, and records who asked for it. Refused if rules serve that do not have
    /// the digest `of`, as somebody else has changed them.
    pub fn roll_back(&self, target: Target, of: Option<String>, reason: String) -> Result<RolledBack, Refusal> {
        let window = self.guard.holds().open();
        let from = self.serving();
        let (report, to) = match self.roll_back_warm(&target, of.as_deref(), &reason)? {
            Some(done) => done,
            None => self.roll_back_cold(&target, of.as_deref(), &reason)?,
        };
        let held = window.close(PATIENCE);
        let record = self.history.succeeded(&report, held);
        let (module_changed, rules_changed) =
            (from.module.digest() != to.module.digest(), from.rules.digest() != to.rules.digest());
        let did = told(&from, &to, &record, module_changed, rules_changed);
        Ok(RolledBack { record, did, module_changed, rules_changed })
    }

    /// Goes back at once, if what it goes back to is loaded. It waits for no reload.
    fn roll_back_warm(
        &self,
        target: &Target,
        of: Option<&str>,
        reason: &str,
    ) -> Result<Option<(Report, Release)>, Refusal> {
        let mut last = self.change.lock();
        self.follow_from(&mut last);
        self.still_serves(of)?;
        let to = self.goal(target)?;
        self.may_return(&to)?;
        let status = self.guard.slot().status();
        let warm = status.retired.iter().filter(|retired| retired.phase == Phase::Warm);
        let loaded = warm.filter(|warm| warm.config_digest.is_some_and(|rules| to.is_of(warm.digest, rules)));
        let Some(generation) = loaded.map(|warm| warm.generation).max() else { return Ok(None) };
        self.guard.take_tally();
        let rollback = Rollback::to(generation).requested_by(requested_by(target)).reason(reason);
        let result = self.guard.slot().rollback_to(rollback).map_err(Refusal::Slot);
        self.follow_from(&mut last);
        result.map(|report| Some((report, to)))
    }

    /// May load a module, so it takes its turn with the reloads, and leaves rollbacks that do not alone.
    fn roll_back_cold(&self, target: &Target, of: Option<&str>, reason: &str) -> Result<(Report, Release), Refusal> {
        let _turn = self.turn.lock();
        self.follow();
        self.still_serves(of)?;
        let to = self.goal(target)?;
        self.expect(&to);
        self.announce_return(&to);
        self.archive.keep(&to).map_err(Refusal::Archive)?;
        self.guard.take_tally();
        let rollback = Rollback::to_artifact(to.candidate()).requested_by(requested_by(target)).reason(reason);
        let result = self.guard.slot().rollback_to(rollback).map_err(Refusal::Slot);
        self.follow();
        result.map(|report| (report, to))
    }

    /// Refuses if other rules serve than those with this digest.
    fn still_serves(&self, of: Option<&str>) -> Result<(), Refusal> {
        let digest = self.serving().rules.digest().to_string();
        if of.is_none_or(|of| of == digest) { Ok(()) } else { Err(Refusal::RulesChanged) }
    }

    /// What is to serve then.
    fn goal(&self, target: &Target) -> Result<Release, Refusal> {
        let serving = self.serving();
        let rules = |wanted: Rules, own: Result<RuleFile, Refusal>| match (wanted, own) {
            // Of another engine: the module could make nothing of those that serve.
            (Rules::Keep, Ok(own)) if own.is_foreign_to(&serving.rules) => Ok(own),
            (Rules::Keep, _) => Ok(serving.rules.clone()),
            (Rules::Restore, own) => own,
        };
        let module = |digest: &str, wanted: Rules| {
            let module = self.archive.module(digest).map_err(Refusal::NotArchived)?;
            Ok(Release { module, rules: rules(wanted, self.archive.rules_of(digest).map_err(Refusal::NotArchived))? })
        };
        match target {
            Target::Module(wanted) => {
                let digest = self.archive.previous_module();
                let digest = digest.ok_or(Refusal::NothingBefore(
                    "no other module has served before: POST /api/v1/rules/rollback takes back rules",
                ))?;
                module(&digest, *wanted)
            }
            Target::Generation(generation, wanted) => {
                let loaded = self.loaded(*generation)?;
                Ok(Release { rules: rules(*wanted, Ok(loaded.rules))?, ..loaded })
            }
            Target::ModuleOf(digest, wanted) => module(digest, *wanted),
            Target::Rules => Ok(Release { rules: self.previous_rules()?, ..serving.clone() }),
            Target::RulesOf(digest) => Ok(Release { rules: self.archived_rules(digest)?, ..serving.clone() }),
        }
    }

    /// What a generation is made of.
    fn loaded(&self, generation: u64) -> Result<Release, Refusal> {
        let status = self.guard.slot().status();
        let serving = status.serving.as_ref().filter(|serving| serving.generation == generation);
        let retired = status.retired.iter().find(|retired| retired.generation == generation);
        let digests = match (serving, retired) {
            (Some(serving), _) => Some((serving.digest, serving.config_digest)),
            (None, retired) => retired.map(|retired| (retired.digest, retired.config_digest)),
        };
        let Some((module, Some(rules))) = digests else {
            return Err(Refusal::NothingBefore(
                "this generation is not loaded any more: go back by the module's digest",
            ));
        };
        self.releases_of(module, rules).ok_or(Refusal::NothingBefore("what this generation is made of is not known"))
    }
}

fn requested_by(target: &Target) -> &'static str {
    match target {
        Target::Module(_) | Target::Generation(..) | Target::ModuleOf(..) => "rollback",
        Target::Rules | Target::RulesOf(_) => "rules_rollback",
    }
}

/// Says what was done, and what was not.
fn told(from: &Release, to: &Release, record: &Record, module_changed: bool, rules_changed: bool) -> String {
    let short = |rules: &RuleFile| rules.digest().short();
    let module = match module_changed {
        true => format!(
            "the module is {} again ({})",
            record.version.as_deref().map_or_else(|| "back".to_owned(), shown),
            to.module.digest().short()
        ),
        false => "the module stays".to_owned(),
    };
    let rules = match rules_changed {
        true => {
            let changes = to.rules.diff(&from.rules).map(|diff| format!(": {}", diff.summary())).unwrap_or_default();
            format!("the rules are {} again{changes}", short(&to.rules))
        }
        false => format!("the rules stay ({})", short(&to.rules)),
    };
    hotslot::escape_untrusted(&format!("{module}, {rules}")).into_owned()
}
