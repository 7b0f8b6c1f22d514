//! Turns bad bots away: scanners and scrapers, by the names that they give themselves in `User-Agent`.
//!
//! Whoever wants to can call themselves otherwise, so this keeps out the lazy ones, for very little: one header is read once. A
//! node asks it beside the rules of `universal-waf`, which look at everything else.
//!
//! This crate is the plugin `bad-bot-blocker` of the interface [`waf_interface::Waf`]: a module if it is compiled for wasm32, and a
//! library for every other target.
#![cfg_attr(not(test), deny(clippy::string_slice, clippy::indexing_slicing))]

mod config;
mod names;

use hotslot_plugin::{CallError, Error, Host, Plugin};
use waf_interface::{Decision, Reason, Request, Verdict, Waf};

pub use config::{Config, ConfigError};

use crate::config::Rule;
use crate::names::Names;

/// What to do with which bots.
pub struct BadBots {
    names: Names<Kind>,
    empty: Option<Verdict>,
}

/// What a name stands for.
enum Kind {
    Bad(Rule, Verdict),
    Good,
}

impl BadBots {
    /// Takes up a configuration.
    pub fn new(config: Config) -> BadBots {
        let built_in =
            Rule::ALL.into_iter().flat_map(|rule| rule.names().iter().map(move |name| ((*name).into(), rule)));
        let listed = config.block.iter().map(|name| (name.clone().into(), Rule::Listed));
        let bad =
            built_in.chain(listed).filter_map(|(name, rule)| Some((name, Kind::Bad(rule, config.verdict(rule)?))));
        let good = config.allow.iter().map(|name| (name.clone().into(), Kind::Good));
        BadBots { names: Names::new(bad.chain(good).collect()), empty: config.verdict(Rule::Empty) }
    }

    /// What is to happen to a request.
    pub fn inspect(&self, request: &Request<'_>) -> Decision {
        let of = |name: &'static [u8]| request.headers().filter(move |(own, _)| own.eq_ignore_ascii_case(name));
        let mut agents =
            of(b"user-agent").map(|(_, value)| value).filter(|value| !value.trim_ascii().is_empty()).peekable();
        if agents.peek().is_none() {
            // The host shows the header once, and always with a name for itself. What comes without is the rest of a body.
            let verdict = self.empty.filter(|_| of(b"host").next().is_some());
            return verdict.map_or(ALLOW, |verdict| decision(Rule::Empty, verdict, ""));
        }
        let strongest = agents.filter_map(|agent| self.of_agent(agent)).max_by_key(|decision| decision.verdict);
        strongest.unwrap_or(ALLOW)
    }

    fn of_agent(&self, agent: &[u8]) -> Option<Decision> {
        let lower = agent.to_ascii_lowercase();
        let mut strongest = None;
        for (at, kind) in self.names.find(&lower) {
            match (kind, &strongest) {
                (Kind::Good, _) => return None,
                // Of two that are as strong, the one that comes first.
                (Kind::Bad(_, verdict), Some((_, _, strongest))) if verdict <= strongest => {}
                (Kind::Bad(rule, verdict), _) => strongest = Some((at, *rule, *verdict)),
            }
        }
        let (at, rule, verdict) = strongest?;
        let matched = agent.get(at).map(String::from_utf8_lossy).unwrap_or_default();
        Some(decision(rule, verdict, &matched))
    }
}

/// Nothing was found.
const ALLOW: Decision = Decision { verdict: Verdict::Allow, reason: None };

fn decision(rule: Rule, verdict: Verdict, matched: &str) -> Decision {
    let matched = matched.chars().take(Reason::LONGEST_MATCH).collect();
    let reason = Reason { rule: rule.id().to_owned(), part: "header:user-agent".to_owned(), matched, score: 0 };
    Decision { verdict, reason: Some(reason) }
}

impl Plugin for BadBots {
    fn create(host: Host) -> Result<BadBots, Error> {
        let config = Config::parse(host.config()).map_err(|error| format!("the configuration: {error}"))?;
        Ok(BadBots::new(config))
    }
}

impl Waf for BadBots {
    fn inspect_request(&self, request: &[u8]) -> Result<Decision, CallError> {
        Ok(self.inspect(&Request::decode(request).map_err(CallError::failed)?))
    }
}

hotslot_plugin::export!(BadBots as Waf);
