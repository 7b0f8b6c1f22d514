//! What a request may have, so that the engine is done with it in time. Nothing can stop the engine while it works: it looks at each
//! value with each rule, and its SQL detection takes a time that grows with the square of a value's length.

use waf_interface::Request;

/// The most bytes that are inspected: target, headers and body together.
pub const MOST_BYTES: usize = 192 << 10;
/// The most values: parameters, headers, cookies, and values of a body.
pub const MOST_VALUES: usize = 512;
/// The longest value, in bytes.
pub const LARGEST_VALUE: usize = 64 << 10;

/// Whether the engine would be done with a request in time.
pub(crate) fn are_kept(request: &Request<'_>, body: &[u8], kind: &[u8]) -> bool {
    let headers = request.headers();
    let mut bytes = request.target.len() + body.len();
    let mut values = 1 + count(request.target, b"&");
    let mut longest = longest_between(request.target, b"&");
    for (name, value) in headers {
        bytes += name.len() + value.len();
        values += 1 + if name.eq_ignore_ascii_case(b"cookie") { count(value, b";") } else { 0 };
        longest = longest.max(value.len());
    }
    let separators: &[u8] = match kind {
        _ if holds(kind, b"json") => b",[{",
        _ if holds(kind, b"xml") => b"<=",
        _ if kind.starts_with(b"multipart/") => b"\n",
        _ => b"&",
    };
    // Of a multipart body, only lines that begin as a boundary does and headers are values of their own.
    values += match separators {
        b"\n" => body.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"--") || line.contains(&b':')).count(),
        separators => count(body, separators),
    };
    longest = longest.max(if separators == b"&" { longest_between(body, b"&") } else { body.len() });
    bytes <= MOST_BYTES && values <= MOST_VALUES && longest <= LARGEST_VALUE
}

fn count(text: &[u8], any: &[u8]) -> usize {
    text.iter().filter(|byte| any.contains(byte)).count()
}

fn longest_between(text: &[u8], any: &[u8]) -> usize {
    text.split(|byte| any.contains(byte)).map(<[u8]>::len).max().unwrap_or_default()
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
