//! The rules without those that are mild somewhere, in a slot of their own: see [`MildRules`].

use hotslot::{BoxError, HotSlot};
use parking_lot::Mutex;
use waf_interface::Waf;

use super::{Deployments, complain};
use crate::guard::MildRules;
use crate::release::Release;

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
        let rules = self.mild.rules.lock().clone();
        let rules: Vec<_> = rules.into_iter().filter(|rule| rule != OWN).collect();
        if rules.is_empty() {
            self.guard.set_mild(None);
            return rules;
        }
        let serving = self.serving();
        let open = |rules: &[String]| -> Result<HotSlot<dyn Waf>, BoxError> {
            let release = Release { module: serving.module.clone(), rules: serving.rules.without(rules)? };
            Ok((self.mild.open)("mild", &release)?)
        };
        let (opened, left_out) = match open(&rules) {
            Ok(slot) => (Ok(slot), rules),
            // Some are of another module, or of none.
            Err(_) => {
                let own: Vec<_> = rules.into_iter().filter(|rule| open(std::slice::from_ref(rule)).is_ok()).collect();
                if own.is_empty() {
                    self.guard.set_mild(None);
                    return own;
                }
                (open(&own), own)
            }
        };
        match opened {
            Ok(slot) => {
                self.guard.set_mild(Some(MildRules { slot, left_out: left_out.clone() }));
                left_out
            }
            Err(error) => {
                self.guard.set_mild(None);
                complain(Err(format!("no exceptions and no rules with detection only: {error}").into()));
                left_out
            }
        }
    }
}
