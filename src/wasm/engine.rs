//! The engine that all generations of one family share, the thread that makes its clock tick, and the places that it
//! has for instances.

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

use super::compile::Compiler;
use super::error::{CallError, EngineError};
use super::permits::{Permit, Permits};

/// Tables that one instance can have.
const TABLES: u32 = 4;
/// Elements that each of them can have.
const TABLE_ELEMENTS: usize = 100_000;
/// What a place in the pool keeps of an instance's memory for the next one.
const KEEP_MEMORY: usize = 1 << 20;
const KEEP_TABLE: usize = 64 << 10;

/// Where the memory of instances comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allocation {
    /// From places that were reserved when the engine was made: address space, not memory.
    Pooled {
        /// Whether the kernel says which pages an instance has touched, so that only those are put back in order.
        pagemap_scan: bool,
    },
    /// From the system, instance by instance.
    OnDemand,
}

/// What an engine is told when it is made.
pub(super) struct EngineSettings {
    pub(super) instances: u32,
    pub(super) stack: usize,
    pub(super) pooled: bool,
    /// Whether there is an engine with the baseline compiler, too.
    pub(super) baseline: bool,
}

/// One engine with everything around it.
pub(super) struct Family {
    engine: Engine,
    baseline: Option<Engine>,
    pub(super) allocation: Allocation,
    places: Arc<Permits>,
    idle: Mutex<Vec<Weak<dyn Reclaim>>>,
    pub(super) compiler: Compiler,
}

impl Family {
    pub(super) fn new(
        settings: &EngineSettings,
        tick: Duration,
        compiler: impl FnOnce(&Engine) -> Result<Compiler, EngineError>,
    ) -> Result<Family, EngineError> {
        let (engine, allocation) = self::engine(settings, Strategy::Cranelift)?;
        let baseline =
            settings.baseline.then(|| self::engine(settings, Strategy::Winch)).transpose()?.map(|(engine, _)| engine);
        let compiler = compiler(&engine)?;
        start_ticking(engine.weak(), baseline.as_ref().map(Engine::weak), tick)?;
        let places = Permits::new(settings.instances as usize);
        Ok(Family { engine, baseline, allocation, places, idle: Mutex::default(), compiler })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine with the compiler that is quick, if there is one.
    pub(super) fn baseline(&self) -> Option<&Engine> {
        self.baseline.as_ref()
    }

    pub(super) fn places(&self) -> &Permits {
        &self.places
    }

    pub(super) fn can_reclaim(&self, idle: Weak<dyn Reclaim>) {
        let mut known = self.idle.lock();
        known.retain(|idle| idle.strong_count() > 0);
        known.push(idle);
    }

    /// A place for one more instance, if need be that of one which waits for a call somewhere.
    pub(super) fn place_for_instance(&self, wait: Duration) -> Result<Permit, CallError> {
        if let Some(place) = self.places.take(Duration::ZERO) {
            return Ok(place);
        }
        let idle: Vec<_> = self.idle.lock().iter().filter_map(Weak::upgrade).collect();
        idle.iter().for_each(|idle| idle.reclaim());
        self.places
            .take(wait)
            .ok_or_else(|| CallError::Saturated { what: "instances of the engine", limit: self.places.total() })
    }
}

/// What can give instances back that nobody uses at the moment.
pub(super) trait Reclaim: Send + Sync {
    fn reclaim(&self);
}

/// A pooled engine, or one that allocates on demand where the address space for a pool is refused.
fn engine(settings: &EngineSettings, compiler: Strategy) -> Result<(Engine, Allocation), EngineError> {
    if settings.pooled {
        // Without the kernel's help, what is kept would be written over each time, which costs more than it saves.
        let pagemap_scan = PoolingAllocationConfig::is_pagemap_scan_available() && !has_swap();
        let keep = |bytes| if pagemap_scan { bytes } else { 0 };
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(settings.instances)
            .total_memories(settings.instances)
            .total_tables(settings.instances.saturating_mul(TABLES))
            .max_tables_per_module(TABLES)
            .table_elements(TABLE_ELEMENTS)
            .linear_memory_keep_resident(keep(KEEP_MEMORY))
            .table_keep_resident(keep(KEEP_TABLE))
            .pagemap_scan(if pagemap_scan { Enabled::Yes } else { Enabled::No });
        let mut config = config(settings, compiler);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match Engine::new(&config) {
            Ok(engine) => return Ok((engine, Allocation::Pooled { pagemap_scan })),
            Err(error) => tracing::warn!("instances are allocated on demand, because a pool was refused: {error:#}"),
        }
    }
    let mut config = config(settings, compiler);
    // Where address space is short, a memory gets what it has asked for, and moves when it grows.
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_reservation(0)
        .memory_reservation_for_growth(1 << 20)
        .memory_guard_size(1 << 16)
        .guard_before_linear_memory(false);
    let engine = Engine::new(&config).map_err(|error| EngineError::Engine(format!("{error:#}")))?;
    Ok((engine, Allocation::OnDemand))
}

fn config(settings: &EngineSettings, compiler: Strategy) -> Config {
    let mut config = Config::new();
    config
        .strategy(compiler)
        .epoch_interruption(true)
        .max_wasm_stack(settings.stack)
        // One frame is shown; walking all of a deep recursion would take longer than the recursion did.
        .wasm_backtrace_max_frames(Some(NonZeroUsize::MIN))
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false);
    config
}

/// Pages that were swapped out escape the kernel's scan (wasmtime#14357), and with them one call's data would escape
/// into the next.
fn has_swap() -> bool {
    // The first line is a heading.
    std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

/// Advances the engines' epochs, at which every running call is looked at, for as long as there is an engine.
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
