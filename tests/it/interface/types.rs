//! Serde types that changed on one side: refused by type and field, before any code of the plugin runs.

use std::sync::Arc;

use hotslot::host::{Contract, ContractError};
use hotslot::native::Native;
use hotslot::{HotSlot, Stage};
use hotslot_fixture_interface::{Ledger, Note, notes, swapped};
use hotslot_plugin::CallError;

use super::compatibility::refusals;
use super::{built, modules};
use crate::support::trust;

/// Declares the same interface on both sides, with the types of each, and returns what the host says of the plugin.
macro_rules! changed {
    (plugin { $($ours:tt)* } host { $($theirs:tt)* }) => { changed!([()] plugin { $($ours)* } host { $($theirs)* }) };
    ([$answer:ty] plugin { $($ours:tt)* } host { $($theirs:tt)* }) => {{
        changed!(@side plugin [$answer] $($ours)*);
        changed!(@side host [$answer] $($theirs)*);
        let [plugin, host] = [Contract::of::<dyn plugin::Takes>(), Contract::of::<dyn host::Takes>()];
        host.admits(&host).expect("the same fits");
        host.admits(&plugin).map_err(|error| {
            assert!(matches!(error, ContractError::ChangedType { .. }), "{error}");
            assert!(error.to_string().contains("`take`"), "{error}");
            let text = error.to_string();
            text.split_once("differs. ").unwrap().1.split_once(". A changed").unwrap().0.to_owned()
        })
    }};
    (@side $side:ident [$answer:ty] $($items:tt)*) => {
        #[allow(dead_code, unreachable_pub, unused_imports, reason = "nothing is called, only compared")]
        mod $side {
            use std::collections::{BTreeMap, HashMap};
            use serde::{Deserialize, Serialize};
            use hotslot_plugin::{Schema, interface};
            $($items)*
            #[interface(version = "1.0", name = "takes")]
            pub trait Takes {
                fn take(&self, value: Changed) -> $answer;
            }
        }
    };
}

macro_rules! refused {
    (plugin { $($ours:tt)* } host { $($theirs:tt)* } $expected:literal) => {
        assert_eq!(changed!(plugin { $($ours)* } host { $($theirs)* }), Err($expected.to_owned()));
    };
}

#[test]
fn fields_that_changed_are_named() {
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { ask: f64, bid: f64 } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, ask: f64 } }
        "Changed: the plugin has `ask` where the host has `bid`, field 1"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, offer: f64 } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, ask: f64 } }
        "Changed: the plugin has `offer` where the host has `ask`, field 2"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64 } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, ask: f64 } }
        "Changed: the plugin lacks `ask`, field 2, which the host has"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, ask: f64, #[serde(default)] size: u8 } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, ask: f64 } }
        "Changed: the plugin has `size`, field 3, which the host does not have"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, #[serde(skip)] ask: f64 } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bid: f64, ask: f64 } }
        "Changed: the plugin lacks `ask`, field 2, which the host has"
    );
}

#[test]
fn types_of_fields_that_changed_are_named() {
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { size: u32 } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { size: u64 } }
        "Changed: `size`, field 1, is `u32` in the plugin and `u64` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { size: Option<u64> } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { size: u64 } }
        "Changed: `size`, field 1, is `Option<u64>` in the plugin and `u64` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { sizes: Vec<(u8, i16)> } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { sizes: Vec<(u8, u16)> } }
        "Changed: `sizes`, field 1, is `Vec<(u8,i16)>` in the plugin and `Vec<(u8,u16)>` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { sizes: [u8; 3] } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { sizes: [u8; 4] } }
        "Changed: `sizes`, field 1, is `[u8;3]` in the plugin and `[u8;4]` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { sizes: HashMap<u8, String> } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { sizes: HashMap<String, u8> } }
        "Changed: `sizes`, field 1, is `Map<u8,String>` in the plugin and `Map<String,u8>` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed(u8, u16); }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed(u8, u8); }
        "Changed: field 2, is `u16` in the plugin and `u8` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed(i64); }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed(u64); }
        "Changed: field 1, is `i64` in the plugin and `u64` in the host"
    );
}

#[test]
fn variants_that_changed_are_named() {
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Sell, Buy, Hold(u8) } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Buy, Sell, Hold(u8) } }
        "Changed: the plugin has `Sell` where the host has `Buy`, variant 1"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Buy(u8), Sell, Wait } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Buy(u8), Sell } }
        "Changed: the plugin has `Wait`, variant 3, which the host does not have"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Buy(u8), Sell(u8) } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Buy(u8), Sell } }
        "Changed: `Sell`, variant 2, is `(u8)` in the plugin and empty in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Buy { at: u32 }, Sell } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub enum Changed { Buy { at: u64 }, Sell } }
        "Buy: `at`, field 1, is `u32` in the plugin and `u64` in the host"
    );
}

