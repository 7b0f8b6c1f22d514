//! The rules as a host has them: through the interface.

mod config;
mod cost;
mod crs;
mod hostile;
mod support;
mod verdicts;
