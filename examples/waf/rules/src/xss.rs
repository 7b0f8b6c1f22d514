//! Cross-site scripting: reads a value as a browser would, as markup, as an attribute, as a URI and as a script.

use crate::catalogue::Rule;
use crate::cut;
use crate::parts::Place;
use crate::view::{Hits, View, excerpt, is_word, listed, prefixes, prose_words};
use crate::words::{List, words};

/// Elements that load or run something by being there.
static ACTIVE: &[&str] = words!(
    "animate animatemotion animatetransform applet base bgsound embed fencedframe foreignobject form frame frameset
     iframe ilayer import isindex layer link math meta noscript object param portal set style svg vmlframe xml xss"
);

/// Those of them that are names of types too: `List<Object>`.
static GENERIC: &[&str] =
    &["base", "form", "frame", "layer", "link", "math", "meta", "object", "param", "portal", "set", "style", "xml"];

/// Events, or how their names begin.
static EVENTS: &List = &List::of(words!(
    "abort activate after animation auxclick bad before beforeunload begin blur bounce cached cancel canplay
     cellchange change checking click close command connect contentvisibility contextmenu control copy cuechange cut
     data dblclick deactivate device disconnect drag drop durationchange emptied end ended error exit filterchange
     finish focus formchange formdata forminput fullscreen gesture gotpointer hashchange help input invalid key
     languagechange layout load losecapture lostpointer media message mouse move moz obsolete offline
     orientationchange outofsync page paste pause play pointer popstate popup progress propertychange ratechange
     readystatechange redo rejectionhandled repeat reset resize resume reverse row scroll search securitypolicy seek
     select show slotchange stalled start stop storage submit suspend syncrestored timeerror timeupdate toggle touch
     trackchange transition undo unhandledrejection unload urlflip volumechange waiting webkit wheel zoom"
));

/// Schemes that run what follows them.
static SCHEMES: &List = &List::of(&["ecmascript:", "javascript:", "jscript:", "livescript:", "mocha:", "vbscript:"]);

/// Properties through which a script reaches into the page, behind the object that has them.
const REACH: &[(&str, &[&str])] = &[
    (".__proto__", &[""]),
    (".constructor(", &[""]),
    (".insertadjacent", &["html", "element"]),
    ("[\"constructor\"]", &[""]),
    ("['constructor']", &[""]),
    ("__proto__[", &[""]),
    ("constructor.", &["constructor", "prototype"]),
    (
        "document.",
        &[
            "all",
            "attachevent",
            "body",
            "cookie",
            "create",
            "currentscript",
            "defaultview",
            "designmode",
            "documentelement",
            "domain",
            "execcommand",
            "forms",
            "get",
            "head",
            "images",
            "implementation",
            "links",
            "location",
            "open",
            "queryselector",
            "referrer",
            "scripts",
            "styles",
            "title",
            "url",
            "write",
        ],
    ),
    ("innerhtml", &["=", " =", "\\x3d"]),
    ("localstorage.", &["getitem", "setitem", "key("]),
    ("location.", &["assign(", "hash", "href=", "href =", "replace("]),
    ("navigator.", &["sendbeacon", "serviceworker"]),
    ("object.", &["defineproperty", "assign(window", "constructor"]),
    ("outerhtml", &["=", " ="]),
    ("reflect.", &["apply", "construct", "get("]),
    ("sessionstorage.", &["getitem", "setitem", "key("]),
    ("string.", &["fromcharcode", "fromcodepoint"]),
    (
        "window.",
        &[
            "alert",
            "atob",
            "confirm",
            "eval",
            "location",
            "name",
            "onerror",
            "onload",
            "open(",
            "parent",
            "prompt",
            "settimeout",
            "top",
        ],
    ),
];

/// The objects alone.
#[allow(clippy::indexing_slicing, reason = "an index that is wrong does not compile")]
static OBJECTS: &List = &{
    const NAMES: [&str; REACH.len()] = {
        let mut names = [""; REACH.len()];
        let mut at = 0;
        while at < REACH.len() {
            names[at] = REACH[at].0;
            at += 1;
        }
        names
    };
    List::of(&NAMES)
};

/// What it takes, in steps, to look at the beginning of an element.
const OPENING: usize = 250;

/// Objects whose properties are asked for by text to hide which: `self["al"+"ert"]`.
static ROOTS: &List = &List::of(words!("content document frames globalthis parent self this top window"));

