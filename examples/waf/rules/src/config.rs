//! The rule file, `waf-config.json`.
//!
//! ```json
//! {
//!   "families": { "scanner": { "action": "challenge" }, "sqli": { "threshold": 7 } },
//!   "rules": { "rce-variable": { "enabled": false }, "xss-style": { "action": "log" } },
//!   "dynamic": [
//!     { "id": "no-wordpress", "where": ["target"], "kind": "contains", "pattern": "/wp-login.php", "action": "block" }
//!   ],
//!   "limits": { "parameters": 10000, "bytes": 262144, "work": 13000000 }
//! }
//! ```
//!
//! Everything may be left out; a key that is not known is an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::catalogue::{Family, Rule};
use crate::verdict::Action;

/// The rule file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What to change about families.
    pub families: BTreeMap<Family, FamilyConfig>,
    /// What to change about built-in rules, by id.
    pub rules: BTreeMap<String, RuleConfig>,
    /// Rules added to the built-in ones.
    pub dynamic: Vec<DynamicRule>,
    /// How much of a request is looked at.
    pub limits: Limits,
}

/// How a family behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FamilyConfig {
    /// Whether its rules count at all.
    pub enabled: bool,
    /// What to do when the score of one part of the request reaches the threshold: to block it, unless this is set. For the
    /// family `limits` the host's setting for what cannot be inspected goes before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The score at which the family acts. Strong rules weigh 5.
    pub threshold: u32,
    /// The score at which the family logs. Suspicious values weigh 3.
    pub log_threshold: u32,
}

impl Default for FamilyConfig {
    fn default() -> FamilyConfig {
        FamilyConfig { enabled: true, action: None, threshold: 5, log_threshold: 3 }
    }
}

/// How a built-in rule behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Whether it counts at all.
    pub enabled: bool,
    /// What it does by itself. A rule with an action of its own no longer adds to its family's score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
}

impl Default for RuleConfig {
    fn default() -> RuleConfig {
        RuleConfig { enabled: true, action: None }
    }
}

/// A rule that the rule file adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DynamicRule {
    /// Its name in reasons; not that of another rule.
    pub id: String,
    /// Where it looks.
    #[serde(rename = "where")]
    pub places: Vec<Where>,
    /// How it looks.
    pub kind: Kind,
    /// What it looks for. Case does not matter.
    pub pattern: String,
    /// What it does when it matches.
    pub action: Action,
}

/// Where a dynamic rule looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// Path and query, decoded.
    Target,
    /// Names and values of the parameters of query and body, and cookies.
    Args,
    /// Headers, as `name: value`.
    Headers,
    /// The body as a whole, decoded.
    Body,
    /// The `User-Agent` header.
    UserAgent,
}

/// How a dynamic rule looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The pattern is text to be found.
    Contains,
    /// The pattern is a regular expression, in the syntax of the crate `regex-lite`.
    Regex,
}

/// How much of a request is looked at. More than this matches the rule `limits-exceeded` or, for work, `limits-work`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Names and values, of query, cookies, headers and body together.
    pub parameters: usize,
    /// Bytes of all of them.
    pub bytes: usize,
    /// Steps of work. Ordinary text takes some 130 per byte, what looks like attacks up to a thousand; the default takes less
    /// than 50 ms on a core of 2.5 GHz.
    pub work: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { parameters: 10_000, bytes: 256 * 1024, work: 13_000_000 }
    }
}

impl Config {
    /// The most dynamic rules that a rule file may add.
    pub const MOST_DYNAMIC: usize = 1000;

    /// Reads a rule file and checks what can be checked without building it.
    ///
    /// # Errors
    /// [`ConfigError`] says which line or which rule is wrong.
    pub fn parse(json: &[u8]) -> Result<Config, ConfigError> {
        // Serde would take a list for the values of the keys, in their order.
        if json.trim_ascii_start().starts_with(b"[") {
            return Err(ConfigError::List);
        }
        let config: Config = serde_json::from_slice(json).map_err(|error| ConfigError::Syntax {
            line: error.line(),
            column: error.column(),
            message: without_position(&error.to_string()).to_owned(),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Some(rule) = self.rules.keys().find(|id| Rule::by_id(id).is_none()) {
            return Err(ConfigError::UnknownRule { rule: rule.clone() });
        }
        for (family, config) in &self.families {
            if config.threshold == 0 || config.log_threshold == 0 {
                return Err(ConfigError::ZeroThreshold { family: family.name() });
            }
        }
        if self.dynamic.len() > Config::MOST_DYNAMIC {
            return Err(ConfigError::TooManyRules { count: self.dynamic.len(), most: Config::MOST_DYNAMIC });
        }
        for (index, rule) in self.dynamic.iter().enumerate() {
            let id = rule.id.clone();
            if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                return Err(ConfigError::BadId { index, id });
            }
            if Rule::by_id(&id).is_some() || self.dynamic.iter().take(index).any(|earlier| earlier.id == id) {
                return Err(ConfigError::DuplicateRule { rule: id });
            }
            if rule.places.is_empty() {
                return Err(ConfigError::Nowhere { rule: id });
            }
            if rule.pattern.is_empty() || rule.pattern.len() > 1024 {
                return Err(ConfigError::PatternLength { rule: id, length: rule.pattern.len() });
            }
        }
        Ok(())
    }
}

/// The error's own text without the position, which [`ConfigError::Syntax`] says itself.
fn without_position(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(before, _)| before)
}

/// Why a rule file is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or a key or value is not known.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The file is a JSON list.
    #[error("a rule file is an object, as in `{{ \"dynamic\": [] }}`, and not a list")]
    List,
    /// `rules` names a built-in rule that does not exist.
    #[error("rules: there is no built-in rule `{rule}`; rules of your own go to `dynamic`")]
    UnknownRule {
        /// The name.
        rule: String,
    },
    /// A threshold of zero would act on every request.
    #[error("families: the thresholds of `{family}` must be at least 1; set `enabled` to false to switch a family off")]
    ZeroThreshold {
        /// The family.
        family: &'static str,
    },
    /// More dynamic rules than are allowed.
    #[error("dynamic: {count} rules, at most {most} are allowed")]
    TooManyRules {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A dynamic rule's id is not 1 to 64 letters, digits, `-`, `_` or `.`.
    #[error("dynamic rule number {index}: the id {id:?} must be 1 to 64 letters, digits, `-`, `_` or `.`")]
    BadId {
        /// Its place in the list, from 0.
        index: usize,
        /// The id.
        id: String,
    },
    /// Two rules have the same id.
    #[error("dynamic rule `{rule}`: another rule has this id")]
    DuplicateRule {
        /// The id.
        rule: String,
    },
    /// A dynamic rule looks nowhere.
    #[error("dynamic rule `{rule}`: `where` is empty; say target, args, headers, body or user-agent")]
    Nowhere {
        /// The rule.
        rule: String,
    },
    /// A dynamic rule's pattern is empty or too long.
    #[error("dynamic rule `{rule}`: the pattern has {length} bytes, 1 to 1024 are allowed")]
    PatternLength {
        /// The rule.
        rule: String,
        /// The length.
        length: usize,
    },
    /// A dynamic rule's pattern is not a regular expression, or too large a one.
    #[error("dynamic rule `{rule}`: {message}")]
    Pattern {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        message: String,
    },
}
