//! Requests as they may be shown to whoever looks at a trial: how they are built, without what they say.
//!
//! Attacks are told by their punctuation, and secrets by their letters and digits. So of a value the punctuation stays, each
//! letter is an `a` and each digit a `0`; of what is a secret by its place, only the length is told.

use std::collections::BTreeMap;

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE,
    HOST, HeaderMap, HeaderName, PROXY_AUTHORIZATION, TRANSFER_ENCODING, USER_AGENT,
};
use serde::Serialize;

use super::seen::Seen;

/// How much of a value is shown.
const LONGEST: usize = 96;
/// How much of a body is.
const BODY: usize = 512;
/// How many headers are.
const HEADERS: usize = 40;
/// A longer name may be no name.
const NAME: usize = 40;
/// A step of a path that is longer than this, or has a digit in it, may be a secret.
const STEP: usize = 24;

/// Headers whose values say nothing of a person.
const PLAIN: [HeaderName; 9] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    TRANSFER_ENCODING,
    USER_AGENT,
];

/// A request without what it says.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    method: String,
    host: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
    body_bytes: usize,
}

impl Sample {
    pub fn of(seen: &Seen) -> Sample {
        let names: Vec<_> = seen.headers.keys().take(HEADERS).collect();
        let headers = names.into_iter().map(|name| (name.to_string(), header(&seen.headers, name))).collect();
        Sample {
            method: shape(seen.method.as_str().as_bytes(), LONGEST, false),
            host: shape(seen.host.as_bytes(), LONGEST, false),
            target: target(&seen.target),
            headers,
            body: body(seen),
            body_bytes: seen.body.len(),
        }
    }
}

fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    let all = values.join(&b", "[..]);
    if [AUTHORIZATION, PROXY_AUTHORIZATION].contains(name) {
        return length(&all);
    }
    if *name == COOKIE {
        let cookie = |cookie: &[u8]| match split(cookie.trim_ascii(), b'=') {
            (known, Some(value)) => format!("{}={}", name_of(known), length(value)),
            (value, None) => length(value),
        };
        let cookies: Vec<_> = all.split(|byte| *byte == b';').take(HEADERS).map(cookie).collect();
        return cookies.join("; ");
    }
    shape(&all, LONGEST, !PLAIN.contains(name))
}

fn target(target: &hyper::Uri) -> String {
    let step = |step: &str| {
        let is_word = step.len() <= STEP && !step.bytes().any(|byte| byte.is_ascii_digit());
        shape(step.as_bytes(), LONGEST, !is_word)
    };
    let path: Vec<_> = target.path().split('/').take(HEADERS).map(step).collect();
    let path = path.join("/");
    match target.query() {
        Some(query) => format!("{path}?{}", fields(query.as_bytes(), LONGEST * 4)),
        None => path,
    }
}

fn body(seen: &Seen) -> String {
    let kind = seen.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase()).unwrap_or_default();
    match kind.starts_with(b"application/x-www-form-urlencoded") {
        true => fields(&seen.body, BODY),
        false => shape(&seen.body, BODY, true),
    }
}

/// The fields of a query or a form, with their names.
fn fields(text: &[u8], most: usize) -> String {
    let field = |field: &[u8]| match split(field, b'=') {
        (name, Some(value)) => format!("{}={}", name_of(name), shape(value, LONGEST, true)),
        (value, None) => shape(value, LONGEST, true),
    };
    let fields: Vec<_> = text.split(|byte| *byte == b'&').take(HEADERS).map(field).collect();
    cut(fields.join("&"), most)
}

fn split(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == at) {
        Some(found) => (&text[..found], Some(&text[found + 1..])),
        None => (text, None),
    }
}

/// The name of a field, unless it may be something else.
fn name_of(name: &[u8]) -> String {
    shape(name, NAME, name.len() > NAME)
}

