//! Prints the best bid, the best ask and the spread of a symbol.

use trader_feed::{Config, Failure, Http, Polled, Price, PriceFeed, Quote, Source};

const SYMBOL: &str = "SOLUSDC";

struct Spread;

impl Source for Spread {
    const SYMBOL: &'static str = SYMBOL;

    async fn quote(http: &Http, config: &Config) -> Result<Quote, Failure> {
        let book = http.get(&format!("{}/api/v3/depth?symbol={SYMBOL}&limit=1", config.binance)).await?;
        // A level of the book is an array: price, quantity.
        let bid = Price::from_json(&book["bids"][0][0])?;
        let ask = Price::from_json(&book["asks"][0][0])?;
        let text = format!("{bid} / {ask}, spread {}", ask - bid);
        Ok(Quote { price: bid.with_value((bid.value + ask.value) / 2.0), text })
    }
}

hotslot_plugin::export!(Polled<Spread> as PriceFeed);
