//! Command and code injection: reads a value as a shell would, after undoing what a shell undoes, and looks at each command
//! in it: how it is introduced, which program it names and whether what follows looks like arguments or like prose.

mod code;
mod commands;
mod plain;

use std::ops::Range;

use crate::catalogue::Rule;
use crate::cut;
use crate::parts::Place;
use crate::view::{Hits, View, excerpt, is_word, listed, prose_words};
use crate::words::words;
use commands::{Class, class};
use plain::Plain;

/// Names of parameters that a careless program hands to a shell.
static RUN_BY_NAME: &[&str] = words!("args cmd code command daemon exec execute run shell");

/// What it takes, in steps, to look at a command.
const COMMAND: usize = 300;

/// In a value with this many plain words, a word at its start is prose.
const PROSE: usize = 7;

pub(crate) fn inspect(view: &View<'_>, hits: &mut Hits) {
    let plain = Plain::of(view.text);
    expansions(view, hits);
    code::inspect(view, hits);
    if view.text.contains('/') {
        program_paths(view, &plain, hits);
        globs(view, hits);
    }
    segments(view, &plain, hits);
}

/// How a command is introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// It stands at the start of the value.
    Start,
    /// Behind a separator, or inside a substitution, at the very start of the value.
    First,
    /// Behind a separator further on.
    Separator,
    /// Inside a substitution.
    Substitution,
    /// Behind `&`, which URLs and prose have too.
    Ampersand,
    /// On a line of its own.
    Line,
}

fn segments(view: &View<'_>, plain: &Plain, hits: &mut Hits) {
    let words = prose_words(view.text);
    let mut lead = Lead::Start;
    let mut from = 0;
    let mut backticks = 0;
    let mut blank = true;
    for at in 0..=plain.len() {
        let before = cut::byte_before(plain, at);
        let next = match cut::byte(plain, at) {
            None => Lead::Start,
            Some(b';' | b'|') if blank => Lead::First,
            Some(b';' | b'|') => Lead::Separator,
            Some(b'&') if cut::byte(plain, at + 1) == Some(b'&') || before == Some(b'&') => Lead::Separator,
            Some(b'&') => Lead::Ampersand,
            Some(b'\n' | b'\r') => Lead::Line,
            Some(b'`') => {
                backticks += 1;
                if backticks % 2 == 1 { Lead::Substitution } else { Lead::Ampersand }
            }
            Some(b'(') if matches!(before, Some(b'$' | b'<' | b'>')) => Lead::Substitution,
            Some(b'{') if matches!(before, None | Some(b';' | b' ')) => Lead::Ampersand,
            Some(byte) => {
                blank &= byte.is_ascii_whitespace() || b"'\"".contains(&byte);
                continue;
            }
        };
        if !view.work.spend(COMMAND) {
            return;
        }
        command(view, plain, from..at, lead, words, hits);
        from = at + 1;
        lead = next;
    }
}

