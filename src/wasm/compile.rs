//! From bytes to machine code: on a bounded number of threads, one module at a time, and not twice.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::{Engine, Module};

use super::disk_cache::Folder;
use super::error::EngineError;
use crate::{Artifact, BoxError, Digest};

/// Compiles, and keeps what it has compiled.
pub(super) struct Compiler {
    threads: ThreadPool,
    turn: Mutex<()>,
    known: Mutex<Known>,
    folder: Option<Folder>,
    pub(super) counts: Counts,
}

/// Where modules came from so far.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) compiled: AtomicU64,
    pub(super) from_memory: AtomicU64,
    pub(super) from_disk: AtomicU64,
}

/// Compiled modules in memory, the least recently used first.
struct Known {
    modules: VecDeque<(Digest, Module)>,
    /// How many bytes of them are kept.
    limit: usize,
}

impl Compiler {
    pub(super) fn new(threads: usize, keep: usize, folder: Option<Folder>) -> Result<Compiler, EngineError> {
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "hotslot-wasm-compile".to_owned());
        let threads = pool.build().map_err(|error| EngineError::NoThread(std::io::Error::other(error)))?;
        let known = Mutex::new(Known { modules: VecDeque::new(), limit: keep });
        Ok(Compiler { threads, turn: Mutex::new(()), known, folder, counts: Counts::default() })
    }

    pub(super) fn skipped_entries(&self) -> u64 {
        self.folder.as_ref().map_or(0, Folder::skipped)
    }

    /// The module of an admitted artifact.
    ///
    /// It is called on a thread of the slot, which leaves it behind after the slot's `reload_timeout`. What it compiles
    /// even so is kept, and found by the next attempt.
    pub(super) fn module(&self, engine: &Engine, artifact: &Artifact) -> Result<Module, BoxError> {
        let digest = artifact.digest();
        if let Some(module) = self.find(engine, digest) {
            return Ok(module);
        }
        let _turn = self.turn.lock();
        // Whoever had the turn before may have been after the same module.
        if let Some(module) = self.find(engine, digest) {
            return Ok(module);
        }
        let module = self.threads.install(|| Module::from_binary(engine, artifact.bytes()))?;
        self.counts.compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(folder) = &self.folder {
            folder.keep(digest, &module);
        }
        self.known.lock().keep(digest, &module);
        Ok(module)
    }

    /// A module that need not be compiled.
    pub(super) fn find(&self, engine: &Engine, digest: Digest) -> Option<Module> {
        if let Some(module) = self.known.lock().find(digest) {
            self.counts.from_memory.fetch_add(1, Ordering::Relaxed);
            return Some(module);
        }
        let module = self.folder.as_ref()?.find(engine, digest)?;
        self.counts.from_disk.fetch_add(1, Ordering::Relaxed);
        self.known.lock().keep(digest, &module);
        Some(module)
    }

    /// A module from the baseline compiler, which is as fast as a copy of what it would save.
    pub(super) fn compile_baseline(&self, engine: &Engine, artifact: &Artifact) -> wasmtime::Result<Module> {
        self.threads.install(|| Module::from_binary(engine, artifact.bytes()))
    }
}

impl Known {
    fn find(&mut self, digest: Digest) -> Option<Module> {
        let index = self.modules.iter().position(|(known, _)| *known == digest)?;
        let found = self.modules.remove(index)?;
        let module = found.1.clone();
        self.modules.push_back(found);
        Some(module)
    }

    fn keep(&mut self, digest: Digest, module: &Module) {
        self.modules.retain(|(known, _)| *known != digest);
        self.modules.push_back((digest, module.clone()));
        let mut size: usize = self.modules.iter().map(|(_, module)| size(module)).sum();
        while size > self.limit {
            let Some((_, oldest)) = self.modules.pop_front() else { break };
            size -= self::size(&oldest);
        }
    }
}

fn size(module: &Module) -> usize {
    let range = module.image_range();
    range.end.addr() - range.start.addr()
}
