//! Builds plugins of this workspace for the tests and the benchmarks.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a package of this workspace as a dynamic library, and gives its path. `options` go to cargo, and `flags` to the
/// compiler, for this package only.
pub fn library(package: &str, options: &[&str], flags: &[&str]) -> PathBuf {
    let options = [&["--message-format", "json"], options].concat();
    let output = build(&mut Command::new("cargo"), package, &options, flags);
    let messages = String::from_utf8(output).expect("cargo writes UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let name = package.replace('-', "_");
    let mut plugins = messages.filter(|message| message["target"]["name"] == *name);
    let files = plugins.find_map(|message| message["filenames"].as_array().cloned());
    let paths = files.into_iter().flatten().filter_map(|file| file.as_str().map(PathBuf::from));
    let mut libraries = paths.filter(|path| path.extension().is_some_and(|kind| kind != "rlib" && kind != "rmeta"));
    libraries.next().expect("cargo says where it put the library")
}

/// Builds a package of this workspace as a WebAssembly module, and gives its path; `None`, with a word about it, where no
/// toolchain can. `flags` go to the compiler, for this package only.
pub fn module(package: &str, flags: &[&str]) -> Option<PathBuf> {
    let toolchain = Toolchain::find()?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests");
    let (mut command, own) = toolchain.cargo();
    // A cargo that runs the tests has settings of its own in the environment.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
        command.env_remove(variable);
    }
    command.env("CARGO_TARGET_DIR", &target);
    // Small modules are compiled sooner, and what they do is not the point.
    command.envs([("CARGO_PROFILE_RELEASE_LTO", "true"), ("CARGO_PROFILE_RELEASE_PANIC", "abort")]);
    let wasm = ["--release", "--target", "wasm32-unknown-unknown"];
    build(&mut command, package, &[&wasm[..], own].concat(), flags);
    let file = format!("{}.wasm", package.replace('-', "_"));
    Some(target.join("wasm32-unknown-unknown/release").join(file))
}

fn build(cargo: &mut Command, package: &str, options: &[&str], flags: &[&str]) -> Vec<u8> {
    let output = cargo
        .args(["rustc", "--quiet", "--lib", "--package", package])
        .args(options)
        .arg("--")
        .args(flags)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A toolchain that builds for wasm32.
enum Toolchain {
    /// This one has the target.
    Own,
    /// A distribution's, with the sources of the standard library, and a linker that another one brings.
    Distribution { linker: PathBuf },
}

impl Toolchain {
    fn find() -> Option<Toolchain> {
        let ask = |rustc: &str, arguments: &[&str]| {
            let output = Command::new(rustc).arg("--print").args(arguments).output().ok()?;
            Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
        };
        let own = ask("rustc", &["target-libdir", "--target", "wasm32-unknown-unknown"]);
        if own.is_some_and(|folder| folder.is_dir()) {
            return Some(Toolchain::Own);
        }
        let sources = ask("/usr/bin/rustc", &["sysroot"]).map(|sysroot| sysroot.join("lib/rustlib/src/rust/library"));
        if !sources.is_some_and(|sources| sources.is_dir()) {
            eprintln!("skipped: no toolchain for wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown)");
            return None;
        }
        let linker = ask("rustc", &["target-libdir"])?.parent()?.join("bin");
        Some(Toolchain::Distribution { linker })
    }

    /// Its cargo, and what to tell it.
    fn cargo(&self) -> (Command, &'static [&'static str]) {
        match self {
            Toolchain::Own => (Command::new("cargo"), &[]),
            Toolchain::Distribution { linker } => {
                let mut command = Command::new("/usr/bin/cargo");
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("/usr/bin:{path}:{}", linker.display()));
                command.envs([("RUSTC", "/usr/bin/rustc"), ("RUSTC_BOOTSTRAP", "1")]);
                (command, &["-Zbuild-std=std,panic_abort", "-Zbuild-std-features="])
            }
        }
    }
}
