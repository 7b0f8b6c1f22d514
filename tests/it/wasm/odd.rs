//! Modules that are valid and odd: names of any bytes, sections without number or sense, starts that fail. Each is served, or refused
//! by its reason.

use hotslot::wasm::{ModuleError, WasmCallError};
use hotslot::{HotSlot, Stage};

use super::bombs::leb;
use super::{compile, engine, limits};
use crate::support::admit;

/// A custom section.
fn section(name: &str, contents: &[u8]) -> Vec<u8> {
    let body = [&leb(name.len() as u32), name.as_bytes(), contents].concat();
    [vec![0], leb(body.len() as u32), body].concat()
}

/// The names of functions, as compilers write them.
fn names(names: &[(u32, &[u8])]) -> Vec<u8> {
    let entry = |(index, name): &(u32, &[u8])| [&leb(*index)[..], &leb(name.len() as u32), name].concat();
    let list = [leb(names.len() as u32), names.iter().flat_map(entry).collect()].concat();
    section("name", &[vec![1], leb(list.len() as u32), list].concat())
}

/// Opens a slot on a module, and calls its `run` if it is served.
fn served(bytes: &[u8]) -> Result<Result<u32, WasmCallError>, hotslot::Error> {
    let backend = engine().bind(|binder| binder.func::<(), u32>("run")).call_limits(limits());
    let slot = HotSlot::builder(backend).open(bytes)?;
    Ok(slot.load().call(|run, call| call.run(run, ())))
}

