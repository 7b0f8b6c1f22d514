//! How calls and plugins fail, the same on every backend.

use std::error::Error as _;
use std::time::{Duration, Instant};

use hotslot::native::Native;
use hotslot::wasm::CallLimits;
use hotslot::{Cause, HotSlot, Lease, Probation, Stage};
use hotslot_fixture_interface::v1_0::Fixture;
use hotslot_plugin::CallErrorKind;

use super::{built, modules, slots, slots_with};
use crate::conformance::Kind;
use crate::native::Libraries;
use crate::support::process::alone;
use crate::support::{PATIENCE, trust, wait_for};

#[test]
fn a_panic_and_a_trap_are_the_same_error_and_the_plugin_serves_on() {
    for (kind, slot) in slots::<dyn Fixture>("") {
        let rules = slot.load();
        let error = rules.fail("panic").unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Panicked, "{kind}: {error}");
        assert_eq!(rules.fail("shout").unwrap(), "SHOUT", "{kind}");
    }
}

#[test]
fn an_error_of_the_plugins_own_comes_with_its_text() {
    for (kind, slot) in slots::<dyn Fixture>("") {
        let error = slot.load().fail("fail").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (CallErrorKind::Failed, "as it was told"), "{kind}");
    }
}

#[test]
fn an_error_of_the_plugins_own_keeps_its_sources() {
    for (kind, slot) in slots::<dyn Fixture>("") {
        let error = slot.load().fail("chain").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (CallErrorKind::Failed, "the price cannot be read"));
        let source = error.source().expect("it has one");
        assert_eq!((source.to_string().as_str(), source.source().is_none()), ("invalid float literal", true), "{kind}");
    }
}

/// The backtrace of a plugin that panics, in a process that asks for backtraces or does not.
#[test]
fn a_panic_brings_its_backtrace_if_that_is_asked_for() {
    alone(|| {
        for is_wanted in [false, true] {
            // SAFETY: this process has one test, and the plugin's copy of std looks only when it has been loaded.
            unsafe { std::env::set_var("RUST_BACKTRACE", if is_wanted { "1" } else { "0" }) };
            let backend = Native::interface::<dyn Fixture>(trust());
            let slot = HotSlot::builder(backend).open(built::library("").answering(3).bytes()).unwrap();
            let error = slot.load().fail("panic").unwrap_err();
            assert!(error.to_string().contains("as it was told"), "{error}");
            let backtrace = error.source().map(ToString::to_string);
            assert_eq!(backtrace.is_some(), is_wanted, "{backtrace:?}");
            if let Some(backtrace) = backtrace {
                assert!(backtrace.contains("fail") && !backtrace.contains("rust_begin_unwind"), "{backtrace}");
            }
        }
    });
}

#[test]
fn a_trap_names_the_functions_that_were_called() {
    if let Some(module) = built::module("") {
        let slot = HotSlot::builder(modules::<dyn Fixture>()).open(module.bytes()).unwrap();
        let error = slot.load().fail("panic").unwrap_err();
        let backtrace = error.source().expect("a trap has a backtrace").to_string();
        assert!(backtrace.starts_with("backtrace: ") && backtrace.contains("hotslot_invoke"), "{backtrace}");
    }
}

/// In an instance that was used before, whose calls look at no clock unless they last longer than a tick.
#[test]
fn a_call_that_does_not_end_is_ended_at_its_deadline() {
    let Some(module) = built::module("") else { return };
    let limits = CallLimits { deadline: Duration::from_millis(200), ..crate::wasm::limits() };
    let backend = modules::<dyn Fixture>().call_limits(limits);
    let slot = HotSlot::builder(backend).open(module.bytes()).unwrap();
    let rules = slot.load();
    for _ in 0..2 {
        assert_eq!((rules.add(1), rules.add(1)), (1, 2), "an instance that was ended is not used again");
        let began = Instant::now();
        let error = rules.fail("spin").unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::DeadlineExceeded, "{error}");
        assert!(began.elapsed() >= Duration::from_millis(200), "it was ended early");
    }
}

#[test]
fn callers_of_a_single_instance_take_turns_and_none_is_forgotten() {
    const CALLS: u64 = 2_000;
    let Some(module) = built::module("") else { return };
    let slot = HotSlot::builder(modules::<dyn Fixture>()).open(module.bytes()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..CALLS {
                    slot.load().add(1);
                }
            });
        }
    });
    assert_eq!(slot.load().add(0), 4 * CALLS);
}

