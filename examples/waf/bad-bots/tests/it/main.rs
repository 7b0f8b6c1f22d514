//! The bad bots as a host has them: through the interface.

mod artifact;
mod bots;
#[path = "../../../rules/tests/committed/mod.rs"]
mod committed;
