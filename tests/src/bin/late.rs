//! A host that does something else before its rehearsal point, and so goes astray in a rehearsal.

use hotslot::HotSlot;
use hotslot::native::{Native, NativePlugin, Rehearsal, Trust, rehearsal_point};

fn main() {
    // A rehearsal has no arguments.
    let path = std::env::args().nth(1).expect("usage: late PLUGIN");
    rehearsal_point();

    let backend = Native::named_interface("fixture/1", trust()).rehearse(Rehearsal::default());
    let opened: Result<HotSlot<NativePlugin>, _> =
        HotSlot::builder(backend).open(std::fs::read(path).expect("the plugin can be read"));
    println!("{}", opened.expect_err("the child went astray"));
}

fn trust() -> Trust {
    // SAFETY: the fixtures are ours, and what they do is what is tested.
    unsafe { Trust::assume() }
}
