//! What is refused before any of it is compiled, and with which words. FAULTS 1, 5, 6, 16, 23.

use std::error::Error as _;

use hotslot::wasm::{Engine, ModuleError, ModuleLimits, WasmBackend, WasmCallError, WasmPlugin};
use hotslot::{Error, ErrorKind, HotSlot, Stage};

use super::{answer, backend, compile, engine, module, source};
use crate::support::admit;

type Nothing = WasmBackend<WasmPlugin<()>>;

/// A backend that wants nothing of its modules.
fn anything(engine: &Engine) -> Nothing {
    engine.bind(|_| Ok::<_, WasmCallError>(()))
}

/// Why `backend` does not take a module.
#[track_caller]
fn refusal(backend: &Nothing, text: &str) -> ModuleError {
    let error = admit(backend, compile(text)).expect_err("this must be refused");
    error.downcast_ref::<ModuleError>().unwrap_or_else(|| panic!("{error}")).clone()
}

/// The backend's reason for a refusal of the slot.
#[track_caller]
fn reason(error: &Error) -> &ModuleError {
    assert_eq!(error.stage(), Stage::Admit, "{error}");
    let ErrorKind::Refused(reason) = error.kind() else { panic!("{error:?}") };
    reason.downcast_ref().unwrap_or_else(|| panic!("{reason}"))
}

#[test]
fn every_prefix_of_a_module_is_refused_or_a_module_itself() {
    let engine = engine();
    let slot =
        HotSlot::builder(backend(&engine).require_export("answer", "() -> i32")).open(module("1.0.0", 1)).unwrap();
    let backend = anything(&engine).require_export("answer", "() -> i32");
    let whole = module("1.1.0", 2);
    let mut whole_without_a_section = Vec::new();
    for len in 0..whole.len() {
        match admit(&backend, &whole[..len]) {
            Ok(manifest) => whole_without_a_section.push(manifest),
            Err(error) => assert!(error.is::<ModuleError>(), "{len}: {error}"),
        }
    }
    // The last sections are names, manifest and version: what people and hosts read, and code does not need.
    let manifests: Vec<_> = whole_without_a_section.iter().map(|it| (it.version.is_some(), it.name.as_str())).collect();
    assert_eq!(manifests, [(false, ""), (true, ""), (true, "fixture")]);
    admit(&backend, &whole).unwrap();

    // The whole way, for some of them.
    let compiled = engine.status().compiled;
    for len in [0, 4, 8, whole.len() / 2, whole.len() - 1] {
        let error = slot.reload(&whole[..len]).unwrap_err();
        reason(&error);
        assert_eq!(answer(&slot.load()).unwrap(), 1);
    }
    assert_eq!(slot.status().counters.refused, 5);
    assert_eq!(engine.status().compiled, compiled, "the compiler has seen none of it");
    slot.reload(&whole).unwrap();
}

#[test]
fn a_module_with_any_byte_changed_is_refused_or_harmless() {
    let engine = engine();
    let backend = anything(&engine);
    let whole = module("1.0.0", 1);
    let mut refused = 0;
    for index in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[index] ^= flip;
            refused += usize::from(admit(&backend, &changed).is_err());
        }
    }
    assert!(refused > whole.len(), "{refused} of {}", 3 * whole.len());
    for garbage in [&b""[..], b"\x7fELF", b"\0asm", b"not a module at all", &[0; 4096], &[0xff; 4096]] {
        assert!(admit(&backend, garbage).unwrap_err().is::<ModuleError>());
    }
}

