//! Plugins that another compiler made, or the same one with other flags.

use std::path::{Path, PathBuf};
use std::process::Command;

use hotslot::native::DescriptorError;
use hotslot::{HotSlot, Stage, transfer_state};

use super::fixtures::{Fixture, build};
use super::methods::PANIC;
use super::process::killed_by;
use super::{add, answer, answering, builder, native, panicked, reason};

/// A folder for what is built otherwise than the rest.
fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Row 7.
#[test]
fn a_plugin_from_the_nightly_compiler_works() {
    let nightly = |program: &str| {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", program]);
        command
    };
    if !nightly("rustc").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return println!("skipped: no nightly toolchain here");
    }
    works(build(nightly("cargo").env("CARGO_TARGET_DIR", target("fixture-nightly"))));
}

/// Row 7.
#[test]
fn a_plugin_from_the_systems_own_compiler_works() {
    let (cargo, rustc) = (Path::new("/usr/bin/cargo"), Path::new("/usr/bin/rustc"));
    if !cargo.exists() || !rustc.exists() {
        return println!("skipped: the system has no compiler of its own");
    }
    works(build(
        Command::new(cargo)
            .env("RUSTC", rustc)
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("CARGO_TARGET_DIR", target("fixture-system")),
    ));
}

/// It answers, counts, panics, and takes the state of a plugin from the usual compiler; and the other way round.
fn works(image: PathBuf) {
    let other = Fixture::from_file(&image).answering(2);
    let slot = builder().hand_over(transfer_state).open(answering(1)).unwrap();
    add(&slot.load(), 20);
    slot.reload(other).unwrap();
    assert_eq!((answer(&slot.load()), add(&slot.load(), 1)), (2, 21));
    let answer_of_panic = slot.load().call(PANIC, b"from elsewhere");
    assert_eq!(answer_of_panic, Err(panicked("from elsewhere")));
    slot.reload(answering(3)).unwrap();
    assert_eq!((answer(&slot.load()), add(&slot.load(), 1)), (3, 22));
}

/// The fixture, built to abort on panic.
fn aborting() -> Fixture {
    static BUILT: std::sync::LazyLock<Fixture> = std::sync::LazyLock::new(|| {
        let mut cargo = Command::new("cargo");
        cargo.env("CARGO_PROFILE_RELEASE_PANIC", "abort").env("CARGO_TARGET_DIR", target("fixture-abort"));
        Fixture::from_file(&build(&mut cargo))
    });
    BUILT.clone()
}

/// Row 11.
#[test]
fn a_plugin_that_aborts_on_panic_is_refused() {
    let slot = builder().open(answering(1)).unwrap();
    let error = slot.reload(aborting().answering(2)).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    assert_eq!(reason::<DescriptorError>(&error), &DescriptorError::PanicAborts);
    assert!(error.to_string().contains("allow_panic_abort"), "it says what to do: {error}");
    assert_eq!(answer(&slot.load()), 1);
}

/// Row 11: and rightly so.
#[test]
fn a_plugin_that_aborts_on_panic_works_if_it_is_allowed_until_it_panics() {
    let signal = killed_by(|| {
        let slot = HotSlot::builder(native().dangerous().allow_panic_abort()).open(aborting().answering(7)).unwrap();
        assert_eq!(answer(&slot.load()), 7);
        let _ = slot.load().call(PANIC, b"the end");
        unreachable!("it should have taken this process down");
    });
    assert!(signal.is_none_or(|signal| signal == libc::SIGABRT), "{signal:?}");
}
