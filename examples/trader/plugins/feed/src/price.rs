//! A price with the precision of the exchange.

use std::fmt;
use std::ops::Sub;

use crate::{Failure, Json};

/// A price that is printed with as many decimals as the exchange sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// The price.
    pub value: f64,
    /// The number of decimals it is printed with.
    pub decimals: usize,
}

impl Price {
    /// Parses a decimal in a JSON string, as exchanges send prices: `"142.31000000"`.
    ///
    /// # Errors
    /// Anything else, including a price that is not positive and finite.
    pub fn from_json(json: &Json) -> Result<Price, Failure> {
        let unexpected = || Failure::from(format!("the exchange sent {json} where a price was expected"));
        let text = json.as_str().ok_or_else(unexpected)?;
        let value: f64 = text.parse().map_err(|_| unexpected())?;
        if !value.is_finite() || value <= 0.0 {
            return Err(unexpected());
        }
        let decimals = text.trim_end_matches('0').split_once('.').map_or(0, |(_, fraction)| fraction.len());
        Ok(Price { value, decimals: decimals.clamp(2, 8) })
    }

    /// Returns another value with this price's decimals.
    pub fn with_value(self, value: f64) -> Price {
        Price { value, ..self }
    }
}

/// Subtracts; the difference has the decimals of the more precise price.
impl Sub for Price {
    type Output = Price;

    fn sub(self, other: Price) -> Price {
        Price { value: self.value - other.value, decimals: self.decimals.max(other.decimals) }
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.*}", self.decimals, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_without_the_zeros_that_say_nothing() {
        for (sent, shown) in [("142.31000000", "142.31"), ("67000", "67000.00"), ("0.00001230", "0.0000123")] {
            assert_eq!(Price::from_json(&Json::from(sent)).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn is_a_positive_number_or_an_error() {
        for sent in ["", "NaN", "inf", "-1", "0", "1,5"] {
            assert!(Price::from_json(&Json::from(sent)).is_err(), "{sent:?}");
        }
        assert!(Price::from_json(&Json::Null).is_err());
    }
}
