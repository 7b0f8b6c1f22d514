//! One slot and one trait, served by plugins from three compilers.

use std::path::PathBuf;

use hotslot::host::CallErrorKind;
use hotslot::native::{Native, Trust};
use hotslot::wasm::{Engine, InstancePolicy};
use hotslot::{Auto, Format, HotSlot, transfer_state};
use hotslot_fixture_interface::v1_0::Fixture;

use crate::support::{Folder, cargo, done, fixtures, hotslot, zig};

/// The fixture in Rust, as a library.
fn in_rust() -> Vec<u8> {
    let mut cargo = cargo();
    cargo.args(["build", "--package", "hotslot-fixture-typed", "--message-format", "json"]);
    let output = done(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = messages.filter(|message| message["target"]["name"] == "hotslot_fixture_typed");
    let files = built.find_map(|message| message["filenames"].as_array().cloned()).expect("cargo says what it made");
    let mut paths = files.iter().filter_map(|file| file.as_str().map(PathBuf::from));
    let library = paths.find(|path| path.extension().is_some_and(|kind| kind == std::env::consts::DLL_EXTENSION));
    std::fs::read(library.expect("one of the files is the library")).expect("the library is there")
}

/// The fixture in Zig, as a module; `None` where there is no compiler.
fn in_zig(folder: &Folder) -> Option<Vec<u8>> {
    let module = folder.path("fixture.wasm");
    let mut zig = zig()?;
    zig.args(["build-exe", "-target", "wasm32-freestanding", "-fno-entry", "-rdynamic", "-OReleaseSmall"]);
    let emitted = format!("-femit-bin={}", module.display());
    done(zig.arg(emitted).arg(fixtures().join("fixture.zig")).current_dir(folder.path("")));
    let (module, contract) = (module.to_str().unwrap(), folder.contract());
    let described = ["--contract", contract.to_str().unwrap(), "--name", "fixture-zig", "--version", "1.0.0"];
    hotslot([&["describe", module, "--schema", "count/1"], &described[..]].concat()).ok();
    hotslot(["check", module, "--against", contract.to_str().unwrap()]).ok();
    Some(std::fs::read(module).expect("the module is there"))
}

#[test]
fn plugins_in_c_rust_and_zig_serve_one_after_the_other_and_hand_their_state_over() {
    let folder = Folder::new();
    let in_c = std::fs::read(folder.c_fixture("fixture.so", "")).unwrap();
    // SAFETY: the fixtures are ours.
    let trust = unsafe { Trust::assume() };
    let native = Native::interface::<dyn Fixture>(trust).config("of the host");
    let engine = Engine::builder().max_instances(6).build().expect("this machine has an engine");
    let wasm = engine.interface::<dyn Fixture>().config("of the host").instance_policy(InstancePolicy::Single);
    let backend = Auto::new().on(Format::LIBRARIES, native).on(Format::WasmModule, wasm);
    let slot: HotSlot<dyn Fixture> =
        HotSlot::builder(backend).hand_over(transfer_state).open(in_c).expect("the plugin in C is sound");

    let serves = |name: &str, answer: u64, sum: u64| {
        let plugin = slot.load();
        assert_eq!(plugin.answer(), answer, "{name}");
        assert_eq!(plugin.add(5), sum, "{name} goes on from the state of the one before");
        assert_eq!(plugin.config(), b"of the host", "{name}");
        assert_eq!(plugin.fail("a word").expect(name), "A WORD");
        let error = plugin.fail("fail").expect_err(name);
        assert_eq!(error.kind(), CallErrorKind::Failed, "{name}");
        assert!(error.to_string().contains("as it was told"), "{name}: {error}");
    };
    serves("C", 12, 5);
    slot.reload(in_rust()).expect("the plugin in Rust is sound");
    serves("Rust", 0, 10);
    let Some(in_zig) = in_zig(&folder) else { return };
    slot.reload(in_zig).expect("the plugin in Zig is sound");
    serves("Zig", 26, 15);
    let error = slot.load().fail("panic").expect_err("it traps");
    assert_eq!(error.kind(), CallErrorKind::Panicked);
    slot.reload(std::fs::read(folder.path("fixture.so")).unwrap()).expect("the plugin in C is sound");
    assert_eq!(slot.load().answer(), 12);
}
