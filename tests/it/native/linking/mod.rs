//! What an image asks of the loader is read and judged before any of it runs: real libraries, made by real linkers.

mod beliefs;
mod beside;
mod effects;
mod entries;
mod interposition;
mod kinds;
mod needed;
mod other_formats;
mod protections;
mod resolution;
mod static_tls;
mod system;
mod undefined;
mod unique;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use hotslot::native::{Library, LinkError, Native, RawNative};
use hotslot::{HotSlot, Stage};

use super::fixtures::TemporaryFolder;
use super::reason;
use crate::support::admit;

type Answer = unsafe extern "C" fn() -> i32;

/// A backend for libraries with a function `answer`.
fn answers() -> RawNative<Answer> {
    // SAFETY: the fixtures' constructors are harmless, and the type is that in C.
    unsafe { Native::raw(|library: &Library| Ok(library.get("answer")?)) }
}

/// What the current library answers.
fn answer(slot: &HotSlot<Answer>) -> i32 {
    // SAFETY: the function takes nothing, and the lease is held during the call.
    unsafe { slot.load()() }
}

/// Runs a compiler; `None`, with a printed line, if it is not installed.
fn compiled<A: AsRef<OsStr>>(compiler: &str, arguments: impl IntoIterator<Item = A>) -> Option<()> {
    let output = match Command::new(compiler).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no {compiler} here");
            return None;
        }
        output => output.expect("the compiler starts"),
    };
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// Builds a shared library of `text` at `path`.
fn build_at(path: &Path, compiler: &str, text: &str, flags: &[&str]) -> Option<()> {
    let source = path.with_extension(if compiler.contains("++") { "cpp" } else { "c" });
    std::fs::write(&source, text).expect("the folder takes a file");
    let arguments = ["-shared", "-fPIC", "-O1", "-o"].map(OsStr::new).into_iter();
    compiled(compiler, arguments.chain([path.as_os_str(), source.as_os_str()]).chain(flags.iter().map(OsStr::new)))
}

/// The bytes of a shared library of `text`; `None`, with a printed line, if there is no such compiler.
fn build(compiler: &str, text: &str, flags: &[&str]) -> Option<Vec<u8>> {
    let folder = TemporaryFolder::new();
    let path = folder.path().join("library.so");
    build_at(&path, compiler, text, flags)?;
    Some(std::fs::read(path).expect("it was built"))
}

/// A library in C with a function `answer`, linked with these flags.
fn answering(answer: i32, flags: &[&str]) -> Vec<u8> {
    let text = format!("int answer(void) {{ return {answer}; }}");
    build("cc", &text, flags).expect("a C compiler is needed for the tests")
}

/// The refusal of a library for what it asks of the loader, at admission.
#[track_caller]
fn link_error(backend: &RawNative<Answer>, bytes: &[u8]) -> LinkError {
    let error = admit(backend, bytes).expect_err("it was let in");
    *error.downcast().unwrap_or_else(|other| panic!("another error: {other}"))
}

/// Reloads, and returns why that was refused at admission.
#[track_caller]
fn refused(slot: &HotSlot<Answer>, bytes: &[u8]) -> LinkError {
    let error = slot.reload(bytes).expect_err("it was let in");
    assert_eq!(error.stage(), Stage::Admit, "{error}");
    reason::<LinkError>(&error).clone()
}
