//! Measures how costs grow with one thing at a time, and prints the figures as JSON.
//!
//! `ci/growth` runs it and draws the figures. The plugins cost nothing by themselves, so that only the library is measured. A
//! time is the lowest of several rounds: what the work takes when nothing else gets in its way.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hotslot::native::{Native, Trust};
use hotslot::wasm::{CallLimits, Engine, InstancePolicy};
use hotslot::{Backend, Candidate, HotSlot, VersionRule};
use hotslot_bench_interface::Bench;
use hotslot_growth_methods::{Methods1, Methods10, Methods100, Methods1000};
use hotslot_plugin::Interface;
use serde_json::{Value, json};

#[path = "../numbers.rs"]
mod numbers;

use numbers::Numbers;

/// How often each time is taken.
const ROUNDS: usize = 7;

fn main() {
    // Before anything else has been allocated: resident memory does not shrink.
    let of_slots = [slots(), generations(), leases(), artifacts(), callers()];
    let of_plugins = [methods(), arguments(), instances(), compilations()];
    println!("{}", json!([&of_slots[..], &of_plugins[..]].concat()));
}

/// One chart: what grows, the unit of the costs, and for each line its values in the order of `grown`.
fn chart(file: &str, grows: &str, unit: &str, grown: &[usize], lines: &[(&str, Vec<f64>)]) -> Value {
    let lines: serde_json::Map<_, _> = lines.iter().map(|(name, values)| ((*name).to_owned(), json!(values))).collect();
    json!({ "file": file, "grows": grows, "unit": unit, "grown": grown, "lines": lines })
}

/// Slots that are open: memory, threads, and how often the process wakes up while nothing happens.
fn slots() -> Value {
    let grown = [1, 10, 100, 1_000, 10_000];
    let mut open = Vec::new();
    let first = resident();
    let (mut memory, mut threads, mut wake_ups) = (Vec::new(), Vec::new(), Vec::new());
    for count in grown {
        while open.len() < count {
            open.push(HotSlot::builder(Numbers).open(vec![0; 8]).expect("a number loads"));
        }
        memory.push((resident() - first) as f64 / 1024.0);
        threads.push(tasks().len() as f64);
        let before = switches();
        std::thread::sleep(Duration::from_secs(1));
        let after = switches();
        let more = after.iter().map(|(task, count)| count - before.get(task).unwrap_or(&0)).sum::<u64>();
        // This thread's own sleep is one.
        wake_ups.push((more - 1) as f64);
    }
    let lines = [("memory (KiB)", memory), ("threads", threads), ("wake-ups in an idle second", wake_ups)];
    chart("slots", "open slots", "KiB or number", &grown, &lines)
}

/// Generations that are kept for a rollback: what a swap costs beside them.
fn generations() -> Value {
    let grown = [1, 10, 100, 1_000];
    let (mut reloads, mut rollbacks, mut status) = (Vec::new(), Vec::new(), Vec::new());
    for count in grown {
        let slot = HotSlot::builder(Numbers).keep_previous(count).open(vec![0; 8]).expect("a number loads");
        let reload = || drop(slot.reload(again()).expect("it loads"));
        (0..count).for_each(|_| reload());
        reloads.push(lowest(|| time(50, reload)));
        status.push(lowest(|| time(50, || drop(black_box(slot.status())))));
        rollbacks.push(lowest(|| {
            reload();
            time(1, || drop(slot.rollback().expect("one is kept")))
        }));
    }
    let lines = [("reload", reloads), ("rollback", rollbacks), ("status", status)];
    chart("generations", "generations that are kept", "ns", &grown, &lines)
}