#[test]
fn a_refusal_is_one_line() {
    let engine = engine();
    let backend = anything(&engine);
    for garbage in
        [&b"not a module at all"[..], b"\0asm\xff\xff\xff\xff", b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\xff\xff"]
    {
        let text = admit(&backend, garbage).unwrap_err().to_string();
        assert!(!text.contains('\n') && !text.contains("\\u{a}"), "{text}");
    }
}

#[test]
fn a_missing_or_wrong_export_is_named_with_both_signatures() {
    let engine = engine();
    let backend = anything(&engine).require_export("inspect", "(i32,i32) -> i64");
    let found = refusal(&backend, "(module)");
    assert_eq!(found, ModuleError::MissingExport { name: "inspect".into(), wanted: "(i32, i32) -> i64".into() });
    let text = refusal(&backend, r#"(module (func (export "inspect") (param i32)))"#).to_string();
    assert!(text.contains("a function (i32)") && text.contains("(i32, i32) -> i64"), "{text}");
    let text = refusal(&backend, r#"(module (memory (export "inspect") 1))"#).to_string();
    assert!(text.contains("is a memory"), "{text}");
    let right = r#"(module (func (export "inspect") (param i32 i32) (result i64) (i64.const 0)))"#;
    admit(&backend, compile(right)).unwrap();
}

#[test]
fn only_what_the_host_offers_can_be_imported() {
    let engine = engine();
    let backend =
        anything(&engine).link(|linker| linker.func_wrap("env", "twice", |number: u32| number * 2).map(drop)).unwrap();
    let found = refusal(&backend, r#"(module (import "env" "open" (func)))"#);
    let ModuleError::UnknownImport { module, name, offset } = &found else { panic!("{found}") };
    assert_eq!((module.as_str(), name.as_str()), ("env", "open"));
    assert!(*offset > 8);
    let text = refusal(&backend, r#"(module (import "env" "twice" (func (param i64))))"#).to_string();
    assert!(text.contains("a function (i64)") && text.contains("a function (i32) -> i32"), "{text}");
    let text = refusal(&backend, r#"(module (import "env" "twice" (memory 1)))"#).to_string();
    assert!(text.contains("as a memory"), "{text}");
    let escapes = refusal(&backend, r#"(module (import "\1b[2J" "x" (func)))"#).to_string();
    assert!(!escapes.contains('\x1b'), "{escapes}");
    for right in [
        r#"(module (import "env" "twice" (func (param i32) (result i32))))"#,
        r#"(module (import "hotslot" "log" (func (param i32 i32 i32))))"#,
        r#"(module (import "hotslot" "wall_clock" (func (result i64))))"#,
    ] {
        admit(&backend, compile(right)).unwrap();
    }
}

#[test]
fn all_imports_that_do_not_fit_are_named_at_once_with_what_to_do_about_each_family() {
    let engine = engine();
    let backend =
        anything(&engine).link(|linker| linker.func_wrap("env", "twice", |number: u32| number * 2).map(drop)).unwrap();
    let imports = [
        ("wasi_snapshot_preview1", "fd_write", "wasm32-unknown-unknown"),
        ("wasi_snapshot_preview1", "proc_exit", "wasm32-unknown-unknown"),
        ("env", "my_callback", "`WasmBackend::link`"),
        ("GOT.mem", "errno", "statically"),
        ("GOT.func", "handler", "statically"),
        ("env", "__memory_base", "statically"),
        ("gojs", "runtime.wasmWrite", "GOOS=wasip1"),
        ("go", "debug", "GOOS=wasip1"),
        ("__wbindgen_placeholder__", "__wbindgen_throw", "wasm-bindgen"),
        ("wbg", "__wbg_log", "wasm-bindgen"),
        ("env", "abort", "AssemblyScript"),
        ("something", "else", "`something` `else`"),
    ];
    let all: String = imports
        .iter()
        .map(|(module, name, _)| match *module {
            "GOT.mem" | "GOT.func" => format!(r#"(import "{module}" "{name}" (global (mut i32)))"#),
            _ => format!(r#"(import "{module}" "{name}" (func))"#),
        })
        .collect();
    let all = format!(r#"(module {all} (import "env" "twice" (func (param i64))))"#);
    let found = refusal(&backend, &all);
    let text = found.to_string();
    for (module, name, hint) in imports {
        assert!(text.contains(&format!("`{module}` `{name}`")) && text.contains(hint), "{module} {name}: {text}");
        // The same hint if it is the only one.
        let alone = refusal(&backend, &format!(r#"(module (import "{module}" "{name}" (func)))"#));
        assert!(matches!(alone, ModuleError::UnknownImport { .. }) && alone.to_string().contains(hint), "{alone}");
    }
    assert!(text.contains("a function (i64)") && text.contains("a function (i32) -> i32"), "{text}");
    assert_eq!(text.matches("is built for WASI").count(), 1, "{text}");
    assert!(!text.contains('\n'));
    let ModuleError::Imports { imports: listed } = found else { panic!("{text}") };
    assert_eq!(listed.len(), imports.len() + 1);
}

#[test]
fn another_interface_is_refused() {
    let engine = engine();
    let slot = HotSlot::builder(backend(&engine).require_interface("fixture/1"))
        .open(module("1.0.0", 1))
        .expect("it is this one");
    let other = source("1.1.0", 2, "").replace("fixture/1", "fixture/2");
    let error = slot.reload(compile(&other)).unwrap_err();
    let ModuleError::Interface { found, wanted } = reason(&error) else { panic!("{error}") };
    assert_eq!((found.as_deref(), wanted.as_str()), (Some("fixture/2"), "fixture/1"));
    let none = source("1.1.0", 2, "").replace("interface=fixture/1", "");
    assert!(slot.reload(compile(&none)).unwrap_err().to_string().contains("no interface that it names"));
}

#[test]
fn an_older_version_is_refused_unless_it_is_a_rollback() {
    let slot = super::slot();
    slot.reload(module("1.2.0", 2)).unwrap();
    let error = slot.reload(module("1.1.0", 3)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Version(_)), "{error}");
    slot.rollback().unwrap();
    assert_eq!(answer(&slot.load()).unwrap(), 1);
}

#[test]
fn a_version_that_is_none_is_refused() {
    let error = super::slot().reload(module("one", 1)).unwrap_err();
    let ModuleError::Version { offset, reason } = reason(&error) else { panic!("{error}") };
    assert!(*offset > 8 && reason.contains("`one`"), "{error}");
    assert!(error.source().is_none(), "the module's error is the whole reason");
}

#[test]
fn a_schema_promises_that_state_can_be_saved_and_restored() {
    let engine = engine();
    let text = refusal(&anything(&engine), r#"(module (@custom "hotslot.manifest" "schema=x/1"))"#).to_string();
    assert!(text.contains("hotslot_alloc"), "{text}");
}

#[test]
fn proposals_that_are_off_are_refused() {
    let engine = engine();
    let backend = anything(&engine);
    for (what, text) in [
        ("memory64", "(module (memory i64 1))"),
        ("multi-memory", "(module (memory 1) (memory 1))"),
        ("threads", "(module (memory 1 1 shared))"),
        ("gc", "(module (type (struct)))"),
        ("gc types", "(module (table 1 externref))"),
        ("exceptions", "(module (tag))"),
        ("tail calls", "(module (func $f (return_call $f)))"),
        ("custom page sizes", "(module (memory 1 (pagesize 1)))"),
    ] {
        let error = refusal(&backend, text);
        let is_off =
            matches!(error, ModuleError::Proposal { .. } | ModuleError::Malformed { .. } | ModuleError::Limit { .. });
        assert!(is_off, "{what}: {error}");
    }
    assert_eq!(refusal(&backend, "(component)"), ModuleError::Component);
}

/// What a limit says: what there was too much of, how much, and in which function.
#[track_caller]
fn over(limits: ModuleLimits, text: &str, what: &str, found: u64, function: Option<u32>) {
    let engine = Engine::builder().max_instances(1).on_demand().build().unwrap();
    let backend = anything(&engine);
    if admit(&backend, compile(text)).is_err() {
        panic!("{what}: the defaults refuse it already");
    }
    let error = refusal(&backend.module_limits(limits), text);
    let ModuleError::Limit { what: said, found: n, function: at, .. } = error else { panic!("{what}: {error}") };
    assert_eq!((said, n, at), (what, found, function), "{error:?}");
}

#[test]
fn every_limit_is_kept() {
    let limits = ModuleLimits::default;
    over(
        ModuleLimits { size: 30, ..limits() },
        "(module (func) (func) (func) (func) (func))",
        "bytes of module",
        40,
        None,
    );
    over(ModuleLimits { functions: 2, ..limits() }, "(module (func) (func) (func))", "functions", 3, None);
    let (three, nops) = ("(module (type (func)) (type (func)) (type (func)))", "(module (func nop nop nop nop))");
    over(ModuleLimits { types: 2, ..limits() }, three, "types", 3, None);
    over(ModuleLimits { body: 4, ..limits() }, nops, "bytes of code", 6, None);
    let nested = "(module (func) (func (block (block (block)))))";
    over(ModuleLimits { nesting: 2, ..limits() }, nested, "nested blocks", 3, Some(1));
    let locals = "(module (func (param i32 i64) (local i32 f32)))";
    over(ModuleLimits { locals: 3, ..limits() }, locals, "locals", 4, Some(0));
    let sum = "(module (func (result i32) (i32.add (i32.const 1) (i32.add (i32.const 2) (i32.const 3)))))";
    over(ModuleLimits { operands: 2, ..limits() }, sum, "operands on the stack", 3, Some(0));
    let looping = "(module (func (param i32 i64) (loop) (loop) (loop)))";
    over(ModuleLimits { loop_locals: 5, ..limits() }, looping, "locals times loops", 6, Some(0));
    let wide = "(module (type (func (param i32 i32 i32))))";
    over(ModuleLimits { arity: 2, ..limits() }, wide, "parameters or results of a type", 3, None);
    let log = r#"(import "hotslot" "log" (func (param i32 i32 i32)))"#;
    over(ModuleLimits { imports: 1, ..limits() }, &format!("(module {log} {log})"), "imports", 2, None);
    let exports = r#"(module (func (export "a") (export "b")))"#;
    over(ModuleLimits { exports: 1, ..limits() }, exports, "exports", 2, None);
    let globals = "(module (global i32 (i32.const 0)) (global i32 (i32.const 0)))";
    over(ModuleLimits { globals: 1, ..limits() }, globals, "globals", 2, None);
    let data = r#"(module (memory 1) (data (i32.const 0) "a") (data (i32.const 1) "b"))"#;
    over(ModuleLimits { data_segments: 1, ..limits() }, data, "data segments", 2, None);
    let elements = "(module (func $f) (table 2 funcref) (elem (i32.const 0) $f) (elem (i32.const 1) $f))";
    over(ModuleLimits { element_segments: 1, ..limits() }, elements, "element segments", 2, None);
    over(ModuleLimits { tables: 1, ..limits() }, "(module (table 1 funcref) (table 1 funcref))", "tables", 2, None);
}

#[test]
fn memory_and_tables_that_are_too_large_from_the_start_are_refused() {
    let engine = engine();
    let backend = anything(&engine);
    for (text, what, found) in [
        ("(module (memory 65536))", "bytes of memory from the start", 1 << 32),
        ("(module (memory 513))", "bytes of memory from the start", 513 << 16),
        ("(module (table 10000000 funcref))", "table elements from the start", 10_000_000),
    ] {
        let error = refusal(&backend, text);
        let ModuleError::Limit { what: said, found: n, .. } = error else { panic!("{error}") };
        assert_eq!((said, n), (what, found));
    }
    admit(&backend, compile("(module (memory 512) (table 10000 funcref))")).unwrap();
}

/// The compiler would take half a minute and gigabytes for these.
#[test]
fn compile_bombs_never_reach_the_compiler() {
    let engine = engine();
    let slot = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).unwrap();
    let compiled = engine.status().compiled;
    let functions = "(func)".repeat(50_000);
    let body = "(drop (i32.const 1))".repeat(200_000);
    let deep = format!("{}{}", "(block ".repeat(10_000), ")".repeat(10_000));
    let locals = "(local i32)".repeat(40_000);
    let loops = "(loop)".repeat(20_000);
    let table = format!("(br_table {} 0 (i32.const 0))", "0 ".repeat(400_000));
    for (what, text) in [
        ("functions", format!("(module {functions})")),
        ("bytes of code", format!("(module (func {body}))")),
        ("bytes of code", format!("(module (func {table}))")),
        ("nested blocks", format!("(module (func {deep}))")),
        ("locals", format!("(module (func {locals}))")),
        ("locals times loops", format!("(module (func {} {loops}))", "(local i32)".repeat(1_000))),
    ] {
        let error = slot.reload(compile(&text)).unwrap_err();
        let ModuleError::Limit { what: said, .. } = reason(&error) else { panic!("{what}: {error}") };
        assert_eq!(*said, what);
    }
    let large = [module("1.1.0", 2), vec![0; 9 << 20]].concat();
    assert!(matches!(reason(&slot.reload(large).unwrap_err()), ModuleError::Limit { what: "bytes of module", .. }));
    assert_eq!(engine.status().compiled, compiled);
    assert_eq!(answer(&slot.load()).unwrap(), 1);
}
