//! Looks for modules that are dear to compile and that admission lets through: grows them, and keeps the dearest.
//!
//! `SECONDS=600 SEED=1 GOAL=ratio` (or `total`) sets for how long, from where, and what counts: processor time for each
//! byte, or in all. Run it alone, it measures the process. What it finds belongs into the shapes of [`bombs`](super::bombs).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hotslot::HotSlot;
use hotslot::wasm::{Engine, ModuleLimits, WasmPlugin};

use super::bombs::{Encoder, leb, operands, refused, used};

/// A part of a function that leaves the stack as it was.
#[derive(Clone, Debug)]
enum Part {
    /// One of the [leaves](leaf), so many times, with a parameter.
    Leaf(u8, u16, u16),
    /// Parts inside of a block, a loop, an `if`, or between values that stay on the stack.
    Around(u8, u16, Vec<Part>),
}

#[derive(Clone, Debug)]
struct Genome {
    functions: u16,
    locals: u16,
    parts: Vec<Part>,
}

const LEAVES: u8 = 30;

/// The code of one leaf. `n` counts the repetitions, so that they can differ.
fn leaf(kind: u8, parameter: u16, n: u16, locals: u16) -> Vec<u8> {
    let local = |by: u16| leb(u32::from(n.wrapping_mul(by).wrapping_add(parameter) % locals.max(1)));
    let get = |by: u16| [vec![0x20], local(by)].concat();
    let load = || vec![0x41, 0, 0x28, 0, 0];
    let binary = |operator: u8| [get(1), get(3), vec![operator, 0x21], local(7)].concat();
    let number = |operators: &[u8]| [&[0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f][..], operators, &[0x1a]].concat();
    let vector = |operators: &[u8]| {
        let value = [&[0xfd, 0x0c][..], &[7; 16]].concat();
        [value.clone(), value, operators.to_vec(), vec![0x1a]].concat()
    };
    match kind % LEAVES {
        0 => vec![0x03, 0x40, 0x0b],
        1 => [vec![0x03, 0x40], load(), vec![0x0d, 0, 0x0b]].concat(),
        2 => [load(), vec![0x04, 0x40, 0x0b]].concat(),
        3 => [get(1), vec![0x04, 0x40, 0x41, 1, 0x21], local(7), vec![0x0b]].concat(),
        4 => [vec![0x02, 0x40], load(), vec![0x0d, 0, 0x0b]].concat(),
        5 => [get(1), vec![0x04, 0x40, 0x41, 1, 0x21], local(7), vec![0x05, 0x41, 2, 0x21], local(5), vec![0x0b]]
            .concat(),
        6 => [vec![0x10, 0], vec![0x1a; 64]].concat(),
        7 => vec![0x41, 0, 0x11, 0, 0],
        8 => binary(0x6a),
        9 => binary(0x6c),
        10 => binary(0x6d),
        11 => binary(0x77),
        12 => [get(1), vec![0x67 + (parameter % 3) as u8, 0x21], local(7)].concat(),
        13 => [get(1), get(3), get(5), vec![0x1b, 0x21], local(7)].concat(),
        14 => [vec![0x41, 0], get(1), vec![0x36, 0, 0]].concat(),
        15 => [load(), vec![0x21], local(7)].concat(),
        16 => number(&[0x9f].repeat(1 + usize::from(parameter % 8))),
        17 => number(&[0xaa, 0xb7].repeat(1 + usize::from(parameter % 8))),
        18 => number(&[0xfc, 0x06, 0xb9].repeat(1 + usize::from(parameter % 8))),
        19 => vector(&[0xfd, 0x0e]),
        20 => vector(&[&[0xfd, 0x0d][..], &[3, 17, 9, 1, 31, 0, 12, 4, 8, 2, 22, 5, 30, 7, 11, 6]].concat()),
        21 => vector(&[0xfd, 0xd5, 0x01]),
        22 => [get(1), vec![0x40, 0, 0x21], local(7)].concat(),
        23 => [
            vec![0x41, 0, 0x41, 0, 0x41, 0],
            if parameter.is_multiple_of(2) { vec![0xfc, 11, 0] } else { vec![0xfc, 10, 0, 0] },
        ]
        .concat(),
        24 => [get(1), vec![0x25, 0, 0x1a]].concat(),
        25 => {
            let targets = 1 + parameter % 300;
            [vec![0x02, 0x40], load(), vec![0x0e], leb(targets.into()), vec![0; usize::from(targets) + 1], vec![0x0b]]
                .concat()
        }
        26 => [get(1), vec![0x22], local(3), vec![0x22], local(7), vec![0x1a]].concat(),
        27 => [get(1), vec![0xac, 0x42, 3, 0x7f, 0xa7, 0x21], local(7)].concat(),
        28 => vec![0x0f].into_iter().take(usize::from(parameter % 64 == 63)).collect(),
        _ => vec![0x10, 1],
    }
}

impl Part {
    fn write(&self, locals: u16, code: &mut Vec<u8>) {
        // More than any limit lets through.
        if code.len() > 300_000 {
            return;
        }
        match self {
            Part::Leaf(kind, times, parameter) => {
                for n in 0..*times {
                    code.extend(leaf(*kind, *parameter, n, locals));
                    if code.len() > 300_000 {
                        return;
                    }
                }
            }
            Part::Around(kind, parameter, parts) => {
                let groups = usize::from(1 + parameter % 100);
                let (before, after) = match kind % 4 {
                    0 => (vec![0x02, 0x40], vec![0x0b]),
                    1 => (vec![0x03, 0x40], vec![0x41, 0, 0x28, 0, 0, 0x0d, 0, 0x0b]),
                    2 => (vec![0x41, 0, 0x28, 0, 0, 0x04, 0x40], vec![0x0b]),
                    _ => (operands(64 * groups), used(64 * groups)),
                };
                code.extend(before);
                parts.iter().for_each(|part| part.write(locals, code));
                code.extend(after);
            }
        }
    }
}

