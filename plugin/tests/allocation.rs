//! What is plain, and what is lent, crosses without an allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use hotslot_plugin::{CallError, Plain, harness, interface};

thread_local! {
    /// How often this thread has asked for memory.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: it is the system's allocator; counting asks for no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
struct Order {
    price: f64,
    quantities: [u32; 3],
    limit: Option<[u8; 2]>,
}

#[interface(version = "1.0")]
trait Costs {
    fn plain(&self, order: Order, other: &Order) -> Order;
    fn lent(&self, bytes: &[u8], text: &str) -> u64;
    fn result(&self, value: u32) -> Result<u32, CallError>;
    fn owned(&self, text: &str) -> String;
}

#[derive(Default)]
struct Plugin;

impl Costs for Plugin {
    fn plain(&self, order: Order, other: &Order) -> Order {
        Order { price: other.price, ..order }
    }

    fn lent(&self, bytes: &[u8], text: &str) -> u64 {
        (bytes.len() + text.len()) as u64
    }

    fn result(&self, value: u32) -> Result<u32, CallError> {
        Ok(value)
    }

    fn owned(&self, text: &str) -> String {
        text.to_owned()
    }
}

#[test]
fn plain_values_and_lent_bytes_cross_without_an_allocation() {
    let plugin = harness!(Plugin as Costs).start().unwrap();
    let order = Order { price: 142.5, quantities: [1, 2, 3], limit: Some([4, 5]) };
    let before = ASKED.get();
    let (same, sum, value) = (plugin.plain(order, &order), plugin.lent(b"bytes", "text"), plugin.result(7));
    assert_eq!(ASKED.get(), before);
    assert_eq!((same, sum, value), (order, 9, Ok(7)));

    let text = plugin.owned("text");
    assert_eq!(ASKED.get() - before, 2, "once on each side: {text}");
}
