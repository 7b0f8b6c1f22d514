//! What the rules promise, asked as a host asks.

mod artifact;
mod bodies;
mod config;
mod cost;
mod evasion;
mod hostile;
mod metered;
mod plugin;
mod support;
