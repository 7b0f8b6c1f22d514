//! Takes a snapshot of an instance: a module whose instances begin where that one has come to, because its memory and its
//! globals are their initial ones.
//!
//! The rewriting is `wasmtime-wizer`'s, in two steps: a copy of the module exports its memory and its globals, so that they
//! can be read when an instance of it has been set up; the snapshot is the module again, with what was read.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::{Instance, Store, Val};
use wasmtime_wizer::{InstanceState, ModuleContext, SnapshotVal, ValType, Wizer};

use crate::{Digest, Payload};

/// What the copy exports its memory as; a module that exports such a name itself is refused by the rewriting.
const MEMORY: &str = "__wizer_memory_0";

/// How many runs of bytes that are not zero a memory may have. The rewriting lists them all before it joins them, at 24 bytes each,
/// and a module can have its memory full of runs of one byte.
const MOST_RUNS: usize = 8 << 20;

/// What became of the snapshot of one generation: see [`WasmBackend::preinitialize`](super::WasmBackend::preinitialize).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotStatus {
    /// The name of the generation's slot.
    pub slot: Arc<str>,
    /// The generation's number.
    pub generation: u64,
    /// The digest of the module that was admitted, and that the snapshot was made from.
    pub module: Digest,
    /// The snapshot; or why there is none, and every instance is set up anew.
    pub snapshot: Result<Snapshot, String>,
}

/// The module that the instances of a generation are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: usize,
}

/// A module, and its copy that lets its memory and globals be read.
pub(super) struct Readable<'a> {
    original: ModuleContext<'a>,
    pub(super) copy: Payload,
}

impl<'a> Readable<'a> {
    /// Makes the copy, or says why no snapshot can be taken of the module.
    pub(super) fn of(module: &'a [u8]) -> Result<Readable<'a>, String> {
        let made = contained(|| wizer().instrument(module))?;
        made.map(|(original, copy)| Readable { original, copy: Payload::new(copy) })
            .map_err(|error| format!("{error:#}"))
    }

    /// Takes the snapshot of an instance of the copy.
    pub(super) fn snapshot<T: Send>(&self, store: &mut Store<T>, instance: Instance) -> Result<Payload, String> {
        let mut state = Memory { store, instance };
        state.check_runs(MOST_RUNS)?;
        let taken = contained(|| at_once(wizer().snapshot(&self.original, &mut state)))?;
        taken.map(Payload::new).map_err(|error| format!("{error:#}"))
    }
}

/// It calls nothing by itself, and takes no export away.
fn wizer() -> Wizer {
    let mut wizer = Wizer::new();
    wizer.keep_init_func(true);
    wizer
}

/// Runs the rewriting, which asserts what it believes of a module.
fn contained<R>(rewrite: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(rewrite)).map_err(|_| "the rewriting of it panicked".to_owned())
}

/// Returns the result of what never waits.
fn at_once<R>(work: impl Future<Output = R>) -> R {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

/// The memory and the globals of an instance of the copy.
struct Memory<'a, T: 'static> {
    store: &'a mut Store<T>,
    instance: Instance,
}

impl<T> Memory<'_, T> {
    fn check_runs(&mut self, most: usize) -> Result<(), String> {
        let memory = self.instance.get_memory(&mut *self.store, MEMORY);
        let runs = memory.map_or(0, |memory| runs(memory.data(&*self.store)));
        match runs <= most {
            true => Ok(()),
            false => Err(format!("its memory has {runs} runs of bytes that are not zero, and {most} are allowed")),
        }
    }
}

/// Counts the runs of bytes that are not zero.
fn runs(memory: &[u8]) -> usize {
    let before = std::iter::once(&0).chain(memory);
    memory.iter().zip(before).filter(|(byte, before)| **byte != 0 && **before == 0).count()
}

impl<T: Send> InstanceState for Memory<'_, T> {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut *self.store, name).expect("the copy exports it");
        match global.get(&mut *self.store) {
            Val::I32(value) => SnapshotVal::I32(value),
            Val::I64(value) => SnapshotVal::I64(value),
            Val::F32(value) => SnapshotVal::F32(value),
            Val::F64(value) => SnapshotVal::F64(value),
            Val::V128(value) => SnapshotVal::V128(value.as_u128()),
            reference => unreachable!("a global that changes and is a reference is refused before: {reference:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, read: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut *self.store, name).expect("the copy exports it");
        read(memory.data(&*self.store));
    }
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn runs_are_counted_wherever_they_are() {
        let counts = [&[][..], &[0, 0], &[1], &[0, 1, 1, 0, 0, 2], &[3, 0, 4, 0, 5], &[1, 2, 3]].map(runs);
        assert_eq!(counts, [0, 0, 1, 2, 3, 1]);
    }
}
