//! The parts of a `multipart/form-data` body.
//!
//! Parsers differ in what they forgive: a line end without its carriage return, a second `name`, a delimiter in the middle of a
//! line. What all of them read alike is read here; a body with anything else in it is read as well as it can be, and what was
//! odd is handed over as [unread](Place::Unread), because the server may see other parts in it.

use super::{Part, Place};
use crate::decode;

/// What a boundary may be: RFC 2046, section 5.1.1.
const LONGEST_BOUNDARY: usize = 70;

/// Whether a content type is a multipart one.
pub(super) fn is_multipart(content_type: &str) -> bool {
    content_type.trim_start().to_ascii_lowercase().starts_with("multipart/")
}

/// Hands over the parts of a body with this content type.
pub(super) fn each(content_type: &str, body: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let parameters = Parameters::of(content_type);
    let boundary = parameters.get("boundary").unwrap_or_default();
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    if boundary.is_empty() || boundary.len() > LONGEST_BOUNDARY || !boundary.bytes().all(usual) {
        return odd("boundary", see) && see(Part::new(Place::Arg, "multipart", decode::text(body)));
    }
    if (parameters.odd || boundary.ends_with(' ') || !has_one_boundary(content_type)) && !odd("boundary", see) {
        return false;
    }
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let Some((preamble, mut rest)) = split(body, &delimiter) else {
        return odd("no delimiter", see) && section(body, see);
    };
    let alone = preamble.is_empty() || odd("text in front of the first part", see) && other(preamble, see);
    if !alone {
        return false;
    }
    loop {
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            let blank = epilogue.is_empty() || epilogue == b"\r\n";
            return blank || odd("text behind the last part", see) && other(epilogue, see);
        }
        let (piece, next) = match split(rest, &delimiter) {
            Some((piece, next)) => (piece, Some(next)),
            None => (rest, None),
        };
        // A delimiter is a line of its own.
        let line = piece.starts_with(b"\r\n") && (next.is_none() || piece.ends_with(b"\r\n"));
        if !line && !odd("delimiter", see) || !section(piece, see) {
            return false;
        }
        match next {
            Some(next) => rest = next,
            None => return odd("no end", see),
        }
    }
}

/// Whether whoever looks for the parameter as a text, from the beginning or from the end, finds this one and no other.
fn has_one_boundary(content_type: &str) -> bool {
    const NAME: &str = "boundary";
    let lower = content_type.to_ascii_lowercase();
    let Some((before, behind)) = lower.split_once(NAME) else { return false };
    before.trim_end().ends_with(';')
        && behind.trim_start().starts_with('=')
        && !behind.split(NAME).skip(1).any(|behind| behind.trim_start().starts_with('='))
}