/// Calls through the back door, written without spaces.
static DOORS: &List = &List::of(&[
    "$on.constructor",
    "(0,eval)",
    ".apply`",
    ".bind`",
    ".call`",
    ".constructor`",
    ".source+",
    "=alert;",
    "=eval;",
    "[\"map\"][\"constructor\"]",
    "].constructor",
    "].filter.constructor",
    "].map.call",
    "].sort.call",
    "]['constructor",
    "`${alert",
    "eval.call",
    "{{constructor",
]);

/// Functions that run text or show that text ran.
static CALLS: &List = &List::of(words!(
    "alert atob btoa confirm createcontextualfragment eval execscript fetch fromcharcode import importscripts prompt
     setimmediate setinterval settimeout unescape xmlhttprequest"
));

pub(crate) fn inspect(view: &View<'_>, hits: &mut Hits) {
    if !view
        .lower
        .bytes()
        .any(|byte| matches!(byte, b'<' | b'=' | b':' | b'(' | b'[' | b'.' | b'`' | b'+') || byte >= 0x80)
    {
        return;
    }
    markup(view, hits);
    handlers(view, hits);
    uris(view, hits);
    styles(view, hits);
    scripts(view, hits);
    for fetches in ["xi:include", "w3.org/2001/xinclude", "xsi:schemalocation="] {
        if let Some(at) = view.lower.find(fetches) {
            hits.add(Rule::XssEntity, excerpt(view.text, at, 60));
        }
    }
    if view.lower.contains("+adw-") || view.lower.contains("+adw ") {
        hits.add(Rule::XssCharset, "+ADw-");
    }
}

/// Elements. What opens one is `<`, or in US-ASCII with the high bit ignored `¼`.
fn markup(view: &View<'_>, hits: &mut Hits) {
    let opens = view.lower.char_indices().filter(|(_, c)| matches!(c, '<' | '¼'));
    for (at, c) in opens.take_while(|_| view.work.spend(OPENING)) {
        let rest = cut::from(view.lower, at + c.len_utf8());
        let found = excerpt(view.text, at, 60);
        // Behind another accented letter it is half of a letter that was decoded byte by byte.
        let high = !cut::until(view.lower, at).ends_with(|c: char| matches!(c, '\u{c2}'..='\u{f4}'));
        let rest = rest.trim_start_matches(['/', '\t', '\n', '\r', '\x0b', '\x0c']);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == ':' || c == '-')).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let name = name.rsplit(':').next().unwrap_or(name);
        let delimited = behind.is_empty()
            || behind.starts_with(|c: char| c.is_ascii_whitespace() || "/>+\"'=\x0b¾\\;<".contains(c));
        if name == "script" && delimited && c == '<' || c == '¼' && name == "script" && high {
            hits.add(Rule::XssScript, found);
        } else if c == '¼' {
            if high && name.len() > 2 && excerpt(rest, 0, 200).contains(['¾', '>']) && listed(ACTIVE, name) {
                hits.add(Rule::XssCharset, found);
            }
        } else if listed(ACTIVE, name) && delimited {
            let before = cut::byte_before(view.lower, at);
            let generic = before.is_some_and(is_word) && behind.starts_with(['>', ',']) && listed(GENERIC, name);
            if !generic {
                hits.add(Rule::XssTag, found);
            }
        } else if let Some(declaration) = rest.strip_prefix('!') {
            let fetches = || {
                let declaration = view.look(declaration, 0, 512, 6);
                ["system", "public", "entity"].iter().any(|word| declaration.contains(word))
            };
            if declaration.starts_with("entity") || declaration.starts_with("doctype") && fetches() {
                hits.add(Rule::XssEntity, found);
            }
        } else if rest.starts_with("?import")
            || rest.starts_with("?xml-stylesheet")
            || spaced(rest).is_some_and(|name| name == "script" || listed(ACTIVE, &name))
        {
            hits.add(Rule::XssTag, found);
        }
        if !name.is_empty() && attributes(view, behind) {
            hits.add(Rule::XssHandler, found);
        }
    }
}

/// A name written with a space behind each letter.
fn spaced(mut rest: &str) -> Option<String> {
    let mut name = String::new();
    for _ in 0..12 {
        let mut chars = rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).chars();
        let Some(letter) = chars.next().filter(char::is_ascii_alphabetic) else { break };
        match chars.next() {
            None | Some('>' | '/' | '=') => {
                name.push(letter);
                break;
            }
            Some(space) if space.is_ascii_whitespace() => name.push(letter),
            Some(_) => break,
        }
        rest = chars.as_str();
    }
    (name.len() > 2).then_some(name)
}

