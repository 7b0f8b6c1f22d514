//! Patterns as ModSecurity reads them, with PCRE, written so that they mean the same to the engine's automata.
//!
//! The two differ in what needs no backslash: a brace that begins no repetition, and in a class everything but its end. What automata
//! cannot do, look-around and back-references, stays as it is, and is refused.

use std::iter::Peekable;
use std::str::Chars;

/// Writes a pattern anew.
pub(crate) fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    // Whether there is something that could be repeated.
    let mut is_repeatable = false;
    while let Some(one) = rest.next() {
        match one {
            '\\' => escape(&mut rest, &mut out, false),
            '[' => class(&mut rest, &mut out),
            '{' if !(is_repeatable && begins_repetition(&rest)) => out.push_str("\\{"),
            one => out.push(one),
        }
        is_repeatable = !matches!(one, '(' | '|' | '^');
    }
    out
}

/// Whether what follows a brace makes it a repetition: numbers and a comma, and the closing brace.
fn begins_repetition(rest: &Peekable<Chars<'_>>) -> bool {
    let inside: String = rest.clone().take_while(|one| *one != '}').take(16).collect();
    let closes = rest.clone().nth(inside.chars().count()) == Some('}');
    let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
    let is_number = |text: &str| text.chars().all(|one| one.is_ascii_digit());
    closes && !least.is_empty() && is_number(least) && is_number(most)
}

/// Whether what follows a backslash stands for several characters.
fn names_set(one: Option<char>) -> bool {
    matches!(one, Some('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'h'))
}

/// Takes what follows a backslash. Returns nothing for a class of characters to end at.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String, in_class: bool) {
    match rest.next() {
        Some('e') => out.push_str("\\x1b"),
        Some('b') if in_class => out.push_str("\\x08"),
        Some('h') => out.push_str(if in_class { "\\t " } else { "[\\t ]" }),
        Some('Z') if !in_class => out.push_str("\\z"),
        Some(one @ ('<' | '>')) => out.push(one),
        Some(one) => out.extend(['\\', one]),
        None => out.push('\\'),
    }
}

/// Takes a class, whose opening bracket has been taken.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if rest.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    // What a dash behind it can be a range from.
    let mut from_here = false;
    while let Some(one) = rest.next() {
        match one {
            ']' => return out.push(']'),
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                while let Some(one) = rest.next() {
                    out.push(one);
                    if one == ':' && rest.next_if_eq(&']').is_some() {
                        out.push(']');
                        break;
                    }
                }
                from_here = false;
                continue;
            }
            '\\' => {
                let is_set = names_set(rest.peek().copied());
                escape(rest, out, true);
                from_here = !is_set;
                continue;
            }
            '-' => {
                let mut ahead = rest.clone();
                let to_set = ahead.next() == Some('\\') && names_set(ahead.next());
                let is_range = from_here && !to_set && !matches!(rest.peek(), Some(']') | None);
                out.push_str(if is_range { "-" } else { "\\-" });
                if is_range {
                    to(rest, out);
                    from_here = false;
                    continue;
                }
            }
            '[' | '&' | '~' => out.extend(['\\', one]),
            one => out.push(one),
        }
        from_here = true;
    }
}

/// Takes the end of a range.
fn to(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match rest.next() {
        Some('\\') => escape(rest, out, true),
        Some(one @ ('[' | '&' | '~' | '-' | '^')) => out.extend(['\\', one]),
        Some(one) => out.push(one),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::translated;
    use regex::Regex;

    #[test]
    fn patterns_match_what_pcre_matches() {
        for (pattern, fits, not) in [
            (r"{", "{", "a"),
            (r"${a}", "", "x{"),
            (r"\${IFS}", "${IFS}", "$IFS"),
            (r"a{2}b{1,}c{1,2}", "aabcc", "abc"),
            (r"a{,2}", "a{,2}", "aa"),
            (r"(?:{|x)\(", "{(", "("),
            (r"[[a]", "[", "]"),
            (r"[]a]", "]", "["),
            (r"[^]a]b", "xb", "]b"),
            (r"[a&&b]", "&", "c"),
            (r"[\w-.]", "-", "!"),
            (r"[a-\d]", "-", "b"),
            (r"[+--]", ",", "."),
            (r"[a-]", "-", "b"),
            (r"[\b]", "\u{8}", "b"),
            (r"[[:alpha:]-]", "-", "1"),
            (r"\<a\>", "<a>", "a"),
            (r"\h+x", " \tx", "x"),
            (r"[\[\]~~]", "~", "a"),
        ] {
            let text = translated(pattern);
            let regex = Regex::new(&text).unwrap_or_else(|error| panic!("{pattern} as {text}: {error}"));
            assert!(fits.is_empty() || regex.is_match(fits), "{pattern} as {text} on {fits}");
            assert!(!regex.is_match(not), "{pattern} as {text} on {not}");
        }
    }

    #[test]
    fn what_automata_cannot_do_stays_refused_and_nothing_panics() {
        for pattern in ["(?=a)", "(?!a)b", "(?<=a)", r"(a)\1", "[a", r"a\", "(?>a)", "[", "[^", "[a-", r"[\", "{", "["]
        {
            let text = translated(pattern);
            assert!(Regex::new(&text).is_err() || pattern == "{", "{pattern} as {text}");
        }
    }
}
