//! What the library promises, shown through its public API: one test binary, one file for each theme.
//!
//! Tests wait for events, never for time. Where something takes time by its nature, a timeout for instance, nothing
//! depends on how long it took.

mod attempt;
mod canary;
mod clock;
mod concurrency;
mod conformance;
mod custom_backend;
mod events;
mod group;
mod hand_over;
#[cfg(all(feature = "backends", target_os = "linux"))]
mod interface;
mod leases;
#[cfg(target_os = "linux")]
mod log_lines;
mod markers;
// What the tests of libraries need of it.
#[cfg(all(feature = "native", not(feature = "backends"), target_os = "linux"))]
#[allow(dead_code, reason = "it builds modules, too")]
mod interface {
    pub(crate) mod built;
}
#[cfg(all(feature = "native", target_os = "linux"))]
#[cfg_attr(not(feature = "backends"), allow(dead_code, unused_imports))]
mod native;
mod probation;
mod properties;
mod refusal;
mod retirement;
mod rollback;
mod runner;
mod shadow;
mod slot;
// Some of it only the tests of the backends use.
#[cfg_attr(not(feature = "backends"), allow(dead_code, unused_imports))]
mod support;
mod timeouts;
#[cfg(target_os = "linux")]
mod tracing_layers;
#[cfg(feature = "backends")]
mod trader;
mod versions;
#[cfg(feature = "backends")]
mod wasm;