/// One part: the end of the delimiter's line, its head, an empty line, its content.
fn section(section: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let section = section.strip_prefix(b"\r\n").or_else(|| section.strip_prefix(b"\n")).unwrap_or(section);
    // A part may have no head at all.
    let (head, content) = match section.strip_prefix(b"\r\n") {
        Some(content) => (&b""[..], content),
        None => [&b"\r\n\r\n"[..], b"\n\n"]
            .iter()
            .filter_map(|gap| split(section, gap))
            .min_by_key(|(head, _)| head.len())
            .unwrap_or((section, b"")),
    };
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    let head = decode::text(head);
    let mut disposition = None;
    let mut encoding = String::new();
    let mut strange = None;
    for line in head.split('\n') {
        let (line, ended) = line.strip_suffix('\r').map_or((line, false), |line| (line, true));
        let Some((name, value)) = line.split_once(':') else {
            strange = Some("a line of a part's head");
            continue;
        };
        // The last line's end was taken off with the empty line.
        if !ended && !head.ends_with(line) || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            strange = Some("a line of a part's head");
        }
        match name.trim().to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.is_none() => disposition = Some(Parameters::of(value)),
            "content-transfer-encoding" if encoding.is_empty() => encoding = value.trim().to_ascii_lowercase(),
            "content-type" => {
                let value = value.trim().to_ascii_lowercase();
                let charset = Parameters::of(&value).get("charset").unwrap_or_default().to_owned();
                if value.starts_with("multipart/") {
                    strange = Some("a multipart body inside of a part");
                } else if !matches!(charset.as_str(), "" | "utf-8" | "us-ascii" | "iso-8859-1") {
                    strange = Some("a part's charset");
                }
            }
            _ => strange = Some("a header of a part"),
        }
    }
    let known = disposition.is_some();
    let disposition = disposition.unwrap_or_default();
    let name = disposition.get("name").unwrap_or_default().to_owned();
    let file = disposition.get("filename").or_else(|| disposition.get("filename*"));
    let both = disposition.get("filename").is_some() && disposition.get("filename*").is_some();
    if !known || disposition.odd || both || disposition.get("name").is_none() {
        strange = Some("Content-Disposition");
    }
    let mut raw = None;
    let content = match encoding.as_str() {
        "" | "7bit" | "8bit" | "binary" => decode::text(content),
        "base64" => decode::base64(content).map_or_else(
            || {
                strange = Some("a part's base64");
                decode::text(content)
            },
            |decoded| {
                // Most servers leave it as it is.
                raw = Some(decode::text(content));
                decode::text(&decoded)
            },
        ),
        _ => {
            strange = Some("a part's Content-Transfer-Encoding");
            decode::text(content)
        }
    };
    if let Some(what) = strange
        && !(odd(what, see) && see(Part::new(Place::Arg, "multipart", head.clone())))
    {
        return false;
    }
    if !see(Part::new(Place::ArgName, "", name.clone())) {
        return false;
    }
    if let Some(raw) = raw
        && !see(Part::new(Place::Arg, &name, raw))
    {
        return false;
    }
    match file {
        Some(file) => {
            // A file without a name, or with none but an extended one, is a value for some.
            let named = disposition.get("filename").is_some_and(|file| !file.trim().is_empty());
            (named || see(Part::new(Place::Arg, &name, content.clone())))
                && see(Part::new(Place::FileName, &name, file.to_owned()))
                && see(Part::new(Place::File, &name, content))
        }
        None => see(Part::new(Place::Arg, &name, content)),
    }
}

fn odd(what: &str, see: &mut dyn FnMut(Part) -> bool) -> bool {
    see(Part::new(Place::Unread, "multipart", what.to_owned()))
}

/// What no part contains.
fn other(bytes: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    see(Part::new(Place::Arg, "multipart", decode::text(bytes)))
}

/// The parameters of a header, `value; name=value; name="value"`.
#[derive(Default)]
struct Parameters {
    list: Vec<(String, String)>,
    /// Whether they could be read in another way, too.
    odd: bool,
}