#[test]
fn the_innermost_type_that_changed_is_named() {
    refused!(
        plugin {
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { name: String, levels: Vec<Option<Level>> }
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Level { size: u32, price: f64 }
        }
        host {
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { name: String, levels: Vec<Option<Level>> }
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Level { price: f64, size: u32 }
        }
        "Level: the plugin has `size` where the host has `price`, field 1"
    );
    refused!(
        plugin {
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { page: Page<u8> }
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Page<T> { items: Vec<T> }
        }
        host {
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { page: Page<u16> }
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Page<T> { items: Vec<T> }
        }
        "Page: `items`, field 1, is `Vec<u8>` in the plugin and `Vec<u16>` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { a: u8, next: Option<Box<Changed>> } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { a: u16, next: Option<Box<Changed>> } }
        "Changed: `a`, field 1, is `u8` in the plugin and `u16` in the host"
    );
    refused!(
        plugin { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { #[schema(name = "id/2")] id: String } }
        host { #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { #[schema(name = "id/1")] id: String } }
        "Changed: `id`, field 1, is `\"id/2\"` in the plugin and `\"id/1\"` in the host"
    );
}

#[test]
fn plain_types_are_compared_in_the_same_way() {
    refused!(
        plugin { #[derive(Clone, Copy, hotslot_plugin::Plain)] pub struct Changed { ask: f64, bid: f64 } }
        host { #[derive(Clone, Copy, hotslot_plugin::Plain)] pub struct Changed { bid: f64, ask: f64 } }
        "Changed: the plugin has `ask` where the host has `bid`, field 1"
    );
    refused!(
        plugin { #[derive(Clone, Copy, hotslot_plugin::Plain)] pub enum Changed { Buy = 1, Sell = -1 } }
        host { #[derive(Clone, Copy, hotslot_plugin::Plain)] pub enum Changed { Buy = 1, Sell = 2 } }
        "Changed: `Sell`, variant 2, is `-1` in the plugin and `2` in the host"
    );
}

#[test]
fn what_postcard_does_not_see_is_no_change() {
    let outcome = changed!(
        plugin {
            #[derive(Serialize, Deserialize, Schema)]
            #[serde(rename_all = "UPPERCASE")]
            pub struct Changed { #[serde(rename = "b")] bids: Vec<Box<str>>, sizes: BTreeMap<u8, u8> }
        }
        host {
            #[derive(Serialize, Deserialize, Schema)]
            pub struct Changed { bids: Vec<String>, sizes: HashMap<u8, u8> }
        }
    );
    assert_eq!(outcome, Ok(()));
}

#[test]
fn answers_and_errors_are_compared_too() {
    const ANSWER: &str = "Level: the plugin has `size` where the host has `price`, field 1";
    let level = |first: &str| format!("interface i 1.0\nmethod take()->{first}\n");
    let read = |text: String| Contract::parse(text.as_bytes()).unwrap();
    for (plugin, host) in [
        ("postcard:Level{size:u8,price:u8}", "postcard:Level{price:u8,size:u8}"),
        ("Result<(),postcard:Level{size:u8,price:u8}>", "Result<(),postcard:Level{price:u8,size:u8}>"),
        ("Result<postcard:Vec<Level{size:u8}>,CallError>", "Result<postcard:Vec<Level{price:u8}>,CallError>"),
    ] {
        let error = read(level(host)).admits(&read(level(plugin))).unwrap_err().to_string();
        assert!(error.contains(ANSWER), "{error}");
    }
}

#[test]
fn a_contract_from_before_types_were_described_is_refused() {
    let old = Contract::parse(b"interface i 1.0\nmethod take(Vec<Note>:postcard)->()\n").unwrap();
    let new = Contract::parse(b"interface i 1.0\nmethod take(postcard:Vec<Note{at:u8}>)->()\n").unwrap();
    for (host, plugin) in [(&new, &old), (&old, &new), (&old, &old)] {
        let error = host.admits(plugin).unwrap_err();
        assert!(matches!(error, ContractError::Undescribed { .. }), "{error}");
        assert!(error.to_string().contains("`take`") && error.to_string().contains("build"), "{error}");
    }
}

#[test]
fn a_plugin_with_swapped_fields_is_refused_by_type_and_field() {
    for refusal in refusals::<dyn notes::Notes>("swapped") {
        assert!(refusal.contains("Note: the plugin has `lines` where the host has `subject`, field 1"), "{refusal}");
    }
}

#[test]
fn a_plugin_that_expects_another_type_of_a_service_is_refused_by_type_and_field() {
    let check = |slot: Result<HotSlot<dyn swapped::Notes>, hotslot::Error>| {
        let error = slot.expect_err("the ledger has other notes");
        assert_eq!(error.stage(), Stage::Load);
        let text = error.to_string();
        assert!(text.contains("`ledger`"), "{text}");
        assert!(text.contains("Note: the plugin has `lines` where the host has `subject`, field 1"), "{text}");
    };
    let service = || -> Arc<dyn Ledger> { Arc::new(NoLedger) };
    let native = Native::interface::<dyn swapped::Notes>(trust()).config("ledger").service(service());
    check(HotSlot::builder(native).open(built::library("swapped").bytes()));
    if let Some(module) = built::module("swapped") {
        let modules = modules::<dyn swapped::Notes>().config("ledger").service(service());
        check(HotSlot::builder(modules).open(module.bytes()));
    }
}

/// A service that is never called.
struct NoLedger;

impl Ledger for NoLedger {
    fn note(&self, _: &str) -> u32 {
        0
    }

    fn first(&self) -> Result<Note, CallError> {
        Err(CallError::failed("it is empty"))
    }

    fn panics(&self) -> Result<(), CallError> {
        Ok(())
    }
}
