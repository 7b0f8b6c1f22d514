//! A plugin that only one thread could use.

use std::rc::Rc;

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Counter {
    fn count(&self) -> u32;
}

#[derive(Default)]
struct Shared(Rc<u32>);

impl Counter for Shared {
    fn count(&self) -> u32 {
        *self.0
    }
}

hotslot_plugin::export!(Shared as Counter);

fn main() {}
