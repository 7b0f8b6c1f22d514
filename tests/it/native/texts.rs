//! Text from plugins on its way to a log, a terminal or an error: escape codes do not get through.

use hotslot::HotSlot;
use hotslot::host::CallErrorKind;
use hotslot::native::Native;
use tracing::Level;

use super::methods::{FAIL, LOG, PANIC, SEND};
use super::process::alone;
use super::{builder, c_library, fixture, native};
use crate::support::Log;

/// Clears the screen, sets a title, forges a line, and writes backwards.
const HOSTILE: &str = "a\x1b[2J\x1b]0;title\x07\nERROR forged\r\u{9b}31m\u{202e}z";

fn is_harmless(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() || ('\u{202a}'..='\u{202e}').contains(&character))
}

/// Row 48.
#[test]
fn escape_codes_in_log_lines_arrive_neutralised_at_the_level_of_the_plugin() {
    alone(|| {
        let log = Log::capture();
        let backend = native().on_message(|_, _| panic!("the host panics on purpose"));
        let slot = HotSlot::builder(backend).open(fixture()).unwrap();
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        for (number, level) in (0u8..).zip(levels) {
            slot.load().call(LOG, &[&[number], HOSTILE.as_bytes()].concat()).unwrap();
            let line = log.last("hotslot::plugin");
            assert_eq!(line.0, level);
            assert!(line.1.contains("\\u{1b}[2J") && line.1.contains("plugin=\"fixture\""), "{}", line.1);
        }
        // A panic is logged by the plugin's own hook, with its place.
        slot.load().call(PANIC, HOSTILE.as_bytes()).unwrap_err();
        let (level, line) = log.with("hotslot::plugin", "panicked at");
        assert!(level == Level::ERROR && line.contains("lib.rs"), "{line}");
        // One that is too long is cut.
        slot.load().call(LOG, &[&[2], [b'x'; 100_000].as_slice()].concat()).unwrap();
        assert!(log.last("hotslot::plugin").1.len() < 10_000);
        // So is a panic of the host while it takes a message.
        slot.load().call(SEND, b"142.31").unwrap();
        let (level, line) = log.last("hotslot::host::offers");
        assert!(level == Level::ERROR && line.contains("on_message panicked") && line.contains("on purpose"), "{line}");
        slot.reload(c_library("counter.c", &[])).unwrap();
        assert!(log.last("hotslot::plugin").1.contains("made in C"));
        for line in log.lines() {
            assert!(is_harmless(&line), "{line:?}");
        }
    });
}

/// Row 48.
#[test]
fn escape_codes_in_errors_and_panics_arrive_neutralised() {
    let slot = builder().open(fixture()).unwrap();
    for method in [FAIL, PANIC] {
        let error = slot.load().call(method, HOSTILE.as_bytes()).unwrap_err();
        assert!(is_harmless(&error.to_string()), "{error}");
        assert!(matches!(error.kind(), CallErrorKind::Failed | CallErrorKind::Panicked), "{error}");
        let text = error.to_string();
        let text = text.strip_prefix("the plugin panicked: ").unwrap_or(&text);
        assert!(text.starts_with("a\\u{1b}[2J"), "{text}");
    }
    let remembered = slot.status().serving.unwrap().last_failure.unwrap();
    assert!(is_harmless(&remembered), "{remembered}");
}

/// Row 48: names that only the loader reads.
#[test]
fn escape_codes_in_a_symbol_arrive_neutralised() {
    let mut library = c_library("undefined.c", &[]);
    let name = b"nobody_has_this\0";
    let at = library.windows(name.len()).position(|window| window == name).unwrap();
    library[at..at + 6].copy_from_slice(b"\x1b[2J\x07\n");
    // SAFETY: the library is not loaded: the loader refuses it.
    let backend = unsafe { Native::raw(|_| Ok(())) };
    let error = HotSlot::builder(backend).open(library).unwrap_err().to_string();
    assert!(error.contains("undefined symbol") && error.contains("\\u{1b}[2J"), "{error}");
    assert!(is_harmless(&error), "{error}");
}
