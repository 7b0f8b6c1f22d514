//! The text and attributes of an XML body. Declarations are handed over whole: some of them are attacks.

use super::{Part, Place};
use crate::{cut, decode};

pub(super) fn each(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let text = decode::text(body);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (between, markup) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        if !between.trim().is_empty() && !see(Part::new(Place::Arg, "xml", between.to_owned())) {
            return false;
        }
        let (tag, behind) = markup.split_at(end_of(markup));
        rest = behind;
        let seen = match tag.strip_prefix("<!") {
            Some(data) if data.starts_with("[CDATA[") => {
                let data = data.trim_start_matches("[CDATA[").trim_end_matches("]]>");
                see(Part::new(Place::Arg, "xml", data.to_owned()))
            }
            Some(comment) if comment.starts_with("--") => true,
            Some(_) => see(Part::new(Place::Arg, "xml", tag.to_owned())),
            None => attributes(tag, see),
        };
        if !seen {
            return false;
        }
    }
    true
}

/// Where the piece of markup that starts here ends.
fn end_of(markup: &str) -> usize {
    for (open, close) in [("<![CDATA[", "]]>"), ("<!--", "-->")] {
        if markup.starts_with(open) {
            return markup.find(close).map_or(markup.len(), |at| at + close.len());
        }
    }
    let mut quote = None;
    for (at, byte) in markup.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    markup.len()
}

fn attributes(tag: &str, see: &mut dyn FnMut(Part) -> bool) -> bool {
    let mut rest = tag;
    while let Some((open, quote)) = rest.char_indices().find(|(_, c)| matches!(c, '"' | '\'')) {
        let name = cut::until(rest, open).trim_end().trim_end_matches('=').trim_end();
        let name = name.rsplit(char::is_whitespace).next().unwrap_or_default();
        let value = cut::from(rest, open + quote.len_utf8());
        let (value, behind) = value.split_once(quote).unwrap_or((value, ""));
        if !see(Part::new(Place::Arg, name, value.to_owned())) {
            return false;
        }
        rest = behind;
    }
    true
}

#[cfg(test)]
#[test]
fn text_attributes_declarations_and_cdata_are_found() {
    let mut seen = Vec::new();
    let body = br#"<?xml version="1.0"?><!DOCTYPE r [<a probe="1 > 0" b='x'>hi<!-- no --><![CDATA[<s>]]></a> "#;
    each(body, &mut |part| {
        seen.push(part.text);
        true
    });
    assert_eq!(seen, ["1.0", "<!DOCTYPE r [<a probe=\"1 > 0\" b='x'>", "hi", "<s>"]);
}
