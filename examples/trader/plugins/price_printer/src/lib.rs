//! Prints the price of one symbol. Edit `SYMBOL` while the trader runs, and press ctrl+r in it.

use trader_feed::{Config, Failure, Http, Polled, Price, PriceFeed, Quote, Source};

const SYMBOL: &str = "SOLUSDC";

struct PricePrinter;

impl Source for PricePrinter {
    const SYMBOL: &'static str = SYMBOL;

    async fn quote(http: &Http, config: &Config) -> Result<Quote, Failure> {
        let ticker = http.get(&format!("{}/api/v3/ticker/price?symbol={SYMBOL}", config.binance)).await?;
        Price::from_json(&ticker["price"]).map(Quote::from)
    }
}

hotslot_plugin::export!(Polled<PricePrinter> as PriceFeed);
