//! The engine that slots share: compiled code, the thread that advances its epoch, and permits for instances.

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::{Config, Enabled, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

use super::compile::{Compiler, DiskCacheStatus};
use super::error::{EngineError, WasmCallError};
use super::permits::{Permit, Permits};
use crate::nesting::HOST_STACK;
use crate::workers;

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
    /// Modules compiled so far.
    pub compiled: u64,
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
    pub(super) stack: usize,
    pub(super) pooled: bool,
    /// Whether there is an engine with the baseline compiler, too.
    pub(super) baseline: bool,
    pub(super) tick: Duration,
}

/// Gives up instances that no call uses at the moment.
pub(super) trait Reclaim: Send + Sync {
    /// Gives up what can be made again at any time.
    fn reclaim(&self);

    /// Gives up what a generation has that does not serve.
    fn reclaim_retired(&self);

    /// Returns who has instances, and how many.
    fn holder(&self) -> Holder;
}

/// A generation that has instances of an engine.
pub(super) struct Holder {
    pub(super) name: String,
    pub(super) is_retired: bool,
    pub(super) instances: usize,
}

impl Engine {
    /// Returns the state of the engine at this moment.
    pub fn status(&self) -> EngineStatus {
        let Inner { allocation, instances, compiler, .. } = &*self.0;
        EngineStatus {
            allocation: *allocation,
            instances: instances.in_use(),
            max_instances: instances.total(),
            compiled: compiler.counts.compiled.load(Ordering::Relaxed),
            found_in_memory: compiler.counts.from_memory.load(Ordering::Relaxed),
            found_on_disk: compiler.counts.from_disk.load(Ordering::Relaxed),
            entries_skipped: compiler.skipped_entries(),
            disk_cache: compiler.disk_cache_status(),
        }
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
        start_ticking(optimising.weak(), baseline.as_ref().map(wasmtime::Engine::weak), settings.tick)?;
        let instances = Permits::new(settings.max_instances as usize);
        let (stack, idle) = (settings.stack, Mutex::default());
        Ok(Engine(Arc::new(Inner { optimising, baseline, allocation, stack, instances, idle, compiler })))
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

    /// Returns how many bytes of a thread's stack a call may need: the plugin's part, and that of the host below it.
    pub(super) fn call_stack(&self) -> usize {
        self.0.stack.saturating_add(HOST_STACK)
    }

    pub(super) fn max_instances(&self) -> usize {
        self.0.instances.total()
    }

    /// Registers idle instances that are given up when others need their permits.
    pub(super) fn register_idle(&self, idle: Weak<dyn Reclaim>) {
        let mut known = self.0.idle.lock();
        known.retain(|idle| idle.strong_count() > 0);
        known.push(idle);
    }

    /// Takes a permit for one more instance, if need be that of an idle one.
    pub(super) fn instance_permit(&self, wait: Duration) -> Result<Permit, WasmCallError> {
        let Inner { instances, idle, .. } = &*self.0;
        if let Some(permit) = instances.take(Duration::ZERO) {
            return Ok(permit);
        }
        // What does not serve first, and no more of it than needed: it may have to be made again.
        let idle: Vec<_> = idle.lock().iter().filter_map(Weak::upgrade).collect();
        for retired in &idle {
            retired.reclaim_retired();
            if let Some(permit) = instances.take(Duration::ZERO) {
                return Ok(permit);
            }
        }
        idle.iter().for_each(|idle| idle.reclaim());
        instances.take(wait).ok_or_else(|| WasmCallError::Saturated {
            what: "instances of the engine",
            limit: instances.total(),
            holders: holders(idle.iter().map(|idle| idle.holder()).collect()),
        })
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Engine").field(&self.status()).finish()
    }
}

/// Says who has the most instances.
fn holders(mut all: Vec<Holder>) -> String {
    const SHOWN: usize = 5;
    all.retain(|holder| holder.instances > 0);
    all.sort_by_key(|holder| std::cmp::Reverse(holder.instances));
    let mut text = String::new();
    for Holder { name, is_retired, instances } in all.iter().take(SHOWN) {
        let which = if *is_retired { "retired" } else { "serving or staged" };
        text += &format!("{} {instances} by {name} ({which})", if text.is_empty() { ":" } else { "," });
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
        let mut config = config(settings.stack, true, compiler);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match wasmtime::Engine::new(&config) {
            Ok(engine) => return Ok(Built { engine, allocation: Allocation::Pooled { pagemap_scan } }),
            Err(error) => tracing::warn!("no pool could be reserved, so instances are allocated on demand: {error:#}"),
        }
    }
    let config = config(settings.stack, false, compiler);
    let engine = wasmtime::Engine::new(&config).map_err(|error| EngineError::Engine(format!("{error:#}")))?;
    Ok(Built { engine, allocation: Allocation::OnDemand })
}

/// Builds an engine that compiles for one with these settings, and has no pool.
pub(super) fn compiling(stack: usize, pooled: bool, compiler: Strategy) -> wasmtime::Result<wasmtime::Engine> {
    // A pool has no part in what code is compiled.
    wasmtime::Engine::new(config(stack, pooled, compiler).allocation_strategy(InstanceAllocationStrategy::OnDemand))
}

fn config(stack: usize, pooled: bool, compiler: Strategy) -> Config {
    let mut config = Config::new();
    if !pooled {
        // Address space may be short: reserve only what a memory has asked for, and move it when it grows.
        config
            .allocation_strategy(InstanceAllocationStrategy::OnDemand)
            .memory_reservation(0)
            .memory_reservation_for_growth(1 << 20)
            .memory_guard_size(1 << 16)
            .guard_before_linear_memory(false);
    }
    config
        .strategy(compiler)
        .epoch_interruption(true)
        .max_wasm_stack(stack)
        // Only the innermost frame is reported; walking a deep recursion takes longer than the recursion itself.
        .wasm_backtrace_max_frames(Some(NonZeroUsize::MIN))
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false);
    config
}

/// Returns whether the machine may swap: the kernel's scan misses pages that were swapped out (wasmtime#14357), and one
/// call's data would be visible to the next.
fn has_swap() -> bool {
    // The first line is a heading.
    std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

/// Advances the engines' epochs, at which every running call checks its limits, until the engines are gone.
/// Registers the destructors of the thread-locals that modules need: the stack on which traps are handled, and arc-swap's
/// list of debts.
fn prepare_thread() {
    wasmtime::Engine::tls_eager_initialize();
    drop(arc_swap::ArcSwap::from_pointee(()).load());
}

fn start_ticking(engine: EngineWeak, baseline: Option<EngineWeak>, tick: Duration) -> Result<(), EngineError> {
    let run = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            if let Some(baseline) = baseline.as_ref().and_then(EngineWeak::upgrade) {
                baseline.increment_epoch();
            }
            std::thread::sleep(tick);
        }
    };
    std::thread::Builder::new().name("hotslot-wasm-tick".to_owned()).spawn(run).map(drop).map_err(EngineError::NoThread)
}
