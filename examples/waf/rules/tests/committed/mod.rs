//! A module that is committed is the one that its source makes, and small. The crate of each module has this among its tests.

use std::path::Path;
use std::process::Command;

/// What the build script exits with where there is no toolchain for the target.
const NO_TOOLCHAIN: i32 = 77;

/// Builds the module of this name again, and compares.
pub(crate) fn assert_is_what_the_source_makes(name: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let build =
        Command::new(here.join("build.sh")).arg(&out).env("CARGO_TARGET_DIR", out.join("target")).output().unwrap();
    if build.status.code() == Some(NO_TOOLCHAIN) {
        println!("skipped: {}", String::from_utf8_lossy(&build.stderr).trim());
        return;
    }
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let toolchain = |folder: &Path| std::fs::read_to_string(folder.join(format!("{name}.toolchain"))).unwrap();
    if toolchain(here) != toolchain(&out) {
        println!("skipped: the committed module was built by {}, this is {}", toolchain(here), toolchain(&out));
        return;
    }
    let module = |folder: &Path| std::fs::read(folder.join(format!("{name}.wasm"))).unwrap();
    assert!(module(here) == module(&out), "{name}.wasm is not up to date: run build.sh and commit what it writes");
}

/// Checks that a module has fewer bytes than this, and no path of the machine that built it.
pub(crate) fn assert_is_small_and_names_no_machine(module: &[u8], limit: usize) {
    assert!(module.len() < limit, "{} bytes", module.len());
    for folder in [&b"/home/"[..], b"/Users/", b".cargo/registry", b".rustup"] {
        assert!(!module.windows(folder.len()).any(|window| window == folder), "{}", String::from_utf8_lossy(folder));
    }
}
