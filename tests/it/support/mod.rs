//! What makes a test short: a backend of plain Rust values, a census of its plugins, and ways to wait for an event.

mod census;
mod done;
mod latch;
mod log;
#[cfg(target_os = "linux")]
pub(crate) mod process;
mod steps;
mod values;
mod wait;

pub(crate) use census::Census;
pub(crate) use done::Done;
pub(crate) use latch::Latch;
pub(crate) use log::{Fields, Log};
pub(crate) use steps::Steps;
pub(crate) use values::{Plugin, Values};
pub(crate) use wait::{PATIENCE, block_on, eventually, wait_for};

use hotslot::{Digest, ErrorKind, HotSlot, Lease, Outcome, Report, Status};

/// Closes the slot, and checks that every plugin that was ever loaded was destroyed once, where it should be.
pub(crate) fn close<T: ?Sized + Send + Sync>(slot: HotSlot<T>, census: &Census) -> Status {
    let status = slot.close(PATIENCE);
    assert!(status.serving.is_none(), "a closed slot serves nothing: {status:?}");
    assert!(status.retired.is_empty() && status.hung == 0, "something lingers: {status:?}");
    assert_eq!(status.counters.destroyed, census.loaded() as u64, "the counter knows of every destruction");
    census.assert_all_destroyed();
    status
}

/// For the libraries that the tests build.
#[cfg(feature = "native")]
pub(crate) fn trust() -> hotslot::native::Trust {
    // SAFETY: they are ours, and what they do is what is tested.
    unsafe { hotslot::native::Trust::assume() }
}

/// The answer of the current plugin, and its generation.
pub(crate) fn serving(slot: &HotSlot<Plugin>) -> (u64, u64) {
    let lease = slot.load();
    (lease.generation(), lease.answer())
}

/// Reloads; again if that took longer than a test's short limits, as on a busy machine it may.
#[track_caller]
pub(crate) fn reload_in_time(slot: &HotSlot<Plugin>, bytes: &[u8]) {
    eventually("it is in time", || match slot.reload(bytes) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_temporary(), "{error}");
            false
        }
    });
}

/// What must be the same before and after a refusal: generation, identity, state and answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) digest: Digest,
    pub(crate) answer: u64,
    pub(crate) state: u64,
    pub(crate) is_retired: bool,
    pub(crate) told_to_stop: bool,
}

pub(crate) fn snapshot(slot: &HotSlot<Plugin>) -> Snapshot {
    let lease = slot.load();
    Snapshot {
        generation: lease.generation(),
        digest: Lease::digest(&lease),
        answer: lease.answer(),
        state: lease.state(),
        is_retired: Lease::is_retired(&lease),
        told_to_stop: Lease::stop_signal(&lease).is_raised(),
    }
}

/// The two generations of a report on a swap.
pub(crate) fn swap(report: &Report) -> Option<(Option<u64>, u64)> {
    match report.outcome {
        Outcome::Swapped { generation, previous } => Some((previous, generation)),
        _ => None,
    }
}

/// The swaps of a slot's history, each as (previous, generation).
pub(crate) fn swaps<T: ?Sized + Send + Sync>(slot: &HotSlot<T>) -> Vec<(Option<u64>, u64)> {
    slot.history().iter().filter_map(swap).collect()
}

/// The generations that are kept for a rollback, the longest retired first.
pub(crate) fn warm<T: ?Sized + Send + Sync>(slot: &HotSlot<T>) -> Vec<u64> {
    let retired = slot.status().retired;
    retired.iter().filter(|retired| retired.phase == hotslot::Phase::Warm).map(|retired| retired.generation).collect()
}

/// Panics unless the error is of this kind.
#[macro_export]
macro_rules! assert_kind {
    ($error:expr, $kind:pat $(if $guard:expr)?) => {
        match &$error {
            error => assert!(matches!(error.kind(), $kind $(if $guard)?), "another kind was expected of: {error:?}"),
        }
    };
}

/// Whether a refusal says this.
pub(crate) fn says(kind: &ErrorKind, text: &str) -> bool {
    kind.to_string().contains(text)
}

/// What `backend` says of bytes at admission.
pub(crate) fn admit<T: ?Sized>(
    backend: &(impl hotslot::Backend<T> + ?Sized),
    bytes: impl AsRef<[u8]>,
) -> Result<hotslot::Manifest, hotslot::BoxError> {
    backend.admit(&hotslot::Payload::new(bytes.as_ref())).map(|admission| admission.manifest().clone())
}
