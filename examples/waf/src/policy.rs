//! What of the verdicts is enforced, and where: detection only, exceptions from rules, and requests that are let through unseen.
//!
//! All of it makes the node milder, so a path counts only as it is written: one that a server may read as another path
//! (`/open/../closed`) is in none of the places that are named here.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::net::{Network, Networks};

/// What becomes of verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Enforce,
    /// They are logged and counted, and the request is let through.
    Detect,
}

/// Some requests: those that fit everything that is set.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Place {
    pub site: Option<HostPattern>,
    pub path: Option<PathPattern>,
    /// The id of a rule, a dynamic one included.
    pub rule: Option<String>,
    /// The name of a parameter of the query or the body.
    pub parameter: Option<String>,
    /// A part of the request as decisions name it: `header:user-agent`, `cookie:session`, `arg:q`, `body`.
    pub part: Option<String>,
    /// Methods, as they are sent: in upper case.
    pub methods: Vec<String>,
    pub clients: Vec<Network>,
}

/// Requests as places look at them.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub host: &'a str,
    pub path: &'a str,
    pub method: &'a str,
    pub client: IpAddr,
}

impl Place {
    /// Whether a request is in this place, by its path as it is written: for what makes the node milder.
    fn has(&self, subject: Subject<'_>) -> bool {
        self.has_but_path(subject, |method| method == subject.method)
            && self.path.as_ref().is_none_or(|path| path.fits(subject.path))
    }

    /// Whether a request is in this place by any reading of its path, and in any case of its method: for what makes the node
    /// stricter.
    pub fn catches(&self, subject: Subject<'_>, readings: &Readings<'_>) -> bool {
        self.has_but_path(subject, |method| method.eq_ignore_ascii_case(subject.method))
            && self.path.as_ref().is_none_or(|path| readings.any(|reading| path.catches(reading)))
    }

    fn has_but_path(&self, subject: Subject<'_>, is_method: impl Fn(&str) -> bool) -> bool {
        self.site.as_ref().is_none_or(|site| site.fits(subject.host))
            && (self.methods.is_empty() || self.methods.iter().any(|method| is_method(method)))
            && (self.clients.is_empty() || self.clients.iter().any(|network| network.contains(subject.client)))
    }

    fn concerns(&self, rule: &str, part: &str) -> bool {
        self.rule.as_ref().is_none_or(|own| own == rule)
            && self.part.as_ref().is_none_or(|own| own == part)
            && self.parameter.as_ref().is_none_or(|own| {
                ["arg:", "file:"].iter().any(|kind| part.strip_prefix(kind).is_some_and(|name| name == own))
            })
    }
}

/// Everything that is not simply enforced.
#[derive(Clone, Default)]
pub struct Policy {
    pub mode: Mode,
    pub detect: Vec<Place>,
    pub exceptions: Vec<Place>,
    pub allow: Vec<Place>,
    pub deny: Vec<Denied>,
}

/// Requests that are refused unseen: those of a place, from clients of a list if there is one.
#[derive(Clone, Default)]
pub struct Denied {
    pub place: Place,
    pub listed: Option<Networks>,
}

/// What holds for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is not inspected, and let through.
    Unseen,
    /// It is not inspected, and refused, if verdicts are enforced.
    Denied(Mode),
    Verdicts(Mode),
}

/// What becomes of the verdict of one rule on one part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mildness {
    /// It stands.
    None,
    /// It is logged.
    Logged,
    /// It does not count.
    Excepted,
}

impl Policy {
    pub fn treatment(&self, subject: Subject<'_>) -> Treatment {
        let in_any = |places: &[Place]| places.iter().any(|place| place.rule.is_none() && place.has(subject));
        let readings = Readings::of(subject.path);
        let denied = |denied: &Denied| {
            denied.place.catches(subject, &readings)
                && denied.listed.as_ref().is_none_or(|listed| listed.contains(subject.client))
        };
        let mode = if self.mode == Mode::Detect || in_any(&self.detect) { Mode::Detect } else { Mode::Enforce };
        // Who is denied by name is denied at the places, too, where others are let through.
        if self.deny.iter().any(denied) {
            return Treatment::Denied(mode);
        }
        if in_any(&self.allow) { Treatment::Unseen } else { Treatment::Verdicts(mode) }
    }

