//! Names that are looked for in a text, all of them in one pass.

use std::borrow::Cow;
use std::ops::Range;

/// Names in lower case, each with what it stands for. A name is found where it is a word of its own, or several.
pub(crate) struct Names<T> {
    /// In order, so that those which begin with the same byte lie together.
    sorted: Vec<(Cow<'static, str>, T)>,
}

impl<T> Names<T> {
    pub(crate) fn new(mut names: Vec<(Cow<'static, str>, T)>) -> Names<T> {
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Names { sorted: names }
    }

    /// Finds names in a text in lower case. Only where a word begins there is something to look for, so the work is linear in the
    /// length of the text.
    pub(crate) fn find<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (Range<usize>, &'a T)> {
        let begins = text.iter().enumerate().filter(|(at, byte)| {
            let before = at.checked_sub(1).and_then(|before| text.get(before));
            !(byte.is_ascii_alphanumeric() && before.is_some_and(u8::is_ascii_alphanumeric))
        });
        begins.flat_map(move |(at, first)| {
            let rest = text.get(at..).unwrap_or_default();
            let found = self.beginning_with(*first).iter().filter(move |(name, _)| is_at(name, rest));
            found.map(move |(name, what)| (at..at + name.len(), what))
        })
    }

    fn beginning_with(&self, first: u8) -> &[(Cow<'static, str>, T)] {
        let below = |limit: Option<u8>| {
            self.sorted.partition_point(|(name, _)| limit.is_none_or(|limit| name.as_bytes().first() < Some(&limit)))
        };
        self.sorted.get(below(Some(first))..below(first.checked_add(1))).unwrap_or_default()
    }
}

/// Whether a text begins with a name whose last word ends there. A number may follow: `sqlmap1.8`.
fn is_at(name: &str, text: &[u8]) -> bool {
    let Some(behind) = text.strip_prefix(name.as_bytes()) else { return false };
    let ends_in_letter = name.as_bytes().last().is_some_and(u8::is_ascii_alphabetic);
    !(ends_in_letter && behind.first().is_some_and(u8::is_ascii_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&'static str], text: &str) -> Vec<String> {
        let names = Names::new(names.iter().map(|name| (Cow::from(*name), ())).collect());
        names.find(text.as_bytes()).map(|(at, ())| text[at].to_owned()).collect()
    }

    #[test]
    fn names_are_words_of_their_own() {
        let names = ["curl", "zap/", "teleport pro", "bot", "dotbot", "ÿ"];
        for (text, expected) in [
            ("curl/8.5", &["curl"][..]),
            ("curl8", &["curl"]),
            ("curlew", &[]),
            ("libcurl", &[]),
            ("owasp zap/2.14", &["zap/"]),
            ("zapper", &[]),
            ("a (teleport pro; x)", &["teleport pro"]),
            ("dotbot bot", &["dotbot", "bot"]),
            ("-bot", &["bot"]),
            ("xÿ", &["ÿ"]),
            ("", &[]),
        ] {
            assert_eq!(found(&names, text), expected, "{text}");
        }
    }

    #[test]
    fn every_first_byte_has_an_end() {
        let names = Names::new(vec![("\u{7f}".into(), 1), ("a".into(), 2)]);
        for byte in 0..=u8::MAX {
            assert_eq!(names.beginning_with(byte).len(), usize::from(byte == 0x7f || byte == b'a'), "{byte}");
        }
    }
}
