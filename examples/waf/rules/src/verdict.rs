//! What the rules say of a request, and why.

use serde::{Deserialize, Serialize};

use crate::catalogue::Family;

/// What is to happen to a request. The order is that of strength: the strongest of several wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Let it through.
    Allow,
    /// Let it through, and write it down.
    Log,
    /// Make the client show that a person is behind it.
    Challenge,
    /// Refuse it.
    Block,
}

impl Verdict {
    /// The number that crosses the border to the host: 0 allow, 1 block, 2 challenge, 3 log.
    pub fn code(self) -> i32 {
        match self {
            Verdict::Allow => 0,
            Verdict::Block => 1,
            Verdict::Challenge => 2,
            Verdict::Log => 3,
        }
    }
}

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

/// Which rule decided, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The id of the rule: a built-in one, or a dynamic one of the rule file.
    pub rule: String,
    /// Where it matched: `path`, `arg:NAME`, `header:NAME`, `cookie:NAME`, `file:NAME`, `body`, …
    pub part: String,
    /// What matched, decoded, at most [`Reason::LONGEST_MATCH`] characters of it.
    pub matched: String,
    /// The family's score in that part; 0 for a dynamic rule, or a rule with an action of its own.
    pub score: u32,
}

impl Reason {
    /// How many characters of the match, and of the part's name, a reason quotes.
    pub const LONGEST_MATCH: usize = 80;
}
