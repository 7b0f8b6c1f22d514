//! What one attempt costs: how often the image is parsed, the contracts are compared and the bytes are hashed.

use std::collections::BTreeMap;

use hotslot::HotSlot;
use hotslot::native::Native;
use hotslot_fixture_interface::v1_0::Fixture;

use super::process::alone;
use super::{answering, native};
use crate::interface::built;
use crate::support::{Steps, trust};

#[test]
fn an_attempt_parses_the_image_compares_the_contracts_and_hashes_the_bytes_once() {
    alone(|| {
        let steps = Steps::count();
        let slot: HotSlot<dyn Fixture> = HotSlot::builder(Native::interface::<dyn Fixture>(trust()))
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
