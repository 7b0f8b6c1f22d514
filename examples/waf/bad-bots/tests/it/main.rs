//! The bad bots as a host has them: through the interface.

mod artifact;
mod bots;
