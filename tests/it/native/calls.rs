//! Calls into a plugin, and what comes back: answers, errors, panics, messages.

use std::ffi::c_void;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotslot::host::CallError;
use hotslot::{Candidate, Cause, Event, HotSlot, Probation};
use hotslot_plugin::abi::Status;

use super::methods::{CONFIG, ECHO, FAIL, PANIC, SEND, WAIT_FOR_STOP};
use super::{answer, answering, builder, fixture, native, panicked};
use crate::support::wait_for;

#[test]
fn bytes_cross_in_both_directions() {
    let slot = builder().open(fixture()).unwrap();
    for size in [0, 1, 4096, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        assert_eq!(slot.load().call(ECHO, &bytes).unwrap(), bytes);
    }
}

#[test]
fn an_error_comes_back_as_its_text_and_does_not_count_as_a_failure() {
    let slot = builder().open(fixture()).unwrap();
    assert_eq!(slot.load().call(FAIL, b"no such symbol"), Err(CallError::failed("no such symbol")));
    assert_eq!(slot.status().serving.unwrap().failures, 0);
}

/// Row 10.
#[test]
fn a_panic_is_an_error_for_that_call_and_harms_nobody_else() {
    let slot = builder().open(answering(1)).unwrap();
    let neighbour = builder().open(answering(2)).unwrap();
    let inside = slot.load();
    let (waiting, waits) = channel();
    std::thread::scope(|scope| {
        // A call that is under way in the same plugin while others panic.
        let other = scope.spawn(|| {
            waiting.send(()).unwrap();
            inside.call(WAIT_FOR_STOP, b"")
        });
        waits.recv().unwrap();
        for index in 0..5 {
            let text = format!("out of range: {index}");
            assert_eq!(slot.load().call(PANIC, text.as_bytes()), Err(panicked(&text)));
        }
        assert_eq!((answer(&slot.load()), answer(&neighbour.load())), (1, 2));
        let serving = slot.status().serving.unwrap();
        assert_eq!((serving.failures, serving.last_failure.unwrap().contains("out of range: 4")), (5, true));
        assert_eq!(neighbour.status().serving.unwrap().failures, 0);
        slot.reload(answering(3)).unwrap();
        assert_eq!(other.join().unwrap(), Ok(Vec::new()));
    });
}

/// Row 10.
#[test]
fn too_many_panics_in_probation_bring_the_old_plugin_back() {
    const ALLOWED: u64 = 3;
    let slot = builder()
        .probation(Probation::new(Duration::from_secs(3600)).max_failures(ALLOWED))
        .open(answering(1))
        .unwrap();
    slot.reload(answering(2)).unwrap();
    let events = slot.subscribe();
    let failing = slot.load();
    for _ in 0..ALLOWED {
        failing.call(PANIC, b"tolerated").unwrap_err();
    }
    assert_eq!(answer(&slot.load()), 2, "that many are allowed");
    failing.call(PANIC, b"one too many").unwrap_err();
    let reason = wait_for(&events, |event| match event {
        Event::Ended(report) => match &report.cause {
            Cause::Automatic { reason } => Some(reason.clone()),
            _ => None,
        },
        _ => None,
    });
    assert!(reason.contains("4 failed calls") && reason.contains("one too many"), "{reason}");
    assert_eq!(answer(&slot.load()), 1);
    assert_eq!(slot.status().counters.automatic_rollbacks, 1);
}

