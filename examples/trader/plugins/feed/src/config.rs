//! The configuration that the host passes to a plugin: where the exchanges are, and how often to poll.

use std::fmt;
use std::time::Duration;

/// The base URL of Binance's API.
pub const BINANCE: &str = "https://api.binance.com";
/// The base URL of Coinbase Exchange's API.
pub const COINBASE: &str = "https://api.exchange.coinbase.com";

/// Where to fetch prices, and how often. The default is the live exchanges, once a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The base URL of Binance's API, or of a compatible exchange.
    pub binance: String,
    /// The base URL of Coinbase Exchange's API, or of a compatible exchange.
    pub coinbase: String,
    /// The time between requests for a price.
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config { binance: BINANCE.to_owned(), coinbase: COINBASE.to_owned(), interval: Duration::from_secs(1) }
    }
}

impl Config {
    /// Parses lines of `key=value`. Missing keys keep their defaults, unknown keys are ignored.
    ///
    /// # Errors
    /// Bytes that are not UTF-8, a line without `=`, or an interval that is not a whole number of milliseconds above 0.
    pub fn from_bytes(bytes: &[u8]) -> Result<Config, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("the configuration is not text: {error}"))?;
        let mut config = Config::default();
        for line in text.lines() {
            let (key, value) =
                line.split_once('=').ok_or_else(|| format!("the configuration line {line:?} is not key=value"))?;
            match key {
                "binance" => config.binance = value.to_owned(),
                "coinbase" => config.coinbase = value.to_owned(),
                "interval_ms" => match value.parse() {
                    Ok(milliseconds @ 1..) => config.interval = Duration::from_millis(milliseconds),
                    _ => return Err(format!("interval_ms={value} is not a positive number of milliseconds")),
                },
                _ => {}
            }
        }
        Ok(config)
    }
}

/// Writes the lines that [`Config::from_bytes`] parses.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "binance={}", self.binance)?;
        writeln!(f, "coinbase={}", self.coinbase)?;
        writeln!(f, "interval_ms={}", self.interval.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_writes_the_plugin_reads() {
        let config = Config { interval: Duration::from_millis(250), ..Config::default() };
        assert_eq!(Config::from_bytes(config.to_string().as_bytes()), Ok(config));
    }

    #[test]
    fn a_newer_hosts_keys_are_ignored_and_nonsense_is_refused() {
        assert_eq!(Config::from_bytes(b"a_newer_key=1"), Ok(Config::default()));
        assert!(Config::from_bytes(b"interval_ms=0").is_err());
        assert!(Config::from_bytes(b"no equals sign").is_err());
    }
}
