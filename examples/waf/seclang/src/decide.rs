//! From what the engine found to a verdict with its reason.
//!
//! The Core Rule Set refuses a request with a rule that only adds up the scores of others. What an operator wants to know, and to make
//! an exception from, is what scored, so that is the reason.

use std::collections::BTreeMap;

use waf_interface::{Decision, Reason, Verdict};
use zentinel_modsec::Transaction;
use zentinel_modsec::engine::transaction::MatchedData;
use zentinel_modsec::variables::Collection;

use crate::load::About;

/// Where rule sets keep the score of a request: the Core Rule Set from version 4 on, and before.
const SCORES: [&str; 2] = ["blocking_inbound_anomaly_score", "anomaly_score"];

/// A rule that matched, a chain as a whole.
struct Match<'a> {
    rule: &'a str,
    about: &'a About,
    data: &'a MatchedData,
}

pub(crate) fn decide(engine: &Transaction, all: &BTreeMap<String, About>) -> Decision {
    let matches = matches(engine.matched_data(), all);
    if let Some(intervention) = engine.intervention() {
        let by = intervention.rule_ids.first().map(String::as_str).unwrap_or_default();
        let own = matches.iter().rfind(|found| found.rule == by);
        let sums_up = all.get(by).is_some_and(|about| about.sums_up);
        let scored = strongest(matches.iter().filter(|found| found.about.scores && !found.about.sums_up));
        let reason = match (scored.filter(|_| sums_up), own) {
            (Some(found), _) | (None, Some(found)) => reason(engine, found),
            (None, None) => Reason { rule: by.to_owned(), ..Reason::default() },
        };
        return Decision { verdict: Verdict::Block, reason: Some(reason) };
    }
    // Where the engine only detects, a rule that would refuse a request is one to write down; so is one that says so itself.
    let told = matches.iter().filter(|found| found.about.disrupts || found.about.logs);
    let told: Vec<_> = told.filter(|found| !found.about.message.is_empty() || found.about.disrupts).collect();
    let found = strongest(told.iter().copied().filter(|found| !found.about.sums_up)).or(told.first().copied());
    match found {
        Some(found) => Decision { verdict: Verdict::Log, reason: Some(reason(engine, found)) },
        None => Decision { verdict: Verdict::Allow, reason: None },
    }
}

/// The rules that matched, in order. The engine also notes the beginnings of chains that did not match to their end.
fn matches<'a>(data: &'a [MatchedData], all: &'a BTreeMap<String, About>) -> Vec<Match<'a>> {
    let known = data.iter().enumerate().filter_map(|(at, one)| {
        let (rule, about) = all.get_key_value(one.rule_id.as_deref()?)?;
        let behind = data.get(at + 1..).unwrap_or_default().iter().map(|next| &next.rule_id);
        let is_whole =
            about.links.len() <= behind.len() && about.links.iter().zip(behind).all(|(link, next)| link == next);
        is_whole.then_some(Match { rule, about, data: one })
    });
    known.collect()
}

/// The worst, and of those the first.
fn strongest<'a, 'b: 'a>(matches: impl Iterator<Item = &'a Match<'b>>) -> Option<&'a Match<'b>> {
    matches.min_by_key(|found| found.about.severity)
}

fn reason(engine: &Transaction, found: &Match<'_>) -> Reason {
    let Match { rule, about, data } = found;
    let short = |text: &str| text.chars().take(Reason::LONGEST_MATCH).collect::<String>();
    let matched = short(data.matched_portion.as_deref().unwrap_or(&data.value));
    let matched = match about.message.as_str() {
        "" => matched,
        message => format!("{}: {matched}", short(message)),
    };
    let score =
        SCORES.iter().find_map(|name| engine.tx().get(name)?.first()?.parse::<u32>().ok().filter(|score| *score > 0));
    Reason { rule: (*rule).to_owned(), part: part(&data.variable), matched, score: score.unwrap_or_default() }
}

/// What a variable is called in a reason, as the other rules call it.
fn part(variable: &str) -> String {
    let (collection, key) = variable.trim_start_matches('&').split_once(':').unwrap_or((variable, ""));
    let key: String = key.chars().take(Reason::LONGEST_MATCH).collect();
    let kind = match collection {
        _ if collection.starts_with("ARGS") => "arg",
        _ if collection.starts_with("REQUEST_HEADERS") => return format!("header:{}", key.to_ascii_lowercase()),
        _ if collection.starts_with("REQUEST_COOKIES") => "cookie",
        "FILES" | "FILES_NAMES" | "MULTIPART_PART_HEADERS" => "file",
        "REQUEST_FILENAME" | "REQUEST_BASENAME" => return "path".to_owned(),
        "REQUEST_URI" | "REQUEST_URI_RAW" | "REQUEST_LINE" => return "target".to_owned(),
        "QUERY_STRING" => return "query".to_owned(),
        "REQUEST_BODY" => return "body".to_owned(),
        other => return other.chars().take(Reason::LONGEST_MATCH).collect::<String>().to_ascii_lowercase(),
    };
    if key.is_empty() { kind.to_owned() } else { format!("{kind}:{key}") }
}
