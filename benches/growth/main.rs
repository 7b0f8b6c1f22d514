//! Measures how the costs of a slot grow with one thing at a time, and prints the figures as JSON.
//!
//! `ci/growth` runs it and draws the figures. The plugins of all measurements cost nothing by themselves, so that only the
//! slot is measured. A time is the lowest of several rounds: what the work takes when nothing else gets in its way.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hotslot::{Candidate, HotSlot};
use serde_json::{Value, json};

#[path = "../numbers.rs"]
mod numbers;

use numbers::Numbers;

/// How often each time is taken.
const ROUNDS: usize = 7;

fn main() {
    // Before anything else has been allocated: resident memory does not shrink.
    let charts = [slots(), generations(), leases(), artifacts(), callers()];
    println!("{}", json!(charts));
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
