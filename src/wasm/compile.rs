//! From bytes to machine code: on a bounded number of threads, in turn, and no module twice.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::Module;

use super::compile_child::ChildCompiler;
use super::compile_queue::{CompileQueue, LANES, Turn};
use super::disk_cache::DiskCache;
use super::error::EngineError;
use super::function_cache::FunctionCache;
use super::function_packs::FunctionPacks;
use super::idle::is_idle;
use crate::{Artifact, BoxError, Digest, PluginScope};

/// Compiles modules, and caches the results.
pub(super) struct Compiler {
    threads: CompileThreads,
    usual: ThreadPool,
    /// For a compilation that begins while the machine is idle, if that has more threads.
    idle: Option<ThreadPool>,
    /// For what is compiled beside a compilation that takes long, a thread each.
    beside: Vec<ThreadPool>,
    queue: Arc<CompileQueue>,
    memory: Mutex<MemoryCache>,
    /// `Err` if there is a directory that cannot be used.
    disk: Result<Option<Arc<DiskCache>>, io::ErrorKind>,
    /// `None` if there is none, as with children.
    functions: Option<Arc<FunctionCache>>,
    packs: Option<Arc<FunctionPacks>>,
    children: Option<Children>,
    pub(super) counts: CompileCounts,
}

/// How many threads compile a module.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompileThreads {
    pub(super) usual: usize,
    /// While the machine is idle.
    idle: usize,
}

impl CompileThreads {
    pub(super) fn fixed(threads: usize) -> CompileThreads {
        CompileThreads { usual: threads, idle: threads }
    }

    /// All cores of an idle machine, and half of them if others need them, too.
    pub(super) fn by_load() -> CompileThreads {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        CompileThreads { usual: cores.div_ceil(2), idle: cores }
    }
}

/// What compiles in children, if that is to be.
pub(super) struct Children {
    pub(super) optimising: ChildCompiler,
    pub(super) baseline: Option<ChildCompiler>,
}

/// What becomes of compiled modules on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskCacheStatus {
    /// There is no [`cache_dir`](super::EngineBuilder::cache_dir).
    Off,
    /// They are read and written.
    Working,
    /// They are read. The last one could not be written: the directory is mounted for reading only, for instance, or the
    /// disk is full.
    NotWritable(io::ErrorKind),
    /// The directory could not be used when the engine was built, and the engine works without.
    Unavailable(io::ErrorKind),
}

/// Counts where modules came from so far.
#[derive(Default)]
pub(super) struct CompileCounts {
    pub(super) compiled: AtomicU64,
    pub(super) from_memory: AtomicU64,
    pub(super) from_disk: AtomicU64,
}

/// Compiled modules in memory, the least recently used first.
struct MemoryCache {
    modules: VecDeque<(Digest, Module)>,
    /// Bytes of machine code.
    limit: usize,
}

impl Compiler {
    pub(super) fn new(
        threads: CompileThreads,
        limit: usize,
        disk: Result<Option<DiskCache>, io::ErrorKind>,
        functions: Option<Arc<FunctionCache>>,
        children: Option<Children>,
    ) -> Result<Compiler, EngineError> {
        let idle = (threads.idle != threads.usual).then(|| pool(threads.idle)).transpose()?;
        let beside = (1..LANES).map(|_| pool(1)).collect::<Result<_, _>>()?;
        let memory = Mutex::new(MemoryCache { modules: VecDeque::new(), limit });
        let disk = disk.map(|disk| disk.map(Arc::new));
        let packs = match (&functions, &disk) {
            (Some(functions), Ok(Some(disk))) => {
                Some(Arc::new(FunctionPacks::new(Arc::clone(functions), Arc::clone(disk))))
            }
            _ => None,
        };
        Ok(Compiler {
            threads,
            usual: pool(threads.usual)?,
            idle,
            beside,
            queue: Arc::default(),
            memory,
            disk,
            functions,
            packs,
            children,
            counts: CompileCounts::default(),
        })
    }

    pub(super) fn skipped_entries(&self) -> u64 {
        self.disk().map_or(0, DiskCache::skipped)
    }

    pub(super) fn functions(&self) -> Option<&FunctionCache> {
        self.functions.as_deref()
    }

    pub(super) fn disk_cache_status(&self) -> DiskCacheStatus {
        match &self.disk {
            Ok(None) => DiskCacheStatus::Off,
            Ok(Some(disk)) => disk.failed().map_or(DiskCacheStatus::Working, DiskCacheStatus::NotWritable),
            Err(reason) => DiskCacheStatus::Unavailable(*reason),
        }
    }

    fn disk(&self) -> Option<&DiskCache> {
        self.disk.as_ref().ok().and_then(Option::as_deref)
    }

