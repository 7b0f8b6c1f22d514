//! Small modules that are dear to compile: refused, or compiled within bounds. FAULTS 67.
//!
//! `what_bombs_cost` is ignored by default: it prints what the shapes cost with and without the limits, which is where
//! the defaults of [`ModuleLimits`] come from.

use std::time::{Duration, Instant};

use hotslot::HotSlot;
use hotslot::wasm::{CallLimits, Engine, ModuleLimits, WasmBackend, WasmPlugin};

/// A module under construction, in the binary format: the text would be megabytes.
#[derive(Default)]
pub(super) struct Encoder {
    /// Parameters and results, all `i32`.
    types: Vec<(u32, u32)>,
    /// Type, locals, and code with its `end`.
    functions: Vec<(u32, u32, Vec<u8>)>,
    globals: Vec<Vec<u8>>,
    table: Option<u32>,
    memory: bool,
    /// The functions that are exported, from the first one on.
    exports: u32,
    elements: Vec<Vec<u8>>,
    data: Vec<Vec<u8>>,
}

pub(super) fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A module with a function, a table and these segments of elements.
fn with_elements(elements: Vec<Vec<u8>>) -> Vec<u8> {
    let functions = vec![(0, 0, vec![0x0b])];
    Encoder { types: vec![(0, 0)], functions, table: Some(10_000), elements, ..Encoder::default() }.finish()
}

fn list(items: impl ExactSizeIterator<Item = Vec<u8>>) -> Vec<u8> {
    let count = leb(items.len().try_into().unwrap());
    count.into_iter().chain(items.flatten()).collect()
}

fn sized(bytes: Vec<u8>) -> Vec<u8> {
    [leb(bytes.len().try_into().unwrap()), bytes].concat()
}

impl Encoder {
    fn finish(self) -> Vec<u8> {
        let values = |count: u32| [leb(count), vec![0x7f; count as usize]].concat();
        let ty = |(params, results): &(u32, u32)| [vec![0x60], values(*params), values(*results)].concat();
        let code = |(_, locals, body): &(u32, u32, Vec<u8>)| match locals {
            0 => sized([vec![0], body.clone()].concat()),
            _ => sized([vec![1], leb(*locals), vec![0x7f], body.clone()].concat()),
        };
        let export = |index: u32| [sized(format!("f{index}").into_bytes()), vec![0], leb(index)].concat();
        let sections = [
            (1, list(self.types.iter().map(ty))),
            (3, list(self.functions.iter().map(|(ty, ..)| leb(*ty)))),
            (4, list(self.table.iter().map(|size| [vec![0x70, 0], leb(*size)].concat()))),
            (5, list(self.memory.then(|| vec![0, 1]).into_iter().collect::<Vec<_>>().into_iter())),
            (6, list(self.globals.iter().map(|init| [vec![0x7f, 0], init.clone()].concat()))),
            (7, list((0..self.exports).map(export).collect::<Vec<_>>().into_iter())),
            (9, list(self.elements.into_iter())),
            (10, list(self.functions.iter().map(code))),
            (11, list(self.data.into_iter())),
        ];
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        for (id, contents) in sections {
            if contents != [0] {
                module.push(id);
                module.extend(sized(contents));
            }
        }
        module
    }

    /// One function of type `() -> ()` with this code, after one of type `() -> (64 x i32)` at index 0 to call.
    pub(super) fn of_code(functions: u32, locals: u32, code: Vec<u8>) -> Vec<u8> {
        let source = [[0x41, 0].repeat(64), vec![0x0b]].concat();
        let mut encoder =
            Encoder { types: vec![(0, 0), (0, 64), (64, 64)], memory: true, table: Some(10), ..Encoder::default() };
        encoder.functions.push((1, 0, source));
        let code = [code, vec![0x0b]].concat();
        encoder.functions.extend((0..functions).map(|_| (0, locals, code.clone())));
        encoder.finish()
    }
}

/// So many values on the stack, 64 for two bytes.
pub(super) fn operands(count: usize) -> Vec<u8> {
    [0x10, 0].repeat(count / 64)
}

/// Adds so many values up and branches on the sum: a value that nobody uses is not alive.
pub(super) fn used(count: usize) -> Vec<u8> {
    [vec![0x6a; count - 1], vec![0x04, 0x40, 0x0b]].concat()
}

/// A name, and the module that it grows into with a number.
type Shape = (&'static str, fn(usize) -> Vec<u8>, &'static [usize]);

