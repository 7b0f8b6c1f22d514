//! A web application firewall's rules.
//!
//! [`Waf::inspect`] takes a request apart, undoes every layer of encoding on each of its values, and lets detectors look
//! at the result. A detector knows a grammar, not attacks: it reads a value as SQL, as markup and script, as a path or as
//! a command line would be read, and says which constructs it saw. Each construct is a [rule](catalogue) with a weight;
//! the weights of one part of the request add up per family, and the rule file says from which score on a family acts.
//!
//! The time for a request is linear in its length, and no detector recurses.
//!
//! Compiled for wasm32 this crate is the plugin `universal-waf`; its exports are described in its README.

pub mod catalogue;
pub mod config;
pub mod decode;
pub mod parts;
pub mod verdict;

mod agents;
mod dynamic;
mod engine;
mod files;
mod shell;
mod sql;
mod view;
mod windows;
mod words;
mod xss;

#[cfg(target_arch = "wasm32")]
mod guest;

pub use config::{Config, ConfigError};
pub use engine::Waf;
pub use verdict::{Action, Decision, Reason, Verdict};
