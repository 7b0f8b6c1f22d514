//! Takes a request apart into the values that rules look at.
//!
//! The readers of bodies are flat: none keeps a stack, so there is no nesting to exhaust, and a body that is cut off or
//! broken yields what is there.

mod credentials;
mod json;
mod multipart;
mod quiet;
mod wide;
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
    /// What only dynamic rules look at: what the host says of the request, as a header, and headers in which nothing is found.
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
            "cookie" => {
                value.split(|byte| *byte == b';').all(|pair| cookie(pair, see))
                    && see(Part::new(Place::Host, &name, decode::text(value)))
            }
            // The host's own words: dynamic rules see the client's address.
            waf_interface::CLIENT => see(Part::new(Place::Host, &name, decode::text(value))),
            host if host.starts_with(':') => true,
            "authorization" | "proxy-authorization" => credentials::each(&name, value, see),
            // Dynamic rules see them, and so does every rule if there is more in them than their grammar needs.
            quiet if quiet::is_quiet(quiet, value) => see(Part::new(Place::Host, &name, decode::text(value))),
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

/// What the names of types have in them whose bodies are messages in a binary format.
const MESSAGES: [&str; 7] = ["amf", "avro", "bson", "cbor", "msgpack", "proto", "thrift"];

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
    } else if kind.is_empty() && wide::text(body).is_some() {
        guessed(body, see)
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
    } else if kind.starts_with("application/grpc-web-text") {
        match decode::base64(body) {
            Some(frames) => messages(&frames, see),
            None => see(Part::new(Place::Unread, "grpc-web-text", "no valid base64".to_owned())),
        }
    } else if kind.starts_with("application/grpc") || MESSAGES.iter().any(|format| subtype.contains(format)) {
        message(body, see)
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
    match wide::text(body) {
        // It need not be: what stands behind a beginning like that is looked at as it is, too.
        Some(text) => looked_at(text.as_bytes(), see) && printable(body, see) && file(body, see),
        None => looked_at(body, see) && file(body, see),
    }
}

fn looked_at(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
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
    known || !is_text(body) || form(body, see) && see(Part::new(Place::Body, "", decode::text(body)))
}

fn file(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    see(Part::new(Place::File, "body", decode::text(body)))
}

/// Whether what begins with `<` is markup to its end, and no form with a `<` in front.
fn is_markup(start: &[u8]) -> bool {
    let tag = start.split(|byte| *byte == b'>').next().unwrap_or_default();
    let named = tag.get(1).is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'?' | b'!'));
    named && !tag.contains(&b'&') && start.trim_ascii_end().ends_with(b">")
}

/// Whether these bytes are text: many a reader does not mind a null byte in it. The last character may be cut off.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Runs of printable characters that are shorter hardly say anything, and there are many.
const SHORTEST_RUN: usize = 5;

/// Whether a character ends a run of printable ones.
fn is_mark(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\r' | '\n')
}

/// A message in a binary format. What has nothing but text in it is none, whatever its type says.
fn message(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let mut chunks = body.utf8_chunks();
    let plain = chunks.next().is_none_or(|chunk| !chunk.valid().contains(is_mark)) && is_text(body);
    if plain || wide::text(body).is_some() { guessed(body, see) } else { printable(body, see) }
}

/// The texts in a message in a binary format, in which they are as they are.
fn printable(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let runs = body.utf8_chunks().flat_map(|chunk| chunk.valid().split(is_mark));
    runs.filter(|run| run.len() >= SHORTEST_RUN).all(|run| see(Part::new(Place::Arg, "message", run.to_owned())))
}

/// Messages with a flag and a length in front of each. What is cut off is looked at as far as it goes.
fn messages(frames: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let mut rest = frames;
    while let Some(([flag, length @ ..], behind)) = rest.split_first_chunk::<5>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (message, next) = behind.split_at(length.min(behind.len()));
        let seen = match flag & 1 {
            0 => printable(message, see),
            _ => see(Part::new(Place::Unread, "grpc-web-text", "a compressed message".to_owned())),
        };
        if !seen {
            return false;
        }
        rest = next;
    }
    true
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
