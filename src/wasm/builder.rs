//! Engine settings, and the start of an engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::compile::{Children, CompileThreads, Compiler};
use super::compile_child::{ChildCompiler, CompileLimits, CompilerSettings};
use super::disk_cache::DiskCache;
use super::engine::{Allocation, Built, Engine, EngineSettings};
use super::error::EngineError;
use super::function_cache::FunctionCache;

impl Engine {
    /// Starts an engine with the defaults of the [builder](EngineBuilder).
    ///
    /// # Errors
    /// A thread could not be spawned, or there is no engine for this machine.
    pub fn new() -> Result<Engine, EngineError> {
        Engine::builder().build()
    }

    /// Begins to set an engine up.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            max_instances: 192,
            memory_budget: 4 << 30,
            stack: 256 << 10,
            tick: Duration::from_millis(2),
            pooled: true,
            baseline: false,
            compile_threads: None,
            memory_cache_limit: 64 << 20,
            function_cache_limit: 32 << 20,
            cache_dir: None,
            disk_cache_limit: 256 << 20,
            compile_in_child: None,
        }
    }
}

/// Sets up an [engine](Engine).
///
/// ```
/// use std::time::Duration;
/// use hotslot::wasm::Engine;
///
/// # let dir = std::env::temp_dir().join(format!("hotslot-doc-{}", std::process::id()));
/// let engine = Engine::builder()
///     .max_instances(48)
///     .tick(Duration::from_millis(5))
///     .cache_dir(&dir)
///     .build()?;
/// assert_eq!(engine.status().max_instances, 48);
/// # std::fs::remove_dir_all(dir).ok();
/// # Ok::<(), hotslot::wasm::EngineError>(())
/// ```
#[derive(Clone, Debug)]
pub struct EngineBuilder {
    max_instances: u32,
    memory_budget: u64,
    stack: usize,
    tick: Duration,
    pooled: bool,
    baseline: bool,
    /// By how busy the machine is, if it was not set.
    compile_threads: Option<usize>,
    memory_cache_limit: usize,
    function_cache_limit: usize,
    cache_dir: Option<PathBuf>,
    disk_cache_limit: u64,
    compile_in_child: Option<CompileLimits>,
}

impl EngineBuilder {
    /// Sets how many instances can exist at once, idle ones included. 192 by default.
    ///
    /// Allow three times the calls that you expect at once: while one generation serves, another may drain and a third
    /// be staged. A pool reserves about 4 GiB of address space for each instance, and no memory.
    pub fn max_instances(mut self, instances: u32) -> Self {
        self.max_instances = instances;
        self
    }

    /// Sets how many bytes the memories and tables of all instances may have together, idle ones included. 4 GiB by default.
    ///
    /// What an instance has is what it has grown to, whether or not it has written there; an element of a table counts as
    /// eight bytes. An instance that needs more than is left gets it from idle ones: warm generations give theirs up first,
    /// with their state saved. If that is not enough, its growth fails inside the plugin, and a call that ends for that is
    /// [`OverBudget`](super::WasmCallError::OverBudget), which is not held against the plugin.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Sets the bytes of stack that a plugin's code may use. 256 KiB by default.
    ///
    /// It is the stack of the calling thread, which needs 128 KiB more than that for the host's side. On Linux, a call on
    /// a thread that has less left is refused as [`StackTooSmall`](super::WasmCallError::StackTooSmall); elsewhere, the
    /// thread's own stack would overflow, which ends the process. Loading, probes and hand-over are on threads of the
    /// slot, which have the standard library's 2 MiB unless `RUST_MIN_STACK` says otherwise.
    pub fn stack(mut self, bytes: usize) -> Self {
        self.stack = bytes;
        self
    }

    /// Sets how often running calls check their limits; a call can overrun its deadline by this much, and one through a
    /// declared interface by twice as much. 2 ms by default.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Allocates instances on demand, without trying to reserve a pool.
    ///
    /// That is slower, and for machines where address space is scarce. Where a pool is refused, the engine falls back to
    /// it automatically.
    pub fn on_demand(mut self) -> Self {
        self.pooled = false;
        self
    }

    /// Sets how many threads compile. By default as many as there are cores, if the machine is idle when a compilation
    /// begins, and half as many if it is not, or if modules are [compiled in a child](EngineBuilder::compile_in_child).
    ///
    /// Modules are compiled one after the other. Beside one that takes more than a quarter of a second, up to three others
    /// are compiled, each on one more thread.
    pub fn compile_threads(mut self, threads: usize) -> Self {
        self.compile_threads = Some(threads);
        self
    }

    /// Sets how many bytes of compiled modules are kept in memory for reuse. 64 MiB by default.
    pub fn memory_cache_limit(mut self, bytes: usize) -> Self {
        self.memory_cache_limit = bytes;
        self
    }

    /// Sets how many bytes of compiled functions are kept in memory, so that a module that differs from an earlier one in a
    /// few functions compiles those only. 32 MiB by default; 0 compiles every new module as a whole.
    ///
    /// A function is found again if its code comes out the same, wherever in its module it is. Where an edit moves data, the
    /// functions that have its address in them change, too, and another import changes all of them. The first edits also compile
    /// some functions behind exported ones again, whose keys the compiler's state gets into. A module of 500 KiB with a
    /// thousand functions takes about 2 MiB; what was used last stays. With [`cache_dir`](EngineBuilder::cache_dir) the functions
    /// are on disk, too: a reload does not wait until they are written, and the engine reads them before it first compiles.
    ///
    /// The [status](super::EngineStatus::functions_reused) counts the functions that were reused and compiled. The baseline compiler
    /// keeps none. Nor do engines that [compile in a child](EngineBuilder::compile_in_child): a child may work on a module from
    /// somebody who is not trusted, and what it made of one module's functions is not to become part of another's.
    pub fn function_cache_limit(mut self, bytes: usize) -> Self {
        self.function_cache_limit = bytes;
        self
    }