#[test]
fn functions_of_the_interface_are_called_directly() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Point {
        x: f64,
        y: f64,
    }
    type Add = unsafe extern "C" fn(*const c_void, i64, i64, *mut i64) -> Status;
    type Middle = unsafe extern "C" fn(*const c_void, Point, Point, *mut Point) -> Status;
    type Explode = unsafe extern "C" fn(*const c_void, *mut ()) -> Status;

    let slot = builder().open(fixture()).unwrap();
    let plugin = slot.load();
    let (mut sum, mut middle) = (0, Point { x: 0.0, y: 0.0 });
    // SAFETY: the types are those that the fixture exports, in its order; the lease outlives the calls.
    unsafe {
        let add = plugin.function::<Add>(0).unwrap();
        assert_eq!((add(plugin.instance(), 40, 2, &mut sum), sum), (Status::OK, 42));
        let between = plugin.function::<Middle>(1).unwrap();
        let (one, other) = (Point { x: 0.0, y: 2.0 }, Point { x: 4.0, y: 8.0 });
        assert_eq!(between(plugin.instance(), one, other, &mut middle), Status::OK);
        assert_eq!(middle, Point { x: 2.0, y: 5.0 });
        let explode = plugin.function::<Explode>(2).unwrap();
        assert_eq!(explode(plugin.instance(), &mut ()), Status::PANICKED, "caught in the plugin");
        assert!(plugin.function::<Add>(3).is_none(), "there are three");
    }
    assert_eq!(answer(&plugin), 0, "it is still well");
}

#[test]
fn every_generation_gets_the_configuration() {
    let slot = HotSlot::builder(native().config("symbol=SOLUSDC")).open(answering(1)).unwrap();
    slot.reload(answering(2)).unwrap();
    assert_eq!(slot.load().call(CONFIG, b"").unwrap(), b"symbol=SOLUSDC");
    let bare = builder().open(fixture()).unwrap();
    assert_eq!(bare.load().call(CONFIG, b"").unwrap(), b"");
}

#[test]
fn a_candidates_configuration_takes_the_place_of_the_backends_and_goes_back_with_it() {
    let slot = HotSlot::builder(native().config("of the backend")).open(answering(1)).unwrap();
    slot.reload(Candidate::from(answering(1)).config("of the candidate")).unwrap();
    assert_eq!(slot.load().call(CONFIG, b"").unwrap(), b"of the candidate");
    slot.rollback().unwrap();
    assert_eq!(slot.load().call(CONFIG, b"").unwrap(), b"of the backend");
}

#[test]
fn a_message_arrives_with_its_sender() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let backend = native().on_message({
        let taken = Arc::clone(&taken);
        move |sender, message| {
            let sender = (sender.slot.to_string(), sender.generation, sender.name.clone(), sender.version.clone());
            taken.lock().unwrap().push((sender, message.to_vec()));
        }
    });
    let slot = HotSlot::builder(backend).name("prices").open(fixture().version("1.2.3")).unwrap();
    slot.reload(fixture().name("other").version("1.2.4")).unwrap();
    // As it is, whatever is in it: what a terminal would do with it is for those to think of who show it.
    let message = b"SOLUSDC: \x1b[2J142.31\0\xff\n";
    slot.load().call(SEND, message).unwrap();
    let sender = ("prices".to_owned(), 2, "other".to_owned(), Some("1.2.4".parse().unwrap()));
    assert_eq!(*taken.lock().unwrap(), [(sender, message.to_vec())]);
}

#[test]
fn a_panic_in_the_host_while_it_takes_a_message_stays_in_the_host() {
    let backend = native().on_message(|_, message| {
        assert_ne!(message, b"provoke", "this panics on purpose");
    });
    let slot = HotSlot::builder(backend).open(answering(1)).unwrap();
    assert_eq!(slot.load().call(SEND, b"provoke"), Ok(Vec::new()), "the plugin does not see it");
    assert_eq!(slot.load().call(SEND, b"harmless"), Ok(Vec::new()));
    assert_eq!((answer(&slot.load()), slot.status().serving.unwrap().failures), (1, 0));
}

#[test]
fn a_plugin_sees_that_it_is_told_to_stop() {
    let slot = builder().open(answering(1)).unwrap();
    let old = slot.load();
    slot.reload(answering(2)).unwrap();
    assert_eq!(old.call(WAIT_FOR_STOP, b""), Ok(Vec::new()));
}
