//! Access to Binance's public API. See <https://developers.binance.com/docs/binance-spot-api-docs>.

use crate::{Failure, Http, Json};

/// Fetches the closing prices of the last 60 one-minute candles of `symbol`, oldest first.
///
/// # Errors
/// The request failed, or the response does not have the format that Binance documents.
pub(crate) async fn closes(http: &Http, base: &str, symbol: &str) -> Result<Vec<f64>, Failure> {
    let candles = http.get(&format!("{base}/api/v3/klines?symbol={symbol}&interval=1m&limit=60")).await?;
    // A candle is an array: open time, open, high, low, close, and more that an average of closes does not need.
    let close = |candle: &Json| candle[4].as_str()?.parse().ok();
    let closes = candles.as_array().and_then(|candles| candles.iter().map(close).collect());
    closes.ok_or_else(|| Failure::from("the exchange's candles have an unknown format"))
}