#[test]
fn names_of_any_bytes_harm_nobody() {
    let traps =
        compile(r#"(module (func $inner unreachable) (func (export "run") (result i32) (call $inner) (i32.const 1)))"#);
    let end = traps.windows(6).position(|window| window == b"\x04name\x01").map_or(traps.len(), |at| at - 2);
    let bare = &traps[..end];
    let long = vec![b'x'; 100_000];
    for (what, names) in [
        ("none", vec![]),
        ("not UTF-8", names(&[(0, b"\xff\xfe")])),
        ("escape codes", names(&[(0, b"\x1b[2J\x07\nERROR forged")])),
        ("long", names(&[(0, &long), (1, &long)])),
        ("of functions that are not there", names(&[(7, b"seven"), (u32::MAX, b"last")])),
        ("in disorder, and twice", names(&[(1, b"one"), (0, b"zero"), (0, b"again")])),
        ("cut", section("name", b"\x01\xff\xff\xff\xff\x0f")),
        ("empty", section("name", b"")),
        ("two sections", [names(&[(0, b"a")]), names(&[(0, b"b")])].concat()),
        (
            "debug information that is none",
            [section(".debug_info", &[0xff; 64]), section(".debug_line", b"\0")].concat(),
        ),
    ] {
        let error = match served(&[bare, &names].concat()) {
            Ok(outcome) => outcome.expect_err(what).to_string(),
            Err(error) => panic!("{what}: {error}"),
        };
        assert!(error.contains("unreachable") && error.len() < 10_000, "{what}: {error}");
        assert_eq!(hotslot::escape_untrusted(&error), error, "{what}");
    }
}

#[test]
fn sections_without_number_or_sense_are_passed_over() {
    let module = compile(r#"(module (func (export "run") (result i32) (i32.const 1)))"#);
    let many = section("", b"").repeat(500_000);
    assert!(many.len() < 8 << 20);
    let odd =
        [section("producers", b"\xff"), section("target_features", b"\xff"), section("dylink.0", b"\xff")].concat();
    for (what, sections) in [("many", many), ("odd", odd), ("large", section("x", &vec![0; 7 << 20]))] {
        let answer = served(&[&module[..], &sections].concat()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.unwrap(), 1, "{what}");
    }
    // Before everything else, too.
    let first = [&module[..8], &section("x", b"y"), &module[8..]].concat();
    assert_eq!(served(&first).unwrap().unwrap(), 1);
}

#[test]
fn exports_with_odd_names_are_listed_and_harm_nobody() {
    let run = r#"(func (export "run") (result i32) (i32.const 1))"#;
    let long = "x".repeat(100_000);
    let exports: String = ["", "\\00", "\\1b[2J", "\\e2\\80\\ae", "\u{1f980}", &long]
        .map(|name| format!(r#"(export "{name}" (func 0))"#))
        .concat();
    let bytes = compile(&format!("(module {run} {exports} (memory (export \"m\") (export \"n\") 1))"));
    assert_eq!(served(&bytes).unwrap().unwrap(), 1);
    let listed = hotslot::inspect(&bytes).unwrap().exports;
    assert_eq!(listed.len(), 9);
    for text in &listed {
        assert!(hotslot::escape_untrusted(text) == *text && text.len() < 1_000, "{text}");
    }
}

/// What a refusal says does not grow with what it is about.
#[test]
fn a_refusal_of_many_imports_with_long_names_is_short_enough_to_log() {
    let long = "x".repeat(20_000);
    let imports: String = (0..190).map(|index| format!(r#"(import "{long}" "{index}{long}" (func))"#)).collect();
    let error = admit(&engine().bind(|_| Ok(())), compile(&format!("(module {imports})"))).unwrap_err();
    let ModuleError::Imports { imports } = error.downcast_ref().unwrap() else { panic!("{error}") };
    assert_eq!(imports.len(), 190);
    let length = error.to_string().len();
    assert!(length < 40_000, "{length} bytes");
}

#[test]
fn what_fails_when_an_instance_is_made_is_refused_at_load_by_its_reason() {
    for (what, fields, reason) in [
        ("data beyond the memory", r#"(memory 1) (data (i32.const 65536) "x")"#, "out of bounds"),
        ("data at the end of all addresses", r#"(memory 1) (data (i32.const -1) "xy")"#, "out of bounds"),
        ("elements beyond the table", "(table 1 funcref) (func $f) (elem (i32.const 1) $f)", "out of bounds"),
        ("a start that traps", "(func $f unreachable) (start $f)", "unreachable"),
        ("a start that recurses", "(func $f (call $f)) (start $f)", "stack"),
        (
            "a start that reads beyond a passive segment",
            r#"(memory 1) (data $d "x") (func $f (memory.init $d (i32.const 0) (i32.const 0) (i32.const 2))) (start $f)"#,
            "out of bounds",
        ),
        (
            "a start that takes all the memory there is",
            "(memory 1) (func $f (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable) (start $f)",
            "memory",
        ),
        (
            "a start that calls a null",
            "(table 1 funcref) (type $t (func)) (func $f (call_indirect (type $t) (i32.const 0))) (start $f)",
            "uninitialized",
        ),
    ] {
        let bytes = compile(&format!(r#"(module {fields} (func (export "run") (result i32) (i32.const 1)))"#));
        let error = served(&bytes).map(drop).expect_err(what);
        assert_eq!(error.stage(), Stage::Load, "{what}: {error}");
        assert!(error.to_string().contains(reason), "{what}: {error}");
    }
}

/// Each of these is off, and one of the engine's own errors would come too late.
#[test]
fn more_proposals_that_are_off_are_refused_before_the_compiler() {
    let engine = engine();
    let backend = engine.bind(|_| Ok(()));
    for (what, text) in [
        ("tables of 64 bits", "(module (table i64 1 funcref))"),
        ("typed references", "(module (type $t (func)) (func (param (ref $t))))"),
        ("relaxed SIMD", "(module (func (result v128) (i32x4.relaxed_trunc_f32x4_s (v128.const i32x4 0 0 0 0))))"),
        (
            "wide arithmetic",
            "(module (func (result i64 i64) (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0))))",
        ),
        ("atomics", "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))"),
        ("exceptions", "(module (func (try_table (nop))))"),
        ("legacy exceptions", "(module (tag $e) (func (throw $e)))"),
        ("calls by reference", "(module (type $t (func)) (func (call_ref $t (ref.null $t))))"),
        ("tail calls through a table", "(module (table 1 funcref) (func (return_call_indirect (i32.const 0))))"),
        ("an import of a shared memory", r#"(module (import "a" "b" (memory 1 1 shared)))"#),
        ("a null of another kind", "(module (global externref (ref.null extern)))"),
        ("a parameter that is a reference", "(module (func (param externref)))"),
    ] {
        let error = admit(&backend, compile(text)).expect_err(what);
        let error = error.downcast_ref::<ModuleError>().unwrap_or_else(|| panic!("{what}: {error}"));
        assert!(matches!(error, ModuleError::Proposal { .. } | ModuleError::Malformed { .. }), "{what}: {error}");
    }
    assert_eq!(engine.status().compiled, 0);
}