/// One command: the text between two separators.
fn command(view: &View<'_>, plain: &Plain, place: Range<usize>, lead: Lead, words: usize, hits: &mut Hits) {
    let segment = cut::between(plain, place.start, place.end);
    let closed_by = cut::byte(plain, place.end);
    let direct = matches!(lead, Lead::Start | Lead::Line);
    let rule = if direct { Rule::RceDirect } else { Rule::RceCommand };
    if hits.has(rule) {
        return;
    }
    let trimmed = segment.trim_start_matches(|c: char| c.is_whitespace() || "(@!{\"'".contains(c));
    // Only somebody who hides a word writes it like this; a few systems run it anyway.
    let lower = mixed_case(first_word(trimmed).0).then(|| trimmed.to_ascii_lowercase());
    let mut rest = lower.as_deref().unwrap_or(trimmed);
    let mut wrapped = false;
    for _ in 0..8 {
        let (word, behind) = first_word(rest);
        let assigned = word.split_once('=').is_some_and(|(name, value)| {
            !value.is_empty()
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
        });
        let wraps = commands::WRAPPERS.contains(&word) && !behind.trim_start().is_empty();
        if !assigned && !wraps {
            break;
        }
        let inner = first_word(behind.trim_start()).0;
        if wraps && class(inner).is_none() {
            break;
        }
        wrapped |= wraps;
        rest = behind.trim_start();
    }
    let (word, arguments) = first_word(rest);
    let Some(class) = class(word) else {
        let name = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let options = first_is_flag(arguments.trim_start()) && arguments.starts_with(' ');
        if lead == Lead::Start && name && !word.is_empty() && options && runs(view) {
            hits.add(rule, excerpt(segment.trim(), 0, 60));
        }
        return;
    };
    let flagged = arguments.starts_with(|c: char| c.is_whitespace() || "<>)\"'".contains(c)) || arguments.is_empty();
    if !flagged {
        return;
    }
    let arguments = arguments.trim();
    let alone = arguments.trim_matches([')', '"', '\'', '}']).is_empty();
    let delay = word == "sleep" && first_word(arguments).0.parse::<u32>().is_ok();
    if delay && lead != Lead::Start {
        return hits.add(rule, excerpt(segment.trim(), 0, 60));
    }
    let shaped = first_is_argument(arguments) || any_is_argument(arguments) && class != Class::English;
    let inner = class != Class::English && commands::class(first_word(arguments).0) == Some(Class::Rare);
    let last = closed_by.is_none() || alone;
    let header = matches!(view.place, Place::Header | Place::UserAgent);
    let strong = match lead {
        Lead::First => match class {
            Class::Rare => true,
            Class::Product => alone || shaped || inner,
            Class::English => alone && word.len() > 1 && last || first_is_argument(arguments),
        },
        Lead::Separator => match class {
            Class::Rare => !header || shaped || alone,
            Class::Product => alone && last && !header || shaped || inner,
            Class::English => {
                first_is_argument(arguments) && !header && !arguments.starts_with(['"', '\'', '/'])
                    || first_is_argument(arguments) && words < 3
            }
        },
        Lead::Substitution => {
            let prose = words >= 3 && closed_by == Some(b'`');
            !prose && (class != Class::English || alone || first_is_argument(arguments))
        }
        Lead::Ampersand => {
            class == Class::Rare && (shaped || alone || inner)
                || class == Class::Product && first_is_argument(arguments)
        }
        Lead::Line => {
            words < PROSE
                && (class == Class::Rare && (alone || shaped)
                    || class == Class::Product && first_is_argument(arguments))
        }
        Lead::Start => {
            words < PROSE
                && !header
                && match class {
                    Class::Rare => {
                        let separated = matches!(closed_by, Some(b';' | b'|' | b'&'));
                        shaped || inner || alone && (wrapped || separated && word.len() > 3)
                    }
                    Class::Product => first_is_argument(arguments) && words < 4 || inner && shaped,
                    Class::English => wrapped && first_is_argument(arguments),
                }
        }
    };
    // What is left of the segment begins with the word.
    let start = place.start + (segment.len() - rest.len());
    let hidden = lower.is_some() || plain.dropped_inside(start..start + word.len());
    let obfuscated =
        word.len() > 1 && hidden && (lead != Lead::Start || shaped || wrapped || inner || class == Class::Rare);
    let shown = excerpt(segment.trim(), 0, 60);
    if strong || obfuscated {
        hits.add(rule, shown);
    } else if lead == Lead::Start && view.place == Place::Arg && words < 5 {
        if runs(view) && class != Class::English {
            hits.add(Rule::RceDirect, shown);
        } else if class == Class::Rare && word.contains('-') || class == Class::English && first_is_flag(arguments) {
            hits.add(Rule::RceBare, shown);
        }
    }
}

/// Whether the value belongs to a parameter that a careless program hands to a shell.
fn runs(view: &View<'_>) -> bool {
    view.place == Place::Arg && listed(RUN_BY_NAME, &view.name.to_ascii_lowercase())
}

/// Letters of both cases in no order that a name or a sentence has.
fn mixed_case(word: &str) -> bool {
    let letters = word.as_bytes();
    letters.len() > 2
        && letters.iter().all(u8::is_ascii_alphabetic)
        && letters.iter().zip(letters.iter().skip(1)).any(|(a, b)| a.is_ascii_lowercase() && b.is_ascii_uppercase())
        && letters.iter().filter(|letter| letter.is_ascii_uppercase()).count() > 1
}

