//! Calls with plain and lent values ask for no memory: not on the host's side, whatever the plugin is. The plugin's side is
//! counted in `plugin/tests/allocation.rs`, where both are in one process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use hotslot::HotSlot;
use hotslot::native::{Native, Trust};
use hotslot::wasm::{Engine, InstancePolicy};
use hotslot_fixture_interface::{Order, Side, Values};

thread_local! {
    /// How often this thread has asked for memory.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: it is the system's allocator; counting asks for no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller keeps the conditions of `GlobalAlloc::alloc`, which are those of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: `alloc` had it from the system's allocator, with the same layout.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_call_with_plain_and_lent_values_asks_for_no_memory() {
    const PACKAGE: &str = "hotslot-fixture-typed";
    const FLAGS: [&str; 2] = ["--cfg", "fixture=\"values\""];
    let library = std::fs::read(hotslot_guests::library(PACKAGE, &[], &FLAGS)).expect("it was built");
    // SAFETY: the library is this workspace's own, and its constructors are the standard library's.
    let trust = unsafe { Trust::assume() };
    let slot = HotSlot::builder(Native::interface::<dyn Values>(trust)).open(library).expect("it is sound");
    check("a library", &*slot.load());

    let Some(module) = hotslot_guests::module(PACKAGE, &FLAGS) else { return };
    let backend = Engine::new().expect("this machine has an engine").interface::<dyn Values>();
    let backend = backend.instance_policy(InstancePolicy::Single);
    let slot = HotSlot::builder(backend).open(std::fs::read(module).expect("it was built")).expect("it is sound");
    check("a module with one instance", &*slot.load());
}

fn check(kind: &str, plugin: &dyn Values) {
    let quantities = [1, 2, u16::MAX];
    let order =
        Order { side: Side::Buy, price: -0.5, change: -7, quantities, limit: Some(3), is_firm: true, mark: '▲' };
    let text = "text".repeat(200);
    let call_each = || {
        plugin.nothing();
        let (same, side) = (plugin.order(order), plugin.turned(&order));
        (same, side, plugin.length(text.as_bytes(), &text))
    };
    // What is made once: room in the module, and what a thread learns of itself.
    let expected = call_each();
    assert_eq!(expected, (order, Side::Sell, 1_600), "{kind}");
    let before = ASKED.get();
    let answers = call_each();
    assert_eq!(ASKED.get() - before, 0, "{kind}");
    assert_eq!(answers, expected, "{kind}");

    let before = ASKED.get();
    assert_eq!(plugin.joined(b"a", "b", vec![b'c'], String::from("d")), b"abcd");
    assert!(ASKED.get() > before, "{kind}: it counts nothing");
}
