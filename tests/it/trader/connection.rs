//! An exchange that fails.

use super::files::Shelf;
use super::terminal::CTRL_R;
use super::{Finished, Start, Terminal};

#[test]
fn an_exchange_that_drops_connections_during_a_reload_costs_no_state() {
    let plugins = Finished::plugins();
    let shelf = Shelf::with(&plugins.solusdc);
    let mut trader = Terminal::start(Start::with(&shelf.plugin));
    trader.price_of("SOLUSDC");

    trader.exchange.fail("drop", u64::MAX);
    shelf.replace(&plugins.btcusdc);
    trader.press(CTRL_R);
    trader.expect("reload: now serving generation 2");
    trader.output.find("the new plugin is told", |line| {
        (line.contains("next try in") && line.contains("generation=2")).then_some(())
    });
    trader.exchange.recover();

    trader.price_of("BTCUSDC");
    trader.assert_no_tick_is_lost();
    assert_eq!(trader.exchange.requests("/api/v3/klines"), 1);
    trader.quit();
}

#[test]
fn refusals_of_the_exchange_are_explained_and_outlived() {
    let shelf = Shelf::with(&Finished::plugins().solusdc);
    let trader = Terminal::start(Start::with(&shelf.plugin));
    trader.price_of("SOLUSDC");
    for (status, meaning) in [
        ("429", "HTTP 429 Too Many Requests: too many requests; continuing would lead to a ban; next try in 1."),
        ("418", "HTTP 418 I'm a teapot: the exchange has temporarily banned this address"),
        ("451", "HTTP 451 Unavailable For Legal Reasons: the exchange does not serve this location"),
        ("503", "HTTP 503 Service Unavailable: refused as requested; next try in "),
    ] {
        trader.exchange.fail(status, 1);
        trader.expect(meaning);
        trader.price_of("SOLUSDC");
    }
    trader.assert_no_tick_is_lost();
    trader.quit();
}
