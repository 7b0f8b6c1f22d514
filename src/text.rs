//! Text from a plugin, made safe to print.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Escapes every character that could control a terminal or forge a log line.
///
/// Control characters (ESC and the C1 range included, and the line breaks), Unicode's bidirectional overrides and its
/// invisible line separators become `\u{…}`; everything else stays.
///
/// ```
/// assert_eq!(hotslot::escape_untrusted("142.31 ▲"), "142.31 ▲");
/// assert_eq!(hotslot::escape_untrusted("\x1b[2Jgone"), "\\u{1b}[2Jgone");
/// ```
pub fn escape_untrusted(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// Whether a character does something to its surroundings rather than stand for itself.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns a plugin's text as the host may print it: at most `limit` bytes of it, what is not UTF-8 replaced, and
/// [escaped](escape_untrusted).
///
/// ```
/// assert_eq!(hotslot::host::plugin_text(b"a\x1b[2J\xff", 64), "a\\u{1b}[2J\u{fffd}");
/// assert_eq!(hotslot::host::plugin_text(&[b'x'; 100], 3), "xxx\u{2026}");
/// ```
pub fn plugin_text(bytes: &[u8], limit: usize) -> String {
    let shown = &bytes[..bytes.len().min(limit)];
    let mut text = escape_untrusted(&String::from_utf8_lossy(shown)).into_owned();
    if shown.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// The text of a panic. A payload of another type may have a destructor that panics in turn; that ends here, too.
pub(crate) fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = match payload.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => payload.downcast_ref::<&str>().map_or("a panic without a text", |text| *text).to_owned(),
    };
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // One panic after the other could go on for ever.
        std::mem::forget(another);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::plugin_text;

    #[test]
    fn text_from_a_plugin_is_cut_and_neutralised() {
        assert_eq!(plugin_text(b"142.31", 64), "142.31");
        assert_eq!(plugin_text(b"a\x1b[2J\xff", 64), "a\\u{1b}[2J\u{fffd}");
        assert_eq!(plugin_text(&[b'x'; 100], 3), "xxx…");
    }
}
