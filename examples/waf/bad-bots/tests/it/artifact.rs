//! The module that is committed is the one that its source makes.

use std::path::Path;
use std::process::Command;

/// What the build script exits with where there is no toolchain for the target.
const NO_TOOLCHAIN: i32 = 77;

#[test]
fn the_committed_module_is_what_the_source_makes() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad-bot-blocker");
    let build =
        Command::new(here.join("build.sh")).arg(&out).env("CARGO_TARGET_DIR", out.join("target")).output().unwrap();
    if build.status.code() == Some(NO_TOOLCHAIN) {
        println!("skipped: {}", String::from_utf8_lossy(&build.stderr).trim());
        return;
    }
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let toolchain = |folder: &Path| std::fs::read_to_string(folder.join("bad-bot-blocker.toolchain")).unwrap();
    if toolchain(here) != toolchain(&out) {
        println!("skipped: the committed module was built by {}, this is {}", toolchain(here), toolchain(&out));
        return;
    }
    let module = |folder: &Path| std::fs::read(folder.join("bad-bot-blocker.wasm")).unwrap();
    assert!(
        module(here) == module(&out),
        "bad-bot-blocker.wasm is not up to date: run build.sh and commit what it writes"
    );
}

#[test]
fn the_committed_module_is_small_and_names_no_machine() {
    let module = include_bytes!("../../bad-bot-blocker.wasm");
    assert!(module.len() < 150_000, "{} bytes", module.len());
    for folder in [&b"/home/"[..], b"/Users/", b".cargo/registry", b".rustup"] {
        assert!(!module.windows(folder.len()).any(|window| window == folder), "{}", String::from_utf8_lossy(folder));
    }
}
