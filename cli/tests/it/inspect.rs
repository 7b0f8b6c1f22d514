//! The metadata of plugin files.

use hotslot::Digest;

use crate::support::{Folder, PROMISED, describe, done, hotslot, zig};

#[test]
fn a_library_is_shown_with_its_contract() {
    let folder = Folder::new();
    let library = folder.c_fixture("fixture.so", "");
    let text = hotslot(["inspect".as_ref(), library.as_os_str()]).ok();
    let digest = Digest::of(&std::fs::read(&library).unwrap()).to_string();
    let [format, architecture] = ["format     ELF, ", std::env::consts::ARCH];
    for line in [format, architecture, &digest, "name       fixture-c", "version    1.0.0", "schema     count/1"] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(text.contains("method     fail(&str)->Result<String,CallError>\n"), "{text}");
    assert!(text.contains(<dyn hotslot_fixture_interface::v1_0::Fixture as hotslot::host::Interface>::ID), "{text}");

    let json = hotslot(["hotslot".as_ref(), "inspect".as_ref(), library.as_os_str(), "--json".as_ref()]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["manifest"]["name"], "fixture-c");
    assert_eq!(json["contract"]["methods"][1]["signature"], "(u64)->u64");
    assert_eq!(json["digest"], digest);

    let contract = hotslot(["inspect".as_ref(), "--contract".as_ref(), library.as_os_str()]).ok();
    assert_eq!(contract, std::fs::read_to_string(folder.contract()).unwrap());
}

/// What it asks of the loader is part of the metadata.
#[test]
fn a_library_is_shown_with_what_it_asks_of_the_loader() {
    let folder = Folder::new();
    let library = folder.c_library(
        "asking.so",
        "__thread int it __attribute__((tls_model(\"initial-exec\"))); int *where(void) { return &it; }",
    );
    let text = hotslot(["inspect".as_ref(), library.as_os_str()]).ok();
    assert!(text.contains("static TLS 4 bytes\n"), "{text}");
    let json = hotslot(["inspect".as_ref(), library.as_os_str(), "--json".as_ref()]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["linkage"]["static_tls"], &json["linkage"]["effects"]), (&4.into(), &serde_json::json!([])));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_library_is_shown_with_the_protections_that_it_was_compiled_for() {
    let folder = Folder::new();
    let (source, library) = (folder.write("plain.c", "int answer(void) { return 2; }"), folder.path("guarded.so"));
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-nostdlib", "-fcf-protection=full", "-o"]).arg(&library).arg(source);
    done(&mut compiler);
    let text = hotslot(["inspect".as_ref(), library.as_os_str()]).ok();
    assert!(text.contains("protection shadow stacks (SHSTK)\n"), "{text}");
    let json = hotslot(["inspect".as_ref(), library.as_os_str(), "--json".as_ref()]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["linkage"]["protections"], serde_json::json!(["indirect_branch_tracking", "shadow_stack"]));
}

#[test]
fn a_module_is_shown_with_what_it_needs_and_has() {
    let folder = Folder::new();
    let module = folder.described_module("fixture.wasm");
    let text = hotslot(["inspect".as_ref(), module.as_os_str()]).ok();
    for line in [
        "format     WebAssembly, wasm32",
        "name       text",
        "method     add(u64)->u64",
        "import     hotslot.log(i32, i32, i32)",
        "export     hotslot_invoke(i32, i32) -> i32",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}

#[test]
fn a_library_for_another_platform_is_shown_as_well() {
    let Some(_) = zig() else { return };
    let folder = Folder::new();
    folder.header();
    let source = crate::support::fixtures().join("fixture.c");
    for (target, format) in [("aarch64-macos", "Mach-O, aarch64"), ("x86_64-windows-gnu", "PE, x86_64")] {
        let library = folder.path(target);
        let mut compiler = zig().expect("it was here before");
        compiler.args(["cc", "-target", target, "-shared", "-Wall", "-Wextra", "-Werror", "-I"]).arg(folder.path(""));
        crate::support::done(compiler.arg("-o").arg(&library).arg(&source));
        let text = hotslot(["inspect".as_ref(), library.as_os_str()]).ok();
        assert!(text.contains(format) && text.contains("method     add(u64)->u64"), "{target}: {text}");
        let refusal = hotslot(["check".as_ref(), library.as_os_str()]).failed(1);
        assert!(refusal.contains("and the host loads"), "{refusal}");
    }
}

#[test]
fn what_says_nothing_of_itself_is_said_to() {
    let folder = Folder::new();
    for file in [folder.c_library("plain.so", "int answer;"), folder.module("plain.wasm", "(module)")] {
        let text = hotslot(["inspect".as_ref(), file.as_os_str()]).ok();
        assert!(text.contains("plugin     no: the file has no manifest"), "{text}");
        let error = hotslot(["inspect".as_ref(), file.as_os_str(), "--contract".as_ref()]).failed(1);
        assert!(error.contains("has no contract"), "{error}");
    }
}

#[test]
fn what_is_no_plugin_is_called_by_its_name() {
    let folder = Folder::new();
    let hostile = r#"(module (@custom "hotslot.manifest" "name=\1b[2J"))"#;
    for (file, reason) in [
        (folder.write("text", "fn main() {}"), "no known format"),
        (folder.write("empty", ""), "an empty file"),
        (folder.module("hostile.wasm", hostile), "\\u{1b}[2J"),
        (folder.write("cut.wasm", &wat::parse_str(PROMISED).unwrap()[..60]), "0x"),
    ] {
        let error = hotslot(["inspect".as_ref(), file.as_os_str()]).failed(1);
        assert!(error.contains(reason), "{error}");
    }
    assert!(hotslot(["inspect", "/nowhere\u{1b}[2J"]).failed(2).contains("\\u{1b}"));
    hotslot(["inspect"]).failed(2);
}

#[test]
fn a_module_is_described_once_and_only_with_what_can_be_read() {
    let folder = Folder::new();
    let contract = folder.contract();
    let module = folder.module("fixture.wasm", PROMISED);
    let before = std::fs::read(&module).unwrap();
    let error = describe(&module, &contract, &["--schema", "\u{1b}[2J"]).failed(2);
    assert!(error.contains("printable"), "{error}");
    let error = describe(&folder.write("text", "fn main() {}"), &contract, &[]).failed(2);
    assert!(error.contains("not a WebAssembly module"), "{error}");
    assert_eq!(std::fs::read(&module).unwrap(), before, "what failed wrote nothing");
    let said = describe(&module, &contract, &["--schema", "count/1"]).ok();
    assert!(said.contains("text 1.0.0 of fixture/1.0#"), "{said}");
    let error = describe(&module, &contract, &[]).failed(1);
    assert!(error.contains("already"), "{error}");
}
