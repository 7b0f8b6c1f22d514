//! The rules without those that are mild somewhere, in a slot of their own: see [`Guard::set_mild`](crate::guard::Guard).

use hotslot::{BoxError, HotSlot};
use parking_lot::Mutex;
use waf_interface::Waf;

use super::{Deployments, complain};
use crate::release::Release;

/// Opens a slot with a release.
pub(super) type Open = Box<dyn Fn(&str, &Release) -> Result<HotSlot<dyn Waf>, hotslot::Error> + Send + Sync>;

/// Which rules are mild, and how a slot without them is opened.
pub(super) struct Mild {
    pub rules: Mutex<Vec<String>>,
    pub open: Open,
}

impl Deployments {
    /// Takes up which rules are mild somewhere. Those that are not known are told, and taken for mild nowhere.
    pub fn set_mild_rules(&self, rules: Vec<String>) {
        *self.mild.rules.lock() = rules;
        let _change = self.change.lock();
        self.follow_mild();
    }

    /// Brings the slot in line with what serves. Until it is, it runs what served before.
    pub(super) fn follow_mild(&self) {
        let rules = self.mild.rules.lock().clone();
        let rules: Vec<_> = rules.into_iter().filter(|rule| rule != OWN).collect();
        if rules.is_empty() {
            return self.guard.set_mild(None);
        }
        let serving = self.serving();
        let open = |rules: &[String]| -> Result<HotSlot<dyn Waf>, BoxError> {
            let release = Release { module: serving.module.clone(), rules: serving.rules.without(rules)? };
            Ok((self.mild.open)("mild", &release)?)
        };
        let opened = open(&rules).or_else(|_| {
            // One of them is in no rule file, now.
            let known: Vec<_> = rules.into_iter().filter(|rule| is_known(&open, rule)).collect();
            open(&known)
        });
        match opened {
            Ok(slot) => self.guard.set_mild(Some(slot)),
            Err(error) => {
                self.guard.set_mild(None);
                complain(Err(format!("no exceptions and no rules with detection only: {error}").into()));
            }
        }
    }
}

/// The rule of the node itself.
const OWN: &str = "uninspected";

fn is_known(open: &impl Fn(&[String]) -> Result<HotSlot<dyn Waf>, BoxError>, rule: &String) -> bool {
    open(std::slice::from_ref(rule))
        .inspect_err(|error| tracing::warn!(rule, %error, "there is no such rule to make an exception from"))
        .is_ok()
}
