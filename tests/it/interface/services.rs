//! Services: what the host implements and plugins call.

use std::sync::{Arc, Mutex, OnceLock};

use hotslot::native::Native;
use hotslot::wasm::Engine;
use hotslot::{HotSlot, Stage};
use hotslot_fixture_interface::v1_0::Fixture;
use hotslot_fixture_interface::{Ledger, Note};
use hotslot_plugin::{CallError, CallErrorKind};

use super::{built, modules, slots_with};
use crate::support::trust;

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
    let native = Native::interface::<dyn Fixture>(trust()).config("ledger");
    check(HotSlot::builder(native).open(built::library("").bytes()));
    if let Some(module) = built::module("") {
        check(HotSlot::builder(modules::<dyn Fixture>().config("ledger")).open(module.bytes()));
    }
}

/// A ledger that asks the plugin which asks it.
#[derive(Default)]
struct Mirror {
    slot: OnceLock<Arc<HotSlot<dyn Fixture>>>,
    /// The innermost error.
    refused: Mutex<Option<CallError>>,
}

impl Mirror {
    fn ask(&self, how: &str) -> Result<String, CallError> {
        let answer = self.slot.get().expect("the slot is open").load().fail(how);
        if let Err(error) = &answer {
            self.refused.lock().unwrap().get_or_insert_with(|| error.clone());
        }
        answer
    }
}

impl Ledger for Mirror {
    fn note(&self, _: &str) -> u32 {
        // The plugin has no way to go on without a number.
        self.ask("note").map_or_else(|error| error.unwind(), |_| 1)
    }

    fn first(&self) -> Result<Note, CallError> {
        Err(self.ask("first").expect_err("it never ends"))
    }

    fn panics(&self) -> Result<(), CallError> {
        Ok(())
    }
}

#[test]
fn a_service_that_calls_the_plugin_that_calls_it_is_an_error_and_not_the_end_of_the_process() {
    let fresh = Engine::builder().build().unwrap();
    let mirrors = || (Arc::new(Mirror::default()), Arc::new(Mirror::default()));
    let (native, module) = mirrors();
    let auto = || {
        let (native, module): (Arc<dyn Ledger>, Arc<dyn Ledger>) = (native.clone(), module.clone());
        hotslot::Auto::new()
            .on(hotslot::Format::LIBRARIES, Native::interface::<dyn Fixture>(trust()).config("ledger").service(native))
            .on(hotslot::Format::WasmModule, fresh.interface::<dyn Fixture>().config("ledger").service(module))
    };
    let mut kinds = vec![("native", built::library("").bytes(), &native)];
    if let Some(built) = built::module("") {
        kinds.push(("wasm", built.bytes(), &module));
    }
    for (kind, bytes, mirror) in kinds {
        let probation = hotslot::Probation::new(crate::support::PATIENCE).max_failures(0);
        let slot = HotSlot::builder(auto()).probation(probation).open(bytes).expect("the plugin is sound");
        let slot = Arc::new(slot);
        assert!(mirror.slot.set(Arc::clone(&slot)).is_ok());
        for (how, stack) in [("note", 512 << 10), ("first", 512 << 10), ("note", 2 << 20), ("first", 2 << 20)] {
            let call = || slot.load().fail(how).expect_err("it never ends");
            let error = std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, call);
                thread.unwrap().join().unwrap()
            });
            let innermost = mirror.refused.lock().unwrap().take().expect("one call was refused");
            assert_eq!(innermost.kind(), CallErrorKind::Unavailable, "{kind} {how}: {innermost}");
            assert!(
                innermost.to_string().contains("nested too deeply") || innermost.to_string().contains("bytes of stack"),
                "{kind} {how}: {innermost}"
            );
            assert!(!error.kind().is_fault(), "{kind} {how}: {error:?}");
            assert_eq!(slot.status().serving.unwrap().failures, 0, "{kind} {how}: {:?}", slot.status().serving);
        }
    }
}

#[test]
fn a_service_outlives_the_generations_that_use_it() {
    for (kind, slot) in with_ledger() {
        assert_eq!(slot.load().fail("note").unwrap(), "1", "{kind}");
        let bytes = match kind {
            "native" => built::library("").bytes().to_vec(),
            _ => built::module("").expect("it was built for the slot").bytes().to_vec(),
        };
        let report = slot.reload(hotslot::Candidate::new(bytes).force()).unwrap();
        assert!(report.is_swap(), "{kind}: {report:?}");
        assert_eq!(slot.load().fail("note").unwrap(), "2", "{kind}: the new generation finds the same ledger");
    }
}
