//! A type that is neither plain nor of serde.

use hotslot_plugin::interface;

pub struct Neither;

#[interface(version = "1.0")]
pub trait Takes {
    fn take(&self, value: Neither);
}

#[interface(version = "1.0")]
pub trait Returns {
    fn give(&self) -> Result<Neither, String>;
}

fn main() {}
