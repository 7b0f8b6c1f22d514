//! Text from bytes that may be anything.

/// Reads UTF-8 as the most careless decoder would: overlong forms of ASCII are the characters that they stand for, and
/// a byte that fits nowhere is the character with its number, as in Latin-1.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(valid) => valid,
            Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        out.push_str(valid);
        rest = &rest[valid.len()..];
        if let Some((&first, others)) = rest.split_first() {
            let (c, length) = overlong(rest).unwrap_or((char::from(first), 1));
            out.push(c);
            rest = &others[length - 1..];
        }
    }
    out
}

/// An ASCII character written in two, three or four bytes, and how many they are.
fn overlong(bytes: &[u8]) -> Option<(char, usize)> {
    let (tail, length) = match bytes {
        [0xc0 | 0xc1, tail, ..] => (((bytes[0] & 1) << 6) | (tail & 0x3f), 2),
        [0xe0, high @ (0x80 | 0x81), tail, ..] => (((high & 1) << 6) | (tail & 0x3f), 3),
        [0xf0, 0x80, high @ (0x80 | 0x81), tail, ..] => (((high & 1) << 6) | (tail & 0x3f), 4),
        _ => return None,
    };
    (bytes[length - 1] & 0xc0 == 0x80).then_some((char::from(tail), length))
}
