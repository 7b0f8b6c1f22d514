//! What plugins that read Binance's public API share. See <https://developers.binance.com/docs/binance-spot-api-docs>.

use crate::{Failure, Http, Json};

/// The closing prices of the last 60 one-minute candles of `symbol`, oldest first.
///
/// # Errors
/// The request failed, or the answer has another shape than Binance documents.
pub(crate) async fn closes(http: &Http, base: &str, symbol: &str) -> Result<Vec<f64>, Failure> {
    let candles = http.get(&format!("{base}/api/v3/klines?symbol={symbol}&interval=1m&limit=60")).await?;
    // A candle is an array: open time, open, high, low, close, and more that an average of closes does not need.
    let close = |candle: &Json| candle[4].as_str()?.parse().ok();
    let closes = candles.as_array().and_then(|candles| candles.iter().map(close).collect());
    closes.ok_or_else(|| Failure::from("the exchange's candles have an unknown shape"))
}
