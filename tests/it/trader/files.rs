//! Finished plugins, as files that come, change and go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::terminal::CTRL_R;
use super::{Finished, Pipes, Start, Terminal};

/// A folder with one plugin in it, which goes with the test.
pub(crate) struct Shelf {
    folder: PathBuf,
    pub(crate) plugin: PathBuf,
}

impl Shelf {
    pub(crate) fn with(plugin: &[u8]) -> Shelf {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shelf-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let shelf = Shelf { plugin: folder.join("plugin.so"), folder };
        shelf.replace(plugin);
        shelf
    }

    /// Puts another file in the plugin's place, all at once.
    pub(crate) fn replace(&self, bytes: &[u8]) {
        let new = self.folder.join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, &self.plugin).unwrap();
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn plugins_of_other_crates_take_the_state_over_and_print_in_their_own_way() {
    let plugins = Finished::plugins();
    let shelf = Shelf::with(&plugins.solusdc);
    let mut trader = Terminal::start(Start::with(&shelf.plugin));
    assert!(is_decimal(&trader.price_of("SOLUSDC").text));

    shelf.replace(&plugins.spread);
    trader.press(CTRL_R);
    trader.expect("reload: now serving generation 2");
    let shown = trader.price_of("SOLUSDC").text;
    let (bid, rest) = shown.split_once(" / ").unwrap();
    let (ask, spread) = rest.split_once(", spread ").unwrap();
    assert!([bid, ask, spread].into_iter().all(is_decimal), "{shown}");

    shelf.replace(&plugins.second_venue);
    trader.press(CTRL_R);
    trader.expect("reload: now serving generation 3");
    assert!(is_decimal(&trader.price_of("SOL-USD").text));

    trader.assert_no_tick_is_lost();
    assert_eq!(trader.exchange.requests("/api/v3/klines"), 1);
    assert_eq!(trader.exchange.requests("/products/SOL-USD/candles"), 0);
    trader.quit();
}

#[test]
fn a_file_that_is_no_plugin_is_refused_with_a_reason_and_the_old_one_goes_on() {
    let plugins = Finished::plugins();
    let shelf = Shelf::with(&plugins.solusdc);
    let mut trader = Terminal::start(Start::with(&shelf.plugin));
    trader.price();

    let cut_short = &plugins.btcusdc[..plugins.btcusdc.len() / 2];
    for bytes in [b"no plugin".as_slice(), b"", cut_short] {
        shelf.replace(bytes);
        trader.press(CTRL_R);
        let refusal = trader.expect("refused at admit: ");
        assert!(refusal.contains("still serving: generation 1"), "{refusal}");
        trader.price_of("SOLUSDC");
    }

    fs::remove_file(&shelf.plugin).unwrap();
    trader.press(CTRL_R);
    trader.expect("cannot read ");
    trader.price_of("SOLUSDC");
    trader.assert_no_tick_is_lost();
    trader.quit();
}

#[test]
fn without_a_first_plugin_it_ends_and_says_why() {
    let shelf = Shelf::with(b"no plugin");
    let [prices, events] = Pipes::start(Start::with(&shelf.plugin)).ended(1);
    assert_eq!(prices.raw(), b"");
    let events = events.lines();
    assert!(events.last().unwrap().starts_with("trader: refused at admit: "), "{events:#?}");
}

#[test]
fn nothing_happens_to_a_plugin_whose_file_is_overwritten_or_truncated() {
    let shelf = Shelf::with(&Finished::plugins().solusdc);
    let trader = Terminal::start(Start::with(&shelf.plugin));
    trader.price();

    // In place: same inode, so that a mapping of the file itself would change, or fault.
    let length = fs::metadata(&shelf.plugin).unwrap().len();
    fs::write(&shelf.plugin, vec![0xcc; usize::try_from(length).unwrap()]).unwrap();
    (0..3).for_each(|_| drop(trader.price_of("SOLUSDC")));
    fs::write(&shelf.plugin, b"").unwrap();
    (0..3).for_each(|_| drop(trader.price_of("SOLUSDC")));

    trader.assert_no_tick_is_lost();
    trader.quit();
}

pub(crate) fn is_decimal(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|price| price > 0.0)
}
