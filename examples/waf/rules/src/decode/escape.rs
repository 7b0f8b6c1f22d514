//! Escapes of scripts and JSON: `\xXX`, `\uXXXX` and `\u{X}`. Other backslashes stay: Windows paths have them too.

use std::borrow::Cow;

use crate::cut;

pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        let (c, length) = escaped(behind).unwrap_or(('\\', 0));
        out.push(c);
        rest = cut::from(behind, length);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The character that is escaped behind a backslash, and the length of its escape.
fn escaped(rest: &str) -> Option<(char, usize)> {
    let bytes = rest.as_bytes();
    let (digits, length) = match bytes {
        [b'x', digits @ ..] => (digits.get(..2)?, 3),
        [b'u', b'{', digits @ ..] => {
            let close = digits.iter().take(7).position(|byte| *byte == b'}')?;
            (digits.get(..close)?, close + 3)
        }
        [b'u', digits @ ..] => (digits.get(..4)?, 5),
        _ => return None,
    };
    if digits.is_empty() {
        return None;
    }
    Some((char::from_u32(super::hex(digits)?)?, length))
}
