//! What a description says of a type.

#![allow(dead_code, reason = "types are described, and no values of them made")]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use hotslot_plugin::{Schema, schema_id, schema_text};

#[derive(Schema)]
struct Quote {
    bid: f64,
    ask: f64,
    r#type: Kind,
}

#[derive(Schema)]
enum Kind {
    Firm,
    Text(String),
    Pair(u8, Option<Vec<u16>>),
    Rate { per: Duration },
}

#[test]
fn fields_and_variants_are_told_in_their_order() {
    assert_eq!(
        schema_text!(Quote),
        "Quote{bid:f64,ask:f64,type:Kind{Firm=0,Text=1(String),Pair=2(u8,Option<Vec<u16>>),Rate=3{per:Duration}}}"
    );
}

#[test]
fn every_shape_of_a_struct_is_told() {
    #[derive(Schema)]
    struct Unit;
    #[derive(Schema)]
    struct Newtype(u64);
    #[derive(Schema)]
    struct Pair(u64, String);
    assert_eq!(schema_text!((Unit, Newtype, Pair)), "(Unit{},Newtype(u64),Pair(u64,String))");
    assert_eq!(schema_text!((Unit,)), "(Unit{},)");
}

#[test]
fn containers_are_told_by_what_they_are_in_the_bytes() {
    type All = (
        Box<[u8]>,
        VecDeque<Arc<str>>,
        HashMap<String, [u32; 3]>,
        BTreeMap<u8, Cow<'static, str>>,
        HashSet<char>,
        Result<(), Box<i128>>,
        std::num::NonZero<u8>,
        PhantomData<fn()>,
    );
    assert_eq!(
        schema_text!(All),
        "(Vec<u8>,Vec<String>,Map<String,[u32;3]>,Map<u8,String>,Set<char>,Result<(),i128>,NonZero<u8>,())"
    );
}

#[test]
fn a_generic_type_is_told_with_what_is_in_it() {
    struct Untold;
    #[derive(Schema)]
    struct Page<T, U, const N: usize> {
        items: Vec<T>,
        few: [T; N],
        of: PhantomData<fn() -> U>,
    }
    assert_eq!(schema_text!(Page<Option<u8>, Untold, 2>), "Page{items:Vec<Option<u8>>,few:[Option<u8>;2],of:()}");
}

#[test]
fn a_type_within_itself_is_told_once() {
    #[derive(Schema)]
    struct Tree {
        value: u8,
        children: Vec<Tree>,
        by_name: BTreeMap<String, Box<Self>>,
    }
    #[derive(Schema)]
    enum List<T> {
        End,
        More(T, Box<List<T>>),
    }
    assert_eq!(schema_text!(Tree), "Tree{value:u8,children:Vec<Tree>,by_name:Map<String,Tree>}");
    assert_eq!(schema_text!(List<u8>), "List{End=0,More=1(u8,List)}");
}

#[test]
fn types_in_a_circle_are_told_up_to_the_one_with_a_name() {
    #[derive(Schema)]
    struct Folder {
        entries: Vec<Entry>,
    }
    #[derive(Schema)]
    enum Entry {
        File(String),
        Folder(#[schema(name = "folder/1")] Folder),
    }
    assert_eq!(schema_text!(Folder), "Folder{entries:Vec<Entry{File=0(String),Folder=1(\"folder/1\")}>}");
}

#[test]
fn what_replaces_the_fields_is_told_in_their_place() {
    struct Foreign;
    #[derive(Schema)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Told {
        #[serde(rename = "other", alias = "another", default)]
        named: u8,
        #[serde(skip)]
        skipped: Foreign,
        #[serde(skip_serializing, skip_deserializing)]
        left_out: Foreign,
        #[serde(with = "somewhere")]
        #[schema(as = [u8; 16])]
        id: Foreign,
        #[schema(name = "foreign/2")]
        foreign: Foreign,
    }
    #[derive(Schema)]
    #[schema(as = String)]
    #[serde(try_from = "String", into = "String")]
    struct Symbol(Foreign);
    assert_eq!(schema_text!(Told), "Told{named:u8,id:[u8;16],foreign:\"foreign/2\"}");
    assert_eq!(schema_text!(Symbol), "String");
}

#[test]
fn the_id_of_a_state_changes_with_its_type() {
    mod before {
        #[derive(hotslot_plugin::Schema)]
        pub(super) struct State {
            hits: u32,
        }
    }
    mod after {
        #[derive(hotslot_plugin::Schema)]
        pub(super) struct State {
            hits: u64,
        }
    }
    const BEFORE: &str = schema_id!("state", before::State);
    assert!(BEFORE.starts_with("state#") && BEFORE.len() == 22, "{BEFORE}");
    assert_eq!(BEFORE, schema_id!("state", before::State));
    assert_ne!(BEFORE, schema_id!("state", after::State));
}
