//! The engine that slots share: compiled code, the thread that advances its epoch, and permits for instances.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::time::Duration;

use wasmtime::{CacheStore, Enabled, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

use super::budget::MemoryBudget;
use super::compile::{Compiler, DiskCacheStatus};
use super::config::config;
use super::error::{EngineError, WasmCallError};
use super::function_cache::FunctionCache;
use super::permits::{Permit, Permits};
use super::snapshot::SnapshotStatus;
use crate::lock::Mutex;
use crate::nesting::HOST_STACK;
use crate::{detached, escape_untrusted, workers};

/// Tables that one instance can have.
const TABLES: u32 = 4;
/// Elements that each of them can have.
const TABLE_ELEMENTS: usize = 100_000;
/// Bytes of an instance's memory that a slot of the pool keeps resident for the next instance.
const RESIDENT_MEMORY: usize = 1 << 20;
const RESIDENT_TABLE: usize = 64 << 10;

/// A WebAssembly engine with its compiler and its caches, for one slot or for several.
///
/// [`interface`](Engine::interface) and [`bind`](Engine::bind) make backends of it. Cloning returns another handle to
/// the same engine, which ends when no handle, backend or plugin is left.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    optimising: wasmtime::Engine,
    baseline: Option<wasmtime::Engine>,
    allocation: Allocation,
    /// Bytes that a plugin's code may use of a thread's stack.
    stack: usize,
    instances: Arc<Permits>,
    ticks: Arc<Ticks>,
    memory: MemoryBudget,
    idle: Mutex<Vec<Weak<dyn Reclaim>>>,
    compiler: Compiler,
}

/// Where the memory of instances comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allocation {
    /// A pool that is reserved when the engine is built: address space, not memory.
    Pooled {
        /// Whether the kernel reports which pages an instance has written to, so that only those are reset.
        pagemap_scan: bool,
    },
    /// The system, for each instance anew.
    OnDemand,
}

/// The state of an [engine](Engine) at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStatus {
    /// Where the memory of instances comes from.
    pub allocation: Allocation,
    /// Instances that exist: in a call, or idle.
    pub instances: usize,
    /// Instances that can exist at once.
    pub max_instances: usize,
    /// Bytes of memories and tables of all instances.
    pub memory: u64,
    /// Bytes that they may have together: see [`memory_budget`](super::EngineBuilder::memory_budget).
    pub memory_budget: u64,
    /// Modules compiled so far.
    pub compiled: u64,
    /// Functions that were compiled for modules so far, with what leads into and out of them. Zero, as are the next two, if there is no
    /// [cache of functions](super::EngineBuilder::function_cache_limit).
    pub functions_compiled: u64,
    /// Functions of compiled modules that were not compiled again so far: an earlier module had the same.
    pub functions_reused: u64,
    /// Bytes of compiled functions in memory.
    pub function_memory: u64,
    /// Modules found in the memory cache so far.
    pub found_in_memory: u64,
    /// Modules found in the disk cache so far.
    pub found_on_disk: u64,
    /// Entries of the disk cache that were skipped because their MAC or their content did not verify.
    pub entries_skipped: u64,
    /// What becomes of compiled modules on disk.
    pub disk_cache: DiskCacheStatus,
}

/// Engine settings.
pub(super) struct EngineSettings {
    pub(super) max_instances: u32,
    /// Bytes.
    pub(super) memory: u64,
    /// Bytes.
    pub(super) stack: usize,
    pub(super) pooled: bool,
    /// Whether there is an engine with the baseline compiler, too.
    pub(super) baseline: bool,
    pub(super) tick: Duration,
    /// What the optimising compiler keeps functions in.
    pub(super) functions: Option<Arc<FunctionCache>>,
}

/// Gives up instances that no call uses at the moment.
pub(super) trait Reclaim: Send + Sync {
    /// Gives up what can be made again at any time.
    fn reclaim(&self);

    /// Gives up what a generation has that does not serve. Returns how long it took to save its state.
    fn reclaim_retired(&self) -> Duration;

