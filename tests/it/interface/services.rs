//! Services: what the host implements and plugins call.

use std::sync::{Arc, Mutex};

use hotslot::native::Native;
use hotslot::{HotSlot, Stage};
use hotslot_fixture_interface::v1_0::Fixture;
use hotslot_fixture_interface::{Ledger, Note};
use hotslot_plugin::{CallError, CallErrorKind};

use super::{built, modules, slots_with};

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Ledger for Lines {
    fn note(&self, line: &str) -> u32 {
        let mut lines = self.0.lock().unwrap();
        lines.push(line.to_owned());
        lines.len().try_into().unwrap()
    }

    fn first(&self) -> Result<Note, CallError> {
        let lines = self.0.lock().unwrap().clone();
        if lines.is_empty() {
            return Err(CallError::failed("nothing was noted"));
        }
        Ok(Note { subject: "lines".to_owned(), lines, at: None })
    }

    fn panics(&self) -> Result<(), CallError> {
        panic!("the ledger is broken")
    }

    fn last(&self) -> String {
        self.0.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// Slots whose plugins use a ledger of their own.
fn with_ledger() -> Vec<(&'static str, HotSlot<dyn Fixture>)> {
    let service = || -> Arc<dyn Ledger> { Arc::new(Lines::default()) };
    slots_with("", |native| native.config("ledger").service(service()), |wasm| wasm.config("ledger").service(service()))
}

#[test]
fn a_plugin_calls_its_host() {
    for (kind, slot) in with_ledger() {
        let plugin = slot.load();
        let error = plugin.fail("first").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (CallErrorKind::Failed, "nothing was noted"), "{kind}");
        assert_eq!((plugin.fail("note").unwrap(), plugin.fail("note").unwrap()), ("1".to_owned(), "2".to_owned()));
        assert_eq!(plugin.fail("first").unwrap(), "a line+a line", "{kind}");
        assert_eq!(plugin.fail("last").unwrap(), "a line", "{kind}");
    }
}

#[test]
fn a_panic_of_the_hosts_service_is_an_error_inside_the_plugin() {
    for (kind, slot) in with_ledger() {
        let error = slot.load().fail("host panic").unwrap_err();
        assert!(error.to_string().contains("the ledger is broken"), "{kind}: {error}");
        assert_eq!(slot.load().fail("shout").unwrap(), "SHOUT", "{kind}");
    }
}

#[test]
fn a_plugin_whose_service_is_missing_is_refused_at_load_by_its_name() {
    let check = |slot: Result<HotSlot<dyn Fixture>, hotslot::Error>| {
        let error = slot.expect_err("there is no ledger");
        assert_eq!(error.stage(), Stage::Load);
        assert!(error.to_string().contains("`ledger`"), "{error}");
    };
    let native = Native::interface::<dyn Fixture>().config("ledger");
    check(HotSlot::builder(native).open(built::library("").bytes()));
    if let Some(module) = built::module("") {
        check(HotSlot::builder(modules::<dyn Fixture>().config("ledger")).open(module.bytes()));
    }
}