const DROP: u8 = 0x1a;
pub(super) const LOOP: [u8; 3] = [0x03, 0x40, 0x0b];

const SHAPES: &[Shape] = &[
    (
        "6,400 operands alive across N loops",
        |n| Encoder::of_code(1, 0, [operands(6_400), LOOP.repeat(n), used(6_400)].concat()),
        &[30, 100, 1_000],
    ),
    (
        "N x 64 operands alive across 300 ifs",
        |n| {
            let branch = [0x10, 0, 0x04, 0x40, 0x41, 0, 0x1a, 0x0b];
            let branch = [&[0x41, 1][..], &branch[2..]].concat();
            Encoder::of_code(1, 0, [operands(64 * n), branch.repeat(300), used(64 * n)].concat())
        },
        &[10, 100],
    ),
    (
        "4,000 ifs with a call, N locals",
        |n| {
            let n32 = n as u32;
            let code: Vec<u8> = (0..4_000_u32)
                .flat_map(|index| {
                    let local = leb(index % n32);
                    [vec![0x20], local.clone(), vec![0x04, 0x40, 0x41, 1, 0x21], leb((index * 7 + 1) % n32), vec![0x0b]]
                        .concat()
                })
                .collect();
            Encoder::of_code(1, n32, code)
        },
        &[50, 500, 5_000],
    ),
    (
        "N ifs, 250 deep, that set locals of 2,000",
        |n| {
            let open: Vec<u8> = (0..250_u32)
                .flat_map(|index| {
                    [vec![0x20], leb(index * 3), vec![0x04, 0x40, 0x41, 1, 0x21], leb(index * 7 % 2_000)].concat()
                })
                .collect();
            Encoder::of_code(1, 2_000, [open, vec![0x0b; 250]].concat().repeat(n / 250))
        },
        &[250, 1_000, 4_000],
    ),
    (
        "N br_if with 64 arguments",
        |n| {
            // (block (result 64 x i32) 64 values; N times: value, br_if 0; end)
            let block = [vec![0x02, 1], operands(64), [0x41, 0, 0x0d, 0].repeat(n), vec![0x0b], used(64)];
            Encoder::of_code(1, 0, block.concat())
        },
        &[500, 5_000, 45_000],
    ),
    (
        "br_table with N targets of 64 arguments",
        |n| {
            let table = [vec![0x41, 0, 0x0e], leb(n as u32), vec![0; n], vec![0]];
            let block = [vec![0x02, 1], operands(64), table.concat(), vec![0x0b], used(64)];
            Encoder::of_code(1, 0, block.concat())
        },
        &[5_000, 50_000],
    ),
    (
        "br_table with N targets",
        |n| {
            let table = [vec![0x41, 0, 0x0e], leb(n as u32), vec![0; n], vec![0]];
            Encoder::of_code(1, 0, [vec![0x02, 0x40], table.concat(), vec![0x0b]].concat())
        },
        &[5_000, 250_000],
    ),
    (
        "N br_tables of 200 different targets",
        |n| {
            let table = [vec![0x41, 0, 0x0e], leb(200), (0..200_u32).flat_map(leb).collect(), vec![0]].concat();
            let table = [&[0x02, 0x40][..], &table, &[0x0b]].concat();
            Encoder::of_code(1, 0, [[0x02, 0x40].repeat(210), table.repeat(n), vec![0x0b; 210]].concat())
        },
        &[100, 700],
    ),
    (
        "N calls with 64 results",
        |n| Encoder::of_code(1, 0, [[0x10, 0].repeat(n), vec![0x00]].concat()),
        &[500, 5_000, 50_000],
    ),
    (
        "N loops over 64 arguments",
        |n| {
            let code = [operands(64), [0x03, 2, 0x0b].repeat(n), used(64)];
            Encoder::of_code(1, 0, code.concat())
        },
        &[500, 5_000],
    ),
    (
        "6 functions with 4,032 operands alive, 960 more in N nested ifs",
        |n| {
            let inner = [operands(960), [0x20, 1, 0x04, 0x40, 0x41, 1, 0x21, 0, 0x0b].repeat(8), used(960)].concat();
            let nested = [vec![0x41, 0, 0x28, 0, 0, 0x04, 0x40], inner, vec![0x0b]].concat();
            Encoder::of_code(6, 4, [operands(4_032), nested.repeat(n), used(4_032)].concat())
        },
        &[1, 2, 4],
    ),
    (
        "960 operands alive across N calls through a table",
        |n| Encoder::of_code(1, 0, [operands(960), [0x41, 0, 0x11, 0, 0].repeat(n), used(960)].concat()),
        &[100, 230, 2_272],
    ),
    (
        "960 operands alive across N of memory.grow",
        |n| {
            let grow = [0x41, 0, 0x40, 0, DROP].repeat(n);
            Encoder::of_code(1, 0, [operands(960), grow, used(960)].concat())
        },
        &[100, 230, 1_136],
    ),
    (
        "960 operands alive across N calls",
        |n| Encoder::of_code(1, 0, [operands(960), [0x10, 1].repeat(n), used(960)].concat()),
        &[230, 2_272, 20_000],
    ),
    (
        "960 operands alive across N divisions",
        |n| {
            let divide = [0x41, 7, 0x20, 0, 0x6d, 0x21, 0].repeat(n);
            Encoder::of_code(1, 1, [operands(960), divide, used(960)].concat())
        },
        &[230, 2_272, 20_000],
    ),
    ("N empty loops", |n| Encoder::of_code(1, 0, LOOP.repeat(n)), &[1_000, 3_000, 9_000]),
    (
        "1,000 loops and N ifs",
        |n| Encoder::of_code(1, 0, [LOOP.repeat(1_000), [0x41, 0, 0x28, 0, 0, 0x04, 0x40, 0x0b].repeat(n)].concat()),
        &[1_000, 10_000],
    ),
    (
        "N functions of 1,000 loops with a br_if",
        |n| Encoder::of_code(n as u32, 0, [0x03, 0x40, 0x41, 0, 0x28, 0, 0, 0x0d, 0, 0x0b].repeat(1_000)),
        &[1, 10, 20],
    ),
    ("N empty ifs", |n| Encoder::of_code(1, 0, [0x41, 0, 0x04, 0x40, 0x0b].repeat(n)), &[1_000, 3_000, 9_000]),
    (
        "N ifs that store",
        |n| Encoder::of_code(1, 0, [0x41, 0, 0x28, 0, 0, 0x04, 0x40, 0x41, 0, 0x41, 0, 0x36, 0, 0, 0x0b].repeat(n)),
        &[1_000, 3_000, 9_000],
    ),
    (
        "N blocks with a br_if",
        |n| Encoder::of_code(1, 0, [0x02, 0x40, 0x41, 0, 0x28, 0, 0, 0x0d, 0, 0x0b].repeat(n)),
        &[1_000, 3_000, 9_000],
    ),
    (
        "N loops with a br_if",
        |n| Encoder::of_code(1, 0, [0x03, 0x40, 0x41, 0, 0x28, 0, 0, 0x0d, 0, 0x0b].repeat(n)),
        &[1_000, 3_000, 9_000],
    ),
    ("N empty loops in each of 30 functions", |n| Encoder::of_code(30, 0, LOOP.repeat(n)), &[10_000]),
    (
        "locals x loops, 5,000 x N",
        |n| {
            let touch: Vec<u8> = (0..5_000_u32).flat_map(|local| [vec![0x41, 1, 0x21], leb(local)].concat()).collect();
            let read: Vec<u8> = (0..5_000_u32).flat_map(|local| [vec![0x20], leb(local), used(1)].concat()).collect();
            Encoder::of_code(1, 5_000, [touch, LOOP.repeat(n), read].concat())
        },
        &[20, 200],
    ),
    (
        "nested loops over 1,000 changing locals, 200 deep, N times",
        |n| {
            let open: Vec<u8> = (0..200_u32)
                .flat_map(|level| {
                    let set = |local: u32| [vec![0x20], leb(local), vec![0x41, 1, 0x6a, 0x21], leb(local)].concat();
                    [vec![0x03, 0x40], set(level * 5), set(level * 5 + 1)].concat()
                })
                .collect();
            let close: Vec<u8> =
                (0..200_u32).flat_map(|level| [vec![0x20], leb(level), vec![0x0d, 0, 0x0b]].concat()).collect();
            Encoder::of_code(1, 1_000, [open, close].concat().repeat(n))
        },
        &[1, 5],
    ),
    (
        "50 segments of N elements with a computed offset",
        |n| {
            let segment = [vec![0, 0x41, 1, 0x41, 0, 0x6a, 0x0b], leb(n as u32), vec![0; n]].concat();
            with_elements(vec![segment; 50])
        },
        &[50, 500, 5_000],
    ),
    (
        "50 segments of N elements with a constant offset",
        |n| {
            let segment = [vec![0, 0x41, 1, 0x0b], leb(n as u32), vec![0; n]].concat();
            with_elements(vec![segment; 50])
        },
        &[500, 5_000],
    ),
    (
        "50 segments of N passive elements",
        |n| {
            let segment = [vec![1, 0], leb(n as u32), vec![0; n]].concat();
            with_elements(vec![segment; 50])
        },
        &[500, 5_000],
    ),
    (
        "50 segments of N expressions",
        |n| {
            let segment = [vec![4, 0x41, 1, 0x0b], leb(n as u32), [0xd2, 0, 0x0b].repeat(n)].concat();
            with_elements(vec![segment; 50])
        },
        &[500, 5_000],
    ),
    (
        "a global of N additions",
        |n| {
            let globals = vec![[vec![0x41, 1], [0x41, 1, 0x6a].repeat(n), vec![0x0b]].concat()];
            Encoder { globals, ..Encoder::default() }.finish()
        },
        &[1_000, 50_000, 500_000],
    ),
    (
        "10,000 globals of N additions",
        |n| {
            let globals = vec![[vec![0x41, 1], [0x41, 1, 0x6a].repeat(n), vec![0x0b]].concat(); 10_000];
            Encoder { globals, ..Encoder::default() }.finish()
        },
        &[0, 1, 10],
    ),
    (
        "N data segments with a computed offset",
        |n| {
            let data = vec![vec![0, 0x41, 1, 0x41, 1, 0x6a, 0x0b, 1, 7]; n];
            Encoder { memory: true, data, ..Encoder::default() }.finish()
        },
        &[1_000, 10_000],
    ),
    (
        "20,000 functions of 64 parameters, N of them in a table",
        |n| {
            let functions = vec![(0, 0, vec![0x0b]); 20_000];
            let segment = [vec![0, 0x41, 1, 0x0b], leb(n as u32), (0..n as u32).flat_map(leb).collect()].concat();
            let elements = if n == 0 { vec![] } else { vec![segment] };
            Encoder { types: vec![(64, 0)], functions, table: Some(30_000), elements, ..Encoder::default() }.finish()
        },
        &[0, 5_000, 19_999],
    ),
    (
        "N types of 64 parameters and results",
        |n| {
            let types = (0..n as u32).map(|index| (index % 65, index / 65 % 65)).collect();
            let functions = (0..n as u32).map(|index| (index, 0, vec![0x00, 0x0b])).collect();
            Encoder { types, functions, exports: n.min(1_000) as u32, ..Encoder::default() }.finish()
        },
        &[2_000],
    ),
    ("N calls through a table", |n| Encoder::of_code(1, 0, [0x41, 0, 0x11, 0, 0].repeat(n)), &[5_000, 50_000]),
    (
        "N conversions that can trap",
        |n| {
            let code = [vec![0x43, 0, 0, 0, 0], [0xa8, 0xb2].repeat(n), vec![DROP]].concat();
            Encoder::of_code(1, 0, code)
        },
        &[10_000, 120_000],
    ),
    (
        "N loads and stores",
        |n| {
            let code = [vec![0x41, 0], [0x28, 0, 0].repeat(n), vec![DROP]].concat();
            Encoder::of_code(1, 0, code)
        },
        &[10_000, 80_000],
    ),
    (
        "N of memory.fill",
        |n| Encoder::of_code(1, 0, [0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 11, 0].repeat(n)),
        &[5_000, 25_000],
    ),
    (
        "N of memory.grow",
        |n| Encoder::of_code(1, 0, [vec![0x41, 0], [0x40, 0].repeat(n), vec![DROP]].concat()),
        &[10_000, 120_000],
    ),
    (
        "N divisions",
        |n| Encoder::of_code(1, 0, [vec![0x41, 1], [0x41, 3, 0x6d].repeat(n), vec![DROP]].concat()),
        &[10_000, 80_000],
    ),
    ("N table.get", |n| Encoder::of_code(1, 0, [0x41, 0, 0x25, 0, DROP].repeat(n)), &[5_000, 50_000]),
    ("N table.get of 30 functions", |n| Encoder::of_code(30, 0, [0x41, 0, 0x25, 0, DROP].repeat(n)), &[5_000, 50_000]),
    (
        "N additions, one function",
        |n| Encoder::of_code(1, 0, [vec![0x41, 1], [0x41, 3, 0x6a].repeat(n), vec![DROP]].concat()),
        &[80_000],
    ),
    (
        "N additions, 30 functions",
        |n| Encoder::of_code(30, 0, [vec![0x41, 1], [0x41, 3, 0x6a].repeat(n), vec![DROP]].concat()),
        &[80_000],
    ),
];

