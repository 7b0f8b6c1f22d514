//! A supervisor's view: signals in, plain lines out.

use rustix::process::Signal;

use super::files::is_decimal;
use super::{Pipes, Workspace};

#[test]
fn without_a_terminal_signals_reload_and_end_it_and_prices_are_plain_lines() {
    let workspace = Workspace::copy();
    let trader = Pipes::start(workspace.start());
    trader.expect_price("SOLUSDC: ");

    workspace.edit("SOLUSDC", "BTCUSDC");
    trader.signal(Signal::HUP);
    trader.expect("reload: now serving generation 2");
    trader.expect_price("BTCUSDC: ");
    assert_eq!(trader.exchange().requests("/api/v3/klines"), 1);

    let [prices, events] = trader.terminate();
    assert!(prices.raw().ends_with(b"\n"));
    for line in prices.lines() {
        assert!(is_replayed_price(&line), "{line:?}");
    }
    for output in [&prices, &events] {
        assert!(!output.raw().contains(&0x1b), "no escape codes: {:?}", output.lines());
    }
}

/// `^[A-Z]+: [0-9.]+ \(replay\)$`
fn is_replayed_price(line: &str) -> bool {
    let parts = line.strip_suffix(" (replay)").and_then(|line| line.split_once(": "));
    parts.is_some_and(|(symbol, price)| symbol.bytes().all(|byte| byte.is_ascii_uppercase()) && is_decimal(price))
}