impl Parameters {
    fn of(header: &str) -> Parameters {
        let mut parameters = Parameters::default();
        let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
        while !rest.trim().is_empty() {
            let Some((name, behind)) = rest.split_once('=') else {
                parameters.odd = true;
                break;
            };
            let (value, next) = match behind.strip_prefix('"') {
                Some(quoted) => match quoted.split_once('"') {
                    Some((value, next)) => (value, next),
                    None => {
                        parameters.odd = true;
                        (quoted, "")
                    }
                },
                None => behind.split_at(behind.find(';').unwrap_or(behind.len())),
            };
            let (between, next) = next.split_once(';').unwrap_or((next, ""));
            let name = name.trim().to_ascii_lowercase();
            parameters.odd |= !between.trim().is_empty()
                || value.contains(['\\', '\0', '\r', '\n'])
                || !behind.starts_with('"') && value.trim_end().contains(['"', '\'', ' ', '\t', ','])
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte))
                // Continued or extended: RFC 2231, which few read.
                || name.contains('*') && name != "filename*"
                || parameters.get(&name).is_some();
            let value = if behind.starts_with('"') { value } else { value.trim() };
            // Of two of the same name the first one counts, as it does for most parsers.
            parameters.list.push((name, value.to_owned()));
            rest = next;
        }
        parameters
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What is in front of the first occurrence, and what is behind it. A delimiter is short, so that this is linear.
fn split<'b>(bytes: &'b [u8], delimiter: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = bytes.windows(delimiter.len()).position(|window| window == delimiter)?;
    let (before, behind) = bytes.split_at_checked(at)?;
    Some((before, behind.get(delimiter.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(content_type: &str, body: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        each(content_type, body, &mut |part| {
            seen.push(format!("{}={}", part.label(), part.text));
            true
        });
        seen
    }

    fn read(body: &[u8]) -> Vec<String> {
        parts("multipart/form-data; boundary=\"xyz\"", body)
    }

    #[test]
    fn fields_and_files_are_told_apart() {
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\nvalue\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--xyz--\r\n";
        assert_eq!(read(body), ["arg-name=q", "arg:q=value", "arg-name=f", "file-name:f=a.txt", "file:f=hello"]);
    }

    #[test]
    fn a_body_without_its_end_is_read_to_the_end() {
        let seen = read(b"--xyz\nContent-Disposition: form-data; name=q\n\nval");
        assert_eq!(seen[seen.len() - 3..], ["arg-name=q", "arg:q=val", "unread:multipart=no end"]);
    }

    #[test]
    fn a_part_in_base64_is_read_decoded_and_as_it_is() {
        let seen = read(
            b"--xyz\r\nContent-Disposition: form-data; name=q\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            PHNjcmlw\r\ndD4=\r\n--xyz--",
        );
        assert_eq!(seen, ["arg-name=q", "arg:q=PHNjcmlw\r\ndD4=", "arg:q=<script>"]);
    }

    #[test]
    fn a_file_without_a_name_is_a_value_too() {
        for file in ["filename=\"\"", "filename=\" \"", "filename=", "filename*=utf-8''a.txt"] {
            let seen = read(
                format!("--xyz\r\nContent-Disposition: form-data; name=q; {file}\r\n\r\n<script>\r\n--xyz--")
                    .as_bytes(),
            );
            assert!(seen.contains(&"arg:q=<script>".to_owned()), "{seen:?}");
            assert!(seen.contains(&"file:q=<script>".to_owned()), "{seen:?}");
        }
    }

    #[test]
    fn what_parsers_read_differently_is_said_to_be_unread() {
        let usual = "multipart/form-data; boundary=xyz";
        let field = "Content-Disposition: form-data; name=\"q\"";
        let body = |head: &str| format!("--xyz\r\n{head}\r\n\r\nvalue\r\n--xyz--\r\n");
        let plain = body(field);
        assert!(parts(usual, plain.as_bytes()).iter().all(|part| !part.starts_with("unread")));
        let browser = "multipart/form-data; boundary=----WebKitFormBoundaryabc";
        let from_browser = plain.replace("--xyz", "------WebKitFormBoundaryabc");
        assert_eq!(parts(browser, from_browser.as_bytes()), ["arg-name=q", "arg:q=value"]);
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=xyz; boundary=abc",
            "multipart/form-data; boundary=\"x\\yz\"",
            "multipart/form-data; boundary=xyz, text/plain",
            "multipart/form-data; boundary=xyz; xboundary=abc",
            "multipart/form-data; boundary=xyz; x=\"boundary =abc\"",
            "multipart/form-data; xboundary=abc; boundary=xyz",
            "multipart/form-data; a=\"boundary=abc\"; boundary=xyz",
            "multipart/form-data; a=boundary; boundary=xyz",
            &format!("multipart/form-data; boundary={}", "x".repeat(71)),
        ] {
            assert!(
                parts(content_type, plain.as_bytes()).iter().any(|part| part.starts_with("unread")),
                "{content_type}"
            );
        }
        for body in [
            plain.replace("\r\n", "\n"),
            format!("text\r\n{plain}"),
            format!("{plain}text"),
            plain.replace("value\r\n", "value"),
            plain.replace("--xyz--", ""),
            body(&format!("{field}; name=\"r\"")),
            body(&format!("{field}\r\n{field}")),
            body(&format!("{field}; filename=a; filename*=utf-8''b")),
            body(&format!("{field}; filename*0=a; filename*1=b")),
            body(&format!("{field}; filename*0*=utf-8''a")),
            body(&format!("{field}; name*=utf-8''r")),
            body(&format!("{field}; filename=a; name*0=r")),
            body("Content-Disposition: form-data; name=\"q\\\"; x=\"y\""),
            body("Content-Disposition: form-data; filename=\"a\""),
            body(&format!("{field}\r\n folded: line")),
            body(&format!("{field}\r\nno colon")),
            body(&format!("{field}\r\nContent-Transfer-Encoding: quoted-printable")),
            body(&format!("{field}\r\nContent-Transfer-Encoding: base64")).replace("value", "v.l="),
            body(&format!("{field}\r\nContent-Type: multipart/mixed; boundary=abc")),
            body(&format!("{field}\r\nContent-Type: text/plain; charset=utf-7")),
            String::from("no delimiter"),
        ] {
            assert!(parts(usual, body.as_bytes()).iter().any(|part| part.starts_with("unread")), "{body}");
        }
    }
}