fn unlimited() -> ModuleLimits {
    ModuleLimits {
        size: usize::MAX,
        functions: u32::MAX,
        body: usize::MAX,
        nesting: u32::MAX,
        locals: u32::MAX,
        operands: u32::MAX,
        loop_locals: u64::MAX,
        types: u32::MAX,
        arity: usize::MAX,
        imports: u32::MAX,
        exports: u32::MAX,
        globals: u32::MAX,
        data_segments: u32::MAX,
        element_segments: u32::MAX,
        tables: u32::MAX,
        loops: u64::MAX,
        total_loops: u64::MAX,
        blocks: u64::MAX,
        total_blocks: u64::MAX,
        live_values: u64::MAX,
        total_live_values: u64::MAX,
        passed_values: u64::MAX,
        total_passed_values: u64::MAX,
        elements: u64::MAX,
        placed_elements: u64::MAX,
        constant_operators: u64::MAX,
    }
}

/// Loads a module with these limits. Returns the time, the peak of memory above what it was, and the error.
fn cost(bytes: &[u8], limits: ModuleLimits) -> (Duration, u64, Option<String>) {
    let engine = Engine::builder().max_instances(4).build().unwrap();
    let calls = CallLimits { table_elements: 100_000, ..super::limits() };
    let slot = HotSlot::<WasmPlugin<()>>::builder(engine.bind(|_| Ok(())).module_limits(limits).call_limits(calls));
    // Marks the peak of the resident memory as what it is now.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let memory = |name: &str| -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(1)?.parse().ok());
        line.unwrap_or(0)
    };
    let before = memory("VmRSS");
    let began = Instant::now();
    let error = slot.reload_timeout(Duration::from_secs(400)).open(bytes).err().map(|error| error.to_string());
    (began.elapsed(), memory("VmHWM").saturating_sub(before) >> 10, error)
}