    /// Returns the compiled module of an admitted artifact, from a cache if one has it.
    ///
    /// It runs on a thread of the slot, which the slot abandons after its `reload_timeout`. What is compiled even so is
    /// cached, and found by the next attempt; a child is killed.
    pub(super) fn module(
        &self,
        engine: &wasmtime::Engine,
        artifact: &Artifact,
        slot: Option<&PluginScope>,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<Module, BoxError> {
        let digest = artifact.digest();
        if let Some(module) = self.find(engine, digest) {
            return Ok(module);
        }
        let turn = self.queue.wait(slot, digest)?;
        // Whoever compiled before may have been after the same module.
        if let Some(module) = self.find(engine, digest) {
            return Ok(module);
        }
        let (module, code) = match &self.children {
            None => {
                if let Some(packs) = &self.packs {
                    packs.read();
                }
                let module = self.threads_of(&turn).install(|| Module::from_binary(engine, artifact.bytes()))?;
                if let Some(packs) = &self.packs {
                    packs.save();
                }
                (module, None)
            }
            Some(children) => {
                let (module, code) = children.optimising.module(engine, artifact.bytes(), digest, is_abandoned)?;
                (module, Some(code))
            }
        };
        self.counts.compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(disk) = self.disk() {
            let serialize = || module.serialize().map_err(|error| io::Error::other(format!("{error:#}")));
            let code = code.map_or_else(serialize, Ok);
            disk.insert(digest, code.as_deref().map_err(|error| io::Error::new(error.kind(), error.to_string())));
        }
        self.memory.lock().insert(digest, &module);
        Ok(module)
    }

    /// Looks a module up in both caches.
    pub(super) fn find(&self, engine: &wasmtime::Engine, digest: Digest) -> Option<Module> {
        if let Some(module) = self.memory.lock().find(digest) {
            self.counts.from_memory.fetch_add(1, Ordering::Relaxed);
            return Some(module);
        }
        let module = self.disk()?.find(engine, digest)?;
        self.counts.from_disk.fetch_add(1, Ordering::Relaxed);
        self.memory.lock().insert(digest, &module);
        Some(module)
    }

    /// Compiles with the baseline compiler. The result is not cached: making it again is as fast as reading it.
    pub(super) fn compile_baseline(
        &self,
        engine: &wasmtime::Engine,
        artifact: &Artifact,
        slot: &PluginScope,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<Module, BoxError> {
        let turn = self.queue.wait(Some(slot), artifact.digest())?;
        if let Some(child) = self.children.as_ref().and_then(|children| children.baseline.as_ref()) {
            return Ok(child.module(engine, artifact.bytes(), artifact.digest(), is_abandoned)?.0);
        }
        Ok(self.threads_of(&turn).install(|| Module::from_binary(engine, artifact.bytes()))?)
    }

    fn threads_of(&self, turn: &Turn) -> &ThreadPool {
        match (turn.lane.checked_sub(1), &self.idle) {
            (Some(beside), _) => &self.beside[beside],
            (None, Some(idle)) if is_idle(self.threads.idle) => idle,
            (None, _) => &self.usual,
        }
    }
}

/// Starts threads, and waits until each has compiled something: none could start while a library's constructors run, nor
/// compile for the first time, for which Cranelift registers a thread-local's destructor.
fn pool(threads: usize) -> Result<ThreadPool, EngineError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "hotslot-wasm-compile".to_owned()).build();
    let pool = pool.map_err(|error| EngineError::NoThread(io::Error::other(error)))?;
    pool.broadcast(|_| compile_something());
    Ok(pool)
}

/// Compiles a function that does nothing, on this thread alone.
fn compile_something() {
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";
    static ENGINE: LazyLock<wasmtime::Result<wasmtime::Engine>> =
        LazyLock::new(|| wasmtime::Engine::new(wasmtime::Config::new().parallel_compilation(false)));
    let compiled = ENGINE.as_ref().is_ok_and(|engine| engine.precompile_module(MODULE).is_ok());
    debug_assert!(compiled, "it is a valid module");
}

impl MemoryCache {
    fn find(&mut self, digest: Digest) -> Option<Module> {
        let index = self.modules.iter().position(|(known, _)| *known == digest)?;
        let found = self.modules.remove(index)?;
        let module = found.1.clone();
        self.modules.push_back(found);
        Some(module)
    }

    fn insert(&mut self, digest: Digest, module: &Module) {
        self.modules.retain(|(known, _)| *known != digest);
        self.modules.push_back((digest, module.clone()));
        let mut size: usize = self.modules.iter().map(|(_, module)| size(module)).sum();
        while size > self.limit {
            let Some((_, oldest)) = self.modules.pop_front() else { break };
            size -= self::size(&oldest);
        }
    }
}

/// Returns the bytes of machine code.
fn size(module: &Module) -> usize {
    let range = module.image_range();
    range.end.addr() - range.start.addr()
}
