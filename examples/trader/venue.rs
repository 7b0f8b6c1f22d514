//! Where prices come from: the live exchanges, or the replay.

use std::time::Duration;

use hotslot::BoxError;
use trader_feed::{Config, Http};

use crate::cli::{Feed, Options};
use crate::replay::Exchange;

/// How long `--feed auto` waits for Binance.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The chosen exchanges, and how to announce them.
pub struct Venue {
    /// The configuration for plugins.
    pub config: Config,
    /// Whether the prices are synthetic, so that nobody mistakes them for live ones.
    pub is_replay: bool,
    /// The choice and its reason, in one line.
    pub notice: String,
}

impl Venue {
    pub fn choose(options: &Options) -> Result<Venue, BoxError> {
        match options.feed {
            Feed::Binance => Ok(Venue::live(options)),
            Feed::Replay => Venue::replay(options, "as asked for"),
            Feed::Auto => match ping(&options.binance_url) {
                Ok(()) => Ok(Venue::live(options)),
                Err(reason) => Venue::replay(options, &format!("Binance does not answer: {reason}")),
            },
        }
    }

    fn live(options: &Options) -> Venue {
        let (binance, coinbase) = (options.binance_url.clone(), options.coinbase_url.clone());
        let notice = format!("live prices from {binance} and {coinbase}");
        Venue { config: Config { binance, coinbase, interval: options.interval }, is_replay: false, notice }
    }

    fn replay(options: &Options, reason: &str) -> Result<Venue, BoxError> {
        let url = Exchange::start()?.url();
        let notice = format!("REPLAY: synthetic prices from {url} ({reason})");
        let config = Config { binance: url.clone(), coinbase: url, interval: options.interval };
        Ok(Venue { config, is_replay: true, notice })
    }
}

/// Checks once whether Binance answers.
fn ping(base: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let url = format!("{base}/api/v3/ping");
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, Http::default().get(&url)).await });
    // A DNS lookup may still be running; do not wait for it.
    runtime.shutdown_background();
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(_) => Err(format!("{url}: no answer within {PATIENCE:?}")),
    }
}
