//! Takes a request apart into the values that rules look at.
//!
//! The readers of bodies are flat: none keeps a stack, so there is no nesting to exhaust, and a body that is cut off or
//! broken yields what is there.

mod json;
mod multipart;
mod xml;

use waf_interface::Request;

use crate::decode;

/// Where in a request a value stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The path of the target.
    Path,
    /// The name of a parameter of query or body.
    ArgName,
    /// A parameter's value.
    Arg,
    /// A header, other than those below.
    Header,
    /// The `User-Agent` header.
    UserAgent,
    /// A cookie.
    Cookie,
    /// The name of an uploaded file.
    FileName,
    /// The content of an uploaded file.
    File,
    /// A body that is plain text.
    Body,
    /// What the host says of the request, as a header.
    Host,
    /// Nothing that was sent: what stands here could not be read, or not in one way only.
    Unread,
}

/// One value of a request, as text with the encoding of its transport taken off.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where it stood.
    pub place: Place,
    /// The name it had there, empty if it had none.
    pub name: String,
    /// The value.
    pub text: String,
}

impl Part {
    fn new(place: Place, name: &str, text: String) -> Part {
        Part { place, name: name.to_owned(), text }
    }

    /// What a reason calls it.
    pub fn label(&self) -> String {
        let kind = match self.place {
            Place::Path => return "path".to_owned(),
            Place::Body => return "body".to_owned(),
            Place::ArgName => return "arg-name".to_owned(),
            Place::Arg => "arg",
            Place::Header | Place::UserAgent | Place::Host => "header",
            Place::Cookie => "cookie",
            Place::FileName => "file-name",
            Place::File => "file",
            Place::Unread => "unread",
        };
        format!("{kind}:{}", self.name)
    }
}

/// Headers with a grammar so narrow, or content so random, that only noise would be found in them.
const QUIET: [&str; 15] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-length",
    "date",
    "host",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "pragma",
    "te",
    "transfer-encoding",
];

/// What the values of such headers are made of.
fn is_usual(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b" ,;=.*/_+:\"()?~-".contains(byte)
}

/// Headers in which proxies hand on names and addresses: every request behind one has them.
const FORWARDED: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id"];

/// Whether a value is a list of names and addresses: there is a space only behind a comma, so no two words stand together.
fn is_list_of_addresses(value: &[u8]) -> bool {
    let is_address = |item: &[u8]| item.iter().all(|byte| byte.is_ascii_alphanumeric() || b".:-_[]".contains(byte));
    value.split(|byte| *byte == b',').all(|item| is_address(item.strip_prefix(b" ").unwrap_or(item)))
}

/// Whether a header has nothing in it but what its narrow grammar needs.
fn is_quiet(name: &str, value: &[u8]) -> bool {
    (QUIET.contains(&name) || name.starts_with("sec-")) && value.iter().all(is_usual)
        || FORWARDED.contains(&name) && is_list_of_addresses(value)
}

/// Hands every part of the request to `see`, until it returns `false`.
pub fn each(request: &Request<'_>, see: &mut dyn FnMut(Part) -> bool) -> bool {
    let (path, query) = split(request.target, b'?');
    if !see(Part::new(Place::Path, "", decode::text(&decode::percent(path)))) || !form(query, see) {
        return false;
    }
    let mut content_type: Option<String> = None;
    for (name, value) in request.headers() {
        let name = decode::text(name).to_ascii_lowercase();
        let seen = match name.as_str() {
            "cookie" => value.split(|byte| *byte == b';').all(|pair| cookie(pair, see)),
            // The host's own words: dynamic rules see the client's address.
            waf_interface::CLIENT => see(Part::new(Place::Host, &name, decode::text(value))),
            host if host.starts_with(':') => true,
            "authorization" | "proxy-authorization" => true,
            // Dynamic rules see them, and so does every rule if there is more in them than their grammar needs.
            quiet if is_quiet(quiet, value) => see(Part::new(Place::Host, &name, decode::text(value))),
            "user-agent" => see(Part::new(Place::UserAgent, &name, decode::text(value))),
            "x-filename" | "x-file-name" => {
                see(Part::new(Place::FileName, &name, decode::text(&decode::percent(value))))
            }
            _ => {
                if name == "content-type" {
                    let text = decode::text(value);
                    let twice = content_type.as_ref().is_some_and(|other| *other != text);
                    if twice && !see(Part::new(Place::Unread, &name, "more than one".to_owned())) {
                        return false;
                    }
                    content_type.get_or_insert(text);
                }
                see(Part::new(Place::Header, &name, decode::text(&decode::percent(value))))
            }
        };
        if !seen {
            return false;
        }
    }
    body(&content_type.unwrap_or_default(), request.body, see)
}

