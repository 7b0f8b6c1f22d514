//! What a request may have, so that the engine is done with it in time. Nothing can stop the engine while it works: it looks at each
//! value with each rule, and its SQL detection takes a time that grows with the square of a value's length.

use waf_interface::Request;

/// The most bytes that are inspected: target, headers and body together.
pub const MOST_BYTES: usize = 192 << 10;
/// The most values: parameters, headers, cookies, and values of a body.
pub const MOST_VALUES: usize = 512;
/// The longest value, in bytes.
pub const LARGEST_VALUE: usize = 64 << 10;

/// The most words and signs of a value that is alone; of several, the squares of theirs add up to no more than its square. Twice as many
/// take the engine four times as long, and so many some seventy milliseconds on an old machine.
pub const MOST_TOKENS: usize = 16 << 10;

/// Whether the engine would be done with a request in time.
pub(crate) fn are_kept(request: &Request<'_>, body: &[u8], kind: &[u8]) -> bool {
    let headers = request.headers();
    let mut bytes = request.target.len() + body.len();
    let (mut values, mut longest, mut work) = form(request.target);
    for (name, value) in headers {
        bytes += name.len() + value.len();
        values += 1 + if name.eq_ignore_ascii_case(b"cookie") { count(value, b";") } else { 0 };
        longest = longest.max(value.len());
        work = work.saturating_add(square(tokens(value)));
    }
    let whole = |values| (values, body.len(), square(tokens(body)));
    let (more, long, dear) = match kind {
        _ if holds(kind, b"json") => whole(count(body, b",[{")),
        _ if holds(kind, b"xml") => whole(count(body, b"<=")),
        // Only lines that begin as a boundary does and headers are values of their own.
        _ if kind.starts_with(b"multipart/") => {
            let lines = body.split(|byte| *byte == b'\n');
            whole(lines.filter(|line| line.starts_with(b"--") || line.contains(&b':')).count())
        }
        _ => {
            let (values, longest, work) = form(body);
            (values - 1, longest, work)
        }
    };
    values += more;
    longest = longest.max(long);
    work = work.saturating_add(dear);
    bytes <= MOST_BYTES && values <= MOST_VALUES && longest <= LARGEST_VALUE && work <= square(MOST_TOKENS)
}

/// How many values a query or a form has, the longest of them, and the work for all.
fn form(text: &[u8]) -> (usize, usize, u64) {
    text.split(|byte| *byte == b'&').fold((0, 0, 0), |(count, longest, work), value| {
        (count + 1, longest.max(value.len()), u64::saturating_add(work, square(tokens(value))))
    })
}

fn square(count: usize) -> u64 {
    (count as u64).saturating_mul(count as u64)
}

/// How many words and signs a text has at the most, for a reader of SQL.
fn tokens(text: &[u8]) -> usize {
    let mut before = b' ';
    let mut count = 0;
    for byte in text {
        let begins = if byte.is_ascii_alphanumeric() { !before.is_ascii_alphanumeric() } else { *byte != b' ' };
        count += usize::from(begins);
        before = *byte;
    }
    count
}

fn count(text: &[u8], any: &[u8]) -> usize {
    text.iter().filter(|byte| any.contains(byte)).count()
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
