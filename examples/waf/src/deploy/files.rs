//! Takes up the module file and the rule file when they have changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Change, Deployments, Trigger, complain};
use crate::chain::Named;
use crate::release::Module;
use crate::rule_file::RuleFile;

impl Deployments {
    /// Returns the module file and the file that the module is set up with.
    pub fn files(&self) -> (PathBuf, PathBuf) {
        (self.module_file.clone(), self.rule_file.clone())
    }

    /// Takes up both files. Waits for its time where it is too soon.
    pub fn take_up_files(&self) {
        if !self.enabled {
            return;
        }
        let again = |wait: Option<Duration>| wait.map(std::thread::sleep).is_some();
        while again(self.rule_file_changed(&self.rule_file)) {}
        while again(self.module_file_changed(&self.module_file)) {}
    }

    /// Reloads the module from its file, if that is another one than the last time. Says when to try again.
    pub fn module_file_changed(&self, path: &Path) -> Option<Duration> {
        let module = Module::new(read(path)?);
        let digest = module.digest();
        let is_new = !self.archive.has_seen_module_file(digest) && digest != self.serving_module();
        let again = is_new.then(|| self.take_up(Change::Module(module), Trigger::ModuleFile)).flatten();
        if again.is_none() {
            complain(self.archive.saw_module_file(digest));
        }
        again
    }

    /// Reloads the rules from their file, if that is another one than the last time. Says when to try again.
    pub fn rule_file_changed(&self, path: &Path) -> Option<Duration> {
        let rules = {
            // The node writes this file itself when the rules change, with this lock held: what was there before is no change.
            let _change = self.change.lock();
            let rules = RuleFile::new(read(path)?);
            let digest = rules.digest();
            if self.archive.has_seen_rule_file(digest) || digest == self.serving_rules().digest() {
                complain(self.archive.saw_rule_file(digest));
                return None;
            }
            rules
        };
        let digest = rules.digest();
        let again = self.take_up(Change::Rules(rules), Trigger::RuleFile);
        if again.is_none() {
            complain(self.archive.saw_rule_file(digest));
        }
        again
    }

    fn take_up(&self, change: Change, trigger: Trigger) -> Option<Duration> {
        let (file, module) = (trigger.name(), self.name());
        match self.reload(change, trigger) {
            Ok(_) => None,
            Err(refusal) => {
                let again = refusal.retry_after();
                if again.is_none() {
                    tracing::error!(module, file, error = %refusal, "the changed file was refused: the current version keeps serving");
                }
                again
            }
        }
    }
}

/// The content of a file; `None` if it cannot be read now, for instance because it is being replaced.
fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot be read")).ok()
}
