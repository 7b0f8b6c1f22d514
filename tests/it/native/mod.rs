//! The native backend on real libraries: a Rust plugin, C plugins, and libraries that never heard of hotslot.
//!
//! FAULTS.md's rows for native plugins are injected here, each for real; the tests say which. What maps, counts or
//! may die has a process of its own.

mod admission;
mod attempts;
mod calls;
mod concurrency;
mod constructors;
mod fixtures;
mod foreign;
mod kind;
mod late;
mod linking;
mod loading;
mod memory;
#[path = "../../fixtures/plugin/src/methods.rs"]
mod methods;
mod outside;
mod rehearsal;
mod running;
mod stale;
mod state;
mod texts;
mod toolchains;
mod turns;
mod unload;

use std::error::Error as StdError;

use hotslot::host::{CallError, CallErrorKind};
use hotslot::native::{Native, NativePlugin};
use hotslot::{Builder, Error, ErrorKind, Event, HotSlot, Release, Subscription};

use crate::support::{process, trust, wait_for};
use fixtures::{Fixture, answering, c_answering, c_library, fixture};
pub(crate) use kind::Libraries;

/// What the fixture implements.
const INTERFACE: &str = "fixture/1";

/// The backend for fixtures, as a user gets it.
fn native() -> Native {
    Native::named_interface(INTERFACE, trust())
}

/// A slot for fixtures, as a user gets it.
fn builder() -> Builder<NativePlugin> {
    HotSlot::builder(native())
}

/// What the plugin answers.
fn answer(plugin: &NativePlugin) -> u32 {
    let digits = plugin.call(methods::ANSWER, b"").expect("the plugin answers");
    String::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).expect("the answer is a number")
}

/// Adds to the plugin's count, and gives the sum.
fn add(plugin: &NativePlugin, more: u64) -> u64 {
    let sum = plugin.call(methods::ADD, &more.to_ne_bytes()).expect("the plugin counts");
    u64::from_ne_bytes(sum.try_into().expect("the sum has eight bytes"))
}

/// The error of a call in which the plugin panicked with this text.
fn panicked(text: &str) -> CallError {
    CallError::new(CallErrorKind::Panicked, format!("the plugin panicked: {text}"))
}

/// The backend's reason for a refusal.
#[track_caller]
fn reason<E: StdError + 'static>(error: &Error) -> &E {
    match error.kind() {
        ErrorKind::Refused(reason) => reason.downcast_ref().unwrap_or_else(|| panic!("another reason: {reason:?}")),
        other => panic!("not the backend's refusal: {other:?}"),
    }
}

/// Waits for the destruction of a generation.
#[track_caller]
pub(crate) fn destroyed(events: &Subscription, wanted: u64) -> Release {
    wait_for(events, |event| match event {
        Event::Destroyed { generation, release } if *generation == wanted => Some(release.clone()),
        _ => None,
    })
}

/// Whether a library was unmapped. It may also be kept because a number on the stack of a thread of the test looks like
/// an address of its code, that of a buffer which lay there before for instance: that is as it should be, and rare.
#[track_caller]
pub(crate) fn is_freed(release: &Release) -> bool {
    match release {
        Release::Freed => true,
        Release::Retained { reason, .. } => {
            let doubt = reason.starts_with("threads that are or may be inside") && !reason.contains("fixture-");
            assert!(doubt, "{reason}");
            false
        }
        other => panic!("{other:?}"),
    }
}

/// Tries until a library is unmapped, a few times at most.
#[track_caller]
fn frees(attempt: impl FnMut() -> Release) {
    let freed = std::iter::repeat_with(attempt).take(5).any(|release| is_freed(&release));
    assert!(freed, "a doubt each time is none");
}

/// Runs `body` on a thread that ends with it, so that no trace of it stays on this thread's stack.
pub(crate) fn elsewhere<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(body).join().expect("the body does not panic"))
}

/// The lines of this process's memory map that contain `what`.
fn mapped(what: &str) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the memory map can be read");
    maps.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
}