/// Leases that are out: what one more costs beside them.
fn leases() -> Value {
    let grown = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    let (mut plain, mut tracked, mut status) = (Vec::new(), Vec::new(), Vec::new());
    for count in grown {
        for (track, line) in [(false, &mut plain), (true, &mut tracked)] {
            let slot = HotSlot::builder(Numbers).track_leases(track).open(vec![0; 8]).expect("a number loads");
            let out: Vec<_> = (0..count).map(|_| slot.load()).collect();
            line.push(lowest(|| time(10_000, || drop(black_box(slot.load())))));
            if !track {
                status.push(lowest(|| time(50, || drop(black_box(slot.status())))));
            }
            drop(out);
        }
    }
    let lines = [("take and drop one", plain), ("the same, leases tracked", tracked), ("status", status)];
    chart("leases", "leases that are out", "ns", &grown, &lines)
}

/// The size of an artifact: a reload digests it.
fn artifacts() -> Value {
    let grown = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
    let (mut reloads, mut digests) = (Vec::new(), Vec::new());
    for size in grown {
        let builder = HotSlot::builder(Numbers).max_artifact_size(usize::MAX);
        let slot = builder.open(vec![0; 8]).expect("a number loads");
        let bytes: Arc<[u8]> = vec![7; size].into();
        reloads
            .push(lowest(|| time(1, || drop(slot.reload(Candidate::new(bytes.clone()).force()).expect("it loads")))));
        digests.push(lowest(|| time(1, || _ = black_box(hotslot::Digest::of(&bytes)))));
    }
    let lines = [("reload", reloads), ("of it the digest", digests)];
    chart("artifacts", "bytes of the artifact", "ns", &grown, &lines)
}

/// Threads that take leases at once: the time of one lease on one processor, so that a flat line means that they do not
/// disturb each other.
fn callers() -> Value {
    let grown = [1, 2, 4, 8, 16, 32, 64];
    let (mut plain, mut tracked) = (Vec::new(), Vec::new());
    for count in grown {
        for (track, line) in [(false, &mut plain), (true, &mut tracked)] {
            let slot = HotSlot::builder(Numbers).track_leases(track).open(vec![0; 8]).expect("a number loads");
            line.push(lowest(|| beside_each_other(count, &slot)));
        }
    }
    let lines = [("take and drop a lease", plain), ("the same, leases tracked", tracked)];
    chart("callers", "threads", "ns", &grown, &lines)
}

/// The nanoseconds that a processor needs for one lease while `count` threads take leases.
fn beside_each_other(count: usize, slot: &HotSlot<u64>) -> f64 {
    let done = AtomicBool::new(false);
    let processors = std::thread::available_parallelism().map_or(1, |number| number.get()).min(count);
    let started = Instant::now();
    let taken: u64 = std::thread::scope(|scope| {
        let take = || {
            let mut taken = 0;
            while !done.load(Ordering::Relaxed) {
                (0..100).for_each(|_| drop(black_box(slot.load())));
                taken += 100;
            }
            taken
        };
        let callers: Vec<_> = (0..count).map(|_| scope.spawn(take)).collect();
        std::thread::sleep(Duration::from_millis(100));
        done.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().expect("it only counts")).sum()
    });
    started.elapsed().as_nanos() as f64 * processors as f64 / taken as f64
}

/// The methods of an interface: what a reload of a plugin costs whose contract has them, and a call of the last one.
fn methods() -> Value {
    let engine = Engine::new().expect("this machine has an engine");
    let costs = [
        costs::<dyn Methods1>(&engine, "1", |plugin| plugin.method_0(7)),
        costs::<dyn Methods10>(&engine, "10", |plugin| plugin.method_9(7)),
        costs::<dyn Methods100>(&engine, "100", |plugin| plugin.method_99(7)),
        costs::<dyn Methods1000>(&engine, "1000", |plugin| plugin.method_999(7)),
    ];
    let line = |index: usize| costs.iter().map(|costs| costs[index]).collect::<Vec<_>>();
    let lines = [
        ("reload a library", line(0)),
        ("call its last method", line(1)),
        ("reload a module that is known", line(2)),
        ("call its last method, single instance", line(3)),
    ];
    chart("methods", "methods of the interface", "ns", &[1, 10, 100, 1_000], &lines)
}

