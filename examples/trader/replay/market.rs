//! A synthetic market: made-up prices, the same on every run, in the formats that Binance and Coinbase document.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

/// A traded pair: Binance's symbol, Coinbase's product, and the level of its price.
pub struct Listing {
    symbol: &'static str,
    product: &'static str,
    around: f64,
    decimals: usize,
}

const LISTINGS: [Listing; 4] = [
    Listing { symbol: "SOLUSDC", product: "SOL-USD", around: 142.0, decimals: 2 },
    Listing { symbol: "BTCUSDC", product: "BTC-USD", around: 67_000.0, decimals: 2 },
    Listing { symbol: "ETHUSDC", product: "ETH-USD", around: 3_500.0, decimals: 2 },
    Listing { symbol: "DOGEUSDC", product: "DOGE-USD", around: 0.12, decimals: 5 },
];

/// All times are seconds since the exchange opened; candles start before that.
impl Listing {
    pub fn of_symbol(symbol: &str) -> Option<&'static Listing> {
        LISTINGS.iter().find(|listing| listing.symbol == symbol)
    }

    pub fn of_product(product: &str) -> Option<&'static Listing> {
        LISTINGS.iter().find(|listing| listing.product == product)
    }

    /// Returns Binance's ticker.
    pub fn ticker(&self, now: f64) -> Json {
        json!({ "symbol": self.symbol, "price": self.formatted(self.price(now)) })
    }

    /// Returns Binance's order book: `levels` on each side, best first, one price step apart.
    pub fn depth(&self, now: f64, levels: i32) -> Json {
        let side = |sign| (1..=levels).map(|level| json!([self.level(now, sign * level), "1.0"])).collect::<Json>();
        json!({ "lastUpdateId": now as u64, "bids": side(-1), "asks": side(1) })
    }

    /// Returns Binance's one-minute candles, newest last: open time, open, high, low, close, volume, close time, and
    /// four more figures.
    pub fn klines(&self, now: f64, limit: i32) -> Json {
        let kline = |minutes_ago| {
            let (opened, [open, high, low, close]) = self.minute(now, minutes_ago);
            let [open, high, low, close] = [open, high, low, close].map(|price| self.formatted(price));
            let (opened, closed) = (opened * 1000, (opened + 60) * 1000 - 1);
            json!([opened, open, high, low, close, "1.0", closed, close, 1, "0.5", close, "0"])
        };
        (0..limit).rev().map(kline).collect()
    }

    /// Returns Coinbase's ticker.
    pub fn product_ticker(&self, now: f64) -> Json {
        let [bid, ask] = [self.level(now, -1), self.level(now, 1)];
        let price = self.formatted(self.price(now));
        json!({ "trade_id": now as u64, "price": price, "bid": bid, "ask": ask, "size": "1.0", "volume": "1.0" })
    }

    /// Returns Coinbase's one-minute candles, newest first: time, low, high, open, close, volume.
    pub fn product_candles(&self, now: f64) -> Json {
        let candle = |minutes_ago| {
            let (opened, [open, high, low, close]) = self.minute(now, minutes_ago);
            json!([opened, low, high, open, close, 1.0])
        };
        (0..300).map(candle).collect()
    }

    /// Returns the price at a time: the sum of a slow, a medium and a fast wave.
    fn price(&self, at: f64) -> f64 {
        self.around * (1.0 + 0.02 * (at / 601.0).sin() + 0.003 * (at / 47.0).sin() + 0.0005 * (at * 1.7).sin())
    }

    /// Formats the price plus or minus this many price steps.
    fn level(&self, at: f64, steps: i32) -> String {
        self.formatted(self.price(at) + f64::from(steps) * 0.1_f64.powi(self.decimals as i32))
    }

    /// Returns when a minute began, in Unix time, and its open, high, low and close.
    fn minute(&self, now: f64, minutes_ago: i32) -> (u64, [f64; 4]) {
        let end = now - 60.0 * f64::from(minutes_ago);
        let prices = (0..=60).rev().map(|second| self.price(end - f64::from(second)));
        let (low, high) = prices.fold((f64::MAX, f64::MIN), |(low, high), price| (low.min(price), high.max(price)));
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        (unix.saturating_sub(60 * (minutes_ago as u64 + 1)), [self.price(end - 60.0), high, low, self.price(end)])
    }

    /// Formats a price as exchanges do.
    fn formatted(&self, price: f64) -> String {
        format!("{price:.*}", self.decimals)
    }
}
