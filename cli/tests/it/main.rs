//! Runs `cargo hotslot` on real plugins: in C, in Rust, in Zig, and in WebAssembly text.

mod check;
mod header;
mod inspect;
mod languages;
mod new;
mod remote;
mod signing;
mod support;
