//! Types that are no words.

use hotslot_plugin::Plain;

#[derive(Plain)]
struct Generic<T>(T);

#[derive(Plain)]
enum WithFields {
    None,
    Some(u32),
}

#[derive(Plain)]
enum Empty {}

#[derive(Plain)]
union Either {
    a: u32,
    b: f32,
}

fn main() {}