/// The limits of effort, divided by a number.
fn effort(by: u64) -> ModuleLimits {
    let limits = ModuleLimits::default();
    ModuleLimits {
        loops: limits.loops / by,
        total_loops: limits.total_loops / by,
        blocks: limits.blocks / by,
        total_blocks: limits.total_blocks / by,
        live_values: limits.live_values / by,
        total_live_values: limits.total_live_values / by,
        passed_values: limits.passed_values / by,
        total_passed_values: limits.total_passed_values / by,
        elements: limits.elements / by,
        placed_elements: limits.placed_elements / by,
        constant_operators: limits.constant_operators / by,
        ..limits
    }
}

/// Why a module is refused with these limits.
pub(super) fn refused(bytes: &[u8], limits: ModuleLimits) -> Option<String> {
    let engine = Engine::builder().max_instances(4).build().unwrap();
    let calls = CallLimits { table_elements: 100_000, ..super::limits() };
    let backend = engine.bind(|_| Ok(())).module_limits(limits).call_limits(calls);
    crate::support::admit(&backend, bytes).err().map(|error| error.to_string())
}

#[test]
#[ignore = "takes minutes and gigabytes: run it alone, to see what the shapes cost"]
fn what_bombs_cost() {
    let only = std::env::var("SHAPE").unwrap_or_default();
    let (unlimited, default) = (unlimited(), ModuleLimits::default());
    for (name, shape, sizes) in SHAPES.iter().filter(|(name, ..)| name.contains(&only)) {
        for size in *sizes {
            let bytes = shape(*size);
            let limits = if std::env::var_os("UNLIMITED").is_some() { &unlimited } else { &default };
            let (time, memory, error) = cost(&bytes, limits.clone());
            let error = error.map(|error| error.chars().take(100).collect::<String>()).unwrap_or_default();
            println!("{:>9} B {:>7.2} s {memory:>5} MiB  N={size:<7} {name} {error}", bytes.len(), time.as_secs_f64());
            if time > Duration::from_secs(10) {
                break;
            }
        }
    }
}

