//! Text from a plugin can neither steer the terminal nor forge a line.

use rustix::process::Signal;

use super::files::Shelf;
use super::terminal::CTRL_R;
use super::{Finished, Output, Pipes, Start, Terminal};

/// The hostile plugins, with what is said about each.
fn attacks() -> [(&'static [u8], &'static str); 4] {
    let plugins = Finished::plugins();
    [
        (&plugins.hostile_at_create, "refused at load: the rehearsal refused the plugin: "),
        (&plugins.hostile_at_restore, "refused at hand_over: "),
        (&plugins.hostile, "rolled back automatically, because its run failed"),
        (&plugins.hostile_in_panic, "rolled back automatically, because its run failed"),
    ]
}

#[test]
fn a_plugin_cannot_steer_the_terminal_or_forge_a_line() {
    let shelf = Shelf::with(&Finished::plugins().solusdc);
    let mut trader = Terminal::start(Start::with(&shelf.plugin));
    trader.price_of("SOLUSDC");
    for (plugin, answer) in attacks() {
        shelf.replace(plugin);
        trader.press(CTRL_R);
        let line = trader.expect(answer);
        assert!(is_neutral(&line), "{line}");
        trader.price_of("SOLUSDC");
    }
    trader.press("h");
    for _ in attacks() {
        trader.output.find("what is remembered", |line| (line.starts_with('#') && is_neutral(line)).then_some(()));
    }
    let output = trader.quit();

    // The trader's own escape codes are here too, but it has no use for these.
    for payload in [b"\x1b]".as_slice(), b"\x07", b"\x1b[2J", b"\x1b[31m", b"\x08", b"\xc2\x9b", b"\x9b2J", b"\x9d0;"] {
        assert!(!contains(&output.raw(), payload), "{payload:?} came through");
    }
    assert_nothing_forged(&output);
}

#[test]
fn a_plugin_cannot_put_control_characters_into_a_pipe() {
    let shelf = Shelf::with(&Finished::plugins().solusdc);
    let trader = Pipes::start(Start::with(&shelf.plugin));
    trader.expect_price("SOLUSDC: ");
    for (plugin, answer) in attacks() {
        shelf.replace(plugin);
        trader.signal(Signal::HUP);
        let line = trader.expect(answer);
        assert!(is_neutral(&line), "{line}");
        trader.expect_price("SOLUSDC: ");
    }
    for output in trader.terminate() {
        let text = String::from_utf8(output.raw()).expect("what is printed is UTF-8");
        let steers = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
        assert!(!text.contains(steers), "{text:?}");
        assert_nothing_forged(&output);
    }
}

/// Whether the attack is there, as something to read.
fn is_neutral(line: &str) -> bool {
    line.contains("\\u{1b}]0;owned\\u{7}")
}

#[track_caller]
fn assert_nothing_forged(output: &Output) {
    let lines = output.lines();
    assert!(lines.iter().any(|line| line.contains("owned")), "the attack was made");
    let forged = lines.iter().find(|line| line.starts_with("BTCUSDC"));
    assert!(forged.is_none(), "forged: {forged:?}");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
