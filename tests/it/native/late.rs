//! A library that stays mapped and calls its host when its generation is long gone, as a thread that its plugin left
//! behind would.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::mpsc::channel;

use hotslot::native::Unload;
use hotslot::{HotSlot, Release};
use hotslot_plugin::abi::Status;

use super::{answering, c_library, destroyed, is_freed, native};

/// `late` in fixtures/counter.c: it uses all that the host lends to a plugin for as long as its code is mapped.
type Late = unsafe extern "C" fn(*const c_void, *mut i64) -> Status;

#[test]
fn a_library_that_stays_mapped_keeps_its_host() {
    let (send, sent) = channel();
    let witness = Arc::new(());
    let backend = native().config("ab").on_message({
        let witness = Arc::clone(&witness);
        move |plugin, message| {
            let _ = &witness;
            send.send((plugin.name.clone(), plugin.generation, message.to_vec())).unwrap();
        }
    });
    let slot = HotSlot::builder(backend).keep_previous(0).open(c_library("counter.c", &["-DLATE"])).unwrap();
    // SAFETY: the type is the one in fixtures/counter.c.
    let late: Late = unsafe { slot.load().function(1) }.expect("it was compiled with it");
    let events = slot.subscribe();
    slot.reload(answering(2)).unwrap();
    assert!(matches!(destroyed(&events, 1), Release::Retained { .. }));
    drop(slot);
    assert!(Arc::strong_count(&witness) > 1, "the handler lives on with the host of the library");

    let mut out = 0;
    // SAFETY: the library is mapped for the life of the process, and the function takes no instance.
    assert_eq!(unsafe { late(std::ptr::null(), &raw mut out) }, Status::OK);
    assert_eq!(sent.try_recv().unwrap(), ("counter".to_owned(), 1, b"late".to_vec()));
    // Two bytes, their values, and a flag that is raised.
    assert_eq!(out, 2 + i64::from(b'a') + i64::from(b'b') + 1);
}

#[test]
fn the_host_of_a_library_that_is_gone_goes_with_it() {
    let witness = Arc::new(());
    let backend = native().unload(Unload::WhenIdle).on_message({
        let witness = Arc::clone(&witness);
        move |_, _| {
            let _ = &witness;
        }
    });
    let slot = HotSlot::builder(backend).keep_previous(0).open(c_library("counter.c", &[])).unwrap();
    let events = slot.subscribe();
    // The slot's own holds, with that of the second generation.
    slot.reload(c_library("counter.c", &["-DLATE"])).unwrap();
    if is_freed(&destroyed(&events, 1)) {
        assert_eq!(Arc::strong_count(&witness), 2, "of this test, and of the one handler");
    }
}
