//! What the rules promise, asked as a host asks.

mod artifact;
mod bodies;
#[path = "../committed/mod.rs"]
mod committed;
mod config;
mod cost;
mod evasion;
mod hostile;
mod metered;
mod plugin;
mod support;
