//! Rules that the rule file adds.
//!
//! All texts to be found share one automaton per place, of the kind that is the smallest; patterns run one by one, each in time linear in the text.

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::noncontiguous::NFA;
use regex_lite::{Regex, RegexBuilder};

use crate::config::{ConfigError, DynamicRule, Kind, Where};
use crate::cut;
use crate::work::Work;

/// What a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 64 * 1024;
/// What one is tried with first; the largest one is this, doubled a few times.
const SMALLEST_PATTERN: usize = 512;
/// What it takes, in steps, to match a byte: with all texts at once, and for so many bytes of a compiled pattern.
const AUTOMATON: usize = 8;
const BYTES_PER_STEP: usize = 16;
/// What a match takes.
const MATCH: usize = 30;

/// The dynamic rules, ready to be matched.
#[derive(Debug, Default)]
pub(crate) struct Dynamic {
    rules: Vec<DynamicRule>,
    places: Vec<(Where, Matchers)>,
}

#[derive(Debug)]
struct Matchers {
    texts: Option<(NFA, Vec<usize>)>,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    /// Its rule.
    index: usize,
    /// What it takes at most, in steps, to match it against a byte.
    steps: usize,
}

impl Dynamic {
    pub(crate) fn new(rules: &[DynamicRule]) -> Result<Dynamic, ConfigError> {
        let mut places = Vec::new();
        for place in [Where::Target, Where::Args, Where::Headers, Where::Body, Where::UserAgent] {
            let here = || rules.iter().enumerate().filter(|(_, rule)| rule.places.contains(&place));
            if here().next().is_some() {
                let of = |kind| here().filter(move |(_, rule)| rule.kind == kind);
                places.push((
                    place,
                    Matchers { texts: texts(of(Kind::Contains))?, patterns: patterns(of(Kind::Regex))? },
                ));
            }
        }
        Ok(Dynamic { rules: rules.to_vec(), places })
    }

    /// Whether any rule looks here.
    pub(crate) fn looks_at(&self, place: Where) -> bool {
        self.places.iter().any(|(known, _)| *known == place)
    }

    /// Every match of a rule that looks here.
    pub(crate) fn each<'t>(
        &self,
        place: Where,
        text: &'t str,
        work: &Work,
        mut see: impl FnMut(&DynamicRule, &'t str),
    ) {
        for (_, matchers) in self.places.iter().filter(|(known, _)| *known == place) {
            if let Some((automaton, indices)) = &matchers.texts {
                if !work.spend(text.len() * AUTOMATON) {
                    return;
                }
                let found = automaton.try_find_overlapping_iter(text.into()).into_iter().flatten();
                for found in found.take_while(|_| work.spend(MATCH)) {
                    let rule = indices.get(found.pattern().as_usize()).and_then(|index| self.rules.get(*index));
                    let Some(rule) = rule else { continue };
                    see(rule, cut::between(text, found.start(), found.end()));
                }
            }
            for Pattern { regex, index, steps } in &matchers.patterns {
                if !work.spend(text.len().saturating_mul(*steps)) {
                    return;
                }
                if let (Some(found), Some(rule)) = (regex.find(text), self.rules.get(*index)) {
                    see(rule, found.as_str());
                }
            }
        }
    }
}

type Indexed<'a> = (usize, &'a DynamicRule);

fn texts<'a>(rules: impl Iterator<Item = Indexed<'a>>) -> Result<Option<(NFA, Vec<usize>)>, ConfigError> {
    let (indices, rules): (Vec<usize>, Vec<&DynamicRule>) = rules.unzip();
    let Some(first) = rules.first() else { return Ok(None) };
    let automaton = NFA::builder()
        .ascii_case_insensitive(true)
        .prefilter(false)
        .build(rules.iter().map(|rule| &rule.pattern))
        .map_err(|error| ConfigError::Pattern { rule: first.id.clone(), message: error.to_string() })?;
    Ok(Some((automaton, indices)))
}

fn patterns<'a>(rules: impl Iterator<Item = Indexed<'a>>) -> Result<Vec<Pattern>, ConfigError> {
    rules
        .map(|(index, rule)| {
            let (regex, size) = smallest(&rule.pattern)
                .map_err(|error| ConfigError::Pattern { rule: rule.id.clone(), message: error.to_string() })?;
            Ok(Pattern { regex, index, steps: size / BYTES_PER_STEP })
        })
        .collect()
}

/// A pattern, with a size in bytes within which it could be compiled: it may take a step for every state that it has.
fn smallest(pattern: &str) -> Result<(Regex, usize), regex_lite::Error> {
    let mut size = SMALLEST_PATTERN;
    loop {
        match RegexBuilder::new(pattern).case_insensitive(true).size_limit(size).build() {
            Err(_) if size < LARGEST_PATTERN => size *= 2,
            built => return built.map(|regex| (regex, size)),
        }
    }
}
