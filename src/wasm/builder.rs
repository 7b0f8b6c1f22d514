//! What an engine is told before it starts, and the engine as its users see it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backend::WasmBackend;
use super::binder::Binder;
use super::compile::Compiler;
use super::disk_cache::Folder;
use super::engine::{Allocation, EngineSettings, Family};
use super::error::{CallError, EngineError};
use super::plugin::WasmPlugin;
use crate::host::Interface;

/// A WebAssembly engine, with its compiler and its caches, for one slot or for several.
///
/// Cloning gives another handle to the same engine. It ends when no handle, no backend and no plugin is left.
#[derive(Clone)]
pub struct Wasm(Arc<Family>);

impl Wasm {
    /// An engine with everything as the [builder](WasmBuilder) has it.
    ///
    /// # Errors
    /// There is no thread to be had, or no engine for this machine.
    pub fn new() -> Result<Wasm, EngineError> {
        Wasm::builder().build()
    }

    /// Begins an engine.
    pub fn builder() -> WasmBuilder {
        WasmBuilder {
            instances: 192,
            stack: 256 << 10,
            tick: Duration::from_millis(2),
            pooled: true,
            baseline: false,
            compile_threads: std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            keep_compiled: 64 << 20,
            folder: None,
            keep_on_disk: 256 << 20,
        }
    }

    /// A backend whose plugins are what `bind` makes of an instance: a struct with the functions that you call. It is
    /// called once for every instance, so it should do nothing but look functions up.
    pub fn plugins<C: Send + 'static>(
        &self,
        bind: impl Fn(&mut Binder<'_>) -> Result<C, CallError> + Send + Sync + 'static,
    ) -> WasmBackend<WasmPlugin<C>> {
        WasmBackend::new(Arc::clone(&self.0), bind)
    }

    /// A backend for modules of the interface that the trait `I` declares: `engine.interface::<dyn Trait>()`.
    ///
    /// With [fresh](super::InstancePolicy::Fresh) instances, which is what a backend begins with, a plugin is made anew
    /// for every call: one whose `create` takes time, or which keeps something, wants another
    /// [policy](WasmBackend::instances).
    pub fn interface<I: Interface + ?Sized>(&self) -> WasmBackend<I> {
        WasmBackend::of_interface(Arc::clone(&self.0))
    }

    /// The engine at this moment.
    pub fn status(&self) -> EngineStatus {
        let compiler = &self.0.compiler;
        EngineStatus {
            allocation: self.0.allocation,
            instances: self.0.places().in_use(),
            max_instances: self.0.places().total(),
            compiled: compiler.counts.compiled.load(Ordering::Relaxed),
            found_in_memory: compiler.counts.from_memory.load(Ordering::Relaxed),
            found_on_disk: compiler.counts.from_disk.load(Ordering::Relaxed),
            entries_skipped: compiler.skipped_entries(),
        }
    }
}

impl std::fmt::Debug for Wasm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Wasm").field(&self.status()).finish()
    }
}

/// An [engine](Wasm) at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStatus {
    /// Where the memory of instances comes from.
    pub allocation: Allocation,
    /// Instances that there are: in a call, or waiting for one.
    pub instances: usize,
    /// Instances that there can be.
    pub max_instances: usize,
    /// Modules that were compiled.
    pub compiled: u64,
    /// Modules that were still in memory.
    pub found_in_memory: u64,
    /// Modules that were in the folder.
    pub found_on_disk: u64,
    /// Entries of the folder that were skipped because they did not check out.
    pub entries_skipped: u64,
}

/// What an engine is told before it starts.
#[derive(Clone, Debug)]
pub struct WasmBuilder {
    instances: u32,
    stack: usize,
    tick: Duration,
    pooled: bool,
    baseline: bool,
    compile_threads: usize,
    keep_compiled: usize,
    folder: Option<PathBuf>,
    keep_on_disk: u64,
}

impl WasmBuilder {
    /// How many instances there can be at once, those that wait for a call included. 192 if not set.
    ///
    /// Three times the calls that you expect at once: a generation may drain and another be staged while one serves. A
    /// pool reserves about 4 GiB of address space for each, and no memory.
    pub fn instances(mut self, instances: u32) -> Self {
        self.instances = instances;
        self
    }

    /// Bytes of stack that a plugin's code may use. 256 KiB if not set.
    ///
    /// It is the stack of the calling thread, which must have more than that: an overflow of the thread's own stack
    /// ends the process.
    pub fn stack(mut self, bytes: usize) -> Self {
        self.stack = bytes;
        self
    }

    /// How often running calls are looked at: they are ended this much later than they should be. 2 ms if not set.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Allocates instances on demand, without trying for a pool. Slower, for machines where address space is short and
    /// wanted for something else; where it is refused, this happens by itself.
    pub fn on_demand(mut self) -> Self {
        self.pooled = false;
        self
    }

    /// Lets a module that is not known serve as soon as the baseline compiler (Winch) has done with it, and puts the
    /// optimised code in its place when that is ready. Calls that are under way finish with the code that they have; a
    /// [single](super::InstancePolicy::Single) instance keeps it.
    ///
    /// For modules that are trusted: the baseline compiler is younger, and has let modules out of their sandbox
    /// (RUSTSEC-2026-0095).
    #[cfg(feature = "winch")]
    #[cfg_attr(docsrs, doc(cfg(feature = "winch")))]
    pub fn baseline_first(mut self) -> Self {
        self.baseline = true;
        self
    }

    /// How many threads compile. Half of the cores if not set.
    pub fn compile_threads(mut self, threads: usize) -> Self {
        self.compile_threads = threads;
        self
    }

    /// Bytes of compiled modules that are kept in memory for when they come back. 64 MiB if not set.
    pub fn keep_compiled(mut self, bytes: usize) -> Self {
        self.keep_compiled = bytes;
        self
    }

    /// Keeps compiled modules in a folder that is private to this process's user, and is made if it is not there.
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folder = Some(path.into());
        self
    }

    /// Bytes of compiled modules that are kept in the folder. 256 MiB if not set.
    pub fn keep_on_disk(mut self, bytes: u64) -> Self {
        self.keep_on_disk = bytes;
        self
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// A setting that cannot work, no thread to be had, no engine for this machine, or a folder that is not private.
    pub fn build(self) -> Result<Wasm, EngineError> {
        if self.instances == 0 || self.compile_threads == 0 || self.tick.is_zero() {
            return Err(EngineError::Misuse("instances, compile_threads and tick must not be zero"));
        }
        let settings = EngineSettings {
            instances: self.instances,
            stack: self.stack,
            pooled: self.pooled,
            baseline: self.baseline,
        };
        let family = Family::new(&settings, self.tick, |engine| {
            let folder = self.folder.map(|path| Folder::open(&path, engine, self.keep_on_disk)).transpose()?;
            Compiler::new(self.compile_threads, self.keep_compiled, folder)
        })?;
        Ok(Wasm(Arc::new(family)))
    }
}