/// What a plugin of one of these interfaces costs: a reload and a call, of a library and of a module.
fn costs<I: Interface + ?Sized>(engine: &Engine, count: &str, call: impl Fn(&I) -> u64) -> [f64; 4] {
    const PACKAGE: &str = "hotslot-growth-methods";
    let flags = ["--cfg".to_owned(), format!("methods=\"{count}\"")];
    let flags = flags.each_ref().map(String::as_str);
    let [reload, call_library] = reload_and_call(Native::interface::<I>(trust()), &library(PACKAGE, &flags), &call);
    let modules = engine.interface::<I>().instance_policy(InstancePolicy::Single);
    let [reload_known, call_module] = reload_and_call(modules, &module(PACKAGE, &flags), &call);
    [reload, call_library, reload_known, call_module]
}

fn reload_and_call<I: ?Sized + Send + Sync + 'static>(
    backend: impl Backend<I>,
    bytes: &[u8],
    call: impl Fn(&I) -> u64,
) -> [f64; 2] {
    let slot = HotSlot::builder(backend).version_rule(VersionRule::Any).open(bytes).expect("it is sound");
    let reload = lowest(|| time(1, || drop(slot.reload(Candidate::new(bytes).force()).expect("it is sound"))));
    let lease = slot.load();
    [reload, lowest(|| time(10_000, || _ = black_box(call(black_box(&*lease)))))]
}

/// The bytes of an argument: what a call that only looks at their number costs. A library borrows them, and a module gets a
/// copy.
fn arguments() -> Value {
    let grown = [16, 256, 4_096, 65_536, 1_000_000, 10_000_000, 100_000_000];
    let library = HotSlot::builder(Native::interface::<dyn Bench>(trust())).open(library(TYPED, &[]));
    let library = library.expect("it is sound");
    let engine = Engine::new().expect("this machine has an engine");
    let limits = CallLimits { memory: 1 << 30, deadline: Duration::from_secs(60), ..CallLimits::default() };
    let modules = engine.interface::<dyn Bench>().instance_policy(InstancePolicy::Single).call_limits(limits);
    let module = HotSlot::builder(modules).open(module(TYPED, &[])).expect("it is sound");
    let mut lines = [("library", Vec::new()), ("module, single instance", Vec::new()), ("a copy alone", Vec::new())];
    let (library, module) = (library.load(), module.load());
    for size in grown {
        let bytes = vec![7; size];
        let times = (10_000_000 / size).clamp(1, 10_000);
        for ((_, line), plugin) in lines.iter_mut().zip([&library, &module]) {
            line.push(lowest(|| time(times, || _ = black_box(plugin.length(black_box(&bytes))))));
        }
        let copy = std::cell::RefCell::new(vec![0; size]);
        lines[2].1.push(lowest(|| time(times, || copy.borrow_mut().copy_from_slice(black_box(&bytes)))));
    }
    chart("arguments", "bytes of the argument", "ns", &grown, &lines)
}

/// Instances that there are in an engine: what a call costs beside them.
fn instances() -> Value {
    let grown = [1, 10, 100, 1_000];
    let engine = Engine::builder().max_instances(1_100).build().expect("this machine has an engine");
    let bytes = module(TYPED, &[]);
    let open = |policy| {
        let backend = engine.interface::<dyn Bench>().instance_policy(policy);
        HotSlot::builder(backend).open(&bytes[..]).expect("it is sound")
    };
    let fresh = open(InstancePolicy::Fresh);
    let mut singles = Vec::new();
    let (mut one, mut new, mut status) = (Vec::new(), Vec::new(), Vec::new());
    for count in grown {
        while singles.len() < count {
            singles.push(open(InstancePolicy::Single));
        }
        let (single, fresh) = (singles[0].load(), fresh.load());
        one.push(lowest(|| time(10_000, || black_box(&single).nothing())));
        new.push(lowest(|| time(200, || black_box(&fresh).nothing())));
        status.push(lowest(|| time(50, || _ = black_box(engine.status()))));
    }
    let lines = [("call of one that is there", one), ("call of a fresh one", new), ("status of the engine", status)];
    chart("instances", "instances of other plugins", "ns", &grown, &lines)
}

