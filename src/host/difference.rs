//! Where two signatures differ: the innermost type whose fields or variants are not the same.
//!
//! Both are untrusted text. It is read as nested brackets, which is all that the notation of types has.

use crate::text::plugin_text;

/// Brackets within brackets that are looked into. What is deeper differs as a whole.
const DEPTH: usize = 64;
/// The longest text of a type in a message, in bytes.
const SHOWN: usize = 120;

/// A type that both sides have, and that is not the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The type's name.
    pub(super) ty: String,
    /// What differs, as a sentence about the plugin and the host.
    pub(super) what: String,
}

/// Finds the first type with different fields or variants; `None` if the difference is not within a type.
pub(super) fn difference(plugin: &str, host: &str) -> Option<Difference> {
    let (plugin, host) = (Item::read(plugin)?, Item::read(host)?);
    within(&plugin, &host)
}

/// Returns a signature without what its types are made of: `(&str,Vec<Quote>)->Quote`.
pub(super) fn outline(signature: &str) -> String {
    Item::read(signature).map_or_else(|| signature.to_owned(), |item| item.outline())
}

/// Returns whether a signature has a serde type that is not described, as before contracts described them.
pub(super) fn is_undescribed(signature: &str) -> bool {
    let mut rest = signature;
    while let Some(at) = rest.find(":postcard") {
        rest = &rest[at + ":postcard".len()..];
        // It stood at the end of an argument or of a result. A description comes before its type: `postcard:Quote{…}`.
        if rest.is_empty() || rest.starts_with([',', ')', '>']) {
            return true;
        }
    }
    false
}

/// What stands between two commas: text and brackets in turn.
#[derive(PartialEq, Eq)]
struct Item<'a>(Vec<Part<'a>>);

#[derive(PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Group(char, Vec<Item<'a>>),
}

/// A field or a variant: its name, its number if it is a variant, and what it is made of.
struct Member {
    name: Option<String>,
    number: Option<String>,
    outline: String,
}

impl<'a> Item<'a> {
    fn read(text: &'a str) -> Option<Item<'a>> {
        let mut rest = text;
        let item = Item::read_one(&mut rest, 0)?;
        rest.is_empty().then_some(item)
    }

    /// Reads to the next comma or closing bracket, which stays.
    fn read_one(rest: &mut &'a str, depth: usize) -> Option<Item<'a>> {
        if depth > DEPTH {
            return None;
        }
        let mut parts = Vec::new();
        loop {
            let text = take_text(rest);
            if !text.is_empty() {
                parts.push(Part::Text(text));
            }
            let Some(open @ ('(' | '[' | '{' | '<')) = rest.chars().next() else { return Some(Item(parts)) };
            let close = closing(open);
            *rest = &rest[1..];
            let mut items = Vec::new();
            while !rest.starts_with(close) {
                items.push(Item::read_one(rest, depth + 1)?);
                match rest.strip_prefix(',') {
                    Some(after) => *rest = after,
                    None if rest.starts_with(close) => {}
                    None => return None,
                }
            }
            *rest = &rest[1..];
            parts.push(Part::Group(open, items));
        }
    }

    fn outline(&self) -> String {
        let mut text = String::new();
        for (at, part) in self.0.iter().enumerate() {
            match part {
                Part::Text(part) => text.push_str(part.strip_prefix("postcard:").unwrap_or(part)),
                // The fields of a type that has a name.
                Part::Group('{', _) if at > 0 => {}
                Part::Group(open, items) => text.push_str(&bracketed(*open, items, Item::outline)),
            }
        }
        text
    }

    /// Splits the name of a field or a variant from its type.
    fn member(&self) -> Member {
        let outline = self.outline();
        let Some(Part::Text(text)) = self.0.first() else { return Member { name: None, number: None, outline } };
        // As the outline has it.
        let plain = text.strip_prefix("postcard:").unwrap_or(text);
        let after = |length: usize| outline.get(length..).unwrap_or_default().to_owned();
        if let Some((name, rest)) = plain.split_once('=') {
            let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
            let outline = after(name.len() + 1 + end);
            return Member { name: Some(name.to_owned()), number: Some(rest[..end].to_owned()), outline };
        }
        match text.split_once(':') {
            Some((name, _)) if !text.starts_with("postcard:") => {
                Member { name: Some(name.to_owned()), number: None, outline: after(name.len() + 1) }
            }
            _ => Member { name: None, number: None, outline },
        }
    }

    /// Returns the name of the type whose brackets follow the part at this place.
    fn type_name(&self, before: usize) -> Option<&'a str> {
        let Some(Part::Text(text)) = before.checked_sub(1).and_then(|at| self.0.get(at)) else { return None };
        let name = match text.split_once('=') {
            // A variant with fields.
            Some((name, _)) => name,
            // Behind the name of a field, `postcard`, an arrow, or what a plain type is an array or an option of.
            None => text.rsplit([':', '>', '*', '?']).next()?,
        };
        (!name.is_empty()).then_some(name)
    }
}

/// Writes items between brackets.
fn bracketed<'a>(open: char, items: &[Item<'a>], write: impl Fn(&Item<'a>) -> String) -> String {
    let items: Vec<_> = items.iter().map(write).collect();
    format!("{open}{}{}", items.join(","), closing(open))
}

/// Returns the bracket that ends what this one begins.
fn closing(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        '{' => '}',
        _ => '>',
    }
}

/// Takes the text up to the next bracket or comma; an arrow is part of it, and so is a name in quotes.
fn take_text<'a>(rest: &mut &'a str) -> &'a str {
    let bytes = rest.as_bytes();
    let mut end = 0;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'-' if bytes.get(end + 1) == Some(&b'>') => end += 2,
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b',' => break,
            _ => end += 1,
        }
    }
    let (text, after) = rest.split_at(end);
    *rest = after;
    text
}

