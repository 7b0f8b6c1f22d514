//! Command-line options.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Prints prices from a plugin that can be hot-reloaded while it runs.
///
/// Keys on a terminal: ctrl+r rebuilds and reloads the plugin, ctrl+b rolls back, h shows the history, ctrl+c quits.
/// Without one: SIGHUP reloads, SIGTERM quits; prices are lines on standard output, everything else goes to standard
/// error.
#[derive(Parser)]
#[command(name = "trader", version)]
pub struct Options {
    /// The plugin: a crate's directory, which is built with cargo, or a library file
    #[arg(long, value_name = "PATH", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/trader/plugins/price_printer"))]
    pub plugin: PathBuf,

    /// Reload whenever the plugin's source or its file has changed and has been stable for half a second
    #[arg(long)]
    pub watch: bool,

    /// Where prices come from
    #[arg(long, value_enum, default_value_t = Feed::Auto)]
    pub feed: Feed,

    /// The time between prices, for instance 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub interval: Duration,

    /// The base URL of Binance's API
    #[arg(long, value_name = "URL", default_value = trader_feed::BINANCE)]
    pub binance_url: String,

    /// The base URL of Coinbase Exchange's API
    #[arg(long, value_name = "URL", default_value = trader_feed::COINBASE)]
    pub coinbase_url: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Feed {
    /// The live exchanges if Binance answers, the replay otherwise
    Auto,
    /// The live exchanges
    Binance,
    /// A synthetic exchange inside this program
    Replay,
}

/// Parses a whole number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|character: char| character.is_ascii_digit());
    let (number, _) = text.split_at(text.len() - unit.len());
    let number = number.parse().ok().filter(|number: &u64| *number > 0);
    match (number, unit) {
        (Some(number), "ms") => Ok(Duration::from_millis(number)),
        (Some(number), "s") => Ok(Duration::from_secs(number)),
        (Some(number), "m") => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("expected a positive whole number followed by ms, s or m".to_owned()),
    }
}
