//! An error type that cannot hold the error of a call.

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Parser {
    fn parse(&self, text: &str) -> Result<u32, String>;
}

fn main() {}