/// New modules that are loaded at once, each on a thread of its own: when the first one serves, and when all do.
fn compilations() -> Value {
    let grown = [1, 2, 4, 8, 16, 32];
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for count in grown {
        let rounds: Vec<_> = (0..3).map(|_| compiled_at_once(count)).collect();
        let lowest = |time: fn(&[f64; 2]) -> f64| rounds.iter().map(time).fold(f64::INFINITY, f64::min);
        first.push(lowest(|[first, _]| *first));
        last.push(lowest(|[_, last]| *last));
    }
    chart("compilations", "new modules at once", "ns", &grown, &[("the first one serves", first), ("all serve", last)])
}

/// The nanoseconds until the first one of so many serves, and until all do.
fn compiled_at_once(count: usize) -> [f64; 2] {
    let engine = Engine::new().expect("this machine has an engine");
    let modules: Vec<_> = (0..count).map(dear_to_compile).collect();
    let started = Instant::now();
    let load = |bytes: &[u8]| {
        let slot = HotSlot::builder(engine.bind(|_| Ok(()))).open(bytes).expect("it is sound");
        (started.elapsed().as_nanos() as f64, slot)
    };
    let times = std::thread::scope(|scope| {
        let loading: Vec<_> = modules.iter().map(|bytes| scope.spawn(|| load(bytes).0)).collect();
        loading.into_iter().map(|loading| loading.join().expect("it loads")).collect::<Vec<_>>()
    });
    assert_eq!(engine.status().compiled, count as u64, "each is another one");
    [times.iter().copied().fold(f64::INFINITY, f64::min), times.iter().copied().fold(0.0, f64::max)]
}

/// A module of 300 functions that no other number has.
fn dear_to_compile(number: usize) -> Vec<u8> {
    let functions: String = (0..300)
        .map(|function| {
            let own = number * 1_000 + function;
            format!(
                "(func (param i64) (result i64) (loop $l (local.set 0 (i64.mul (local.get 0) (i64.const {own})))
                   (br_if $l (i64.lt_u (local.get 0) (i64.const 1000000)))) (i64.rotl (local.get 0) (i64.const 7)))"
            )
        })
        .collect();
    wat::parse_str(format!("(module {functions})")).expect("the text is a module")
}

/// The plugin that takes arguments.
const TYPED: &str = "hotslot-bench-typed";

fn library(package: &str, flags: &[&str]) -> Vec<u8> {
    std::fs::read(hotslot_guests::library(package, &["--release"], flags)).expect("it was built")
}

fn module(package: &str, flags: &[&str]) -> Vec<u8> {
    std::fs::read(hotslot_guests::module(package, flags).expect("a toolchain for wasm32")).expect("it was built")
}

fn trust() -> Trust {
    // SAFETY: the libraries are this workspace's own, and their constructors are the standard library's.
    unsafe { Trust::assume() }
}

fn again() -> Candidate {
    Candidate::new(vec![0; 8]).force()
}

/// The nanoseconds that `work` takes, as the mean of `times`.
fn time(times: usize, work: impl Fn()) -> f64 {
    let started = Instant::now();
    (0..times).for_each(|_| work());
    started.elapsed().as_nanos() as f64 / times as f64
}

fn lowest(round: impl Fn() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// The memory of this process that is in RAM, in bytes.
fn resident() -> u64 {
    field("/proc/self/status", "VmRSS:") << 10
}

/// How many times each thread of this process has stopped to wait.
fn switches() -> BTreeMap<String, u64> {
    let count = |task: &String| field(&format!("{task}/status"), "voluntary_ctxt_switches:");
    tasks().into_iter().map(|task| (task.clone(), count(&task))).collect()
}

fn tasks() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this measures on Linux");
    tasks.map(|task| task.expect("it can be read").path().display().to_string()).collect()
}

/// Reads a number of a file of Linux that has a field in each line.
fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
