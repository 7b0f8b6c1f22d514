//! Undoes what an attacker wraps text in, until there is nothing left to undo.
//!
//! Every step reads its input once. The number of rounds is fixed, and a round never makes text longer, except the
//! first one, which may double it: a byte that is not UTF-8 becomes a character of two bytes.

mod base64;
mod entity;
mod escape;
mod percent;
mod utf8;

pub use base64::base64;
pub use percent::{form, percent};
pub use utf8::text;

/// Rounds of [`deeply`]. A server decodes once and a careless program once more; one round on top of that.
const ROUNDS: usize = 3;

/// The text behind every layer of encoding: percent (also `%uXXXX`), HTML entities, `\uXXXX` and `\xXX`, overlong UTF-8,
/// full-width letters, null bytes and characters without width.
pub fn deeply(once: &str) -> String {
    let mut text = fold(once);
    for _ in 0..ROUNDS {
        if !text.bytes().any(|byte| matches!(byte, b'%' | b'&' | b'\\')) {
            break;
        }
        let next = fold(&escape::decode(&entity::decode(&utf8::text(&percent::percent(text.as_bytes())))));
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// Full-width forms become ASCII; what cannot be seen is dropped.
fn fold(text: &str) -> String {
    // Nearly all of them: nothing in it is folded.
    if text.bytes().all(|byte| byte.is_ascii() && byte != 0) {
        return text.to_owned();
    }
    text.chars()
        .filter_map(|c| match c {
            '\0' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => None,
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0),
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{3000}' => Some(' '),
            _ => Some(c),
        })
        .collect()
}

/// The value of a hexadecimal number of exactly these digits.
fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_wrapping_comes_off() {
        for wrapped in [
            "<script>",
            "%3Cscript%3E",
            "%253Cscript%253E",
            "%25253Cscript%25253E",
            "%u003cscript%u003e",
            "&lt;script&gt;",
            "&#60;script&#62;",
            "&#x3c;script&#X3E;",
            "&#0000060script&#62",
            "\\u003cscript\\u003e",
            "\\u{3c}script\\u{3e}",
            "\\x3cscript\\x3e",
            "\u{ff1c}script\u{ff1e}",
            "%EF%BC%9Cscript%EF%BC%9E",
            "%c0%bcscript%c0%be",
            "%e0%80%bcscript%e0%80%be",
            "<scr%00ipt>",
            "<scr\u{200b}ipt>",
            "%26lt%3Bscript%26gt%3B",
        ] {
            assert_eq!(deeply(wrapped), "<script>", "{wrapped}");
        }
    }

    #[test]
    fn what_only_looks_encoded_is_left_alone() {
        for plain in
            ["100% sure", "50%-60%", "AT&T &c", "C:\\new\\users", "a & b; c", "&unknown;", "%", "%4", "&#;", "\\u12"]
        {
            assert_eq!(deeply(plain), plain);
        }
    }

    proptest! {
        #[test]
        fn decoding_is_bounded_and_never_panics(bytes in proptest::collection::vec(
            prop_oneof![Just(b'%'), Just(b'&'), Just(b'\\'), Just(b'#'), Just(b'x'), Just(b'u'), Just(b';'), 48u8..58, any::<u8>()],
            0..200))
        {
            prop_assert!(percent(&bytes).len() <= bytes.len());
            prop_assert!(form(&bytes).len() <= bytes.len());
            let once = text(&bytes);
            prop_assert!(once.len() <= 2 * bytes.len());
            prop_assert!(deeply(&once).len() <= 2 * once.len());
        }

        #[test]
        fn layers_of_percent_encoding_come_off(value in "[ -~]{0,40}", layers in 0usize..3) {
            prop_assume!(!value.contains(['%', '&', '\\']));
            let mut wrapped = value.clone();
            for _ in 0..layers {
                wrapped = wrapped.bytes().map(|byte| format!("%{byte:02x}")).collect();
            }
            prop_assert_eq!(deeply(&wrapped), value);
        }
    }
}
