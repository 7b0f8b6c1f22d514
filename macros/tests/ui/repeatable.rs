//! The mark has no arguments, and is given once.

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Marked {
    #[repeatable(twice)]
    fn with_an_argument(&self);
    #[repeatable]
    #[repeatable]
    fn given_twice(&self);
}

fn main() {}