    pub fn mildness(&self, subject: Subject<'_>, rule: &str, part: &str) -> Mildness {
        let in_any = |places: &[Place]| places.iter().any(|place| place.concerns(rule, part) && place.has(subject));
        if in_any(&self.exceptions) {
            Mildness::Excepted
        } else if self
            .detect
            .iter()
            .any(|place| place.rule.is_some() && place.concerns(rule, part) && place.has(subject))
        {
            Mildness::Logged
        } else {
            Mildness::None
        }
    }

    /// Whether a rule is mild in all parts of a request, and not only in one of them.
    pub fn is_mild_throughout(&self, subject: Subject<'_>, rule: &str) -> bool {
        self.exceptions.iter().chain(&self.detect).any(|place| {
            place.rule.as_deref() == Some(rule)
                && place.parameter.is_none()
                && place.part.is_none()
                && place.has(subject)
        })
    }

    /// Returns the rules that do not stand everywhere.
    pub fn mild_rules(&self) -> Vec<String> {
        let mut rules: Vec<_> =
            self.detect.iter().chain(&self.exceptions).filter_map(|place| place.rule.clone()).collect();
        rules.sort();
        rules.dedup();
        rules
    }
}

/// Checks what places of one kind may say. Gives the place in the text and the problem.
pub fn check(kind: &str, places: &[Spanned<Place>], needs_rule: bool) -> Result<(), (usize, String)> {
    for place in places {
        let (at, place) = (place.span().start, place.get_ref());
        let names_part = place.parameter.is_some() || place.part.is_some();
        let names_place =
            place.site.is_some() || place.path.is_some() || !place.methods.is_empty() || !place.clients.is_empty();
        let problem = match kind {
            _ if needs_rule && place.rule.is_none() => "an exception needs the `rule` that it is from",
            "deny" if place.rule.is_some() || names_part => "what is denied has no `rule` and no `parameter`",
            "allow" if place.rule.is_some() || names_part => {
                "what is allowed is not inspected, so it has no `rule` and no `parameter`: see [[waf.exceptions]]"
            }
            _ if place.rule.is_none() && names_part => "a `parameter` or a `part` needs the `rule` that it is for",
            _ if place.rule.is_none() && !names_place => "this would hold for everything: name a site, a path, …",
            _ if place.parameter.is_some() && place.part.is_some() => {
                "`parameter` is short for a `part`: set one of them"
            }
            _ if place.part.as_deref().is_some_and(|part| !can_be_excepted(part)) => {
                "no such `part` can be left out of a request alone: name \"arg:NAME\", \"cookie:NAME\", \"header:NAME\" other than \
                 content-type and cookie, \"path\" or \"body\"; or no `part`, and the rule is mild in all of the request"
            }
            _ => continue,
        };
        return Err((at, format!("[[waf.{kind}]]: {problem}")));
    }
    Ok(())
}

/// Whether what is left of a request without a part can be inspected: see [`Rest`](crate::without::Rest).
fn can_be_excepted(part: &str) -> bool {
    match part.split_once(':') {
        Some(("header", name)) => !["", "content-type", "cookie"].iter().any(|other| name.eq_ignore_ascii_case(other)),
        Some(("cookie" | "arg", _)) => true,
        _ => ["path", "body"].contains(&part),
    }
}

/// A host, or all hosts under one: `*.example.com`. Ports do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    pub fn fits(&self, host: &str) -> bool {
        let name = bare(host);
        match self.0.strip_prefix('*') {
            Some(end) => name.len() > end.len() && name.ends_with(end),
            None => name == self.0,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A host without its port, in lower case.
pub fn bare(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HostPattern, D::Error> {
        let text = String::deserialize(deserializer)?.to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
        if name.is_empty() || !is_name(name) || bare(&text) != text {
            let problem = format!("{text:?} is no host: write example.com, or *.example.com, without a port");
            return Err(D::Error::custom(problem));
        }
        Ok(HostPattern(text))
    }
}

/// A path, or all paths under one: `/api/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(String);

impl PathPattern {
    pub fn fits(&self, path: &str) -> bool {
        is_plain(path) && self.is(path)
    }

    fn is(&self, path: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == self.0,
        }
    }

    /// The same for a [reading](Readings) of a path, whatever the case. `/api` is `/api/`, and so is in `/api/*`.
    fn catches(&self, reading: &str) -> bool {
        let own = self.0.to_lowercase();
        match own.strip_suffix('*') {
            Some(start) => reading.starts_with(start) || start.strip_suffix('/') == Some(reading),
            None => reading == own.trim_end_matches('/'),
        }
    }
}