/// Looks for the first type that differs inside.
fn within(plugin: &Item<'_>, host: &Item<'_>) -> Option<Difference> {
    for (at, (ours, theirs)) in plugin.0.iter().zip(&host.0).enumerate() {
        if ours == theirs {
            continue;
        }
        let (Part::Group(open, ours), Part::Group(other, theirs)) = (ours, theirs) else { return None };
        if open != other {
            return None;
        }
        let ty = plugin.type_name(at).filter(|_| matches!(open, '{' | '('));
        for (ours, theirs) in ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs) {
            let is_same_member = ours.member().name == theirs.member().name;
            if let Some(found) = within(ours, theirs).filter(|_| is_same_member) {
                return Some(found);
            }
            // What follows the first difference in a type may only have moved.
            if ty.is_some() {
                break;
            }
        }
        return Some(Difference { ty: shown(ty?), what: first_difference(ours, theirs)? });
    }
    None
}

/// Says what the first field or variant is that differs.
fn first_difference(plugin: &[Item<'_>], host: &[Item<'_>]) -> Option<String> {
    let at = (0..plugin.len().max(host.len())).find(|&at| plugin.get(at) != host.get(at))?;
    let [ours, theirs] = [plugin.get(at), host.get(at)].map(|item| item.map(Item::member));
    let is_variant = ours.as_ref().or(theirs.as_ref()).is_some_and(|member| member.number.is_some());
    let place = format!("{} {}", if is_variant { "variant" } else { "field" }, at + 1);
    let called = |member: &Member| shown(member.name.as_ref().unwrap_or(&member.outline));
    Some(match (ours, theirs) {
        (Some(ours), None) => format!("the plugin has `{}`, {place}, which the host does not have", called(&ours)),
        (None, Some(theirs)) => format!("the plugin lacks `{}`, {place}, which the host has", called(&theirs)),
        (Some(ours), Some(theirs)) if ours.name != theirs.name => {
            format!("the plugin has `{}` where the host has `{}`, {place}", called(&ours), called(&theirs))
        }
        (Some(ours), Some(theirs)) => {
            let name = ours.name.as_ref().map(|name| format!("`{}`, ", shown(name))).unwrap_or_default();
            let (ours, theirs) = match (&ours.number, &theirs.number) {
                (Some(number), Some(other)) if number != other => (number.clone(), other.clone()),
                _ if ours.outline != theirs.outline => (ours.outline, theirs.outline),
                // Two types of one name, of which one is no struct, or no enum.
                _ => (whole(&plugin[at]), whole(&host[at])),
            };
            let words = |text: &str| if text.is_empty() { "empty".to_owned() } else { format!("`{}`", shown(text)) };
            format!("{name}{place}, is {} in the plugin and {} in the host", words(&ours), words(&theirs))
        }
        (None, None) => return None,
    })
}

/// Returns the text of an item, as it was.
fn whole(item: &Item<'_>) -> String {
    let part = |part: &Part<'_>| match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Group(open, items) => bracketed(*open, items, whole),
    };
    item.0.iter().map(part).collect()
}

fn shown(text: &str) -> String {
    plugin_text(text.as_bytes(), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_that_are_no_nested_brackets_differ_as_a_whole() {
        for text in ["(", "(]", "a(b", ")", "(a,b))"] {
            assert_eq!(difference(text, "(u8)->()"), None, "{text}");
            assert_eq!(outline(text), text);
        }
        let deep = format!("{}{}", "(".repeat(30_000), ")".repeat(30_000));
        assert_eq!(difference(&deep, "(u8)->()"), None);
    }

    /// Contracts are untrusted, and modules compare theirs with the host's in the middle of a call.
    #[test]
    fn no_text_makes_the_comparison_panic() {
        let _ = difference("(postcard:a=1)->()", "(u8)->()");
        const WORDS: [&str; 20] = [
            "postcard:",
            "postcard",
            "a",
            "bé",
            "=",
            ":",
            "-1",
            "7",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "<",
            ">",
            ",",
            "->",
            "?",
            "*3",
        ];
        let mut seed = 7_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..100_000 {
            let [plugin, host] = [(); 2].map(|()| {
                let length = 1 + random(12);
                let inner: String = (0..length).map(|_| WORDS[random(WORDS.len())]).collect();
                if random(2) == 0 { format!("({inner})->()") } else { inner }
            });
            let _ = (difference(&plugin, &host), outline(&plugin), is_undescribed(&host));
        }
    }

    #[test]
    fn an_outline_is_a_signature_without_fields() {
        assert_eq!(outline("(&str,postcard:Vec<Quote{bid:f64}>)->Side{Buy=1}"), "(&str,Vec<Quote>)->Side");
        assert_eq!(outline("()->Result<u8,CallError>"), "()->Result<u8,CallError>");
    }

    #[test]
    fn a_type_that_is_not_described_is_recognised() {
        for (signature, expected) in [
            ("(Note:postcard)->()", true),
            ("()->Note:postcard", true),
            ("(Vec<Note>:postcard,u8)->()", true),
            ("(postcard:Note{a:u8})->()", false),
            ("(postcard:Note{postcard:Vec<u8>})->()", false),
            ("(postcard:Id{id:\"uuid:postcard\"})->()", false),
            ("(postcard:Id{note:postcard_note{a:u8}})->()", false),
            ("(u8)->()", false),
        ] {
            assert_eq!(is_undescribed(signature), expected, "{signature}");
        }
    }
}
