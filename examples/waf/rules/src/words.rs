//! Word lists written as text, split when the crate is compiled.
#![allow(clippy::indexing_slicing, reason = "an index that is wrong does not compile")]

use std::ops::Deref;

/// A sorted list whose entries are looked for all over a text.
#[derive(Debug)]
pub(crate) struct List {
    words: &'static [&'static str],
    /// The bytes that an entry begins with, all of them ASCII, as bits: most places of a text need no search.
    firsts: u128,
}

impl List {
    pub(crate) const fn of(words: &'static [&'static str]) -> List {
        let (mut firsts, mut at) = (0, 0);
        while at < words.len() {
            firsts |= 1 << words[at].as_bytes()[0];
            at += 1;
        }
        List { words, firsts }
    }

    /// Returns whether an entry begins with this byte.
    pub(crate) fn begins_with(&self, byte: u8) -> bool {
        byte < 128 && self.firsts >> byte & 1 == 1
    }
}

impl Deref for List {
    type Target = [&'static str];

    fn deref(&self) -> &[&'static str] {
        self.words
    }
}

/// A list of the words in a text, in its order, as a `&'static [&'static str]`.
macro_rules! words {
    ($text:literal) => {{
        const LIST: [&str; $crate::words::count($text)] = $crate::words::split($text);
        &LIST
    }};
}

pub(crate) use words;

/// How many words a text has.
pub(crate) const fn count(text: &str) -> usize {
    let mut rest = text.as_bytes();
    let mut count = 0;
    while let Some((first, behind)) = rest.split_first() {
        let ends = behind.is_empty() || behind[0].is_ascii_whitespace();
        count += (ends && !first.is_ascii_whitespace()) as usize;
        rest = behind;
    }
    count
}

/// The words of a text.
pub(crate) const fn split<const N: usize>(text: &'static str) -> [&'static str; N] {
    let mut list = [""; N];
    let mut rest = text;
    let mut index = 0;
    while index < N {
        rest = rest.trim_ascii_start();
        let mut end = 0;
        while end < rest.len() && !rest.as_bytes()[end].is_ascii_whitespace() {
            end += 1;
        }
        (list[index], rest) = rest.split_at(end);
        index += 1;
    }
    list
}

#[cfg(test)]
#[test]
fn words_are_split_at_any_white_space() {
    const LIST: &[&str] = words!("  one two\n   three ");
    assert_eq!(LIST, ["one", "two", "three"]);
}
