//! A supervisor's view: signals in, plain lines out.

#[cfg(target_os = "linux")]
use std::{fs::File, process::Stdio};

use rustix::process::Signal;

#[cfg(target_os = "linux")]
use super::files::Shelf;
use super::files::is_decimal;
#[cfg(target_os = "linux")]
use super::{Finished, Start};
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

/// Somebody has to be told, unlike where nobody reads any more.
#[cfg(target_os = "linux")]
#[test]
fn prices_that_cannot_be_written_end_it_with_an_error() {
    let shelf = Shelf::with(&Finished::plugins().solusdc);
    let run =
        |prices: Stdio| Start::with(&shelf.plugin).command().stdin(Stdio::null()).stdout(prices).output().unwrap();
    let full = run(File::options().write(true).open("/dev/full").unwrap().into());
    let said = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().starts_with("trader: the prices cannot be written: "), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = run(writer.into());
    assert_eq!(closed.status.code(), Some(0), "{}", String::from_utf8_lossy(&closed.stderr));
}

/// `^[A-Z]+: [0-9.]+ \(replay\)$`
fn is_replayed_price(line: &str) -> bool {
    let parts = line.strip_suffix(" (replay)").and_then(|line| line.split_once(": "));
    parts.is_some_and(|(symbol, price)| symbol.bytes().all(|byte| byte.is_ascii_uppercase()) && is_decimal(price))
}
