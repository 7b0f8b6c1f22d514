//! The parts of a `multipart/form-data` body. Line ends may be missing their carriage return: parsers forgive it.

use super::{Part, Place};
use crate::{cut, decode};

/// The boundary that a content type names, if it is a multipart one.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    if !content_type.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        return None;
    }
    parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty())
}

pub(super) fn each(boundary: &[u8], body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let mut delimiter = b"--".to_vec();
    delimiter.extend_from_slice(boundary);
    let mut rest = match find(body, &delimiter) {
        Some(at) => &body[at + delimiter.len()..],
        None => body,
    };
    while !rest.is_empty() && !rest.starts_with(b"--") {
        let end = find(rest, &delimiter).unwrap_or(rest.len());
        if !section(&rest[..end], see) {
            return false;
        }
        rest = rest.get(end + delimiter.len()..).unwrap_or_default();
    }
    true
}

/// One section: its head, an empty line, its content.
fn section(section: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let (head, content) = [&b"\r\n\r\n"[..], b"\n\n"]
        .iter()
        .filter_map(|gap| find(section, gap).map(|at| (at, gap.len())))
        .min()
        .map_or((section, &b""[..]), |(at, gap)| (&section[..at], &section[at + gap..]));
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let content = decode::text(content.strip_suffix(b"\r").unwrap_or(content));
    let head = decode::text(head);
    let name = parameter(&head, "name").unwrap_or_default();
    let file = parameter(&head, "filename").or_else(|| parameter(&head, "filename*"));
    if !see(Part::new(Place::ArgName, "", name.clone())) {
        return false;
    }
    match file {
        Some(file) => see(Part::new(Place::FileName, &name, file)) && see(Part::new(Place::File, &name, content)),
        None => see(Part::new(Place::Arg, &name, content)),
    }
}

/// The value of `name=value` or `name="value"` behind a semicolon or space.
fn parameter(head: &str, name: &str) -> Option<String> {
    let lower = head.to_ascii_lowercase();
    let mut from = 0;
    while let Some(at) = cut::from(&lower, from).find(name).map(|at| at + from) {
        from = at + name.len();
        let starts = cut::until(&lower, at).ends_with([';', ' ', '\t', '\n']);
        if let (true, Some(value)) = (starts, cut::from(head, from).trim_start().strip_prefix('=')) {
            let value = value.trim_start();
            return Some(match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
                None => value.split([';', '\r', '\n', ' ']).next().unwrap_or_default().to_owned(),
            });
        }
    }
    None
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // A boundary is short and its first byte rare, so the plain search is linear in practice and bounded by 70 × n.
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        let boundary = boundary("multipart/form-data; boundary=\"xyz\"").unwrap();
        each(boundary.as_bytes(), body, &mut |part| {
            seen.push(format!("{}={}", part.label(), part.text));
            true
        });
        seen
    }

    #[test]
    fn fields_and_files_are_told_apart() {
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\nvalue\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--xyz--\r\n";
        assert_eq!(read(body), ["arg-name=q", "arg:q=value", "arg-name=f", "file-name:f=a.txt", "file:f=hello"]);
    }

    #[test]
    fn a_body_without_its_end_is_read_to_the_end() {
        assert_eq!(read(b"--xyz\nContent-Disposition: form-data; name=q\n\nval"), ["arg-name=q", "arg:q=val"]);
    }
}
