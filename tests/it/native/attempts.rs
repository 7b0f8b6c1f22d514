//! What one attempt costs: how often the image is parsed, the contracts are compared and the bytes are hashed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use hotslot::HotSlot;
use hotslot::native::Native;
use hotslot_fixture_interface::v1_0::Fixture;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::process::alone;
use super::{answering, native};
use crate::interface::built;

#[test]
fn an_attempt_parses_the_image_compares_the_contracts_and_hashes_the_bytes_once() {
    alone(|| {
        let steps = Steps::count();
        let slot: HotSlot<dyn Fixture> = HotSlot::builder(Native::interface::<dyn Fixture>())
            .open(built::library("").version("1.0.0").answering(1).bytes())
            .unwrap();
        let once = BTreeMap::from([("bytes hashed", 1), ("contracts compared", 1), ("image parsed", 1)]);
        assert_eq!(steps.take(), once, "to open");
        slot.reload(built::library("").version("1.1.0").answering(2).bytes()).unwrap();
        assert_eq!(steps.take(), once, "to reload");
        slot.stage(built::library("").version("1.2.0").answering(3).bytes()).unwrap().commit().unwrap();
        assert_eq!(steps.take(), once, "to stage and commit");
        slot.rollback().unwrap();
        assert_eq!(steps.take(), BTreeMap::new(), "to roll back");
        slot.reload(b"\x7fELF").unwrap_err();
        let refused = BTreeMap::from([("bytes hashed", 1), ("image parsed", 1)]);
        assert_eq!(steps.take(), refused, "to refuse");

        let slot = HotSlot::builder(native()).open(answering(1)).unwrap();
        steps.take();
        slot.reload(answering(2)).unwrap();
        let without_contract = BTreeMap::from([("bytes hashed", 1), ("image parsed", 1)]);
        assert_eq!(steps.take(), without_contract, "to reload a plugin of a named interface");
    });
}

/// Counts the events of these texts, over the whole process.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<BTreeMap<&'static str, u32>>>);

const STEPS: [&str; 3] = ["bytes hashed", "contracts compared", "image parsed"];

impl Steps {
    fn count() -> Steps {
        let steps = Steps::default();
        tracing::subscriber::set_global_default(steps.clone()).expect("this process has no other log");
        steps
    }

    fn take(&self) -> BTreeMap<&'static str, u32> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Subscriber for Steps {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        if let Some(step) = STEPS.into_iter().find(|step| *step == message.0) {
            *self.0.lock().unwrap().entry(step).or_default() += 1;
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
