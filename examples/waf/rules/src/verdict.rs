//! What the rules say of a request, and why.

use serde::{Deserialize, Serialize};
pub use waf_interface::{Reason, Verdict};

use crate::catalogue::Family;

/// What a rule does when it matches, as the rule file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuse the request.
    Block,
    /// Make the client show that a person is behind it.
    Challenge,
    /// Write it down.
    Log,
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Verdict {
        match action {
            Action::Block => Verdict::Block,
            Action::Challenge => Verdict::Challenge,
            Action::Log => Verdict::Log,
        }
    }
}

/// A verdict with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to happen.
    pub verdict: Verdict,
    /// Why. `None` if nothing was found.
    pub reason: Option<Reason>,
    /// Every family that spoke up, with the strongest verdict it reached.
    pub families: Vec<(Family, Verdict)>,
}
