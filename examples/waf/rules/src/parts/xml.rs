//! The text and attributes of an XML body. Declarations are handed over whole: some of them are attacks.

use super::{Part, Place};
use crate::{cut, decode};

pub(super) fn each(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let all = decode::text(body);
    let mut rest = all.as_str();
    // Behind this, no processing instruction ends as it should, and there is no need to look for that.
    let last = all.rfind("?>").map_or(usize::MAX, |at| all.len() - at);
    // A server reads text on both sides of a comment as one.
    let mut text = String::new();
    while !rest.is_empty() {
        let (between, markup) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        text.push_str(between);
        let (tag, behind) = markup.split_at(end_of(markup, last));
        rest = behind;
        let seen = if let Some(data) = tag.strip_prefix("<![CDATA[") {
            text.push_str(data.strip_suffix("]]>").unwrap_or(data));
            true
        } else if tag.starts_with("<!--") {
            true
        } else if tag.starts_with("<?") {
            instruction(tag, see)
        } else {
            flush(&mut text, see)
                && if tag.starts_with("<!") {
                    see(Part::new(Place::Arg, "xml", tag.to_owned()))
                } else {
                    attributes(tag, see)
                }
        };
        if !seen {
            return false;
        }
    }
    flush(&mut text, see)
}

/// Hands over the text that ends here.
fn flush(text: &mut String, see: &mut dyn FnMut(Part) -> bool) -> bool {
    let text = std::mem::take(text);
    text.trim().is_empty() || see(Part::new(Place::Arg, "xml", text))
}

/// A processing instruction. Those of XML itself have attributes and nothing else.
fn instruction(tag: &str, see: &mut dyn FnMut(Part) -> bool) -> bool {
    let inside = tag.strip_suffix("?>").or_else(|| tag.strip_suffix('>')).unwrap_or(tag);
    if tag.starts_with("<?xml") && !inside.contains('>') {
        attributes(tag, see)
    } else {
        see(Part::new(Place::Arg, "xml", tag.to_owned()))
    }
}

/// Where the piece of markup that starts here ends. The last end of an instruction is so many bytes in front of the end.
fn end_of(markup: &str, last: usize) -> usize {
    for (open, close) in [("<![CDATA[", "]]>"), ("<!--", "-->")] {
        if markup.starts_with(open) {
            return markup.find(close).map_or(markup.len(), |at| at + close.len());
        }
    }
    if markup.starts_with("<?")
        && markup.len() >= last
        && let Some(at) = markup.find("?>")
    {
        return at + 2;
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
    assert_eq!(seen, ["1.0", "<!DOCTYPE r [<a probe=\"1 > 0\" b='x'>", "hi<s>"]);
}

#[cfg(test)]
#[test]
fn text_ends_where_a_tag_begins_and_nowhere_else() {
    let mut seen = Vec::new();
    let body = b"<?xml >g?><q>a<!-- ' -->b<?x '?>c<![CDATA[d]]]]>e<i/>f</q> <?y g";
    each(body, &mut |part| {
        seen.push(part.text);
        true
    });
    assert_eq!(seen, ["<?xml >g?>", "<?x '?>", "abcd]]e", "f", "<?y g"]);
}
