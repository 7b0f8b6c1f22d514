//! Counts the steps of an attempt by their trace events.

use std::collections::BTreeMap;

use super::Log;

/// Counts the events of the texts below, over the whole process.
pub(crate) struct Steps(Log);

const STEPS: [&str; 4] = ["bytes hashed", "contracts compared", "image parsed", "module parsed"];

impl Steps {
    pub(crate) fn count() -> Steps {
        Steps(Log::capture())
    }

    pub(crate) fn take(&self) -> BTreeMap<&'static str, u32> {
        let mut steps = BTreeMap::new();
        for message in self.0.take_messages() {
            if let Some(step) = STEPS.into_iter().find(|step| *step == message) {
                *steps.entry(step).or_default() += 1;
            }
        }
        steps
    }
}
