//! Rules that the rule file adds.
//!
//! All texts to be found share one automaton per place, of the kind that is the smallest; patterns run one by one, each in time linear in the text.

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::noncontiguous::NFA;
use regex_lite::{Regex, RegexBuilder};

use crate::config::{ConfigError, DynamicRule, Kind, Where};
use crate::cut;

/// What a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 64 * 1024;

/// The dynamic rules, ready to be matched.
#[derive(Debug, Default)]
pub(crate) struct Dynamic {
    rules: Vec<DynamicRule>,
    places: Vec<(Where, Matchers)>,
}

#[derive(Debug)]
struct Matchers {
    texts: Option<(NFA, Vec<usize>)>,
    patterns: Vec<(Regex, usize)>,
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
    pub(crate) fn each<'t>(&self, place: Where, text: &'t str, mut see: impl FnMut(&DynamicRule, &'t str)) {
        for (_, matchers) in self.places.iter().filter(|(known, _)| *known == place) {
            if let Some((automaton, indices)) = &matchers.texts {
                for found in automaton.try_find_overlapping_iter(text.into()).into_iter().flatten() {
                    let matched = cut::between(text, found.start(), found.end());
                    see(&self.rules[indices[found.pattern().as_usize()]], matched);
                }
            }
            for (pattern, index) in &matchers.patterns {
                if let Some(found) = pattern.find(text) {
                    see(&self.rules[*index], found.as_str());
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

fn patterns<'a>(rules: impl Iterator<Item = Indexed<'a>>) -> Result<Vec<(Regex, usize)>, ConfigError> {
    rules
        .map(|(index, rule)| {
            let built = RegexBuilder::new(&rule.pattern).case_insensitive(true).size_limit(LARGEST_PATTERN).build();
            built
                .map(|pattern| (pattern, index))
                .map_err(|error| ConfigError::Pattern { rule: rule.id.clone(), message: error.to_string() })
        })
        .collect()
}
