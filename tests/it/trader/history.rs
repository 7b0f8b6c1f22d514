//! Going back, looking back, and leaving.

use rustix::process::Signal;

use super::files::Shelf;
use super::terminal::{CTRL_B, CTRL_R};
use super::{Finished, Start, Terminal};

#[test]
fn keys_roll_back_and_show_the_history_with_the_refused_attempts() {
    let plugins = Finished::plugins();
    let shelf = Shelf::with(&plugins.solusdc);
    let mut trader = Terminal::start(Start::with(&shelf.plugin));
    trader.price_of("SOLUSDC");
    assert!(trader.is_taken(), "keys come one by one");

    shelf.replace(b"no plugin");
    trader.press(CTRL_R);
    trader.expect("refused at admit");

    shelf.replace(&plugins.btcusdc);
    trader.press(CTRL_R);
    trader.expect("reload: now serving generation 2");
    let first_of_new = trader.price_of("BTCUSDC").tick;

    trader.press(CTRL_B);
    trader.expect("rollback: now serving generation 1");
    trader.price_of("SOLUSDC");
    let prices = trader.prices();
    let again = prices.iter().skip_while(|price| price.symbol == "SOLUSDC").find(|price| price.symbol == "SOLUSDC");
    assert_eq!(again.unwrap().tick, first_of_new, "it has the state that it had when it stopped: {prices:?}");

    trader.press(CTRL_B);
    trader.expect("refused at commit: ");

    trader.press("h");
    for entry in [
        "opened: now serving generation 1, version 0.1.0",
        "reload: refused at admit",
        "reload: now serving generation 2",
        "rollback: now serving generation 1",
        "rollback: refused at",
    ] {
        trader.output.find(entry, |line| (line.starts_with('#') && line.contains(entry)).then_some(()));
    }
    trader.quit();
}

#[test]
fn a_signal_ends_it_and_the_terminal_is_as_before() {
    let shelf = Shelf::with(&Finished::plugins().solusdc);
    let trader = Terminal::start(Start::with(&shelf.plugin));
    trader.price_of("SOLUSDC");
    trader.signal(Signal::TERM);
    trader.ended();
}
