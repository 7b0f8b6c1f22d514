//! A value as detectors see it, and where they say what they found.

use crate::catalogue::{CATALOGUE, Rule};
use crate::cut;
use crate::parts::Place;
use crate::words::List;
use crate::work::Work;

/// A decoded value, beside its lower-case twin of the same length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) place: Place,
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
    pub(crate) lower: &'a str,
    pub(crate) work: &'a Work,
}

/// What it takes, in steps, to look at the beginning of something that may be an attack.
const CANDIDATE: usize = 150;

impl<'a> View<'a> {
    /// Where a text occurs, with the byte before and the byte behind each occurrence, for as long as the budget lasts.
    pub(crate) fn occurrences<'t>(
        &self,
        text: &'t str,
        needle: &'t str,
    ) -> impl Iterator<Item = (usize, Option<u8>, Option<u8>)> + use<'a, 't> {
        let work = self.work;
        occurrences(text, needle).take_while(move |_| work.spend(CANDIDATE))
    }

    /// The entries of a sorted list that stand in a text where a word begins or, if they begin with a mark, anywhere, for as
    /// long as the budget lasts. The text is read once, however long the list.
    pub(crate) fn find_any<'l>(
        &self,
        list: &'l List,
        text: &'l str,
    ) -> impl Iterator<Item = (usize, &'static str)> + use<'a, 'l> {
        let work = self.work;
        find_any(list, text).take_while(move |_| work.spend(CANDIDATE))
    }

    /// At most `length` bytes from here on, each of which is going to be read so many times. Nothing if the budget does not
    /// allow that.
    pub(crate) fn look<'t>(&self, text: &'t str, at: usize, length: usize, times: usize) -> &'t str {
        let near = excerpt(text, at, length);
        if self.work.spend(near.len() * times) { near } else { "" }
    }
}

/// What was found in one part of a request: each rule once, with what it matched first.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    found: Vec<(Rule, String)>,
}

impl Hits {
    pub(crate) fn add(&mut self, rule: Rule, matched: &str) {
        if !self.has(rule) {
            self.found.push((rule, matched.chars().take(crate::Reason::LONGEST_MATCH).collect()));
        }
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.found.iter().any(|(known, _)| *known == rule)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Rule, &str)> {
        debug_assert!(self.found.len() <= CATALOGUE.len());
        self.found.iter().map(|(rule, matched)| (*rule, matched.as_str()))
    }

    pub(crate) fn clear(&mut self) {
        self.found.clear();
    }
}

fn occurrences<'t>(text: &'t str, needle: &'t str) -> impl Iterator<Item = (usize, Option<u8>, Option<u8>)> + 't {
    text.match_indices(needle).map(move |(at, _)| (at, cut::byte_before(text, at), cut::byte(text, at + needle.len())))
}

fn find_any<'l>(list: &'l List, text: &'l str) -> impl Iterator<Item = (usize, &'static str)> + 'l {
    let mut inside = false;
    let starts = text.bytes().enumerate().filter_map(move |(at, byte)| {
        let before = std::mem::replace(&mut inside, is_word(byte));
        // Where a word begins, or a mark stands.
        ((!before || !inside) && list.begins_with(byte)).then_some(at)
    });
    starts.flat_map(move |at| prefixes(list, cut::from(text, at)).map(move |entry| (at, entry)))
}

/// Whether a byte can be part of a word.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// At most `length` bytes from here on, cut where a character ends.
pub(crate) fn excerpt(text: &str, at: usize, length: usize) -> &str {
    cut::until(cut::from(text, at), length)
}

/// How many plain words a text has: two letters or more, with nothing but a sentence's marks around them.
pub(crate) fn prose_words(text: &str) -> usize {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| ",.;:!?()'\"".contains(c)))
        .filter(|word| word.chars().count() > 1 && word.chars().all(|c| c.is_alphabetic() || c == '\'' || c == '’'))
        .count()
}

/// The entries of a sorted list, of two bytes or more each, that `text` starts with.
pub(crate) fn prefixes<'l>(list: &'l List, text: &'l str) -> impl Iterator<Item = &'static str> + 'l {
    // Two bytes tell nearly all entries apart; only what shares them is compared in full.
    let wanted = head(text);
    let from = match text.bytes().next() {
        Some(first) if list.begins_with(first) => list.partition_point(|entry| head(entry) < wanted),
        _ => list.len(),
    };
    list.iter()
        .skip(from)
        .copied()
        .take_while(move |entry| head(entry) == wanted)
        .filter(move |entry| text.starts_with(entry))
}

/// The first two bytes, in whose order texts are sorted.
fn head(text: &str) -> u16 {
    match text.as_bytes() {
        [first, second, ..] => u16::from_be_bytes([*first, *second]),
        [first] => u16::from_be_bytes([*first, 0]),
        [] => 0,
    }
}

/// Whether a sorted list has this word.
pub(crate) fn listed(list: &[&str], word: &str) -> bool {
    // Two bytes tell nearly all entries apart, and are compared without a call.
    let wanted = head(word);
    list.binary_search_by(|entry| head(entry).cmp(&wanted).then_with(|| (*entry).cmp(word))).is_ok()
}
