//! Traits that are not one contract.

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Generic<T> {}

#[interface(version = "1.0")]
pub trait Bounded
where
    Self: Clone,
{
}

#[interface(version = "1.0")]
pub unsafe trait Unsafe {}

#[interface(version = "1.0")]
pub trait More: std::fmt::Debug {}

fn main() {}
