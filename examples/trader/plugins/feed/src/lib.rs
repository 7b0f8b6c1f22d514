//! The interfaces between the trader and its plugins, and the code that the plugins share.
//!
//! A plugin is a [`PriceFeed`] that prints to the host's [`Tape`]. It is configured with a [`Config`] as text, and hands
//! its [`Indicator`] over to its successor. [`Polled`] implements all of that for a [`Source`] of prices.
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

/// A plugin of the trader. It does its work in [`run`](hotslot_plugin::Plugin::run); the host only asks for its symbol.
#[interface(version = "1.0")]
pub trait PriceFeed {
    /// Returns the symbol whose price it prints.
    #[on_error(String::from("?"))]
    fn symbol(&self) -> String;
}

/// The trader's service for its plugins: prints prices.
#[interface(version = "1.0")]
pub trait Tape {
    /// Prints a price line, `SOLUSDC: 142.31`, with details that only a terminal shows.
    fn price(&self, line: &str, details: &str);
}