#[test]
fn bombs_of_every_shape_are_refused_before_the_compiler_sees_them() {
    let medium = Encoder::of_code(100, 0, [operands(640), LOOP.repeat(100), used(640)].concat());
    let of_all = refused(&medium, ModuleLimits::default()).expect("many functions of medium effort are one large one");
    assert!(of_all.contains("of all functions"), "{of_all}");
    for (name, size, what) in [
        ("6,400 operands alive across N loops", 30, "operands on the stack"),
        ("6 functions with 4,032 operands alive, 960 more in N nested ifs", 2, "operands on the stack"),
        ("N x 64 operands alive across 300 ifs", 100, "operands on the stack"),
        ("4,000 ifs with a call, N locals", 5_000, "values alive in blocks"),
        ("N br_if with 64 arguments", 45_000, "passed values"),
        ("br_table with N targets of 64 arguments", 25_000, "values alive in blocks"),
        ("br_table with N targets", 250_000, "blocks and branches"),
        ("N calls with 64 results", 50_000, "operands on the stack"),
        ("N loops over 64 arguments", 5_000, "passed values"),
        ("20,000 functions of 64 parameters, N of them in a table", 5_000, "passed values of all functions"),
        ("N of memory.grow", 10_000, "passed values"),
        ("N calls through a table", 5_000, "passed values"),
        ("960 operands alive across N calls through a table", 2_272, "values alive in blocks"),
        ("960 operands alive across N of memory.grow", 1_136, "values alive in blocks"),
        ("N empty loops", 85_000, "loops"),
        ("N functions of 1,000 loops with a br_if", 21, "loops of all functions"),
        ("50 segments of N elements with a computed offset", 5_000, "elements"),
        ("50 segments of N elements with a constant offset", 5_000, "elements"),
        ("50 segments of N passive elements", 5_000, "elements"),
        ("50 segments of N expressions", 5_000, "elements"),
        ("a global of N additions", 500_000, "operators of constant expressions"),
        ("10,000 globals of N additions", 10, "operators of constant expressions"),
    ] {
        let shape = SHAPES.iter().find(|(known, ..)| *known == name).expect("there is such a shape").1;
        let bytes = shape(size);
        let began = Instant::now();
        let refused = refused(&bytes, ModuleLimits::default());
        println!("{:>7} B, {:?}: {name}: {refused:?}", bytes.len(), began.elapsed());
        assert!(refused.as_ref().is_some_and(|why| why.contains(what)), "{name}: {refused:?}");
    }
}

