//! Text that is cut at an offset.
//!
//! What stands at an offset is up to whoever sent the request. `text[at..]` would panic inside of a character; here such an
//! offset means the beginning of that character, and one behind the end means the end.

/// The text in front of an offset.
pub(crate) fn until(text: &str, at: usize) -> &str {
    text.split_at(text.floor_char_boundary(at)).0
}

/// The text from an offset on.
pub(crate) fn from(text: &str, at: usize) -> &str {
    text.split_at(text.floor_char_boundary(at)).1
}

/// The text between two offsets.
pub(crate) fn between(text: &str, start: usize, end: usize) -> &str {
    from(until(text, end), start)
}

/// The byte at an offset, if there is one.
pub(crate) fn byte(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied()
}

/// The byte in front of an offset, if there is one.
pub(crate) fn byte_before(text: &str, at: usize) -> Option<u8> {
    byte(text, at.checked_sub(1)?)
}

#[cfg(test)]
#[test]
fn no_offset_is_inside_of_a_character() {
    let text = "a½😀";
    let wanted = ["", "a", "a", "a½", "a½", "a½", "a½", "a½😀", "a½😀"];
    for (at, head) in wanted.into_iter().enumerate() {
        assert_eq!(until(text, at), head);
        assert_eq!(format!("{head}{}", from(text, at)), text);
    }
    assert_eq!(between(text, 2, 6), "½");
    assert_eq!(between(text, 6, 2), "");
    assert_eq!(
        (byte(text, 0), byte(text, 7), byte_before(text, 0), byte_before(text, 1)),
        (Some(b'a'), None, None, Some(b'a'))
    );
}
