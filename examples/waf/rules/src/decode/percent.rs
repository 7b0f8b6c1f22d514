//! Percent-encoding, as URLs and forms have it, and `%uXXXX`, which some servers still accept.

/// Decodes `%XX` and `%uXXXX`. What is not a valid escape stays as it is.
pub fn percent(bytes: &[u8]) -> Vec<u8> {
    decode(bytes, false)
}

/// The same for forms and queries, where a plus is a space.
pub fn form(bytes: &[u8]) -> Vec<u8> {
    decode(bytes, true)
}

fn decode(bytes: &[u8], plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%'
            && let Some(code) = bytes.get(at + 1..at + 3).and_then(super::hex)
        {
            out.push(code as u8);
            at += 3;
        } else if byte == b'%'
            && matches!(bytes.get(at + 1), Some(b'u' | b'U'))
            && let Some(c) = bytes.get(at + 2..at + 6).and_then(super::hex).and_then(char::from_u32)
        {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            at += 6;
        } else {
            out.push(if plus && byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    out
}
