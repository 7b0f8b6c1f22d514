//! What one attempt costs: how often the module is parsed, the contracts are compared and the bytes are hashed.

use std::collections::BTreeMap;

use hotslot::{Candidate, HotSlot};
use hotslot_fixture_interface::v1_0::Fixture;

use super::{backend, compile, engine, module};
use crate::interface::built;
use crate::support::Steps;
use crate::support::process::alone;

#[test]
fn an_attempt_parses_the_module_compares_the_contracts_and_hashes_the_bytes_once() {
    // Built here, so that the process below finds it.
    if built::module("").is_none() {
        return;
    }
    alone(|| {
        let fixture = |version: &str| built::module("").expect("it was built before").version(version).bytes();
        let steps = Steps::count();
        let slot: HotSlot<dyn Fixture> =
            HotSlot::builder(engine().interface::<dyn Fixture>()).open(fixture("1.0.0")).unwrap();
        let once = BTreeMap::from([("bytes hashed", 1), ("contracts compared", 1), ("module parsed", 1)]);
        assert_eq!(steps.take(), once, "to open");
        slot.reload(fixture("1.1.0")).unwrap();
        assert_eq!(steps.take(), once, "to reload");
        slot.stage(fixture("1.2.0")).unwrap().commit().unwrap();
        assert_eq!(steps.take(), once, "to stage and commit");
        slot.rollback().unwrap();
        assert_eq!(steps.take(), BTreeMap::new(), "to roll back");
        slot.reload(Candidate::new(fixture("1.1.0")).force()).unwrap();
        assert_eq!(steps.take(), BTreeMap::from([("bytes hashed", 1)]), "to reload what was admitted before");
    });
}

#[test]
fn an_attempt_with_functions_that_are_bound_parses_the_module_once() {
    alone(|| {
        let engine = engine();
        let slot = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).unwrap();
        let steps = Steps::count();
        slot.reload(module("1.1.0", 2)).unwrap();
        let once = BTreeMap::from([("bytes hashed", 1), ("module parsed", 1)]);
        assert_eq!(steps.take(), once, "to reload");
        slot.reload(compile(r#"(module (import "env" "open" (func)))"#)).unwrap_err();
        assert_eq!(steps.take(), once, "to refuse");
        assert_eq!(engine.status().compiled, 2);
    });
}
