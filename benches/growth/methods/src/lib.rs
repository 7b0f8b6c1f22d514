//! Interfaces of more and more methods, and a plugin of the one that `--cfg methods="…"` asks for.

#[cfg(any(methods = "1", methods = "10", methods = "100", methods = "1000"))]
#[derive(Default)]
struct Adder;

include!(concat!(env!("OUT_DIR"), "/methods.rs"));
