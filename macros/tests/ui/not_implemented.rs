//! A plugin that does not implement what it exports.

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Counter {
    fn count(&self) -> u32;
}

#[derive(Default)]
struct Other;

hotslot_plugin::export!(Other as Counter);

fn main() {}
