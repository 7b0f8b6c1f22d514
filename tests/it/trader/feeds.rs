//! Where prices come from, and that it is said.

use super::files::{Shelf, is_decimal};
use super::{Finished, Pipes, Start};

#[test]
fn prices_are_shown_as_live_only_if_they_are() {
    let shelf = Shelf::with(&Finished::plugins().solusdc);
    let start = || Start::with(&shelf.plugin);

    // Nothing listens on this port.
    let without_binance = Pipes::start(start().feed("auto", "http://127.0.0.1:1"));
    without_binance.expect("REPLAY: synthetic prices from ");
    let price = without_binance.expect_price("SOLUSDC: ");
    assert!(price.ends_with(" (replay)"), "{price}");

    // Another trader's exchange stands in for Binance.
    let binance = without_binance.exchange().url();
    let with_binance = Pipes::start(start().feed("binance", &binance));
    with_binance.expect(&format!("live prices from {binance}"));
    let price = with_binance.expect_price("SOLUSDC: ");
    assert!(is_decimal(price.trim_start_matches("SOLUSDC: ")), "{price}");

    with_binance.terminate();
    without_binance.terminate();
}
