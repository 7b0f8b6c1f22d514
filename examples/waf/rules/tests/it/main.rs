//! What the rules promise, asked as a host asks.

mod artifact;
mod config;
mod evasion;
mod hostile;
mod plugin;
mod support;
