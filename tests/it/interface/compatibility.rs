//! Which plugin fits which host: versions 1.0 and 1.1 in all four combinations, on both backends, and those that do not.

use std::mem::offset_of;

use hotslot::host::{CallErrorKind, Contract};
use hotslot::native::Native;
use hotslot::{Backend, HotSlot, Lease, Stage};
use hotslot_fixture_interface::{Values, changed, less, v1_0, v1_1, v2_0};
use hotslot_plugin::Interface;
use hotslot_plugin::abi::{self, Descriptor, Identity};

use super::{built, modules, slots};
use crate::support::trust;

#[test]
fn a_1_0_host_serves_a_1_0_plugin() {
    for (kind, slot) in slots::<dyn v1_0::Fixture>("") {
        assert_eq!(slot.load().add(3), 3, "{kind}");
    }
}

#[test]
fn a_1_0_host_serves_a_1_1_plugin() {
    for (kind, slot) in slots::<dyn v1_0::Fixture>("v1_1") {
        assert_eq!(slot.load().add(3), 3, "{kind}");
    }
}

#[test]
fn a_1_1_host_gives_a_1_0_plugin_the_default_body() {
    for (kind, slot) in slots::<dyn v1_1::Fixture>("") {
        assert_eq!((slot.load().add(3), slot.load().describe(7)), (3, "...7 by default of 0".to_owned()), "{kind}");
    }
}

#[test]
fn a_1_1_host_calls_a_1_1_plugin() {
    for (kind, slot) in slots::<dyn v1_1::Fixture>("v1_1") {
        assert_eq!((slot.load().add(3), slot.load().describe(7)), (3, "7 described".to_owned()), "{kind}");
    }
}

/// A library whose descriptor says that it has so many functions.
fn with_functions(count: u32) -> Vec<u8> {
    let mut bytes = built::library("").bytes();
    let start =
        [&abi::MAGIC[..], &abi::ABI_VERSION.to_ne_bytes(), &(size_of::<Descriptor>() as u32).to_ne_bytes()].concat();
    let places: Vec<_> = bytes.windows(start.len()).enumerate().filter(|(_, window)| *window == start).collect();
    let [(at, _)] = places[..] else { panic!("the descriptor is there {} times", places.len()) };
    let at = at + offset_of!(Identity, function_count);
    let methods = Contract::of::<dyn v1_0::Fixture>().methods.len() as u32;
    assert_eq!(bytes[at..][..4], (1 + methods).to_ne_bytes(), "one for each method, and one for all");
    bytes[at..][..4].copy_from_slice(&count.to_ne_bytes());
    bytes
}

/// As one that was built against a hotslot-plugin which had no more.
#[test]
fn a_library_with_one_function_for_all_methods_is_called_through_that() {
    let backend = Native::interface::<dyn v1_0::Fixture>(trust());
    let slot = HotSlot::builder(backend).open(with_functions(1)).unwrap();
    let plugin = slot.load();
    assert_eq!((plugin.add(3), plugin.add(4), plugin.fail("shout").unwrap()), (3, 7, "SHOUT".to_owned()));
    assert_eq!(plugin.fail("panic").unwrap_err().kind(), CallErrorKind::Panicked);
    assert_eq!(Lease::generation(&plugin), 1);
}

#[test]
fn a_library_with_functions_for_some_of_its_methods_is_refused() {
    for count in [2, 4] {
        let backend = Native::interface::<dyn v1_0::Fixture>(trust());
        let error = HotSlot::builder(backend).open(with_functions(count)).expect_err("which is for which method?");
        assert_eq!(error.stage(), Stage::Admit, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("lists {} functions", count - 1)) && text.contains("4 methods"), "{text}");
    }
}

/// The texts of the refusals, one for each kind of plugin that can be built here.
pub(super) fn refusals<I: Interface + ?Sized>(variant: &str) -> Vec<String> {
    fn refusal<I: Interface + ?Sized>(backend: impl Backend<I>, bytes: Vec<u8>) -> String {
        let error = HotSlot::<I>::builder(backend).open(bytes).expect_err("it does not fit");
        assert_eq!(error.stage(), Stage::Admit, "{error}");
        error.to_string()
    }
    let mut refusals = vec![refusal::<I>(Native::interface::<I>(trust()), built::library(variant).bytes())];
    refusals.extend(built::module(variant).map(|module| refusal::<I>(modules::<I>(), module.bytes())));
    refusals
}

#[test]
fn a_changed_signature_is_refused_by_the_name_of_its_method() {
    for refusal in refusals::<dyn v1_1::Fixture>("changed") {
        assert!(
            refusal.contains("`answer`") && refusal.contains("()->u32") && refusal.contains("()->u64"),
            "{refusal}"
        );
    }
    // Either way round.
    for refusal in refusals::<dyn changed::Fixture>("v1_1") {
        assert!(refusal.contains("`answer`"), "{refusal}");
    }
}

#[test]
fn a_missing_method_is_named() {
    for refusal in refusals::<dyn v1_0::Fixture>("less") {
        assert!(refusal.contains("lacks the method `add(u64)->u64`"), "{refusal}");
    }
}

#[test]
fn a_plugin_that_has_more_than_its_host_asks_for_fits() {
    for (kind, slot) in slots::<dyn less::Fixture>("v1_1") {
        assert_eq!(slot.load().answer(), 0, "{kind}");
    }
}

#[test]
fn another_major_version_is_another_interface() {
    for refusal in refusals::<dyn v1_0::Fixture>("v2_0") {
        assert!(refusal.contains("2.0") && refusal.contains("1.0"), "{refusal}");
    }
    assert_eq!(refusals::<dyn v2_0::Fixture>("").len(), refusals::<dyn v2_0::Fixture>("v1_1").len());
}

#[test]
fn another_interface_is_refused_by_its_name() {
    for refusal in refusals::<dyn Values>("") {
        assert!(refusal.contains("`fixture`") && refusal.contains("`values`"), "{refusal}");
    }
}

#[test]
fn the_id_tells_interfaces_apart_and_versions_of_one_together() {
    let hash = |id: &str| id.split_once('#').expect("it ends in a hash").1.to_owned();
    assert_eq!(hash(<dyn v1_0::Fixture>::ID), hash(<dyn v1_1::Fixture>::ID), "only an optional method came");
    assert_ne!(hash(<dyn v1_1::Fixture>::ID), hash(<dyn changed::Fixture>::ID));
    assert!(<dyn v1_1::Fixture>::ID.starts_with("fixture/1.1#"));
    let slot: HotSlot<dyn v1_1::Fixture> =
        HotSlot::builder(Native::interface::<dyn v1_1::Fixture>(trust())).open(built::library("v1_1").bytes()).unwrap();
    assert_eq!(Lease::manifest(&slot.load()).interface.as_deref(), Some(<dyn v1_1::Fixture>::ID));
}