fn length(value: &[u8]) -> String {
    format!("({} bytes)", value.len())
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A text that can be printed, cut to its beginning, and, if it is masked, without its letters and digits.
fn shape(text: &[u8], most: usize, is_masked: bool) -> String {
    let (beginning, rest) = text.split_at(text.len().min(most * 3));
    let mut shape = String::new();
    let mut left = beginning;
    while let Some((&byte, more)) = left.split_first() {
        let escaped = more.get(..2).filter(|digits| byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let meant = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (meant, escaped) {
            // What is escaped is a letter like others; what is none stays as it was written.
            (Some(meant), _) if is_masked && (meant.is_ascii_alphanumeric() || meant >= 0x80) => {
                shape.push(masked(meant))
            }
            (Some(_), Some(digits)) => {
                shape.push('%');
                shape.extend(digits.iter().map(|digit| char::from(*digit)));
            }
            _ if is_masked => shape.push(masked(byte)),
            _ => shape.push(printed(byte)),
        }
        left = if escaped.is_some() { &more[2..] } else { more };
    }
    let is_cut = !rest.is_empty();
    let shown = cut(shape, most);
    if is_cut && !shown.ends_with('…') { shown + "…" } else { shown }
}

fn masked(byte: u8) -> char {
    match byte {
        b'0'..=b'9' => '0',
        b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => 'a',
        byte => printed(byte),
    }
}

fn printed(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '·' }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hyper::Method;
    use waf_interface::Verdict;

    use super::*;
    use crate::rules::Inspected;
    use crate::trial::Key;

    fn sample(target: &str, headers: &[(&str, &str)], body: &str) -> String {
        let headers =
            headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect();
        let client = Ipv4Addr::LOCALHOST.into();
        let seen = Seen::of(&Inspected {
            host: "shop.example.com",
            method: &Method::POST,
            target: &target.parse().unwrap(),
            headers: &headers,
            body: body.as_bytes(),
            client,
            if_unread: Verdict::Block,
            key: &Key::Client(client),
        });
        serde_json::to_string(&Sample::of(&seen)).unwrap()
    }

    #[test]
    fn no_secret_is_left_wherever_it_is() {
        let secret = "hunter2SECRET";
        let form = "application/x-www-form-urlencoded";
        let shown = [
            sample(&format!("/reset/{secret}/x?token={secret}&{secret}2"), &[], ""),
            sample(
                &format!("/?t=%68unter2SECRET&u={secret}"),
                &[("cookie", &format!("session={secret}; {secret}"))],
                "",
            ),
            sample("/", &[("authorization", &format!("Bearer {secret}")), ("x-api-key", secret)], ""),
            sample("/", &[("referer", &format!("https://example.com/?t={secret}"))], secret),
            sample("/", &[("content-type", form)], &format!("password={secret}&{secret}")),
            sample("/", &[("content-type", "application/json")], &format!("{{\"password\":\"{secret}\"}}")),
        ];
        for shown in &shown {
            let text = shown.to_ascii_lowercase();
            assert!(!text.contains("hunter") && !text.contains("secret") && !text.contains("unter0"), "{shown}");
        }
        assert!(shown[1].contains("session=(13 bytes)"), "{}", shown[1]);
        assert!(shown[4].contains("password=aaaaaa0aaaaaa"), "{}", shown[4]);
    }

    #[test]
    fn the_shape_of_an_attack_stays() {
        let shown = sample("/search?id=1%27%20OR%201=1--&q=%3Cscript%3E", &[("user-agent", "curl/8.5")], "");
        assert!(shown.contains("/search?id=0%27%20aa%200=0--&q=%3Caaaaaa%3E"), "{shown}");
        assert!(shown.contains("curl/8.5"), "{shown}");
        let long = sample(&format!("/?q={}", "'".repeat(9000)), &[], &"<".repeat(9000));
        assert!(long.len() < 2000 && long.contains('…'), "{}", long.len());
    }
}