/// The first word, up to white space or what ends a word in a shell.
fn first_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| c.is_whitespace() || "<>()\"'".contains(c)).unwrap_or(text.len()))
}

fn first_is_flag(arguments: &str) -> bool {
    let first = first_word(arguments).0;
    first.strip_prefix('-').is_some_and(|flag| flag.starts_with(|c: char| c.is_ascii_alphabetic() || c == '-'))
        && first.len() > 1
}

fn first_is_argument(arguments: &str) -> bool {
    first_is_flag(arguments)
        || arguments.starts_with(['$', '*', '~', '"', '\'']) && arguments.len() > 1
        || arguments
            .strip_prefix(['<', '>'])
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || " /&(<>".contains(c)))
        || is_argument(first_word(arguments).0)
}

fn any_is_argument(arguments: &str) -> bool {
    arguments
        .split_whitespace()
        .take(64)
        .any(|word| is_argument(word) || first_is_flag(word) || word.starts_with(['>', '<']))
}

/// A path, a switch of cmd.exe, a URL, an address, a file with an ending.
fn is_argument(word: &str) -> bool {
    let bytes = word.as_bytes();
    let path = word.starts_with('/') && !word.starts_with("//") && bytes.len() > 1 || word == "/";
    let drive = matches!(bytes, [_, b':', b'\\' | b'/', ..]);
    let relative =
        word.starts_with("./") || word.starts_with("../") || word.starts_with("~/") || word == ".." || word == ".";
    let inner = word.contains("/etc/") || word.contains("://") || word.contains("$(");
    let file = word.rsplit_once('.').is_some_and(|(name, ending)| {
        !name.is_empty()
            && (2..=5).contains(&ending.len())
            && ending.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./*".contains(&byte))
    });
    path || drive || relative || inner || file
}

/// `$(…)`, `${…}`, `$((…))`, `$[…]`, `<(…)`, `{…,…}`, `~+`, `() {`, aliases.
fn expansions(view: &View<'_>, hits: &mut Hits) {
    let text = view.text;
    let lower = view.lower;
    let shellshock = || {
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        compact.contains("(){:") || lower.trim_start().starts_with("() {") || lower.contains("() { :")
    };
    if text.contains('{') && shellshock() {
        hits.add(Rule::RceShellshock, excerpt(text, 0, 60));
    }
    braces(view, hits);
    aliases(view, hits);
    tildes(view, hits);
    for opening in ["<(", ">(", "$("] {
        for (at, ..) in view.occurrences(text, opening) {
            let inside = excerpt(text, at + 2, 200);
            let word = inside.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next().unwrap_or_default();
            let closed = inside.contains(')');
            if class(first_word(inside.trim_start()).0).is_some() && closed && opening != "$(" {
                hits.add(Rule::RceExpansion, excerpt(text, at, 60));
            } else if text.len() < 40
                && word.len() > 1
                && cut::from(inside, word.len()).starts_with(')')
                && prose_words(text) < 2
            {
                hits.add(Rule::RceVariable, excerpt(text, at, 60));
            }
        }
    }
    if !text.contains('$') {
        return;
    }
    for (at, ..) in view.occurrences(text, "$(") {
        let inside = cut::from(text, at + 2).trim_start();
        let page = ["document", "this", "window", "function", "'", "\"", "`", "e.", "event", "html", "(", ".", "#"];
        let arithmetic =
            inside.starts_with('(') && cut::from(text, at).starts_with("$((") && excerpt(inside, 0, 200).contains("))");
        let script = page.iter().any(|word| inside.starts_with(word));
        let word = first_word(inside).0;
        let called = excerpt(text, at, 200).contains(").") && class(word) != Some(Class::Rare);
        if arithmetic && !called
            || !script && !called && (class(word).is_some() || inside.starts_with(['<', '$', '{', '/']))
        {
            hits.add(Rule::RceExpansion, excerpt(text, at, 60));
        }
    }
    for (at, ..) in view.occurrences(text, "$[") {
        if cut::from(text, at + 2).starts_with(|c: char| c.is_ascii_digit() || c == '$' || c == '(')
            && excerpt(text, at, 200).contains(']')
        {
            hits.add(Rule::RceExpansion, excerpt(text, at, 60));
        }
    }
    for (at, ..) in view.occurrences(text, "${") {
        let inside = cut::from(text, at + 2);
        let operator = inside.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let shell = inside.starts_with(['#', '!', '@', '*'])
            || inside.starts_with("IFS")
            || inside.starts_with("PATH")
            || operator.starts_with([':', '%', '#', '/', '^', ',', '@', '-']);
        let rule = if shell { Rule::RceExpansion } else { Rule::RceVariable };
        hits.add(rule, excerpt(text, at, 40));
    }
    for name in
        ["$IFS", "$SHELL ", "$PATH", "$HOME/", "$PWD/", "$OLDPWD", "$RANDOM", "$BASH", "$HOSTNAME", "$LD_PRELOAD"]
    {
        if let Some(at) = text.find(name) {
            hits.add(
                if matches!(name, "$IFS" | "$SHELL " | "$BASH" | "$LD_PRELOAD") {
                    Rule::RceExpansion
                } else {
                    Rule::RceVariable
                },
                excerpt(text, at, 40),
            );
        }
    }
}

/// `~+`, `~-`, `~1`: directories.
fn tildes(view: &View<'_>, hits: &mut Hits) {
    let trimmed = view.text.trim();
    if matches!(trimmed, "~+" | "~-")
        || trimmed.strip_prefix('~').is_some_and(|digits| {
            !digits.is_empty()
                && digits.len() < 3
                && digits.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit())
        })
    {
        hits.add(Rule::RceVariable, trimmed);
    }
}

/// `{cat,/etc/passwd}`, `{l,-lh}s`.
fn braces(view: &View<'_>, hits: &mut Hits) {
    for (at, before, _) in view.occurrences(view.text, "{") {
        let rest = cut::from(view.text, at + 1);
        let Some(end) = rest.bytes().take(128).position(|byte| matches!(byte, b'}' | b' ' | b'"' | b':' | b'{')) else {
            continue;
        };
        let inside = cut::until(rest, end);
        let closed = cut::byte(rest, end) == Some(b'}');
        let items: Vec<&str> = inside.split(',').collect();
        let shaped = items.first() == Some(&"") && items.iter().any(|item| class(item) == Some(Class::Rare))
            || items
                .iter()
                .any(|item| first_is_flag(item) || item.starts_with('/') && item.len() > 2 || item.contains("://"));
        if closed && items.len() > 1 && shaped && before != Some(b'$') {
            hits.add(Rule::RceExpansion, excerpt(view.text, at, 60));
        }
    }
}

fn aliases(view: &View<'_>, hits: &mut Hits) {
    for (at, before, after) in view.occurrences(view.lower, "alias") {
        if before.is_some_and(is_word) || after != Some(b' ') {
            continue;
        }
        let first = cut::from(view.lower, at + 6).split_whitespace().next().unwrap_or_default();
        let named = first.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && name.len() < 32 && !value.is_empty() && !name.contains(['"', '<', '&'])
        });
        if named || first == "-p" {
            hits.add(Rule::RceAlias, excerpt(view.text, at, 60));
        }
    }
}

/// `/bin/cat`, `usr/bin/perl`.
fn program_paths(view: &View<'_>, plain: &str, hits: &mut Hits) {
    let plain = plain.to_ascii_lowercase().replace("//", "/").replace("/./", "/");
    let spoken = prose_words(view.text) >= PROSE;
    for (at, before, _) in view.occurrences(&plain, "bin/") {
        if before.is_some_and(|byte| is_word(byte) && byte != b's') {
            continue;
        }
        let root = cut::until(&plain, at);
        let root = root.strip_suffix('s').unwrap_or(root);
        let near = cut::from(root, root.ceil_char_boundary(at.saturating_sub(64)));
        let folder = near.rsplit(|c: char| c.is_whitespace() || "=;|&`(\"',>".contains(c)).next().unwrap_or_default();
        let shebang = folder.starts_with("#!") || folder.contains("://");
        let known = matches!(folder, "/" | "" | "/usr/" | "usr/" | "/usr/local/" | "/snap/" | "/opt/" | "./")
            || folder.ends_with("../")
            || folder.ends_with("=/");
        let name = cut::from(&plain, at + 4)
            .split(|c: char| !(c.is_ascii_alphanumeric() || "-_.+[".contains(c)))
            .next()
            .unwrap_or_default();
        if known
            && !shebang
            && !spoken
            && (class(name).is_some() || folder.starts_with("/") && folder.len() > 4 && !name.is_empty())
        {
            hits.add(Rule::RcePath, excerpt(&plain, root.len() - folder.len(), 60));
        }
    }
}

/// Paths that a shell would find by their pattern.
const TARGETS: [&str; 18] = [
    "/usr/bin/bash",
    "/usr/bin/perl",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/hosts",
    "/etc/group",
    "/bin/cat",
    "/bin/bash",
    "/bin/sh",
    "/bin/ls",
    "/bin/nc",
    "/bin/ping",
    "/usr/bin/id",
    "/usr/bin/whoami",
    "/usr/bin/wget",
    "/usr/bin/curl",
    "/usr/bin/nc",
    "/usr/bin/python",
];

/// How often a pattern's bytes are read for each target.
const GLOB: usize = 12;

fn globs(view: &View<'_>, hits: &mut Hits) {
    for word in view.lower.split(|c: char| c.is_whitespace() || ";|&`\"'=,<>".contains(c)) {
        let Some(at) = word.find('/') else { continue };
        let pattern = cut::from(word, at).as_bytes();
        let wild = pattern.iter().any(|byte| matches!(byte, b'?' | b'*' | b'['));
        let letters = pattern.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
        if !wild || letters < 2 || pattern.len() >= 128 {
            continue;
        }
        if !view.work.spend(TARGETS.len() * pattern.len() * GLOB) {
            return;
        }
        if TARGETS.iter().any(|target| glob(pattern, target.as_bytes())) {
            hits.add(Rule::RceGlob, word);
        }
    }
}

/// Whether a shell's pattern matches a path. A star matches within a segment; the search keeps one place to go back to.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(&byte) = path.get(at) {
        let (fits, length) = match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, at));
                p += 1;
                continue;
            }
            Some(b'?') => (byte != b'/', 1),
            Some(b'[') => set(pattern.get(p + 1..).unwrap_or_default(), byte),
            Some(same) => (*same == byte, 1),
            None => (false, 1),
        };
        if fits {
            p += length;
            at += 1;
            // `[e//]tc//` names the same file as `[e]tc/`.
            while byte == b'/' && pattern.get(p) == Some(&b'/') {
                p += 1;
            }
        } else if let Some((star, taken)) = back.filter(|(_, taken)| path.get(*taken) != Some(&b'/')) {
            back = Some((star, taken + 1));
            p = star;
            at = taken + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

/// Whether a byte is in the set that begins here, behind its bracket, and how long the set is with its brackets.
fn set(rest: &[u8], byte: u8) -> (bool, usize) {
    let Some(end) = rest.iter().skip(1).position(|byte| *byte == b']') else { return (false, 1) };
    let set = rest.get(..=end).unwrap_or_default();
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let range = set.windows(3).any(|range| matches!(range, [low, b'-', high] if (*low..=*high).contains(&byte)));
    (negated != (range || set.contains(&byte)), set.len() + 2)
}

#[cfg(test)]
#[test]
fn globs_match_as_in_a_shell() {
    for (pattern, matches) in [
        ("/etc/pas[s]wd", true),
        ("/etc/[!q]asswd", true),
        ("/e?c/p*", true),
        ("/???/??t", false),
        ("/[e//]tc/[p//]asswd", true),
        ("/*c/*sswd", true),
        ("/etc", false),
        ("/[a-z]tc/passwd", true),
        ("/etc/passwd[", false),
    ] {
        assert_eq!(glob(pattern.as_bytes(), b"/etc/passwd"), matches, "{pattern}");
    }
}
