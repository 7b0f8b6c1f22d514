//! Prints what a symbol can be sold and bought for: best bid, best ask, and the spread between them.

use hotslot_plugin::{Error, Host, Plugin, Stop, export};
use trader_feed::{Feed, INTERFACE, Indicator, Price, Quote, binance};

const SYMBOL: &str = "SOLUSDC";

struct Spread {
    feed: Feed,
}

impl Plugin for Spread {
    const INTERFACE: &'static str = INTERFACE;
    const SCHEMA: &'static str = Indicator::SCHEMA;

    fn create(host: Host) -> Result<Self, Error> {
        Ok(Spread { feed: Feed::new(host, SYMBOL)? })
    }

    fn run(&self, stop: &Stop) -> Result<(), Error> {
        let base = &self.feed.config().binance;
        self.feed.run(
            stop,
            async |http| binance::closes(http, base, SYMBOL).await,
            async |http| {
                let book = http.get(&format!("{base}/api/v3/depth?symbol={SYMBOL}&limit=1")).await?;
                // A level of the book is an array: price, quantity.
                let bid = Price::from_json(&book["bids"][0][0])?;
                let ask = Price::from_json(&book["asks"][0][0])?;
                let text = format!("{bid} / {ask}, spread {}", ask - bid);
                Ok(Quote { price: bid.with_value((bid.value + ask.value) / 2.0), text })
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

export!(Spread);
