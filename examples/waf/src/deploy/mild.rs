//! The rules without those that are mild somewhere, in a slot of their own: see [`MildRules`].

use hotslot::{BoxError, HotSlot};
use parking_lot::Mutex;
use waf_interface::Waf;

use super::{Deployments, complain};
use crate::guard::MildRules;
use crate::release::Release;
use crate::trial::Mode;

/// Opens a slot with a release.
pub(super) type Open = Box<dyn Fn(&str, &Release) -> Result<HotSlot<dyn Waf>, hotslot::Error> + Send + Sync>;

/// Which rules are mild, and how a slot without them is opened.
pub(super) struct Mild {
    /// Those of all modules: which of them this one knows can change with each version.
    pub rules: Mutex<Vec<String>>,
    pub open: Open,
}

/// The rule of the node itself.
pub(super) const OWN: &str = "uninspected";

impl Deployments {
    /// Takes up which rules are mild somewhere, and returns those of them that this module has.
    pub(super) fn set_mild_rules(&self, rules: Vec<String>) -> Vec<String> {
        *self.mild.rules.lock() = rules;
        let _change = self.change.lock();
        self.follow_mild()
    }

    /// Brings the slot in line with what serves. Until it is, it runs what served before.
    pub(super) fn follow_mild(&self) -> Vec<String> {
        if let Ok(trial) = self.trial_under_way()
            && trial.plan().mode == Mode::Canary
        {
            trial.set_mild(self.open_mild(&trial.about().release).0);
        }
        let (mild, left_out) = self.open_mild(&self.serving());
        self.guard.set_mild(mild);
        left_out
    }

    /// Opens a slot with a release without the rules that are mild somewhere, and returns those of them that it has. There is
    /// no slot if there are none, or if it cannot be opened: then all of them stand.
    pub(super) fn open_mild(&self, release: &Release) -> (Option<MildRules>, Vec<String>) {
        let rules = self.mild.rules.lock().clone();
        let rules: Vec<_> = rules.into_iter().filter(|rule| rule != OWN).collect();
        if rules.is_empty() {
            return (None, rules);
        }
        let open = |rules: &[String]| -> Result<HotSlot<dyn Waf>, BoxError> {
            let release = Release { module: release.module.clone(), rules: release.rules.without(rules)? };
            Ok((self.mild.open)("mild", &release)?)
        };
        let (opened, left_out) = match open(&rules) {
            Ok(slot) => (Ok(slot), rules),
            // Some are of another module, or of none.
            Err(_) => {
                let own: Vec<_> = rules.into_iter().filter(|rule| open(std::slice::from_ref(rule)).is_ok()).collect();
                if own.is_empty() {
                    return (None, own);
                }
                (open(&own), own)
            }
        };
        match opened {
            Ok(slot) => (Some(MildRules { slot, left_out: left_out.clone() }), left_out),
            Err(error) => {
                complain(Err(format!("no exceptions and no rules with detection only: {error}").into()));
                (None, left_out)
            }
        }
    }
}
