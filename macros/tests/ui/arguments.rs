//! What `#[interface]` is told.

use hotslot_plugin::interface;

#[interface]
pub trait WithoutVersion {}

#[interface(version = "1")]
pub trait MalformedVersion {}

#[interface(version = "1.0.0")]
pub trait VersionOfThree {}

#[interface(version = 1.0)]
pub trait NumberAsVersion {}

#[interface(version = "1.0", name = "Price Feed")]
pub trait MalformedName {}

#[interface(version = "1.0", since = "1.0")]
pub trait UnknownArgument {}

#[interface(version = "1.0")]
pub struct NoTrait;

fn main() {}
