//! Takes up the module file and the rule file when they have changed.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Change, Deployments, Refusal, Trigger, complain};
use crate::chain::Named;
use crate::release::Module;
use crate::rule_file::RuleFile;
use crate::trust;

/// What became of a file that has changed.
enum TakenUp {
    /// It serves, or has been refused.
    Done,
    /// It is too soon.
    Again(Duration),
    AfterTrial,
}

impl TakenUp {
    fn again(self) -> Option<Duration> {
        match self {
            TakenUp::Again(wait) => Some(wait),
            TakenUp::Done | TakenUp::AfterTrial => None,
        }
    }
}

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
        let module = Module::new(read(path)?).with_manifest(trust::beside(path));
        let digest = module.digest();
        let is_new = !self.archive.has_seen_module_file(digest) && digest != self.serving_module();
        let taken = if is_new { self.take_up(Change::Module(module), Trigger::ModuleFile) } else { TakenUp::Done };
        if matches!(taken, TakenUp::Done) {
            complain(self.archive.saw_module_file(digest));
        }
        taken.again()
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
        let taken = self.take_up(Change::Rules(rules), Trigger::RuleFile);
        if matches!(taken, TakenUp::Done) {
            complain(self.archive.saw_rule_file(digest));
        }
        taken.again()
    }

    /// Takes up the files that changed during a trial.
    pub(super) fn take_up_missed_files(&self) {
        if self.has_missed_files.swap(false, Ordering::Relaxed) {
            self.take_up_files();
        }
    }

    fn take_up(&self, change: Change, trigger: Trigger) -> TakenUp {
        let (file, module) = (trigger.name(), self.name());
        match self.reload(change, trigger) {
            Ok(_) => TakenUp::Done,
            Err(refusal @ Refusal::TrialUnderWay { .. }) => {
                tracing::warn!(module, file, %refusal, "the changed file is taken up after the trial");
                self.has_missed_files.store(true, Ordering::Relaxed);
                TakenUp::AfterTrial
            }
            Err(refusal) => refusal.retry_after().map_or_else(
                || {
                    tracing::error!(module, file, error = %refusal, "the changed file was refused: the current version keeps serving");
                    TakenUp::Done
                },
                TakenUp::Again,
            ),
        }
    }
}

/// The content of a file; `None` if it cannot be read now, for instance because it is being replaced.
fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot be read")).ok()
}
