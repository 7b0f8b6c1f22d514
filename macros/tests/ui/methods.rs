//! Methods that no plugin could have.

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Methods {
    async fn is_async(&self);
    fn is_generic<T>(&self, value: T);
    fn has_lifetime<'a>(&'a self);
    fn is_bounded(&self)
    where
        Self: Sized;
    extern "C" fn is_foreign(&self);
    unsafe fn is_unsafe(&self);
    fn changes(&mut self);
    fn consumes(self);
    fn is_static(value: u32);
    fn is_nameless(&self, (a, b): (u32, u32));
    fn is_twice(&self);
    fn is_twice(&self, again: u32);
    #[cfg(unix)]
    fn is_sometimes(&self);
    const LIMIT: u32;
    type Item;
}

fn main() {}
