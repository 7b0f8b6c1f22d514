//! FAULTS 37: the wall-clock time jumps by a day; what the node counts in seconds stays so many seconds.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};

use hyper::StatusCode;

use crate::support::node::Folder;
use crate::support::wait::until;
use crate::support::{Module, Node};

const OK: StatusCode = StatusCode::OK;
const DOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const DAY: f64 = 24.0 * 3600.0;

/// Where libfaketime lies, if it is installed. The directory is named after the architecture.
pub fn libfaketime() -> Option<PathBuf> {
    let libraries = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime"));
    let found = libraries.map(|folder| folder.join("libfaketimeMT.so.1")).find(|library| library.exists());
    found.or_else(|| Some("/usr/lib/faketime/libfaketimeMT.so.1".into()).filter(|library: &PathBuf| library.exists()))
}

/// A node whose wall-clock time can be moved; `None` where it cannot.
fn node(changes: &str) -> Option<Node> {
    let Some(library) = libfaketime() else {
        eprintln!("skipped: libfaketime is not installed");
        return None;
    };
    let folder = Folder::new(&Module::new("1.0.0"), changes);
    let clock = folder.path("clock");
    set(&clock, "+0");
    Some(folder.start_as(|mut command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }))
}

/// Moves the wall-clock time, at once for whoever looks.
fn set(clock: &Path, offset: &str) {
    let draft = clock.with_extension("draft");
    fs::write(&draft, offset).unwrap();
    fs::rename(draft, clock).unwrap();
}

/// When the latest attempt was, by the node's wall clock, in seconds.
async fn latest(node: &Node) -> f64 {
    node.admin("/api/v1/wasm/history").await["reloads"][0]["at"].as_f64().unwrap()
}

#[tokio::test]
async fn the_least_time_between_two_reloads_is_not_over_because_the_clock_jumped() {
    let Some(node) = node("[waf.wasm.reload]\nmax_reload_frequency_seconds = 3600") else { return };
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, OK, "the first one is not held up");
    let started = latest(&node).await;
    for (offset, sign) in [("+1d", 1.0), ("-1d", -1.0)] {
        set(&node.folder.path("clock"), offset);
        let answer = node.upload(&Module::new("1.2.0").bytes()).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{offset}: {}", answer.text());
        let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(wait <= 3600, "{offset}: {wait} s");
        // The history shows wall-clock time: it has jumped indeed.
        let jumped = (latest(&node).await - started) * sign;
        assert!(jumped > DAY / 2.0, "{offset}: {jumped} s");
    }
}

#[tokio::test]
async fn deadlines_of_calls_and_of_uploads_end_whatever_the_clock_does() {
    let Some(node) = node("[waf.admin]\nupload_timeout_seconds = 0.5") else { return };
    for offset in ["-1d", "+0", "+1d", "-1d"] {
        let slow = crate::uploads::begin(&node).await;
        set(&node.folder.path("clock"), offset);
        assert_eq!(node.get("/").await.status, OK);
        assert_eq!(node.get("/?do=x").await.status, DOWN, "{offset}");
        crate::uploads::is_cut(slow).await;
        assert_eq!(node.upload(&Module::new("1.0.0").hangs_in("start").bytes()).await.status.as_u16(), 422);
        assert_eq!(node.get("/").await.status, OK);
    }
}

#[tokio::test]
async fn a_probation_is_not_over_because_the_clock_jumped() {
    // The version before cannot bear these requests either: it is not asked.
    let watchful = "[waf.wasm.probation]\nseconds = 3600\nmin_calls = 10\nmax_error_rate = 0.2\nsecond_opinions = 0";
    let Some(node) = node(watchful) else { return };
    for offset in ["+1d", "-1d"] {
        assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, OK);
        assert_eq!(node.get("/").await.status, OK);
        set(&node.folder.path("clock"), offset);
        let node = &node;
        until("the rollback", || async move {
            node.get("/?do=t").await;
            let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
            (latest["trigger"] == "automatic_rollback").then_some(())
        })
        .await;
        assert_eq!(node.version().await["version"], "1.0.0", "{offset}");
    }
}