/// Whether one of an element's attributes handles an event.
fn attributes(view: &View<'_>, behind: &str) -> bool {
    let tag = excerpt(behind, 0, 512).split('>').next().unwrap_or_default();
    let tag = view.look(tag, 0, 512, 4);
    view.occurrences(tag, "on").any(|(at, before, _)| {
        before.is_some_and(|byte| !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_')
            && handler(cut::from(tag, at)).is_some_and(|name| name.len() > 3)
    })
}

/// The name of the attribute that starts here with `on`, if it is given a value.
fn handler(rest: &str) -> Option<&str> {
    let (name, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_lowercase())?);
    behind.trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).starts_with('=').then_some(name)
}

/// `" onload=…`, without the element around it.
fn handlers(view: &View<'_>, hits: &mut Hits) {
    let mut terse = None;
    for (at, before, _) in view.occurrences(view.lower, "on") {
        let boundary = before.is_none_or(|byte| {
            byte.is_ascii_whitespace()
                || matches!(byte, b'"' | b'\'' | b'`' | b'/' | b';' | b'<' | b',' | 0x0b | 0x1c..=0x1f)
        });
        let Some(name) = boundary.then(|| handler(cut::from(view.lower, at))).flatten() else { continue };
        let known = prefixes(EVENTS, cut::from(name, 2)).next().is_some();
        let quoted = matches!(before, Some(b'"' | b'\'' | b'`'));
        // An event that is not known yet, where nothing else is said.
        let tight = cut::from(view.lower, at + name.len()).starts_with('=');
        let unknown = name.len() > 7 && tight && *terse.get_or_insert_with(|| prose_words(view.text) < 3);
        if known && name.len() > 4 || quoted && name.len() > 5 || unknown {
            hits.add(Rule::XssHandler, excerpt(view.text, at, 60));
        }
    }
}

fn uris(view: &View<'_>, hits: &mut Hits) {
    if !view.text.contains(':') {
        return;
    }

    for (at, scheme) in view.find_any(SCHEMES, view.lower) {
        // "JavaScript: The Good Parts" is a title.
        let rest = cut::from(view.lower, at + scheme.len());
        let title = rest.starts_with(' ')
            && rest.trim_start().starts_with(|c: char| c.is_alphanumeric())
            && !excerpt(rest, 0, 200).contains(['(', '`', '='])
            || rest.is_empty() && cut::from(view.text, at).starts_with("JavaScript");
        if !title {
            hits.add(Rule::XssUri, excerpt(view.text, at, 60));
        }
    }
    // Browsers drop tabs, line ends and other control characters inside of a scheme.
    let tight: String = view.lower.chars().filter(|c| !c.is_control() && *c != '\\').collect();
    if tight.len() != view.lower.len() && (tight.contains("script:") || tight.contains("mocha:")) {
        let fits = |scheme: &&&str| {
            !view.lower.contains(**scheme)
                && view.occurrences(&tight, scheme).any(|(_, before, _)| !before.is_some_and(is_word))
        };
        if let Some(scheme) = SCHEMES.iter().find(fits) {
            hits.add(Rule::XssUri, scheme);
        }
    }
    for (at, before, _) in view.occurrences(view.lower, "data:") {
        let rest = excerpt(view.lower, at + 5, 128);
        let kind = [
            "text/html",
            "text/xml",
            "image/svg",
            "text/javascript",
            "application/javascript",
            "application/xhtml",
            "application/x-javascript",
            "application/ecmascript",
        ];
        let head = rest.split_once(',').map_or("", |(head, _)| head);
        if !before.is_some_and(is_word) && kind.iter().any(|kind| head.contains(kind)) {
            hits.add(Rule::XssUri, excerpt(view.text, at, 60));
        }
    }
}

/// Styles. A style may have spaces, escapes and comments anywhere.
fn styles(view: &View<'_>, hits: &mut Hits) {
    if !["url", "expression", "import", "binding", "behavio", "@i"].iter().any(|word| view.lower.contains(word))
        && !view.lower.contains('\\')
    {
        return;
    }
    let tight: String = view.lower.chars().filter(|c| !c.is_whitespace() && !c.is_control() && *c != '\\').collect();
    let tight = without_comments(&tight);
    for form in [
        "url(javascript",
        "url('javascript:",
        "url(\"javascript:",
        "url(vbscript:",
        "url(&#",
        ":expression(",
        "-moz-binding:",
        "behavior:url(",
        "behaviour:url(",
        "@import'",
        "@import\"",
        "@importurl(",
    ] {
        if tight.contains(form) {
            hits.add(Rule::XssStyle, form);
        }
    }
}

