//! Base64, as parts of mail and forms have it: in lines, with or without padding.

/// The bytes behind it; `None` if it is anything else.
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    let mut digits = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    for byte in digits.by_ref() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.extend((bits >> count).to_le_bytes().first());
        }
    }
    // Nothing but padding may follow.
    digits.all(|byte| *byte == b'=').then_some(out)
}

#[cfg(test)]
#[test]
fn lines_and_padding_do_not_matter() {
    for (text, bytes) in [
        ("", Some(&b""[..])),
        ("aGk=", Some(b"hi")),
        ("aG\r\nk", Some(b"hi")),
        ("aGkh", Some(b"hi!")),
        ("aG.k", None),
        ("aG=k", None),
    ] {
        assert_eq!(base64(text.as_bytes()).as_deref(), bytes, "{text}");
    }
}
