//! `--watch`: reloads without being asked, and never half of a plugin.

use std::fs::File;
use std::io::Write;

use super::files::Shelf;
use super::{Finished, Start, Terminal, Workspace};

#[test]
fn a_file_that_is_written_slowly_serves_when_it_is_whole() {
    let plugins = Finished::plugins();
    let shelf = Shelf::with(&plugins.solusdc);
    let trader = Terminal::start(Start::with(&shelf.plugin).watching());
    trader.price_of("SOLUSDC");

    // So slow a writer that the half file settles.
    let (half, rest) = plugins.btcusdc.split_at(plugins.btcusdc.len() / 2);
    let mut file = File::create(&shelf.plugin).unwrap();
    file.write_all(half).unwrap();
    trader.expect("refused at admit: ");
    trader.price_of("SOLUSDC");
    file.write_all(rest).unwrap();
    drop(file);
    trader.expect("reload: now serving generation 2");
    trader.price_of("BTCUSDC");

    trader.assert_no_tick_is_lost();
    trader.quit();
}

#[test]
fn a_file_that_is_replaced_at_once_is_never_seen_in_part() {
    let plugins = Finished::plugins();
    let shelf = Shelf::with(&plugins.solusdc);
    let trader = Terminal::start(Start::with(&shelf.plugin).watching());
    trader.price_of("SOLUSDC");
    shelf.replace(&plugins.btcusdc);
    trader.expect("reload: now serving generation 2");
    trader.price_of("BTCUSDC");
    shelf.replace(&plugins.solusdc);
    trader.expect("reload: now serving generation 3");
    trader.price_of("SOLUSDC");
    trader.assert_no_tick_is_lost();
    let output = trader.quit();
    assert!(!output.lines().iter().any(|line| line.contains("refused")), "{:#?}", output.lines());
}

/// FAULTS 81: the plugin's name stays, and a link on the way to it leads elsewhere.
#[cfg(unix)]
#[test]
fn a_link_to_another_release_is_a_change() {
    let plugins = Finished::plugins();
    let (first, second) = (Shelf::with(&plugins.solusdc), Shelf::with(&plugins.btcusdc));
    let links = Shelf::with(b"nobody's");
    let at = links.plugin.with_file_name("current");
    let link = |shelf: &Shelf| {
        let new = links.plugin.with_file_name("new");
        std::os::unix::fs::symlink(shelf.plugin.parent().unwrap(), &new).unwrap();
        std::fs::rename(new, &at).unwrap();
    };
    link(&first);
    let trader = Terminal::start(Start::with(&at.join("plugin.so")).watching());
    trader.price_of("SOLUSDC");
    link(&second);
    trader.expect("reload: now serving generation 2");
    trader.price_of("BTCUSDC");
    trader.assert_no_tick_is_lost();
    trader.quit();
}

#[test]
fn a_crate_is_rebuilt_after_an_edit() {
    let workspace = Workspace::copy();
    let trader = Terminal::start(workspace.start().watching());
    trader.price_of("SOLUSDC");
    workspace.edit("SOLUSDC", "BTCUSDC");
    trader.expect("reload: now serving generation 2");
    trader.price_of("BTCUSDC");
    trader.assert_no_tick_is_lost();
    trader.quit();
}
