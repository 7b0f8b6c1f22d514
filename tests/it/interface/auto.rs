//! A slot that takes libraries and modules in turn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hotslot::native::Native;
use hotslot::{Auto, Format, HotSlot, Lease, Stage, transfer_state};
use hotslot_fixture_interface::v1_0::Fixture;

use super::{built, modules};
use crate::support::{Done, trust};

fn auto() -> Auto<dyn Fixture> {
    Auto::new()
        .on(Format::LIBRARIES, Native::interface::<dyn Fixture>(trust()))
        .on(Format::WasmModule, modules::<dyn Fixture>())
}

#[test]
fn a_slot_goes_from_a_module_to_a_library_and_back_under_calls_with_its_state() {
    let Some(module) = built::module("") else { return };
    let slot = HotSlot::builder(auto()).hand_over(transfer_state).open(module.clone().answering(1).bytes()).unwrap();
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _done = Done(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let lease = slot.load();
                    assert_eq!(lease.answer(), Lease::generation(&lease), "each answers with its number");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for answer in 2..10_u64 {
            let version = format!("1.{answer}.0");
            let image = if answer % 2 == 0 { built::library("") } else { module.clone() };
            assert_eq!(slot.load().add(1), answer - 1, "the count goes over");
            slot.reload(image.version(&version).answering(answer).bytes()).unwrap();
        }
    });
    assert!(calls.into_inner() > 0);
    assert_eq!(slot.load().add(0), 8);
    slot.rollback().unwrap();
    assert_eq!(slot.load().answer(), 8, "the library before");
}

#[test]
fn bytes_of_neither_kind_say_so() {
    let error = HotSlot::builder(auto()).open(b"#!/bin/sh").expect_err("it is a script");
    assert_eq!(error.stage(), Stage::Admit);
    assert!(error.to_string().contains("neither a library"), "{error}");
}

#[test]
fn a_format_that_is_refused_is_refused_with_the_users_sentence() {
    let backend = auto().refuse(Format::LIBRARIES, "no libraries in here: send the module");
    let error = HotSlot::builder(backend).open(built::library("").bytes()).expect_err("it is a library");
    assert_eq!(error.stage(), Stage::Admit);
    assert!(error.to_string().contains("send the module"), "{error}");
    // What comes later counts.
    let backend =
        auto().refuse(Format::LIBRARIES, "not these").on(Format::Elf, Native::interface::<dyn Fixture>(trust()));
    HotSlot::builder(backend).open(built::library("").bytes()).expect("libraries of this platform are taken again");
}