/// Types of JSON that have a value on each line.
const SEQUENCES: [&str; 5] = ["ndjson", "jsonl", "json-lines", "json-seq", "stream+json"];

fn body(content_type: &str, body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let kind = media_type(content_type);
    let subtype = kind.split_once('/').map_or(kind.as_str(), |(_, subtype)| subtype);
    let is_form = kind.contains("urlencoded");
    let is_json = kind.contains("json") && !is_form;
    let is_xml = !is_json && (subtype == "xml" || subtype.starts_with("xml-") || subtype.ends_with("+xml"));
    let start = body.trim_ascii_start();
    if body.is_empty() {
        true
    } else if multipart::is_multipart(content_type) {
        multipart::each(content_type, body, see)
    } else if is_json {
        let valid = json::is_valid(body, !SEQUENCES.iter().any(|sequence| kind.contains(sequence)));
        // Whoever does not take it for JSON may take it for a form.
        json::each(body, see)
            && (valid || see(Part::new(Place::Unread, "json", "no valid JSON".to_owned())) && form(body, see))
    } else if is_xml || (kind.is_empty() && start.starts_with(b"<?xml")) {
        xml::each(body, see)
    } else if kind.is_empty() && matches!(start.first(), Some(b'{' | b'[')) {
        json::each(body, see) && (json::is_valid(body, true) || form(body, see))
    } else if kind.is_empty() || is_form {
        form(body, see)
    } else if kind.starts_with("text/") || kind.contains("graphql") {
        // Pages of other sites may send this type unasked, and some servers take it for JSON.
        let as_json = matches!(start.first(), Some(b'{' | b'['));
        (!as_json || json::each(body, see)) && see(Part::new(Place::Body, "", decode::text(body)))
    } else if kind.starts_with("application/grpc") {
        printable(body, see)
    } else {
        guessed(body, see)
    }
}

/// The type and subtype alone, in lower case: parameters say nothing of what a body is.
fn media_type(content_type: &str) -> String {
    content_type.split([';', ',']).next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A body of a type that is no text: a server that does not ask for the type reads it as what it looks like.
fn guessed(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let start = body.trim_ascii_start();
    let known = match start.first() {
        Some(b'{' | b'[' | b'"') => {
            if !json::each(body, see) {
                return false;
            }
            json::is_valid(body, true)
        }
        Some(b'<') => {
            if !xml::each(body, see) {
                return false;
            }
            is_markup(start)
        }
        _ => false,
    };
    let text = known || !is_text(body) || form(body, see) && see(Part::new(Place::Body, "", decode::text(body)));
    text && see(Part::new(Place::File, "body", decode::text(body)))
}

/// Whether what begins with `<` is markup to its end, and no form with a `<` in front.
fn is_markup(start: &[u8]) -> bool {
    let tag = start.split(|byte| *byte == b'>').next().unwrap_or_default();
    let named = tag.get(1).is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'?' | b'!'));
    named && !tag.contains(&b'&') && start.trim_ascii_end().ends_with(b">")
}

/// Whether these bytes are text. The last character may be cut off.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Runs of printable characters that are shorter hardly say anything, and there are many.
const SHORTEST_RUN: usize = 5;

/// A message in a binary format: its texts are in it as they are.
fn printable(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let runs = body
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().split(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n')));
    runs.filter(|run| run.len() >= SHORTEST_RUN).all(|run| see(Part::new(Place::Arg, "message", run.to_owned())))
}

fn cookie(pair: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let (name, value) = split(pair, b'=');
    let name = decode::text(&decode::percent(name.trim_ascii()));
    let value = Part::new(Place::Cookie, &name, decode::text(&decode::form(value)));
    see(Part::new(Place::ArgName, "", name)) && see(value)
}

fn form(bytes: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).all(|pair| {
        let (name, value) = split(pair, b'=');
        let name = decode::text(&decode::form(name));
        let value = decode::text(&decode::form(value));
        let value = Part::new(Place::Arg, &name, value);
        see(Part::new(Place::ArgName, "", name)) && (value.text.is_empty() || see(value))
    })
}

fn split(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == at) {
        Some(position) => {
            let (before, behind) = bytes.split_at(position);
            (before, behind.get(1..).unwrap_or_default())
        }
        None => (bytes, b""),
    }
}
