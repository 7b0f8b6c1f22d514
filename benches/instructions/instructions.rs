//! Counts the instructions of the paths that a host takes millions of times a second, and fails where one takes more than
//! its limit.
//!
//! `ci/instructions` runs it. Unlike times, the counts are the same on a busy machine and on a quiet one, so a regression
//! fails at once. A path runs [`TIMES`] times after a warm-up that is not counted, and so do the constant costs of a
//! thread's first lease. What the counts leave out: how long an instruction takes, and how threads disturb each other.
//! `cargo bench -p hotslot-benches` measures those. Calls into modules are not counted: they would need the compiler of modules in an optimised build, which
//! takes minutes.
//!
//! A limit is the count on the day when it was set, and a tenth more for the next compiler. Whoever makes a path dearer on
//! purpose raises its limit in the same change.

#![allow(missing_docs, reason = "the macros write items")]

use std::hint::black_box;

use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use hotslot::HotSlot;
use hotslot::native::{Native, Trust};
use hotslot_bench_interface::{Bench, Point, Request};

#[path = "../numbers.rs"]
mod numbers;

use numbers::Numbers;

/// How often each path runs.
const TIMES: u64 = 1_000;

/// The variable with the path of the plugin, benches/typed. Built in here, the compiler would run under callgrind, too.
const PLUGIN: &str = "HOTSLOT_BENCH_TYPED";

/// Limits one run of a path to so many instructions.
fn limit(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.pass_through_env(PLUGIN).tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions * TIMES)]));
    config
}

fn numbers(tracked: bool) -> HotSlot<u64> {
    let slot = HotSlot::builder(Numbers).track_leases(tracked).open(vec![0; 8]).expect("a number loads");
    take_a_lease(&slot);
    slot
}

fn take_a_lease(slot: &HotSlot<u64>) {
    black_box(*slot.load());
}

fn library() -> HotSlot<dyn Bench> {
    let path = std::env::var_os(PLUGIN).expect("ci/instructions sets it");
    // SAFETY: the library is this workspace's own, and its constructors are the standard library's.
    let trust = unsafe { Trust::assume() };
    let slot = HotSlot::builder(Native::interface::<dyn Bench>(trust));
    let slot = slot.open(std::fs::read(path).expect("it was built")).expect("it is sound");
    let plugin = slot.load();
    plugin.nothing();
    black_box((plugin.length(&[]), plugin.headers(&Request::ordinary())));
    drop(plugin);
    slot
}

#[library_benchmark]
#[bench::plain(args = (false), setup = numbers, config = limit(80))]
#[bench::tracked(args = (true), setup = numbers, config = limit(157))]
fn lease(slot: HotSlot<u64>) -> HotSlot<u64> {
    for _ in 0..TIMES {
        take_a_lease(&slot);
    }
    slot
}

/// Calls the plugin through one lease.
fn through(slot: HotSlot<dyn Bench>, call: impl Fn(&dyn Bench)) -> HotSlot<dyn Bench> {
    let plugin = slot.load();
    for _ in 0..TIMES {
        call(black_box(&*plugin));
    }
    drop(plugin);
    slot
}

#[library_benchmark]
#[bench::library(setup = library, config = limit(68))]
fn nothing(slot: HotSlot<dyn Bench>) -> HotSlot<dyn Bench> {
    through(slot, |plugin| plugin.nothing())
}

#[library_benchmark]
#[bench::library(setup = library, config = limit(97))]
fn kilobyte(slot: HotSlot<dyn Bench>) -> HotSlot<dyn Bench> {
    through(slot, |plugin| _ = black_box(plugin.length(black_box(&[7; 1024]))))
}

#[library_benchmark]
#[bench::library(setup = library, config = limit(109))]
fn plain_struct(slot: HotSlot<dyn Bench>) -> HotSlot<dyn Bench> {
    through(slot, |plugin| _ = black_box(plugin.mirrored(black_box(Point { x: 1.0, y: 2.0 }))))
}

#[library_benchmark]
#[bench::library(setup = library, config = limit(5_760))]
fn serde_type(slot: HotSlot<dyn Bench>) -> HotSlot<dyn Bench> {
    let request = Request::ordinary();
    through(slot, |plugin| _ = black_box(plugin.headers(black_box(&request))))
}

library_benchmark_group!(name = leases, benchmarks = [lease]);
library_benchmark_group!(name = calls, benchmarks = [nothing, kilobyte, plain_struct, serde_type]);
main!(library_benchmark_groups = [leases, calls]);
