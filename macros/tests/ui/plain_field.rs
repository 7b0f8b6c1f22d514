//! A field that is no words.

use hotslot_plugin::Plain;

#[derive(Plain)]
struct Named {
    id: u32,
    name: String,
}

fn main() {}
