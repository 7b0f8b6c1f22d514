//! The state that outlives a plugin: the average of the prices so far, and their count.

/// The span of the exponential moving average in ticks: the weight of a new price is 2 / (SPAN + 1).
const SPAN: f64 = 20.0;

hotslot_plugin::plain_state! {
    /// An exponential moving average (EMA) of one symbol's price, and a count of ticks that outlives the symbol.
    #[derive(PartialEq)]
    pub struct Indicator {
        /// The symbol, padded with zero bytes; all zero until there is an average.
        pub symbol: [u8; 24],
        /// The average.
        pub ema: f64,
        /// The number of ticks, of any symbol, since the first plugin's cold start.
        pub ticks: u64,
    }
}

impl Indicator {
    /// The name of this layout. It changes when a field does.
    pub const SCHEMA: &str = "trader-indicator/1";

    /// No average and no ticks: a cold start.
    pub const COLD: Indicator = Indicator { symbol: [0; 24], ema: 0.0, ticks: 0 };

    /// Returns whether there is no average yet, so that it must be warmed up from past prices.
    pub fn is_cold(&self) -> bool {
        self.symbol == Self::COLD.symbol
    }

    /// Averages past prices of `symbol`, oldest first; they do not count as ticks.
    pub fn warm_up(&mut self, symbol: &str, past: &[f64]) {
        past.iter().for_each(|&price| self.average(symbol, price));
    }

    /// Counts one price of `symbol` and averages it.
    pub fn tick(&mut self, symbol: &str, price: f64) {
        self.average(symbol, price);
        self.ticks += 1;
    }

    /// Averages a price. A different symbol restarts the average at its first price.
    fn average(&mut self, symbol: &str, price: f64) {
        let symbol = padded(symbol);
        if self.symbol == symbol {
            self.ema += (price - self.ema) * 2.0 / (SPAN + 1.0);
        } else {
            (self.symbol, self.ema) = (symbol, price);
        }
    }
}

/// Pads or truncates the symbol to the layout's fixed length; no exchange has a longer symbol.
fn padded(symbol: &str) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes.iter_mut().zip(symbol.bytes()).for_each(|(byte, from)| *byte = from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_symbol_keeps_the_count_and_starts_its_own_average() {
        let mut indicator = Indicator::COLD;
        indicator.warm_up("SOLUSDC", &[140.0, 141.0]);
        indicator.tick("SOLUSDC", 142.0);
        indicator.tick("BTCUSDC", 67_000.0);
        assert_eq!((indicator.ema, indicator.ticks), (67_000.0, 2));
        assert!(!indicator.is_cold());
    }

    #[test]
    fn a_new_price_moves_the_average_by_its_weight() {
        let mut indicator = Indicator::COLD;
        indicator.tick("SOLUSDC", 100.0);
        indicator.tick("SOLUSDC", 121.0);
        assert_eq!(indicator.ema, 102.0);
    }
}
