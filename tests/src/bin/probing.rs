//! A host that plays a part of its own in rehearsals: it asks the plugin before it lets it in.

use hotslot::HotSlot;
use hotslot::native::{Native, NativePlugin, Rehearsal, Trust, rehearsal_point_with};

fn backend() -> Native {
    Native::named_interface("fixture/1", trust()).rehearse(Rehearsal::default())
}

fn main() {
    rehearsal_point_with(|bytes| {
        // In the child, this does not rehearse again.
        let slot: HotSlot<NativePlugin> = HotSlot::builder(backend()).open(bytes)?;
        let answer = String::from_utf8(slot.load().call(1, b"")?)?.parse::<u32>()?;
        if answer == 13 { Err(format!("{answer} is no answer").into()) } else { Ok(()) }
    });

    let path = std::env::args().nth(1).expect("usage: probing PLUGIN");
    match HotSlot::<NativePlugin>::builder(backend()).open(std::fs::read(path).expect("the plugin can be read")) {
        Ok(_) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}

fn trust() -> Trust {
    // SAFETY: the fixtures are ours, and what they do is what is tested.
    unsafe { Trust::assume() }
}