    /// Returns what became of the generation's snapshot, if one was asked for.
    fn snapshot(&self) -> Option<SnapshotStatus>;

    /// Returns who has instances, and how many.
    fn holder(&self) -> Holder;
}

/// A generation that has instances of an engine: see [`Engine::holders`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The name of its slot.
    pub slot: Arc<str>,
    /// Its number.
    pub generation: u64,
    /// Whether it is no longer current.
    pub is_retired: bool,
    /// Its instances, idle ones included.
    pub instances: usize,
    /// Bytes of their memories and tables.
    pub memory: u64,
}

impl Engine {
    /// Returns the state of the engine at this moment.
    pub fn status(&self) -> EngineStatus {
        let Inner { allocation, instances, memory, compiler, .. } = &*self.0;
        EngineStatus {
            allocation: *allocation,
            instances: instances.in_use(),
            max_instances: instances.total(),
            memory: memory.used(),
            memory_budget: memory.limit(),
            compiled: compiler.counts.compiled.load(Ordering::Relaxed),
            functions_compiled: compiler.functions().map_or(0, FunctionCache::compiled),
            functions_reused: compiler.functions().map_or(0, FunctionCache::reused),
            function_memory: compiler.functions().map_or(0, |functions| functions.bytes() as u64),
            found_in_memory: compiler.counts.from_memory.load(Ordering::Relaxed),
            found_on_disk: compiler.counts.from_disk.load(Ordering::Relaxed),
            entries_skipped: compiler.skipped_entries(),
            disk_cache: compiler.disk_cache_status(),
        }
    }