impl Genome {
    fn module(&self) -> Vec<u8> {
        let mut code = Vec::new();
        self.parts.iter().for_each(|part| part.write(self.locals, &mut code));
        Encoder::of_code(self.functions.into(), self.locals.into(), code)
    }
}

/// xorshift64*. Source: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn number(&mut self, bits: usize) -> u16 {
        let bits = 1 + self.below(bits);
        self.below(1 << bits) as u16
    }

    fn part(&mut self, depth: usize) -> Part {
        if depth > 0 && self.below(3) == 0 {
            let count = 1 + self.below(3);
            Part::Around(self.below(4) as u8, self.number(8), (0..count).map(|_| self.part(depth - 1)).collect())
        } else {
            Part::Leaf(self.below(LEAVES.into()) as u8, 1 + self.number(12), self.number(12))
        }
    }

    fn change(&mut self, genome: &mut Genome) {
        match self.below(12) {
            0 => genome.locals = 1 + self.number(12),
            1 => genome.functions = 1 + self.number(6),
            2 => genome.functions = (genome.functions * 2).min(2_000),
            3 => genome.functions = (genome.functions / 2).max(1),
            _ => self.change_parts(&mut genome.parts),
        }
    }

    fn change_parts(&mut self, parts: &mut Vec<Part>) {
        let at = self.below(parts.len());
        match self.below(10) {
            0 => parts.insert(at, self.part(2)),
            1 if parts.len() > 1 => _ = parts.remove(at),
            2 => {
                let part = parts[at].clone();
                parts.insert(at, part);
            }
            3 => {
                let inner = parts.split_off(at);
                parts.push(Part::Around(self.below(4) as u8, self.number(8), inner));
            }
            4 => parts[at] = self.part(2),
            _ => match &mut parts[at] {
                Part::Leaf(kind, times, parameter) => match self.below(6) {
                    0 => *times = times.saturating_mul(2).min(20_000),
                    1 => *times = (*times / 2).max(1),
                    2 => *times = (u32::from(*times) * 9 / 8 + 1).min(20_000) as u16,
                    3 => *kind = self.below(LEAVES.into()) as u8,
                    4 => *parameter = self.number(12),
                    _ => *times = 1 + self.number(13),
                },
                Part::Around(kind, parameter, inner) => match self.below(4) {
                    0 => *kind = self.below(4) as u8,
                    1 => *parameter = self.number(8),
                    _ if inner.is_empty() => inner.push(self.part(1)),
                    _ => self.change_parts(inner),
                },
            },
        }
    }
}

/// Processor time of this process.
fn processor_time() -> Duration {
    // SAFETY: the kernel fills a value of this function.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

#[test]
#[ignore = "a search that takes as long as SECONDS says: run it alone"]
fn the_search_for_dear_modules() {
    let setting =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let by_ratio = std::env::var("GOAL").is_ok_and(|goal| goal == "ratio");
    let (mut random, until) =
        (Random(setting("SEED", 1) | 1 << 40), Instant::now() + Duration::from_secs(setting("SECONDS", 60)));
    let engine = Engine::builder().max_instances(4).memory_cache_limit(0).compile_threads(1).build().unwrap();
    let mut best: Vec<(f64, Genome)> = Vec::new();
    let (mut tried, mut admitted) = (0_u64, 0_u64);
    let mut worst = (0.0, 0.0);
    while Instant::now() < until {
        let mut genome = match best.len() {
            // Some of them at random, to begin with.
            0..8 => Genome {
                functions: 1 + random.number(4),
                locals: 1 + random.number(10),
                parts: vec![random.part(2), random.part(2)],
            },
            // Mostly the dearest so far.
            all => best[random.below(all).min(random.below(all))].1.clone(),
        };
        for _ in 0..=random.below(3) {
            random.change(&mut genome);
        }
        let module = genome.module();
        tried += 1;
        if refused(&module, ModuleLimits::default()).is_some() {
            continue;
        }
        admitted += 1;
        let slot = HotSlot::<WasmPlugin<()>>::builder(engine.bind(|_| Ok(())).call_limits(super::limits()));
        let began = processor_time();
        let opened = slot.reload_timeout(Duration::from_secs(400)).open(&*module);
        let seconds = (processor_time() - began).as_secs_f64();
        let ratio = seconds / module.len() as f64 * 1e6;
        // A small module has the costs of any module.
        let score = if by_ratio { seconds / (module.len() + 4_096) as f64 * 1e6 } else { seconds };
        if ratio > worst.0 && seconds > 0.5 {
            worst.0 = ratio;
        }
        if seconds > worst.1 {
            worst.1 = seconds;
        }
        if best.first().is_none_or(|(least, _)| score > *least) {
            let mut text = format!("{genome:?}");
            text.truncate(600);
            println!("{:>7} B {seconds:>6.2} s {ratio:>7.1} s/MB opens: {} {text}", module.len(), opened.is_ok());
        }
        best.push((score, genome));
        best.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        best.truncate(24);
    }
    let mut summary = format!("tried {tried}, admitted {admitted}; worst {:.1} s/MB, {:.2} s\n", worst.0, worst.1);
    for (score, genome) in best.iter().take(3) {
        let _ = writeln!(summary, "{score:.2}: {} B: {genome:?}", genome.module().len());
    }
    println!("{summary}");
}
