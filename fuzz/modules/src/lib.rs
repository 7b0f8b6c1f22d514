//! Modules of any shape, the same ones in every run.

use arbitrary::{Arbitrary, Unstructured};
use wasm_smith::{Config, Module};

/// What a module is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Whatever wasm-smith knows, in proportions of its choice: most of these use proposals that are off.
    Anything,
    /// What is on, and nothing to import.
    Ordinary,
    /// The same with more of everything: near the limits, and beyond some.
    Large,
    /// The same with bodies of functions that are any bytes.
    Invalid,
}

pub const KINDS: [Kind; 4] = [Kind::Anything, Kind::Ordinary, Kind::Large, Kind::Invalid];

/// Makes the module of a seed.
pub fn module(seed: u64) -> (Kind, Vec<u8>) {
    let kind = KINDS[(seed % KINDS.len() as u64) as usize];
    let size = match kind {
        Kind::Large => (32 << 10) << (seed / 4 % 4),
        _ => 4 << 10,
    };
    let bytes = noise(seed, size);
    let mut input = Unstructured::new(&bytes);
    // Numbers run out as zeros, so that any input makes a module.
    let config = config(kind, seed / 4, &mut input);
    let module = Module::new(config, &mut input).expect("any input makes a module");
    (kind, module.to_bytes())
}

fn config(kind: Kind, number: u64, input: &mut Unstructured<'_>) -> Config {
    let any = Config::arbitrary(input).expect("any input makes a configuration");
    if kind == Kind::Anything {
        return any;
    }
    let ordinary = Config {
        max_imports: 0,
        max_memories: 1,
        max_memory32_bytes: 32 << 20,
        max_table_elements: 10_000,
        table_max_size_required: any.table_max_size_required,
        memory_max_size_required: any.memory_max_size_required,
        allow_start_export: any.allow_start_export,
        generate_custom_sections: any.generate_custom_sections,
        min_uleb_size: any.min_uleb_size,
        export_everything: any.export_everything,
        disallow_traps: any.disallow_traps,
        min_funcs: 1,
        bulk_memory_enabled: true,
        simd_enabled: any.simd_enabled,
        extended_const_enabled: true,
        // References to more than functions need what is off.
        reference_types_enabled: false,
        custom_descriptors_enabled: false,
        custom_page_sizes_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        shared_everything_threads_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..Config::default()
    };
    match kind {
        Kind::Anything | Kind::Ordinary => ordinary,
        Kind::Large => {
            let mut large = Config {
                max_types: 2_500,
                max_funcs: 2_000,
                max_globals: 12_000,
                max_exports: 1_200,
                max_element_segments: 1_200,
                max_elements: 30_000,
                max_data_segments: 12_000,
                max_instructions: 5_000,
                max_nesting_depth: 300,
                max_values: 2_000,
                min_funcs: 20,
                ..ordinary
            };
            // More than is allowed, of one thing at a time.
            match number % 12 {
                0 => large.min_types = 2_100,
                1 => large.min_globals = 10_100,
                2 => (large.min_exports, large.export_everything) = (1_100, true),
                3 => (large.min_element_segments, large.min_tables) = (1_100, 1),
                4 => (large.min_data_segments, large.min_memories) = (10_100, 1),
                5 => large.max_memory32_bytes = 1 << 32,
                6 => large.max_table_elements = 1 << 24,
                _ => {}
            }
            large
        }
        Kind::Invalid => Config { allow_invalid_funcs: true, ..ordinary },
    }
}

/// Bytes that look random, by xorshift.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(size);
    bytes
}