    /// Returns the generations that have instances, those with the most memory first.
    pub fn holders(&self) -> Vec<Holder> {
        let generations = self.generations();
        let mut holders: Vec<_> =
            generations.iter().map(|idle| idle.holder()).filter(|holder| holder.instances > 0).collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.memory));
        holders
    }

    /// Returns what became of the snapshot of each generation that there is, for backends that
    /// [pre-initialize](super::WasmBackend::preinitialize) their plugins.
    pub fn snapshots(&self) -> Vec<SnapshotStatus> {
        self.generations().iter().filter_map(|idle| idle.snapshot()).collect()
    }

    pub(super) fn start(
        settings: &EngineSettings,
        compiler: impl FnOnce(&Built, Option<&Built>) -> Result<Compiler, EngineError>,
    ) -> Result<Engine, EngineError> {
        let optimising = build(settings, Strategy::Cranelift)?;
        let baseline = settings.baseline.then(|| build(settings, Strategy::Winch)).transpose()?;
        let compiler = compiler(&optimising, baseline.as_ref())?;
        let Built { engine: optimising, allocation } = optimising;
        let baseline = baseline.map(|built| built.engine);
        workers::prepare_with(prepare_thread);
        let ticks = Arc::new(Ticks { count: AtomicU64::new(0), period: settings.tick });
        start_ticking(optimising.weak(), baseline.as_ref().map(wasmtime::Engine::weak), Arc::clone(&ticks))?;
        let instances = Permits::new(settings.max_instances as usize);
        let (stack, idle) = (settings.stack, Mutex::default());
        let memory = MemoryBudget::new(settings.memory);
        Ok(Engine(Arc::new(Inner {
            optimising,
            baseline,
            allocation,
            stack,
            instances,
            ticks,
            memory,
            idle,
            compiler,
        })))
    }

    /// Returns the engine whose code is optimised.
    pub(super) fn optimising(&self) -> &wasmtime::Engine {
        &self.0.optimising
    }

    /// Returns the engine with the baseline compiler, if it was asked for.
    pub(super) fn baseline(&self) -> Option<&wasmtime::Engine> {
        self.0.baseline.as_ref()
    }

    pub(super) fn compiler(&self) -> &Compiler {
        &self.0.compiler
    }

    pub(super) fn ticks(&self) -> &Arc<Ticks> {
        &self.0.ticks
    }

    /// Returns how many bytes of a thread's stack a call may need: the plugin's part, and that of the host below it.
    pub(super) fn call_stack(&self) -> usize {
        self.0.stack.saturating_add(HOST_STACK)
    }

    pub(super) fn max_instances(&self) -> usize {
        self.0.instances.total()
    }

    /// Returns the idle instances of each generation that there is.
    fn generations(&self) -> Vec<Arc<dyn Reclaim>> {
        self.0.idle.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Registers idle instances that are given up when others need their permits.
    pub(super) fn register_idle(&self, idle: Weak<dyn Reclaim>) {
        let mut known = self.0.idle.lock();
        known.retain(|idle| idle.strong_count() > 0);
        known.push(idle);
    }

    /// Takes a permit for one more instance, if need be that of an idle one.
    pub(super) fn instance_permit(&self, wait: Duration) -> Result<Permit, WasmCallError> {
        let instances = &self.0.instances;
        let take = |wait| instances.take(wait);
        // The caller counts all of the time that this takes.
        let mut saving = Duration::ZERO;
        if let Some(permit) = self.make_room(&mut saving, || take(Duration::ZERO)) {
            return Ok(permit);
        }
        // In this order: what becomes idle from here on is given up by whoever leaves it.
        let _waiting = instances.announce();
        let permit = self.make_room(&mut saving, || take(Duration::ZERO)).or_else(|| take(wait));
        permit.ok_or_else(|| WasmCallError::Saturated {
            what: "instances of the engine",
            limit: instances.total(),
            holders: text_of(self.holders(), |holder| holder.instances as u64),
        })
    }

    /// Returns whether somebody waits for an instance.
    #[inline]
    pub(super) fn is_waited_for(&self) -> bool {
        self.0.instances.is_waited_for()
    }

    /// Takes bytes of the budget, if need be those of idle instances. What it took to save their states is added to `saving`.
    pub(super) fn take_memory(&self, bytes: u64, saving: &mut Duration) -> Result<(), OverBudget> {
        let budget = &self.0.memory;
        // What is more than all there is, no instance that is given up makes room for.
        let taken = bytes <= budget.limit() && self.make_room(saving, || budget.take(bytes).then_some(())).is_some();
        let holders = || text_of(self.holders(), |holder| holder.memory);
        if taken { Ok(()) } else { Err(OverBudget { limit: budget.limit(), holders: holders() }) }
    }

    pub(super) fn give_memory(&self, bytes: u64) {
        self.0.memory.give(bytes);
    }

    /// Tries to take something, and again while instances are given up for it.
    fn make_room<R>(&self, saving: &mut Duration, take: impl Fn() -> Option<R>) -> Option<R> {
        if let Some(taken) = take() {
            return Some(taken);
        }
        // What does not serve first, and no more of it than needed: it may have to be made again.
        let idle = self.generations();
        for retired in &idle {
            *saving += retired.reclaim_retired();
            if let Some(taken) = take() {
                return Some(taken);
            }
        }
        idle.iter().for_each(|idle| idle.reclaim());
        take()
    }
}

/// Counts the ticks of an engine: a clock that costs a load, and is as coarse as they are.
pub(super) struct Ticks {
    count: AtomicU64,
    /// The least time between two of them.
    pub(super) period: Duration,
}

impl Ticks {
    #[inline]
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// There is not enough left of the engine's memory.
#[derive(Clone, Debug)]
pub(super) struct OverBudget {
    pub(super) limit: u64,
    /// Who has it, as text.
    pub(super) holders: String,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Engine").field(&self.status()).finish()
    }
}

/// Says who has the most of something.
fn text_of(mut all: Vec<Holder>, amount: impl Fn(&Holder) -> u64) -> String {
    const SHOWN: usize = 5;
    all.retain(|holder| amount(holder) > 0);
    all.sort_by_key(|holder| std::cmp::Reverse(amount(holder)));
    let mut text = String::new();
    for holder in all.iter().take(SHOWN) {
        let which = if holder.is_retired { "retired" } else { "serving or staged" };
        let (amount, slot, generation) = (amount(holder), escape_untrusted(&holder.slot), holder.generation);
        text += if text.is_empty() { ":" } else { "," };
        text += &format!(" {amount} by slot `{slot}` generation {generation} ({which})");
    }
    match all.len().saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text}, and the rest by {more} more generations"),
    }
}