/// The text without comments between its tokens.
fn uncommented(text: &str) -> String {
    let blocks = without_comments(text);
    let mut out = String::with_capacity(blocks.len());
    for line in blocks.lines() {
        out.push_str(line.split("//").next().unwrap_or_default());
        out.push('\n');
    }
    out
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("/*") {
        out.push_str(before);
        rest = behind.split_once("*/").map_or("", |(_, behind)| behind);
    }
    out.push_str(rest);
    out
}

fn scripts(view: &View<'_>, hits: &mut Hits) {
    let lower = view.lower;
    let alone = view.place != Place::Path && !view.text.trim().contains(char::is_whitespace);
    let script = alone || view.text.contains(['(', '=', '[', '`', ';', '<', '"', '\'']);
    for (at, object) in view.find_any(OBJECTS, lower) {
        let rest = cut::from(lower, at + object.len()).trim_start();
        let reaches = REACH
            .iter()
            .any(|(name, members)| *name == object && members.iter().any(|member| rest.starts_with(member)));
        if reaches && (script || object.contains('_')) {
            hits.add(Rule::XssDom, excerpt(view.text, at, 60));
        }
    }
    let plain = if lower.contains("/*") || lower.contains("//") { uncommented(lower) } else { lower.to_owned() };
    for (at, root) in view.find_any(ROOTS, &plain) {
        let inside = cut::from(&plain, at + root.len()).trim_start().strip_prefix('[').map(str::trim_start);
        if inside.is_some_and(|inside| inside.starts_with(['"', '\'', '`', '/', '+', '!', '\\'])) {
            hits.add(Rule::XssDom, excerpt(&plain, at, 60));
        }
    }
    let tight: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
    let tight = without_comments(&tight);
    calls(view, hits);
    tricks(view, &tight, hits);
}

fn calls(view: &View<'_>, hits: &mut Hits) {
    let awaits = view.text.contains("await");

    for (at, name) in view.find_any(CALLS, view.lower) {
        let before = cut::byte_before(view.lower, at);
        let rest = cut::from(view.lower, at + name.len()).trim_start();
        let direct = rest.len() == view.lower.len() - at - name.len();
        let Some(argument) = rest.strip_prefix(['(', '`']) else { continue };
        let argument = argument.trim_start();
        let telling = match name {
            "fetch" | "import" => {
                argument.starts_with(['"', '\'', '`', '/']) && !awaits && before.is_none_or(|b| b != b'.')
            }
            "unescape" | "btoa" => argument.starts_with(['"', '\'']),
            "alert" | "confirm" | "prompt" => {
                direct
                    && (argument.is_empty()
                        || argument.starts_with(|c: char| c.is_ascii_digit() || "\"'`/)+![\\&".contains(c))
                        || rest.starts_with('`')
                        || ["document", "window", "location", "self", "string", "this", "origin", "xss", "name"]
                            .iter()
                            .any(|object| argument.starts_with(object)))
            }
            _ => direct,
        };
        if telling {
            hits.add(Rule::XssCall, excerpt(view.text, at, 60));
        }
    }
    for (at, before, _) in view.occurrences(view.lower, "function") {
        let rest = cut::from(view.lower, at + 8).trim_start();
        let made =
            cut::until(view.lower, at).trim_end().ends_with("new") && before == Some(b' ') && rest.starts_with('(');
        let text = cut::from(view.text, at).starts_with("Function")
            && !before.is_some_and(is_word)
            && rest
                .strip_prefix(['(', '`'])
                .is_some_and(|argument| argument.trim_start().starts_with(['"', '\'', '`']));
        if made || text {
            hits.add(Rule::XssCall, excerpt(view.text, at, 60));
        }
    }
}

/// Scripts written with punctuation only, and calls through the back door.
fn tricks(view: &View<'_>, tight: &str, hits: &mut Hits) {
    let marks = tight.split(|c| !matches!(c, '[' | ']' | '(' | ')' | '!' | '+' | '{' | '}'));
    for run in marks.filter(|run| run.len() >= 8) {
        let part = excerpt(run, 0, 64);
        if part.contains("[]") && ["!+", "![", "+[]", "[+"].iter().any(|sum| part.contains(sum)) {
            hits.add(Rule::XssObfuscated, part);
        }
    }
    for (_, door) in view.find_any(DOORS, tight) {
        hits.add(Rule::XssObfuscated, door);
    }
    if tight.contains("\\u{") && tight.contains('(') {
        hits.add(Rule::XssObfuscated, "\\u{");
    }
}

#[cfg(test)]
#[test]
fn lists_are_sorted() {
    for list in [ACTIVE, GENERIC, EVENTS, SCHEMES, OBJECTS, DOORS, ROOTS, CALLS] {
        assert!(list.is_sorted());
    }
}
