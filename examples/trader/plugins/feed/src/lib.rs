//! What the trader and its plugins agree on, and what the plugins have in common.
//!
//! # The interface `trader-feed/1`
//! - **Host to plugin**: a [`Config`] as text, lines of `key=value`; a plugin ignores keys that it does not know.
//! - **Plugin to host**: each message is one line of UTF-8 in fields that a tab separates. The first field is the
//!   price line, `SOLUSDC: 142.31`; those that follow are details for a person, `ema 142.02` and `tick 17`.
//! - **Plugin to plugin**: an [`Indicator`] under the schema [`Indicator::SCHEMA`].
//!
//! Everything here is linked into each plugin, so it is replaced along with it.

pub mod binance;
mod config;
mod feed;
mod http;
mod indicator;
mod price;

pub use config::{BINANCE, COINBASE, Config};
pub use feed::{Feed, Quote};
pub use http::{Failure, Http};
pub use indicator::Indicator;
pub use price::Price;
pub use serde_json::Value as Json;

/// The name of the interface, which the host compares before it loads a plugin.
pub const INTERFACE: &str = "trader-feed/1";
