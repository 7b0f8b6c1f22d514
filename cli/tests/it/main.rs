//! What `cargo hotslot` does, shown by running it on real plugins: in C, in Rust, in Zig, and in WebAssembly's text.

mod check;
mod header;
mod inspect;
mod languages;
mod new;
mod support;
