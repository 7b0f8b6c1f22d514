//! Editing the plugin's source while the trader runs.

use super::terminal::CTRL_R;
use super::{Terminal, Workspace};

#[test]
fn an_edit_and_a_key_run_the_new_code_with_the_old_state_in_the_same_process() {
    let workspace = Workspace::copy();
    let mut trader = Terminal::start(workspace.start());
    trader.price_of("SOLUSDC");
    let mut serves = "SOLUSDC";
    for (generation, symbol) in (2..).zip(["BTCUSDC", "ETHUSDC", "DOGEUSDC", "SOLUSDC", "BTCUSDC"]) {
        workspace.edit(serves, symbol);
        trader.press(CTRL_R);
        trader.expect(&format!("reload: now serving generation {generation}"));
        trader.price_of(symbol);
        serves = symbol;
    }
    trader.output.wait_for_sight("REPLAY | price_printer 0.1.0 | BTCUSDC | gen 6 | up 00:");
    trader.output.wait_for_sight("| last reload ");
    trader.assert_no_tick_is_lost();
    assert_eq!(trader.exchange.requests("/api/v3/klines"), 1, "only the first one warms up");
    assert!(trader.is_running());
    trader.quit();
}

#[test]
fn a_compiler_error_is_shown_and_the_old_code_goes_on_until_it_is_mended() {
    let workspace = Workspace::copy();
    let mut trader = Terminal::start(workspace.start());
    trader.price_of("SOLUSDC");

    workspace.edit("\"SOLUSDC\"", "BTCUSDC");
    trader.press(CTRL_R);
    trader.expect("error[E0425]: cannot find value `BTCUSDC`");
    trader.expect("cargo could not build the plugin: nothing changed");
    trader.price_of("SOLUSDC");

    workspace.edit("= BTCUSDC", "= \"BTCUSDC\"");
    trader.press(CTRL_R);
    trader.expect("reload: now serving generation 2");
    trader.price_of("BTCUSDC");
    trader.assert_no_tick_is_lost();
    trader.quit();
}

#[test]
fn the_same_code_again_changes_nothing() {
    let workspace = Workspace::copy();
    let mut trader = Terminal::start(workspace.start());
    trader.price_of("SOLUSDC");
    trader.press(CTRL_R);
    trader.expect("reload: unchanged, still serving generation 1");
    trader.price_of("SOLUSDC");
    trader.assert_no_tick_is_lost();
    trader.quit();
}
