//! A web application firewall's rules in SecLang, the language of ModSecurity and of the OWASP Core Rule Set.
//!
//! [`Rules::parse`] takes a [bundle](waf_rule_bundle) of an operator's `.conf` files, checks that the engine can do all of what they
//! say, and [`Rules::inspect`] asks the engine about a request. The engine is a crate of the registry; what is here is what a host
//! has to add to one: it reads no files, nothing that it would skip or keep as a dead rule passes without a word, and a request that
//! would take it too long, or that it cannot read, is decided as the host says.
//!
//! This crate is the plugin `seclang-waf` of the interface [`waf_interface::Waf`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::string_slice, clippy::indexing_slicing))]

mod actions;
mod check;
mod config;
mod decide;
mod limits;
mod load;
mod pcre;
mod plugin;
mod rules;

pub use config::{ConfigError, Unsupported};
pub use limits::{LARGEST_VALUE, MOST_BYTES, MOST_TOKENS, MOST_VALUES};
pub use rules::Rules;
