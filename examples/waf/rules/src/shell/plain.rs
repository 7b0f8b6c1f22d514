//! Undoes what a shell undoes inside of a word: quotes, backslashes, carets, and variables that are empty.

use std::ops::{Deref, Range};

use crate::cut;

/// The text as the shell would read its words. Separators, redirections and `$(` stay.
pub(super) struct Plain {
    text: String,
    /// Where something was left out, in order.
    dropped: Vec<usize>,
}

impl Deref for Plain {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl Plain {
    /// Whether something was left out between the first and the last byte of a piece.
    pub(super) fn dropped_inside(&self, piece: Range<usize>) -> bool {
        let next = self.dropped.partition_point(|at| *at <= piece.start);
        self.dropped.get(next).is_some_and(|at| *at < piece.end)
    }

    pub(super) fn of(text: &str) -> Plain {
        let mut out = String::with_capacity(text.len());
        let mut dropped = Vec::new();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let before = cut::byte_before(text, at);
            let next = cut::byte(text, at + 1);
            match c {
                '\'' | '"' => {
                    let opens = before.is_none_or(|b| b.is_ascii_whitespace() || b"=;|&`(".contains(&b));
                    let closes = next.is_none_or(|b| b.is_ascii_whitespace() || b";|&`)".contains(&b));
                    let inside = before.is_some_and(is_letter) && next.is_some_and(is_letter);
                    let same = |byte: Option<u8>| byte.is_some_and(|byte| char::from(byte) == c);
                    if opens || closes || inside || same(next) || same(before) {
                        dropped.push(out.len());
                    } else {
                        out.push(c);
                    }
                }
                '\\' if next.is_some_and(|b| b.is_ascii_lowercase() || b"-;'\"/".contains(&b))
                    && !before.is_some_and(|b| b == b':' || b == b'\\') =>
                {
                    dropped.push(out.len());
                }
                '^' if before.is_some_and(is_letter) || next.is_some_and(is_letter) => dropped.push(out.len()),
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
                    } else {
                        dropped.push(out.len());
                    }
                    while chars.next_if(|(next, _)| *next < at + length).is_some() {}
                }
                _ => out.push(c),
            }
        }
        Plain { text: out, dropped }
    }
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
        assert_eq!(&*Plain::of(written), read);
    }
}

#[cfg(test)]
#[test]
fn a_word_with_something_left_out_is_known() {
    for (written, hidden) in
        [("w'h'oami", true), ("'whoami'", false), ("who^ami", true), ("wh$@oami", true), ("whoami$@", false)]
    {
        let plain = Plain::of(written);
        assert_eq!(plain.dropped_inside(0..plain.len()), hidden, "{written}");
    }
}
