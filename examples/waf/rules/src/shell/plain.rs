//! Undoes what a shell undoes inside of a word: quotes, backslashes, carets, and variables that are empty.

use crate::cut;

/// The text as the shell would read its words. Separators, redirections and `$(` stay.
pub(super) fn text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let next = bytes.get(at + 1).copied();
        match c {
            '\'' | '"' => {
                let opens = before.is_none_or(|b| b.is_ascii_whitespace() || b"=;|&`(".contains(&b));
                let closes = next.is_none_or(|b| b.is_ascii_whitespace() || b";|&`)".contains(&b));
                let inside = before.is_some_and(is_letter) && next.is_some_and(is_letter);
                let empty = next == Some(bytes[at]) || before == Some(bytes[at]);
                if !(opens || closes || inside || empty) {
                    out.push(c);
                }
            }
            '\\' if next.is_some_and(|b| b.is_ascii_lowercase() || b"-;'\"/".contains(&b))
                && !before.is_some_and(|b| b == b':' || b == b'\\') => {}
            '^' if before.is_some_and(is_letter) || next.is_some_and(is_letter) => {}
            '$' => {
                let rest = cut::from(text, at);
                let braced = ["${IFS}", "$IFS$9", "$IFS"].iter().find(|form| rest.starts_with(**form));
                let length = match (braced, next) {
                    (Some(form), _) => {
                        out.push(' ');
                        form.len()
                    }
                    (None, Some(b'@' | b'*' | b'1'..=b'9')) => 2,
                    (None, Some(b'{')) if before.is_some_and(is_letter) => {
                        rest.bytes().take(40).position(|b| b == b'}').map_or(0, |end| end + 1)
                    }
                    (None, Some(b)) if before.is_some_and(is_letter) && b.is_ascii_alphabetic() => {
                        1 + rest.bytes().skip(1).take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
                    }
                    _ => 0,
                };
                if length == 0 {
                    out.push(c);
                }
                while chars.next_if(|(next, _)| *next < at + length).is_some() {}
            }
            _ => out.push(c),
        }
    }
    out
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
#[test]
fn words_are_read_as_a_shell_reads_them() {
    for (written, read) in [
        ("w'h'o''ami", "whoami"),
        ("c\\at /e\\tc/pa\"s\"swd", "cat /etc/passwd"),
        ("cat${IFS}/etc/passwd", "cat /etc/passwd"),
        ("cat$IFS$9x", "cat x"),
        ("wh$@oami", "whoami"),
        ("who^ami", "whoami"),
        ("sh$XX -c id", "sh -c id"),
        (";'htop'", ";htop"),
    ] {
        assert_eq!(text(written), read);
    }
}
