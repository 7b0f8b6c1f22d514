//! Prints a price from a second exchange, Coinbase. See <https://docs.cdp.coinbase.com/exchange/introduction>.

use hotslot_plugin::{Error, Host, Plugin, Stop, export};
use trader_feed::{Failure, Feed, Http, INTERFACE, Indicator, Json, Price, Quote};

const PRODUCT: &str = "SOL-USD";

struct SecondVenue {
    feed: Feed,
}

impl Plugin for SecondVenue {
    const INTERFACE: &'static str = INTERFACE;
    const SCHEMA: &'static str = Indicator::SCHEMA;

    fn create(host: Host) -> Result<Self, Error> {
        Ok(SecondVenue { feed: Feed::new(host, PRODUCT)? })
    }

    fn run(&self, stop: &Stop) -> Result<(), Error> {
        let base = &self.feed.config().coinbase;
        self.feed.run(
            stop,
            async |http| closes(http, base).await,
            async |http| {
                let ticker = http.get(&format!("{base}/products/{PRODUCT}/ticker")).await?;
                Price::from_json(&ticker["price"]).map(Quote::from)
            },
        )
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(self.feed.save())
    }

    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
        self.feed.restore(schema, state)
    }
}

/// The closing prices of the last one-minute candles, oldest first.
async fn closes(http: &Http, base: &str) -> Result<Vec<f64>, Failure> {
    let candles = http.get(&format!("{base}/products/{PRODUCT}/candles?granularity=60")).await?;
    // A candle is an array: time, low, high, open, close, volume. The newest comes first.
    let close = |candle: &Json| candle[4].as_f64();
    let closes = candles.as_array().and_then(|candles| candles.iter().rev().map(close).collect());
    closes.ok_or_else(|| Failure::from("the exchange's candles have an unknown shape"))
}

export!(SecondVenue);