#[test]
fn ordinary_modules_are_far_from_the_limits() {
    let waf = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/waf/rules/universal-waf.wasm");
    let mut modules = vec![("the firewall's rules", std::fs::read(waf).expect("it is committed"))];
    modules.push(("the fixture", super::module("1.0.0", 1)));
    if let Some(built) = crate::interface::built::module("") {
        modules.push(("a plugin in Rust", built.bytes().to_vec()));
    }
    // More of them, by their paths.
    for path in std::env::var("MODULES").unwrap_or_default().split(':').filter(|path| !path.is_empty()) {
        modules.push(("one more", std::fs::read(path).expect("MODULES names files")));
    }
    for (name, bytes) in modules {
        let margin = (1..=10).take_while(|by| refused(&bytes, effort(1 << by)).is_none()).last().unwrap_or(0);
        println!("{name}, {} bytes: passes with limits of a {}th", bytes.len(), 1 << margin);
        assert!(margin >= 2, "{name}: {:?}", refused(&bytes, effort(4)));
    }
}

/// A module that takes seconds to compile.
pub(crate) fn slow() -> Vec<u8> {
    Encoder::of_code(1, 0, LOOP.repeat(6_000))
}

/// A backend that lets it through.
pub(crate) fn careless(engine: &Engine) -> WasmBackend<WasmPlugin<()>> {
    engine.bind(|_| Ok(())).module_limits(unlimited())
}

#[test]
fn a_bomb_in_one_slot_does_not_hold_up_the_reload_of_another() {
    let engine = Engine::builder().max_instances(24).compile_threads(1).build().unwrap();
    std::thread::scope(|scope| {
        let bombed = scope.spawn(|| HotSlot::builder(careless(&engine)).open(slow()).map(drop));
        let other = HotSlot::builder(super::backend(&engine)).open(super::module("1.0.0", 1)).unwrap();
        other.reload(super::module("1.1.0", 2)).unwrap();
        assert!(!bombed.is_finished(), "the bomb takes seconds, and they did not wait for it");
        bombed.join().unwrap().unwrap();
    });
}
