//! A web application firewall's rules.
//!
//! [`Rules::inspect`] takes a request apart, undoes every layer of encoding on each of its values, and lets detectors look
//! at the result. A detector knows a grammar, not attacks: it reads a value as SQL, as markup and script, as a path or as
//! a command line would be read, and says which constructs it saw. Each construct is a [rule](catalogue) with a weight;
//! the weights of one part of the request add up per family, and the rule file says from which score on a family acts.
//!
//! The work for a request is linear in its length and has a budget, and no detector recurses.
//!
//! This crate is the plugin `universal-waf` of the interface [`waf_interface::Waf`]: a module if it is compiled for wasm32,
//! and a library for every other target.

// What cuts text is `cut`, or a search that hands out the pieces: an offset of one's own may lie inside of a character, or
// behind the end.
#![cfg_attr(not(test), deny(clippy::string_slice, clippy::indexing_slicing))]

pub mod catalogue;
pub mod config;
pub mod decode;
pub mod parts;
pub mod verdict;

mod agents;
mod cut;
mod dynamic;
mod engine;
mod files;
mod plugin;
mod shell;
mod sql;
mod view;
mod windows;
mod words;
mod work;
mod xss;

pub use config::{Config, ConfigError};
pub use engine::Rules;
pub use verdict::{Action, Decision, Reason, Verdict};
