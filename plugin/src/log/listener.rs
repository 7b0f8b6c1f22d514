//! The host that events go to.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::HostApi;
use crate::{Host, Level};

/// The host that [`init`](super::init) was called with last; null before. In a library or module there is only one.
static HOST: AtomicPtr<HostApi> = AtomicPtr::new(ptr::null_mut());

/// Sends events to this host from now on.
pub(super) fn set(host: Host) {
    HOST.store(ptr::from_ref(host.api()).cast_mut(), Ordering::Release);
}

/// Returns the host, if it listens to events of this level.
pub(super) fn listener(level: Level) -> Option<Host> {
    let api = HOST.load(Ordering::Acquire);
    if api.is_null() {
        return None;
    }
    // SAFETY: P1: `init` was given it by the plugin's host, and it is valid for as long as the plugin's code is mapped.
    let host = unsafe { Host::from_ptr(api) };
    host.is_logged(level).then_some(host)
}

/// Passes an event on, unless that led to it, again and again: a host may log by calling the plugin, and in the process
/// of a test both may have the same logger.
pub(super) fn pass_on(host: Host, level: Level, texts: [&str; 4]) {
    const DEPTH: u8 = 4;
    thread_local! { static WITHIN: Cell<u8> = const { Cell::new(0) }; }
    let depth = WITHIN.get();
    if depth < DEPTH {
        WITHIN.set(depth + 1);
        host.event(level, texts);
        WITHIN.set(depth);
    }
}
