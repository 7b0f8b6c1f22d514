//! The configuration.
//!
//! ```json
//! {
//!   "rules": { "bot-scraper": { "action": "challenge" }, "bot-empty": { "enabled": true } },
//!   "block": ["acme crawler"],
//!   "allow": ["acme monitor"]
//! }
//! ```
//!
//! Everything may be left out; a key that is not known is an error.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use waf_interface::Verdict;

/// How many names may be listed, and how long each may be, in bytes.
const MOST_NAMES: usize = 1000;
const LONGEST_NAME: usize = 128;

/// The built-in rules, and what the configuration lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Looks for weaknesses.
    Scanner,
    /// Copies sites, or reads them for others than those who look for something.
    Scraper,
    /// Is a program's library, and no browser.
    Library,
    /// Says nothing of itself.
    Empty,
    /// Is in the list `block`.
    Listed,
}

impl Rule {
    pub(crate) const ALL: [Rule; 5] = [Rule::Scanner, Rule::Scraper, Rule::Library, Rule::Empty, Rule::Listed];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Rule::Scanner => "bot-scanner",
            Rule::Scraper => "bot-scraper",
            Rule::Library => "bot-library",
            Rule::Empty => "bot-empty",
            Rule::Listed => "bot-listed",
        }
    }

    /// Whether it holds if the configuration says nothing of it. What is in use for good reasons, too, has to be asked for.
    fn is_on(self) -> bool {
        !matches!(self, Rule::Library | Rule::Empty)
    }

    /// The names that it is about, in lower case.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Rule::Scanner => SCANNERS,
            Rule::Scraper => SCRAPERS,
            Rule::Library => LIBRARIES,
            Rule::Empty | Rule::Listed => &[],
        }
    }
}

#[rustfmt::skip]
static SCANNERS: &[&str] = &[
    "acunetix", "appscan", "arachni", "burpcollaborator", "burpsuite", "cgichk", "commix", "dirb", "dirbuster", "dirsearch",
    "dotdotpwn", "evilscanner", "feroxbuster", "ffuf", "fimap", "gobuster", "grabber", "grendel-scan", "havij", "hydra",
    "invicti", "jaeles", "joomscan", "jorgee", "l9explore", "l9tcpid", "libwhisker", "masscan", "metasploit", "morfeus",
    "n-stealth", "nessus", "netsparker", "nikto", "nmap scripting engine", "nosqlmap", "nuclei", "openvas", "padbuster", "paros",
    "projectdiscovery", "qualys was", "rustbuster", "sipvicious", "skipfish", "sqlmap", "sqlninja", "struts-pwn", "sysscan",
    "tplmap", "vega/", "w3af", "wapiti", "webinspect", "wfuzz", "whatweb", "wpscan", "xsser", "xsstrike", "zap/", "zgrab", "zmeu",
];

#[rustfmt::skip]
static SCRAPERS: &[&str] = &[
    "ahrefsbot", "barkrowler", "blexbot", "bytespider", "cliqzbot", "contentking", "copyscape", "dataforseobot", "dotbot",
    "emailcollector", "emailsiphon", "emailwolf", "grapeshotcrawler", "httrack", "imagesiftbot", "ltx71", "mail.ru_bot",
    "megaindex.ru", "mj12bot", "netestate ne crawler", "nutch", "offline explorer", "petalbot", "plukkie", "rogerbot", "scrapy",
    "seekport", "semrushbot", "seokicks", "serpstatbot", "siphon", "sistrix", "sitebot", "sitesnagger", "sitesucker",
    "spbot", "teleport pro", "turnitinbot", "webcopier", "webreaper", "webripper", "website quester", "webstripper", "webzip",
    "xenu link sleuth", "zoominfobot",
];

#[rustfmt::skip]
static LIBRARIES: &[&str] = &[
    "aiohttp", "apache-httpclient", "axios", "curl", "go-http-client", "guzzlehttp", "java", "libwww-perl", "lwp-trivial",
    "node-fetch", "okhttp", "php", "python-httpx", "python-requests", "python-urllib", "reqwest", "undici", "wget",
    "winhttp",
];

/// What a rule does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuse the request.
    Block,
    /// Make the client show that a person is behind it.
    Challenge,
    /// Write it down.
    Log,
}

/// How a rule behaves.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Whether it counts. One that has an action does.
    pub enabled: Option<bool>,
    /// What it does: to block, unless this is set.
    pub action: Option<Action>,
}

/// What is to be done with which bots.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What to change about rules, by id.
    pub rules: BTreeMap<String, RuleConfig>,
    /// More names of bad bots.
    pub block: Vec<String>,
    /// Names that nothing is done about, whatever else is in the header.
    pub allow: Vec<String>,
    /// In the rule files of other modules.
    dynamic: Vec<IgnoredAny>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// It is no JSON, or has keys or values that are not known.
    Json(serde_json::Error),
    /// There is no such rule.
    UnknownRule(String),
    /// A name cannot be looked for.
    Name(String),
    /// There are too many names.
    TooMany,
    /// There are no dynamic rules here.
    Dynamic,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Json(error) => error.fmt(f),
            ConfigError::UnknownRule(rule) => {
                write!(f, "there is no rule `{rule}`: there are")?;
                Rule::ALL.iter().try_for_each(|rule| write!(f, " {}", rule.id()))
            }
            ConfigError::Name(name) => {
                write!(
                    f,
                    "{name:?} cannot be looked for: a name has 1 to {LONGEST_NAME} bytes, and a letter or a digit"
                )
            }
            ConfigError::TooMany => write!(f, "there are more than {MOST_NAMES} names"),
            ConfigError::Dynamic => f.write_str("bad-bot-blocker has no dynamic rules: list names under `block`"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names what is wrong, with its line if it is about the text.
    pub fn parse(text: &[u8]) -> Result<Config, ConfigError> {
        let mut config: Config = serde_json::from_slice(text).map_err(ConfigError::Json)?;
        if !config.dynamic.is_empty() {
            return Err(ConfigError::Dynamic);
        }
        if let Some(rule) = config.rules.keys().find(|id| !Rule::ALL.iter().any(|rule| rule.id() == **id)) {
            return Err(ConfigError::UnknownRule(rule.clone()));
        }
        if config.block.len() + config.allow.len() > MOST_NAMES {
            return Err(ConfigError::TooMany);
        }
        for name in config.block.iter_mut().chain(&mut config.allow) {
            *name = name.trim().to_ascii_lowercase();
            if name.len() > LONGEST_NAME || !name.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
                return Err(ConfigError::Name(std::mem::take(name)));
            }
        }
        Ok(config)
    }

    /// What a rule does when it matches; `None` if it does not count.
    pub(crate) fn verdict(&self, rule: Rule) -> Option<Verdict> {
        let own = self.rules.get(rule.id()).cloned().unwrap_or_default();
        let is_on = own.enabled.unwrap_or(rule.is_on() || own.action.is_some());
        let verdict = match own.action {
            None | Some(Action::Block) => Verdict::Block,
            Some(Action::Challenge) => Verdict::Challenge,
            Some(Action::Log) => Verdict::Log,
        };
        is_on.then_some(verdict)
    }
}
