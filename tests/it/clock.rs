//! The time of day jumps; what the slot has promised in seconds stays so many seconds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, process};

/// Where libfaketime lies, if it is installed. The directory is named after the architecture.
fn libfaketime() -> Option<PathBuf> {
    let libraries = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime"));
    let found = libraries.map(|folder| folder.join("libfaketimeMT.so.1")).find(|library| library.exists());
    found.or_else(|| Some("/usr/lib/faketime/libfaketimeMT.so.1".into()).filter(|library: &PathBuf| library.exists()))
}

/// The host is a process of its own, whose clock can be moved: see `src/bin/clock_jump.rs`.
#[test]
fn timeouts_hold_when_the_clock_jumps_a_day() {
    let Some(library) = libfaketime() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let clock = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{}", process::id()));
    fs::write(&clock, "+0").unwrap();
    let host = Command::new(env!("CARGO_BIN_EXE_clock_jump"))
        .arg(&clock)
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .output()
        .unwrap();
    fs::remove_file(&clock).unwrap();
    let (out, err) = (String::from_utf8_lossy(&host.stdout), String::from_utf8_lossy(&host.stderr));
    assert!(host.status.success(), "{}\n{out}\n{err}", host.status);
    assert!(out.contains("all limits held"), "{out}\n{err}");
}