/// An engine of WebAssembly's, and where it allocates.
pub(super) struct Built {
    pub(super) engine: wasmtime::Engine,
    pub(super) allocation: Allocation,
}

/// Builds a pooled engine, or one that allocates on demand where the address space for a pool is refused.
fn build(settings: &EngineSettings, compiler: Strategy) -> Result<Built, EngineError> {
    let failed = |error: wasmtime::Error| EngineError::Engine(format!("{error:#}"));
    let config = |pooled| {
        let mut config = config(settings.stack, pooled, compiler);
        if compiler == Strategy::Cranelift
            && let Some(functions) = &settings.functions
        {
            config.enable_incremental_compilation(Arc::clone(functions) as Arc<dyn CacheStore>)?;
        }
        Ok(config)
    };
    if settings.pooled {
        // Without the kernel's help, resident pages are overwritten for each instance, which costs more than it saves.
        let pagemap_scan = PoolingAllocationConfig::is_pagemap_scan_available() && !has_swap();
        let resident = |bytes| if pagemap_scan { bytes } else { 0 };
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(settings.max_instances)
            .total_memories(settings.max_instances)
            .total_tables(settings.max_instances.saturating_mul(TABLES))
            .max_tables_per_module(TABLES)
            .table_elements(TABLE_ELEMENTS)
            .linear_memory_keep_resident(resident(RESIDENT_MEMORY))
            .table_keep_resident(resident(RESIDENT_TABLE))
            .pagemap_scan(if pagemap_scan { Enabled::Yes } else { Enabled::No });
        let mut config = config(true).map_err(failed)?;
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match wasmtime::Engine::new(&config) {
            Ok(engine) => return Ok(Built { engine, allocation: Allocation::Pooled { pagemap_scan } }),
            Err(error) => tracing::warn!("no pool could be reserved, so instances are allocated on demand: {error:#}"),
        }
    }
    let engine = config(false).and_then(|config| wasmtime::Engine::new(&config)).map_err(failed)?;
    Ok(Built { engine, allocation: Allocation::OnDemand })
}

/// Returns whether the machine may swap: the kernel's scan misses pages that were swapped out (wasmtime#14357), and one
/// call's data would be visible to the next.
fn has_swap() -> bool {
    // The first line is a heading.
    std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

/// Registers the destructors of the thread-locals that modules need: the stack on which traps are handled, and what parking_lot
/// gives a thread that has to wait.
fn prepare_thread() {
    wasmtime::Engine::tls_eager_initialize();
    let taken = parking_lot::Mutex::new(());
    let guard = taken.lock();
    assert!(taken.try_lock_for(Duration::ZERO).is_none(), "it waits in vain");
    drop(guard);
}

/// Advances the engines' epochs, at which every running call checks its limits, until the engines are gone. Returns once the
/// thread for that has started: it could not while a library's constructors run.
fn start_ticking(engine: EngineWeak, baseline: Option<EngineWeak>, ticks: Arc<Ticks>) -> Result<(), EngineError> {
    let (say_started, has_started) = channel();
    let run = move || {
        let _ = say_started.send(());
        while let Some(engine) = engine.upgrade() {
            // Before the epoch: whoever looks because of that finds it counted.
            ticks.count.fetch_add(1, Ordering::Relaxed);
            engine.increment_epoch();
            drop(engine);
            if let Some(baseline) = baseline.as_ref().and_then(EngineWeak::upgrade) {
                baseline.increment_epoch();
            }
            std::thread::sleep(ticks.period);
        }
    };
    detached::spawn("hotslot-wasm-tick", run).map_err(EngineError::NoThread)?;
    has_started.recv().expect("it is the first thing that the thread does");
    Ok(())
}
