//! Why rules are no configuration of this engine.

use std::fmt;

use waf_rule_bundle::{Malformed, Place};

/// How many reasons are told. The rest are counted, and all rules are named.
const TOLD: usize = 12;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text has a mistake.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Rules ask for what the engine cannot do.
    #[error("{}", told(.0))]
    Unsupported(Vec<Unsupported>),
    /// The engine does not take all rules together, although it takes each.
    #[error("the engine: {0}")]
    Engine(String),
}

/// Something that the engine cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Where it is asked for.
    pub at: Place,
    /// By which rule: of a chain, the first one.
    pub rule: Option<u64>,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(rule) => write!(f, "{}: rule {rule}: {}", self.at, self.what),
            None => write!(f, "{}: {}", self.at, self.what),
        }
    }
}

fn told(all: &[Unsupported]) -> String {
    let mut lines: Vec<String> = all.iter().take(TOLD).map(ToString::to_string).collect();
    if all.len() > TOLD {
        lines.push(format!("and {} more", all.len() - TOLD));
    }
    let mut rules: Vec<u64> = all.iter().filter_map(|unsupported| unsupported.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    if !rules.is_empty() {
        let rules = rules.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        lines.push(format!("what leaves out the rules that this engine cannot run: SecRuleRemoveById {rules}"));
    }
    lines.join("; ")
}
