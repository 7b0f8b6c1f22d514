//! Types that mean nothing on the other side.

use hotslot_plugin::interface;

#[interface(version = "1.0")]
pub trait Types {
    fn returns_text(&self) -> &str;
    fn returns_bytes(&self) -> Result<&[u8], String>;
    fn returns_impl(&self) -> impl Iterator<Item = u32>;
    fn takes_impl(&self, values: impl Iterator<Item = u32>);
    fn takes_dyn(&self, observer: &dyn Fn(u32));
    fn takes_box(&self, observer: Box<dyn Fn(u32)>);
    fn takes_function(&self, observer: fn(u32));
    fn takes_pointer(&self, data: *const u8);
    fn takes_words(&self, words: &[u64]);
    fn takes_room(&self, room: &mut [u8]);
    fn takes_for_long(&self, text: &'static str);
    fn takes_size(&self, size: usize);
    fn returns_large(&self) -> u128;
    fn returns_self(&self) -> Self;
    fn returns_alias(&self) -> std::io::Result<u32>;
    fn takes_lent_inside(&self, texts: Vec<&str>);
}

fn main() {}
