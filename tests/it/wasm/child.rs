//! Compilation in a child process. FAULTS 67. The hosts are programs of their own: see src/bin/compiling.rs.

use std::path::PathBuf;

use hotslot::wasm::{CompileError, CompileLimits, Engine, EngineError};
use tempfile::TempDir;

use super::bombs::{Encoder, LOOP, operands, used};
use super::{compile, module};
use crate::support::process::{End, compiling};

/// Runs a scenario with a sound module and another one.
#[track_caller]
fn host(scenario: &str, bad: &[u8], settings: &[&str]) -> End {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (good, bad) = (file("good.wasm", &module("1.0.0", 1)), file("bad.wasm", bad));
    let arguments = [scenario.into(), good.into_os_string(), bad.into_os_string()];
    compiling(arguments.into_iter().chain(settings.iter().map(Into::into)), None)
}

/// The host lived, and printed all of this.
#[track_caller]
fn printed(end: &End, lines: &[&str]) {
    assert!(end.status.success(), "{}: {}", end.status, end.output);
    for line in lines {
        assert!(end.output.contains(line), "{line}: {}", end.output);
    }
}

/// One that takes the compiler long.
fn long() -> Vec<u8> {
    Encoder::of_code(1, 0, LOOP.repeat(40_000))
}

/// One that takes the compiler gigabytes.
fn large() -> Vec<u8> {
    let code = [operands(64), [0x03, 2, 0x0b].repeat(5_000), used(64)];
    Encoder::of_code(1, 0, code.concat())
}

#[test]
fn a_module_that_a_child_compiled_serves_and_is_cached() {
    let cache = TempDir::new().unwrap();
    let folder = format!("cache={}", cache.path().join("compiled").display());
    for allocation in ["pooled", "on_demand=yes"] {
        let end = host("reload", &module("1.1.0", 2), &[&folder, allocation]);
        printed(&end, &["swapped", "serving: 2", "compiled: 2", "functions kept: 0"]);
        let end = host("reload", &module("1.1.0", 2), &[&folder, allocation]);
        printed(&end, &["swapped", "serving: 2", "compiled: 0"]);
    }
}

#[test]
fn snapshots_of_modules_are_compiled_in_children_too() {
    let end = host("reload", &module_without_tables(2), &["preinitialize=yes"]);
    printed(&end, &["swapped", "serving: 2", "snapshots: 1"]);
}

/// One of which a snapshot can be taken.
fn module_without_tables(answer: u32) -> Vec<u8> {
    compile(&format!(
        r#"(module (@custom "version" "1.1.0") (func (export "answer") (result i32) (i32.const {answer})))"#
    ))
}

#[test]
fn a_compilation_ends_at_its_limit_and_the_host_does_not_grow() {
    let (long, large, other) = (long(), large(), module("1.1.0", 2));
    for (bad, setting, error) in [
        (&large, "memory=268435456", "OutOfMemory { limit: 268435456 }"),
        (&long, "cpu=1", "OutOfProcessorTime { limit: 1s }"),
        (&long, "deadline=3000", "TooLate { deadline: 3s }"),
    ] {
        let end = host("reload", bad, &[setting]);
        printed(&end, &["refused: true", error, "serving: 1\n", "compiled: 1"]);
        let grown = end.output.split_once("grew by ").and_then(|(_, rest)| rest.split_once(' ')).expect("it says so").0;
        assert!(grown.parse::<u64>().unwrap() < 64, "{}", end.output);
    }
    // No program for a child's limits is smaller than its own first compilation.
    let end = host("reload", &other, &["output=1000"]);
    assert!(!end.status.success() && end.output.contains("OutputTooLarge { limit: 1000 }"), "{}", end.output);
}

#[test]
fn a_limit_is_known_also_where_nobody_sees_how_a_child_ended() {
    for children in ["children=ignored", "children=reaped"] {
        let end = host("reload", &module("1.1.0", 2), &[children]);
        printed(&end, &["swapped", "serving: 2"]);
        let end = host("reload", &long(), &[children, "cpu=1"]);
        printed(&end, &["OutOfProcessorTime", "serving: 1"]);
        let end = host("reload", &large(), &[children, "memory=268435456"]);
        printed(&end, &["OutOfMemory", "serving: 1"]);
    }
}

#[test]
fn a_bomb_in_a_child_does_not_hold_up_the_reload_of_another_slot() {
    let end = host("beside", &long(), &[]);
    printed(&end, &["other: Ok(\"swapped\")", "meanwhile: the bad one compiled", "Died", "SIGKILL", "serving: 1"]);
}

#[test]
fn a_child_that_nobody_waits_for_is_killed() {
    let end = host("abandoned", &long(), &["patience=1500"]);
    printed(&end, &["no child is left", "serving: 1"]);
}

#[test]
fn a_child_has_no_descriptor_of_its_hosts() {
    let end = host("descriptors", &long(), &[]);
    printed(&end, &["a child has none of them"]);
}

#[test]
fn an_engine_whose_children_cannot_compile_does_not_start() {
    let limits = CompileLimits::default();
    let error = Engine::builder().max_instances(2).compile_in_child(limits).build().unwrap_err();
    assert!(matches!(error, EngineError::NoChild(CompileError::NoRehearsalPoint)), "{error:?}");
    assert!(error.to_string().contains("call hotslot::rehearsal_point() first thing in main"), "{error}");
    // The rehearsal point is there, and a child does not come to it.
    let end = compiling(["reload", "none", "none"], Some(("HOTSLOT_TEST_LATE", "yes")));
    assert!(!end.status.success() && end.output.contains("NotReached"), "{}", end.output);
    assert!(end.output.contains("too late"), "what it did instead is shown: {}", end.output);
}
