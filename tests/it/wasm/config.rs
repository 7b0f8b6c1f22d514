//! A configuration that comes with the candidate.

use hotslot::host::ConfigUnsupported;
use hotslot::wasm::InstancePolicy;
use hotslot::{Candidate, ErrorKind, HotSlot, Stage};
use hotslot_fixture_interface::v1_0::Fixture;

use super::{answer, engine, module, slot};
use crate::interface::built;

#[test]
fn every_instance_is_created_with_the_candidates_configuration_in_place_of_the_backends() {
    let Some(fixture) = built::module("") else { return };
    for policy in [InstancePolicy::Fresh, InstancePolicy::Single] {
        let backend = engine().interface::<dyn Fixture>().config("of the backend").instance_policy(policy);
        let fixture = |version: &str| fixture.clone().version(version).bytes();
        let slot: HotSlot<dyn Fixture> = HotSlot::builder(backend).open(fixture("1.0.0")).unwrap();
        assert_eq!(slot.load().config(), b"of the backend");
        slot.reload(Candidate::new(fixture("1.1.0")).config("of the candidate")).unwrap();
        for _ in 0..3 {
            assert_eq!(slot.load().config(), b"of the candidate");
        }
        slot.reload(fixture("1.2.0")).unwrap();
        assert_eq!(slot.load().config(), b"of the backend");
    }
}

#[test]
fn functions_that_are_bound_take_no_configuration() {
    let slot = slot();
    let error = slot.reload(Candidate::new(module("1.1.0", 2)).config("a rule")).unwrap_err();
    let ErrorKind::Refused(reason) = error.kind() else { panic!("{error:?}") };
    assert!(reason.is::<ConfigUnsupported>() && error.stage() == Stage::Admit, "{error}");
    assert!(error.to_string().contains("Candidate::config"), "{error}");
    assert_eq!(answer(&slot.load()).unwrap(), 1);
    slot.reload(module("1.1.0", 2)).unwrap();
}
