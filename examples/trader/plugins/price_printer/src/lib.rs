//! Prints the price of one symbol. Edit `SYMBOL` while the trader runs, and press ctrl+r in it.

use hotslot_plugin::{Error, Host, Plugin, Stop, export};
use trader_feed::{Feed, INTERFACE, Indicator, Price, Quote, binance};

const SYMBOL: &str = "SOLUSDC";

struct PricePrinter {
    feed: Feed,
}

impl Plugin for PricePrinter {
    const INTERFACE: &'static str = INTERFACE;
    const SCHEMA: &'static str = Indicator::SCHEMA;

    fn create(host: Host) -> Result<Self, Error> {
        Ok(PricePrinter { feed: Feed::new(host, SYMBOL)? })
    }

    fn run(&self, stop: &Stop) -> Result<(), Error> {
        let base = &self.feed.config().binance;
        self.feed.run(
            stop,
            async |http| binance::closes(http, base, SYMBOL).await,
            async |http| {
                let ticker = http.get(&format!("{base}/api/v3/ticker/price?symbol={SYMBOL}")).await?;
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

export!(PricePrinter);
