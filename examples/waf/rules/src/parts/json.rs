//! The keys and strings of a JSON body, without a tree of it.

use serde::de::IgnoredAny;

use super::{Part, Place};
use crate::decode;

/// Whether a body is JSON, as far as it goes: one that is cut off is valid if its beginning is. Reads its input once and
/// keeps a bit of each open bracket. A body that is no `single` value has one on each line.
pub(super) fn is_valid(body: &[u8], single: bool) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let valid = |text: &[u8]| match serde_json::from_slice::<IgnoredAny>(text) {
        Ok(_) => true,
        Err(error) => error.is_eof(),
    };
    if single {
        return valid(body);
    }
    // A record may begin with a separator: RFC 7464.
    body.split(|byte| matches!(byte, b'\n' | 0x1e)).all(|line| line.trim_ascii().is_empty() || valid(line))
}

pub(super) fn each(body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let mut rest = body;
    let mut key = String::new();
    while let Some(open) = rest.iter().position(|byte| *byte == b'"') {
        let (string, behind) = string(rest.get(open + 1..).unwrap_or_default());
        rest = behind;
        let seen = if rest.trim_ascii_start().first() == Some(&b':') {
            key.clone_from(&string);
            see(Part::new(Place::ArgName, "", string))
        } else {
            see(Part::new(Place::Arg, &key, string))
        };
        if !seen {
            return false;
        }
    }
    true
}

/// The string whose opening quote has been read, and what follows its closing one.
fn string(bytes: &[u8]) -> (String, &[u8]) {
    let mut out = Vec::new();
    let mut units = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = if byte == b'\\' { bytes.get(at + 1) } else { None };
        if escape == Some(&b'u')
            && let Some(unit) = bytes.get(at + 2..at + 6).and_then(|digits| std::str::from_utf8(digits).ok())
            && let Ok(unit) = u16::from_str_radix(unit, 16)
        {
            units.push(unit);
            at += 6;
            continue;
        }
        flush(&mut units, &mut out);
        match (byte, escape) {
            (b'"', _) => return (decode::text(&out), bytes.get(at + 1..).unwrap_or_default()),
            (_, Some(escape)) => {
                out.push(match escape {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'f' => 12,
                    other => *other,
                });
                at += 2;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    flush(&mut units, &mut out);
    (decode::text(&out), b"")
}

/// Writes the pending UTF-16 units; a surrogate may have come in two escapes.
fn flush(units: &mut Vec<u16>, out: &mut Vec<u8>) {
    if !units.is_empty() {
        out.extend_from_slice(String::from_utf16_lossy(units).as_bytes());
        units.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Vec<String> {
        let mut seen = Vec::new();
        each(body.as_bytes(), &mut |part| {
            seen.push(format!("{}={}", part.label(), part.text));
            true
        });
        seen
    }

    #[test]
    fn keys_and_strings_are_found_at_any_depth() {
        assert_eq!(read(r#"{"a":{"b":["x",1,"y"]}}"#), ["arg-name=a", "arg-name=b", "arg:b=x", "arg:b=y"]);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(read(r#"["\u003cb\u003E\n\ud83d\ude00\"\/"]"#), ["arg:=<b>\n😀\"/"]);
    }

    #[test]
    fn a_body_is_valid_as_far_as_it_goes() {
        for body in ["{\"a\":[1,null,\"x\"]}", " 1 ", "\u{feff}{}", "{\"a\":\"unfinis", "[1,", "nul", ""] {
            assert!(is_valid(body.as_bytes(), true), "{body}");
        }
        for body in ["a=1", "{'q':'x'}", "{a:1}", "1&a=1", "{}{}", "{}\n{}", "[1}", "[1,]"] {
            assert!(!is_valid(body.as_bytes(), true), "{body}");
        }
        assert!(is_valid(&b"[".repeat(100_000), true));
        assert!(is_valid(b"{\"a\":1}\n\n\x1e{\"a\":2}\r\n{\"a", false));
        assert!(!is_valid(b"{\"a\":1}\na=1\n{}", false));
    }

    #[test]
    fn what_is_cut_off_is_seen_and_depth_costs_nothing() {
        assert_eq!(read(r#"{"a":"unfinis"#), ["arg-name=a", "arg:a=unfinis"]);
        assert!(read(&"[".repeat(100_000)).is_empty());
    }
}
