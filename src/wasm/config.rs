//! What determines the code that an engine compiles and can run: the same here and in a child that compiles for it.

use std::num::NonZeroUsize;

use wasmtime::{Config, InstanceAllocationStrategy, Strategy};

/// How many functions of a trap are named. A recursion that overflowed the stack has very many.
pub(super) const FRAMES: usize = 32;

/// Builds an engine that compiles for one with these settings, and has no pool.
pub(super) fn compiling(stack: usize, pooled: bool, compiler: Strategy) -> wasmtime::Result<wasmtime::Engine> {
    // A pool has no part in what code is compiled.
    wasmtime::Engine::new(config(stack, pooled, compiler).allocation_strategy(InstanceAllocationStrategy::OnDemand))
}

/// Returns the settings of an engine with a pool, or of one that allocates on demand.
pub(super) fn config(stack: usize, pooled: bool, compiler: Strategy) -> Config {
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
        // No more than are reported: walking a deep recursion takes longer than the recursion itself.
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES))
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false);
    config
}
