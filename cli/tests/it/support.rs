//! The program under test, and the plugins that it runs on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hotslot::host::Contract;
use hotslot_fixture_interface::v1_0::Fixture;
use tempfile::TempDir;

/// The result of one run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program.
pub(crate) fn hotslot(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-hotslot")).args(arguments).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    /// Asserts success and returns the standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// Asserts this exit code and returns the standard error.
    #[track_caller]
    pub(crate) fn failed(self, status: i32) -> String {
        assert_eq!((self.status, self.out.as_str()), (Some(status), ""), "{}", self.err);
        assert!(!self.err.contains('\u{1b}'), "{:?}", self.err);
        self.err
    }
}

/// A directory of files for one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().expect("there is room for a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("the folder takes a file");
        path
    }

    /// Writes the fixture's contract to a file.
    pub(crate) fn contract(&self) -> PathBuf {
        self.write("fixture.txt", Contract::of::<dyn Fixture>().to_string())
    }

    /// Generates the fixture's header.
    pub(crate) fn header(&self) {
        let header = hotslot(["header".as_ref(), self.contract().as_os_str()]).ok();
        self.write("fixture.h", header);
    }

    /// Builds the fixture in C against the header, with `more` appended to its source.
    pub(crate) fn c_fixture(&self, name: &str, more: &str) -> PathBuf {
        self.header();
        let source = std::fs::read_to_string(fixtures().join("fixture.c")).expect("the source is there");
        self.c_library(name, &format!("{source}{more}"))
    }

    /// Builds a library from C source.
    pub(crate) fn c_library(&self, name: &str, source: &str) -> PathBuf {
        let library = self.path(name);
        let source = self.write(&format!("{name}.c"), source);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I"]).arg(self.0.path());
        done(compiler.arg("-o").arg(&library).arg(source));
        library
    }

    /// Assembles a module from text.
    pub(crate) fn module(&self, name: &str, text: &str) -> PathBuf {
        self.write(name, wat::parse_str(text).expect("the text is a module"))
    }

    /// Assembles a module that has what the fixture's contract promises, described as `text` 1.0.0.
    pub(crate) fn described_module(&self, name: &str) -> PathBuf {
        let module = self.module(name, PROMISED);
        describe(&module, &self.contract(), &[]).ok();
        module
    }
}

/// Exports of the right types; no test here calls them.
pub(crate) const PROMISED: &str = r#"(module
    (import "hotslot" "log" (func (param i32 i32 i32)))
    (memory (export "memory") 1)
    (func (export "hotslot_create") (param i32) (result i64) i64.const 0)
    (func (export "hotslot_room") (param i32) (result i32) i32.const 0)
    (func (export "hotslot_invoke") (param i32 i32) (result i32) i32.const 3)
    (func (export "hotslot_give") (param i32) (result i32) i32.const 0)
    (func (export "hotslot_run") (result i64) i64.const 0))"#;

/// Describes a module as `text` 1.0.0 of this contract.
pub(crate) fn describe(module: &Path, contract: &Path, more: &[&str]) -> Ran {
    let mut arguments: Vec<&OsStr> =
        vec!["describe".as_ref(), module.as_ref(), "--contract".as_ref(), contract.as_ref()];
    arguments.extend(["--name", "text", "--version", "1.0.0"].map(OsStr::new));
    arguments.extend(more.iter().map(OsStr::new));
    hotslot(arguments)
}

/// Returns the directory of the sources in other languages.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/languages")
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Returns cargo without the environment variables that the test run's own cargo set.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (variable, _) in std::env::vars_os() {
        let is_ours =
            variable.to_str().is_some_and(|name| name.starts_with("CARGO_PKG") || name.starts_with("CARGO_BIN"));
        if is_ours || variable == "CARGO_MANIFEST_DIR" {
            cargo.env_remove(variable);
        }
    }
    cargo
}

/// The Zig compiler; `None` where there is none.
pub(crate) fn zig() -> Option<Command> {
    let is_here = Command::new("zig").arg("version").output().is_ok_and(|output| output.status.success());
    if !is_here {
        eprintln!("skipped: no Zig compiler (pip install ziglang, and its folder on the PATH)");
        return None;
    }
    let mut zig = Command::new("zig");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zig");
    zig.env("ZIG_LOCAL_CACHE_DIR", &cache).env("ZIG_GLOBAL_CACHE_DIR", &cache);
    Some(zig)
}
