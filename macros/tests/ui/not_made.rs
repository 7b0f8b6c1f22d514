//! A plugin that no host could make.

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Counter {
    fn count(&self) -> u32;
}

struct Unmade(u32);

impl Counter for Unmade {
    fn count(&self) -> u32 {
        self.0
    }
}

hotslot_plugin::export!(Unmade as Counter);

fn main() {}