/// How often servers, one behind the other, may take escapes off a path.
const LAYERS: usize = 4;
/// Whoever writes a path that comes to more text than this in all readings has nothing good in mind.
const READINGS_BYTES: usize = 1 << 20;

/// A path in every way in which a server may read it, in lower case and without a slash at its end: with the escapes taken off
/// some times or never, and each of these with steps up and down, with parameters and without. Made when they are first needed.
pub struct Readings<'a> {
    path: &'a str,
    /// `None` if they are too many.
    all: OnceCell<Option<BTreeSet<String>>>,
}

impl<'a> Readings<'a> {
    pub fn of(path: &'a str) -> Readings<'a> {
        Readings { path, all: OnceCell::new() }
    }

    /// Whether one of them is such, or they are too many to look at.
    fn any(&self, is_such: impl FnMut(&str) -> bool) -> bool {
        let all = self.all.get_or_init(|| readings(self.path));
        all.as_ref().is_none_or(|all| all.iter().map(String::as_str).any(is_such))
    }
}

fn readings(path: &str) -> Option<BTreeSet<String>> {
    let mut texts = BTreeSet::from([path.to_owned()]);
    let (mut all, mut size) = (BTreeSet::new(), 0);
    for _ in 0..=LAYERS {
        // A server may resolve a path before another one takes escapes off it.
        let mut next = BTreeSet::new();
        for text in texts {
            for reading in [resolved(&text, true), resolved(&text, false), text] {
                size += reading.len();
                if size > READINGS_BYTES {
                    return None;
                }
                next.extend(unescape(&reading));
                all.insert(reading.to_lowercase().trim_end_matches('/').to_owned());
            }
        }
        texts = next;
    }
    Some(all)
}

/// A path without empty steps and steps up and down, and with the parameters of its steps or without.
fn resolved(path: &str, with_parameters: bool) -> String {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split(['/', '\\']) {
        let step = if with_parameters { step } else { step.split(';').next().unwrap_or_default() };
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    format!("/{}", steps.join("/"))
}

/// A text with one layer of escapes less; `None` if there is none.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let digits = more.get(..2).filter(|digits| byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(meant) => {
                bytes.push(meant);
                rest = &more[2..];
            }
            None => {
                bytes.push(byte);
                rest = more;
            }
        }
    }
    (bytes.len() < text.len()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether servers cannot read a path as another one.
fn is_plain(path: &str) -> bool {
    let odd = ["//", "/.", "\\", ";", "%"];
    !odd.iter().any(|odd| path.contains(odd))
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PathPattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        let fixed = text.strip_suffix("/*").unwrap_or(&text);
        let is_path = (text.starts_with('/')) && !fixed.contains('*') && is_plain(fixed);
        if !is_path {
            let problem = format!("{text:?} is no path: write /search, or /api/*, with nothing that is escaped");
            return Err(D::Error::custom(problem));
        }
        Ok(PathPattern(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catches(place: &Place, path: &str) -> bool {
        place.catches(subject("x", path), &Readings::of(path))
    }

    fn place(text: &str) -> Place {
        toml::from_str(text).unwrap()
    }

    fn subject<'a>(host: &'a str, path: &'a str) -> Subject<'a> {
        Subject { host, path, method: "GET", client: [192, 0, 2, 1].into() }
    }

    #[test]
    fn a_place_has_its_requests_and_no_others() {
        let api = place("site = \"*.example.com\"\npath = \"/api/*\"");
        assert!(api.has(subject("shop.example.com:8080", "/api/v1")) && api.has(subject("SHOP.example.com.", "/api/")));
        for (host, path) in [
            ("example.com", "/api/v1"),
            ("shop.example.com.attacker.example", "/api/v1"),
            ("shop.example.com", "/ap"),
            ("shop.example.com", "/api"),
            ("shop.example.com", "/api/../admin"),
            ("shop.example.com", "/api/%2e%2e/admin"),
            ("shop.example.com", "/api//admin"),
            ("shop.example.com", "/api/..;/admin"),
            ("shop.example.com", "/api/..\\admin"),
        ] {
            assert!(!api.has(subject(host, path)), "{host}{path}");
        }
    }

    #[test]
    fn what_is_denied_is_so_however_it_is_written() {
        let admin = place("path = \"/admin/*\"");
        for path in [
            "/admin/x",
            "/%61dmin/x",
            "/%2561dmin/x",
            "//admin//x",
            "/a/../admin/x",
            "/a/..;/admin;v=1/x",
            "\\\\admin\\x",
            "/ADMIN/x",
            "/admin",
            "/admin/",
            "/%41dmin/x",
            "/%61dmin/%252e%252e/x",
            "/%61dmin/..;/x",
            "/admin/../x",
            "/a/%252e%252e/admin/x",
            "/a/..;b/%61dmin/%2e%2e%2fx",
            "/admin;a=b/",
            "/%252561dmin/x",
        ] {
            assert!(catches(&admin, path), "{path}");
        }
        for path in ["/adm", "/x?admin/", "/administrators", "/x/admin", "/"] {
            assert!(!catches(&admin, path), "{path}");
        }
        let login = place("path = \"/Login\"");
        for path in
            ["/Login", "/login", "/login/", "/LOGIN//", "/%6cogin/", "/login;a=b", "/x/../login/", "/login/x/.."]
        {
            assert!(catches(&login, path), "{path}");
        }
        assert!(!catches(&login, "/login/x") && !catches(&login, "/log"));
        // Exceptions are for a path as it is written, and nothing else.
        for path in ["/login", "/Login/", "/%4cogin"] {
            assert!(!login.has(subject("x", path)), "{path}");
        }
        // A path that means too much is in all places, and is given up early.
        assert!(catches(&login, &format!("/{}", "%25252541;a/".repeat(20_000))));
    }

    #[test]
    fn a_method_that_is_denied_is_so_in_any_case() {
        let post = place("methods = [\"POST\"]");
        let with = |method| Subject { method, ..subject("x", "/") };
        for method in ["POST", "post", "Post"] {
            assert!(post.catches(with(method), &Readings::of("/")), "{method}");
        }
        assert!(!post.catches(with("PUT"), &Readings::of("/")));
        // Exceptions are for a method as it is written.
        assert!(post.has(with("POST")) && !post.has(with("post")));
    }

    #[test]
    fn a_rule_is_mild_where_that_is_said() {
        let policy = Policy {
            exceptions: vec![place("rule = \"a\"\npath = \"/search\"\nparameter = \"q\"")],
            detect: vec![place("rule = \"b\""), place("path = \"/old/*\"")],
            allow: vec![place("path = \"/health\"\nclients = [\"192.0.2.0/24\"]")],
            ..Policy::default()
        };
        let (search, old) = (subject("x", "/search"), subject("x", "/old/page"));
        assert_eq!(policy.mildness(search, "a", "arg:q"), Mildness::Excepted);
        for (subject, rule, part) in [(search, "a", "arg:p"), (search, "c", "arg:q"), (old, "a", "arg:q")] {
            assert_eq!(policy.mildness(subject, rule, part), Mildness::None);
        }
        assert_eq!(policy.mildness(search, "b", "body"), Mildness::Logged);
        assert_eq!(policy.treatment(old), Treatment::Verdicts(Mode::Detect));
        assert_eq!(policy.treatment(search), Treatment::Verdicts(Mode::Enforce));
        assert_eq!(policy.treatment(subject("x", "/health")), Treatment::Unseen);
        assert_eq!(policy.mild_rules(), ["a", "b"]);
        assert!(!policy.is_mild_throughout(search, "a") && policy.is_mild_throughout(search, "b"));
    }

    #[test]
    fn a_host_or_a_path_that_is_none_is_an_error() {
        for text in
            ["site = \"a b\"", "site = \"a:80\"", "site = \"\"", "path = \"x\"", "path = \"/a*/b\"", "path = \"/%41\""]
        {
            assert!(toml::from_str::<Place>(text).is_err(), "{text}");
        }
    }
}
