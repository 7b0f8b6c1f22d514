//! Text from bytes that may be anything.

/// Reads UTF-8 as the most careless decoder would: overlong forms of ASCII are the characters that they stand for, and
/// a byte that fits nowhere is the character with its number, as in Latin-1.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(valid) => valid,
            Err(error) => {
                rest.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default()
            }
        };
        out.push_str(valid);
        rest = rest.get(valid.len()..).unwrap_or_default();
        if let Some(&first) = rest.first() {
            let (c, length) = overlong(rest).unwrap_or((char::from(first), 1));
            out.push(c);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    out
}

/// An ASCII character written in two, three or four bytes, and how many they are.
fn overlong(bytes: &[u8]) -> Option<(char, usize)> {
    let (high, tail, length) = match bytes {
        [high @ (0xc0 | 0xc1), tail, ..] => (high, tail, 2),
        [0xe0, high @ (0x80 | 0x81), tail, ..] => (high, tail, 3),
        [0xf0, 0x80, high @ (0x80 | 0x81), tail, ..] => (high, tail, 4),
        _ => return None,
    };
    (tail & 0xc0 == 0x80).then_some((char::from((high & 1) << 6 | tail & 0x3f), length))
}
