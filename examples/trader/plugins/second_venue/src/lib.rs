//! Prints a price from a second exchange, Coinbase. See <https://docs.cdp.coinbase.com/exchange/introduction>.

use trader_feed::{Config, Failure, Http, Json, Polled, Price, PriceFeed, Quote, Source};

const PRODUCT: &str = "SOL-USD";

struct SecondVenue;

impl Source for SecondVenue {
    const SYMBOL: &'static str = PRODUCT;

    async fn quote(http: &Http, config: &Config) -> Result<Quote, Failure> {
        let ticker = http.get(&format!("{}/products/{PRODUCT}/ticker", config.coinbase)).await?;
        Price::from_json(&ticker["price"]).map(Quote::from)
    }

    async fn closes(http: &Http, config: &Config) -> Result<Vec<f64>, Failure> {
        let candles = http.get(&format!("{}/products/{PRODUCT}/candles?granularity=60", config.coinbase)).await?;
        // A candle is an array: time, low, high, open, close, volume. The newest comes first.
        let close = |candle: &Json| candle[4].as_f64();
        let closes = candles.as_array().and_then(|candles| candles.iter().rev().map(close).collect());
        closes.ok_or_else(|| Failure::from("the exchange's candles have an unknown format"))
    }
}

hotslot_plugin::export!(Polled<SecondVenue> as PriceFeed);
