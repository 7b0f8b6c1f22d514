//! Interfaces of more and more methods, and a plugin of the one that `--cfg methods="…"` asks for.

#[cfg(methods)]
#[derive(Default)]
struct Adder;

include!(concat!(env!("OUT_DIR"), "/methods.rs"));
