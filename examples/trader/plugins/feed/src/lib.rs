//! What the trader and its plugins agree on, and what the plugins have in common.
//!
//! A plugin is a [`PriceFeed`] that prints on the host's [`Tape`]. It is configured with a [`Config`] as text, and hands an
//! [`Indicator`] over to the next one. [`Polled`] is all of that for a [`Source`] of prices.
//!
//! Everything here is linked into each plugin, so it is replaced along with it.

mod binance;
mod config;
mod feed;
mod http;
mod indicator;
mod price;

pub use config::{BINANCE, COINBASE, Config};
pub use feed::{Polled, Quote, Source};
pub use http::{Failure, Http};
pub use indicator::Indicator;
pub use price::Price;
pub use serde_json::Value as Json;

use hotslot_plugin::interface;

/// A plugin of the trader. It works while it [runs](hotslot_plugin::Plugin::run); the host only asks what it shows.
#[interface(version = "1.0")]
pub trait PriceFeed {
    /// The symbol whose price it prints.
    #[on_error(String::from("?"))]
    fn symbol(&self) -> String;
}

/// Where prices go: the trader's service for its plugins.
#[interface(version = "1.0")]
pub trait Tape {
    /// Prints a price line, `SOLUSDC: 142.31`, with details that only a terminal shows.
    fn price(&self, line: &str, details: &str);
}