    /// Keeps compiled modules and functions in this directory, too, which is created if it is missing.
    ///
    /// It must be private to the user of this process: the machine code in it runs with the rights of the process. Where it
    /// cannot be written, its entries are still read; where it cannot be used at all, because the disk is full or fails,
    /// the engine works without. Both are logged once, and are in the [status](super::EngineStatus::disk_cache).
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(path.into());
        self
    }

    /// Sets how many bytes of compiled modules and functions are kept in [`cache_dir`](EngineBuilder::cache_dir). 256 MiB by
    /// default.
    pub fn disk_cache_limit(mut self, bytes: u64) -> Self {
        self.disk_cache_limit = bytes;
        self
    }

    /// Compiles each module in a child process, which is limited as a whole and killed when nobody waits for it any more:
    /// for modules from people that are not trusted. [`ModuleLimits`](super::ModuleLimits) come first all the same.
    ///
    /// The child is this program again, so it has to call [`rehearsal_point`](crate::rehearsal_point) first thing in `main`.
    /// The code that comes back is loaded, and goes into the caches, as if it had been compiled here. A compilation in a child
    /// costs the start of the program, and fails with a [`CompileError`](super::CompileError) that says which limit it ran
    /// into. Unlike one in this process, it ends with its attempt: set the slot's
    /// [`reload_timeout`](crate::Builder::reload_timeout) to what an ordinary module needs.
    ///
    /// It bounds time and memory, and a compiler that crashes ends the child. It is no sandbox: the child has the rights of this
    /// process, which runs the code that it returns, so it does not contain a module that exploits a fault of the compiler.
    ///
    /// Linux only. Where no child can be had, [`build`](EngineBuilder::build) fails: it has one compile an empty module.
    pub fn compile_in_child(mut self, limits: CompileLimits) -> Self {
        self.compile_in_child = Some(limits);
        self
    }

    /// Gives access to settings that weaken what a module is contained by.
    #[cfg(feature = "winch")]
    #[cfg_attr(docsrs, doc(cfg(feature = "winch")))]
    pub fn dangerous(self) -> DangerousEngineBuilder {
        DangerousEngineBuilder(self)
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// A setting cannot work, a thread could not be spawned, there is no engine for this machine, the cache directory is not
    /// private, or modules are to be compiled in a child and no child can.
    pub fn build(self) -> Result<Engine, EngineError> {
        if self.max_instances == 0 || self.compile_threads == Some(0) || self.tick.is_zero() {
            return Err(EngineError::Misuse("max_instances, compile_threads and tick must not be zero"));
        }
        let threads = self.compile_threads.map_or_else(CompileThreads::by_load, CompileThreads::fixed);
        let has_functions = self.function_cache_limit > 0 && self.compile_in_child.is_none();
        let functions = has_functions.then(|| Arc::new(FunctionCache::new(self.function_cache_limit)));
        let settings = EngineSettings {
            max_instances: self.max_instances,
            memory: self.memory_budget,
            stack: self.stack,
            pooled: self.pooled,
            baseline: self.baseline,
            tick: self.tick,
            functions: functions.clone(),
        };
        Engine::start(&settings, |optimising, baseline| {
            let limit = self.disk_cache_limit;
            let disk = self.cache_dir.map(|path| DiskCache::open(&path, &optimising.engine, limit)).transpose()?;
            let disk = disk.transpose();
            let children = |limits: CompileLimits| {
                let child = |built: &Built, baseline| {
                    let pooled = matches!(built.allocation, Allocation::Pooled { .. });
                    let settings = CompilerSettings { stack: self.stack, pooled, baseline, threads: threads.usual };
                    ChildCompiler::new(&built.engine, limits.clone(), settings)
                };
                let optimising = child(optimising, false)?;
                let baseline = baseline.map(|built| child(built, true)).transpose()?;
                Ok::<_, EngineError>(Children { optimising, baseline })
            };
            let children = self.compile_in_child.map(children).transpose()?;
            Compiler::new(threads, self.memory_cache_limit, disk, functions, children)
        })
    }
}

/// Engine settings that weaken what a module is contained by: see [`EngineBuilder::dangerous`].
#[cfg(feature = "winch")]
#[cfg_attr(docsrs, doc(cfg(feature = "winch")))]
#[derive(Clone, Debug)]
pub struct DangerousEngineBuilder(EngineBuilder);

#[cfg(feature = "winch")]
impl DangerousEngineBuilder {
    /// Serves a module that is not cached as soon as the baseline compiler (Winch) is done with it, and switches to the
    /// optimised code when that is ready.
    ///
    /// Calls in flight finish with the code that they began with; a [single](super::InstancePolicy::Single) instance
    /// keeps it.
    ///
    /// Only for modules that are trusted: the baseline compiler is younger, and has let modules out of their sandbox
    /// (RUSTSEC-2026-0095).
    pub fn baseline_first(mut self) -> EngineBuilder {
        self.0.baseline = true;
        self.0
    }
}