#[test]
fn panics_count_against_the_generation_and_errors_of_its_own_do_not() {
    fn check(kind: &str, slot: &HotSlot<dyn Fixture>, next: Vec<u8>) {
        slot.reload(next).unwrap();
        for _ in 0..20 {
            assert!(slot.load().fail("fail").is_err());
        }
        assert_eq!(Lease::generation(&slot.load()), 2, "{kind}");
        // In its probation, failures of the plugin roll it back.
        let events = slot.subscribe();
        for _ in 0..6 {
            let _ = slot.load().fail("panic");
        }
        wait_for(&events, |event| match event {
            hotslot::Event::Ended(report) => matches!(report.cause, Cause::Automatic { .. }).then_some(()),
            _ => None,
        });
        assert_eq!(Lease::generation(&slot.load()), 1, "{kind}");
    }
    let next = || built::library("").answering(2).version("1.1.0").bytes();
    let slot = HotSlot::builder(Native::interface::<dyn Fixture>(trust()))
        .probation(Probation::new(PATIENCE).max_failures(5))
        .keep_previous(1)
        .open(built::library("").bytes());
    check("native", &slot.unwrap(), next());
    if let Some(module) = built::module("") {
        let slot = HotSlot::builder(modules::<dyn Fixture>())
            .probation(Probation::new(PATIENCE).max_failures(5))
            .keep_previous(1)
            .open(module.clone().bytes());
        check("wasm", &slot.unwrap(), module.answering(2).version("1.1.0").bytes());
    }
}

#[test]
fn a_plugin_that_cannot_be_made_is_refused_at_load() {
    for config in ["refuse", "panic"] {
        let refused = |slot: Result<HotSlot<dyn Fixture>, hotslot::Error>| slot.expect_err("it does not open");
        let native = Native::interface::<dyn Fixture>(trust()).config(config);
        let error = refused(HotSlot::builder(native).open(built::library("").bytes()));
        assert_eq!(error.stage(), Stage::Load);
        assert!(error.to_string().contains("the configuration"), "{error}");
        if let Some(module) = built::module("") {
            let error = refused(HotSlot::builder(modules::<dyn Fixture>().config(config)).open(module.bytes()));
            assert_eq!(error.stage(), Stage::Load);
            let named = if config == "refuse" { "the configuration says no" } else { "trapped" };
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

#[test]
fn a_plugin_gets_its_configuration() {
    let config = vec![0xff; 5_000];
    let slots =
        slots_with::<dyn Fixture>("", |native| native.config(config.clone()), |wasm| wasm.config(config.clone()));
    for (kind, slot) in slots {
        assert_eq!(slot.load().config(), config, "{kind}");
    }
}

#[test]
fn a_configuration_can_come_with_the_candidate() {
    for (kind, slot) in slots_with::<dyn Fixture>("", |native| native.config("0"), |wasm| wasm.config("0")) {
        assert_eq!(slot.load().config(), b"0", "{kind}");
        let same = Lease::digest(&slot.load());
        let image = [Some(built::library("")), built::module("")].into_iter().flatten().map(|image| image.bytes());
        let bytes = image.into_iter().find(|bytes| hotslot::Digest::of(bytes) == same).expect("it is one of them");
        let report = slot.reload(hotslot::Candidate::new(bytes).config("1")).unwrap();
        assert!(report.is_swap(), "{kind}: the same bytes with another configuration");
        assert_eq!(slot.load().config(), b"1", "{kind}");
        slot.rollback().unwrap();
        assert_eq!(slot.load().config(), b"0", "{kind}");
    }
}

#[test]
fn what_is_no_plugin_of_a_declared_interface_says_what_to_do() {
    let slot = HotSlot::builder(modules::<dyn Fixture>()).open(crate::wasm::module("1.0.0", 1));
    let error = slot.expect_err("it has no contract");
    assert_eq!(error.stage(), Stage::Admit);
    assert!(error.to_string().contains("hotslot_create"), "{error}");
    let slot = HotSlot::builder(Native::interface::<dyn Fixture>(trust())).open(Libraries::artifact("1.0.0", 1));
    let error = slot.expect_err("it has no contract");
    assert!(error.to_string().contains("export!(Type as Interface)"), "{error}");
}
