//! Measures the slot beside the raw cost of the same work and beside its peers, in one run.
//!
//! `cargo bench -p hotslot-benches`. Absolute times depend on the machine; the ratios carry over.

use std::ffi::c_void;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use hot_lib_reloader::LibReloader;
use hotslot::native::{Budget, Native, NativePlugin, OverBudget, Trust};
use hotslot::{Backend, Candidate, HotSlot, Payload};
use hotslot_plugin::abi::Status;

mod numbers;

use numbers::Numbers;

type RawQuote = unsafe extern "C" fn(i64) -> i64;
type Quote = unsafe extern "C" fn(*const c_void, i64, *mut i64) -> Status;

fn numbers() -> HotSlot<u64> {
    HotSlot::builder(Numbers).open(vec![0; 8]).expect("a number loads")
}

/// Measures `read` alone, then beside a second thread that reads continuously.
fn alone_and_beside(c: &mut Criterion, name: &str, read: impl Fn() -> u64 + Sync) {
    let mut group = c.benchmark_group("read");
    group.bench_function(format!("{name}, 1 thread"), |b| b.iter(&read));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                black_box(read());
            }
        });
        group.bench_function(format!("{name}, 2 threads"), |b| b.iter(&read));
        done.store(true, Ordering::Relaxed);
    });
}

fn read(c: &mut Criterion) {
    let pointer = AtomicPtr::new(Box::into_raw(Box::new(8_u64)));
    // SAFETY: the box is never freed.
    alone_and_beside(c, "raw atomic pointer", || unsafe { *pointer.load(Ordering::Acquire) });
    let slot = numbers();
    alone_and_beside(c, "hotslot load", || *slot.load());
    let tracked = HotSlot::builder(Numbers).track_leases(true).open(vec![0; 8]).expect("a number loads");
    alone_and_beside(c, "hotslot load, leases tracked", || *tracked.load());
    let cell = ArcSwap::from_pointee(8_u64);
    alone_and_beside(c, "arc-swap load", || **cell.load());
    alone_and_beside(c, "arc-swap load_full", || *cell.load_full());
    let lock = parking_lot::RwLock::new(Arc::new(8_u64));
    alone_and_beside(c, "parking_lot RwLock read", || **lock.read());
    let lock = RwLock::new(Arc::new(8_u64));
    alone_and_beside(c, "std RwLock read", || **lock.read().expect("nobody panics"));
}

fn swap(c: &mut Criterion) {
    let mut group = c.benchmark_group("swap of a plugin that costs nothing");
    let slot = numbers();
    let bytes: Arc<[u8]> = vec![0; 8].into();
    let again = || Candidate::new(Arc::clone(&bytes)).force();
    group.bench_function("thread spawn and join, for comparison", |b| {
        b.iter(|| std::thread::spawn(|| ()).join().expect("it does nothing"));
    });
    group.bench_function("reload", |b| b.iter(|| slot.reload(again()).expect("it loads")));
    // One after the other: as many as criterion would keep for later are more than a slot allows.
    group.bench_function("stage", |b| {
        b.iter_batched(|| (), |()| slot.stage(again()).expect("it loads"), criterion::BatchSize::PerIteration);
    });
    group.bench_function("commit", |b| {
        b.iter_batched(
            || slot.stage(again()).expect("it loads"),
            |staged| staged.commit().expect("nothing comes between"),
            criterion::BatchSize::PerIteration,
        );
    });
    group.bench_function("rollback", |b| {
        b.iter_batched(
            || slot.reload(again()).expect("it loads"),
            |_| slot.rollback().expect("one is kept"),
            criterion::BatchSize::PerIteration,
        );
    });
}

fn call(c: &mut Criterion) {
    let (_, image) = plugin();
    let mut group = c.benchmark_group("call");
    let slot = HotSlot::builder(backend()).open(&*image).expect("the plugin was just built");
    // SAFETY: the library is this process's own build of benches/plugin.
    let library = unsafe { libloading::Library::new(plugin().0) }.expect("it was just built");
    // SAFETY: `raw_quote` in benches/plugin has this type.
    let raw: RawQuote = unsafe { *library.get("raw_quote").expect("it is exported") };
    // SAFETY: the function has this type, and `library` stays open until the end of this function.
    group.bench_function("raw function pointer", |b| b.iter(|| unsafe { raw(black_box(7)) }));

    let lease = slot.load();
    // SAFETY: that is the shim's type; the lease is held as long as it is called.
    let quote: Quote = unsafe { lease.function(0) }.expect("the plugin exports it");
    let shim = |plugin: &NativePlugin| {
        let mut price = 0;
        // SAFETY: the instance is this plugin's, and `price` takes the result.
        let status = unsafe { quote(plugin.instance(), black_box(7), &raw mut price) };
        assert_eq!(status, Status::OK);
        price
    };
    group.bench_function("shim that catches panics, held lease", |b| b.iter(|| shim(&lease)));
    group.bench_function("shim that catches panics, a lease per call", |b| b.iter(|| shim(&slot.load())));
    group.bench_function("bytes in and out, 16 B, a lease per call", |b| {
        b.iter(|| slot.load().call(0, black_box(&[7; 16])).expect("it answers"));
    });
    let kilobyte = [7; 1024];
    group.bench_function("bytes in and out, 1 KiB, a lease per call", |b| {
        b.iter(|| slot.load().call(0, black_box(&kilobyte)).expect("it answers"));
    });
}

fn library(c: &mut Criterion) {
    let (_, image) = plugin();
    let mut group = c.benchmark_group(format!("library of {} KiB", image.len() / 1024));
    // Every copy stays mapped, and a process may have 65,530 mappings.
    group.sample_size(10).measurement_time(Duration::from_millis(300)).warm_up_time(Duration::from_millis(50));
    // For all of them in memory, where there is such a place: what a disk does meanwhile is not what is measured.
    let place = Some(PathBuf::from("/dev/shm")).filter(|place| place.is_dir()).unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(&place).expect("there is room");
    let mut copies = 0;
    let mut raw = || {
        copies += 1;
        let path = folder.path().join(format!("{copies}.so"));
        std::fs::write(&path, &image).expect("there is room");
        // SAFETY: the library is this process's own build of benches/plugin.
        let library = unsafe { libloading::Library::new(&path) }.expect("it was just built");
        // SAFETY: `raw_quote` in benches/plugin has this type.
        let raw: RawQuote = unsafe { *library.get("raw_quote").expect("it is exported") };
        std::mem::forget(library);
        raw
    };
    group.bench_function("raw copy + dlopen + dlsym", |b| b.iter(&mut raw));

    let slot = HotSlot::builder(backend().private_folder(&place)).open(&*image).expect("the plugin was just built");
    let bytes: Arc<[u8]> = image.clone().into();
    let again = || Candidate::new(Arc::clone(&bytes)).force();
    group.bench_function("hotslot reload", |b| b.iter(|| slot.reload(again()).expect("it loads")));
    // The loader looks at every library that it has: with as many mapped as there were for hotslot.
    group.bench_function("raw copy + dlopen + dlsym, afterwards", |b| b.iter(&mut raw));
    drop(folder);
    group.bench_function("hotslot stage", |b| b.iter_with_large_drop(|| slot.stage(again()).expect("it loads")));
    group.bench_function("hotslot commit", |b| {
        b.iter_batched(
            || slot.stage(again()).expect("it loads"),
            |staged| staged.commit().expect("nothing comes between"),
            criterion::BatchSize::PerIteration,
        );
    });
    group.bench_function("hotslot rollback", |b| {
        b.iter_batched(
            || slot.reload(again()).expect("it loads"),
            |_| slot.rollback().expect("one is kept"),
            criterion::BatchSize::PerIteration,
        );
    });
    group.bench_function("of it the digest (BLAKE3)", |b| b.iter(|| hotslot::Digest::of(black_box(&bytes))));
    let backend = Native::named_interface("bench/1", trust());
    let payload = Payload::new(bytes.clone());
    group
        .bench_function("of it the admission", |b| b.iter(|| backend.admit(black_box(&payload)).expect("it is sound")));
    // After the others: the threads of its watcher go on for a while.
    let mut reloader = Reloader::new(&place, &image);
    group.bench_function("hot-lib-reloader update", |b| b.iter_custom(|times| reloader.update(times)));
    drop(reloader);
    group.finish();
    let reports: Vec<_> = (0..51).map(|_| slot.reload(again()).expect("it loads")).collect();
    let median = |stage| {
        let mut took: Vec<_> = reports.iter().filter_map(|report| report.duration_of(stage)).collect();
        took.sort_unstable();
        (stage, took[took.len() / 2])
    };
    let stages: Vec<_> = reports[0].stages.iter().map(|(stage, _)| median(*stage)).collect();
    println!("\nwhere a reload spends its time, medians of 51: {stages:?}\n");
    drop(slot.close(Duration::from_secs(10)));
}

/// The peer, which is told by its watcher that the file has changed.
struct Reloader {
    folder: tempfile::TempDir,
    image: Vec<u8>,
    peer: LibReloader,
    changes: Receiver<()>,
}

impl Reloader {
    fn new(place: &Path, image: &[u8]) -> Reloader {
        let folder = tempfile::tempdir_in(place).expect("there is room");
        let path = folder.path().join(file_name("peer"));
        std::fs::write(path, image).expect("there is room");
        let mut peer = LibReloader::new(folder.path(), "peer", Some(Duration::from_millis(1)), None).expect("it loads");
        let changes = peer.subscribe_to_file_changes();
        // SAFETY: `raw_quote` in benches/plugin has this type.
        assert!(unsafe { peer.get_symbol::<RawQuote>(b"raw_quote") }.is_ok());
        Reloader { folder, image: image.to_owned(), peer, changes }
    }

    /// Changes the file and reloads it, so many times; without the time until the change is noticed.
    fn update(&mut self, times: u64) -> Duration {
        let once = |_| {
            loop {
                // What nothing reads: without a change it would not reload.
                self.image.push(0);
                std::fs::write(self.folder.path().join(file_name("peer")), &self.image).expect("there is room");
                // Its watcher may not have begun yet, or tell of a change twice.
                if self.changes.recv_timeout(Duration::from_secs(2)).is_err() {
                    continue;
                }
                let began = Instant::now();
                if self.peer.update().expect("it loads") {
                    // SAFETY: `raw_quote` in benches/plugin has this type.
                    black_box(unsafe { *self.peer.get_symbol::<RawQuote>(b"raw_quote").expect("it is exported") });
                    return began.elapsed();
                }
            }
        };
        (0..times).map(once).sum()
    }
}

fn file_name(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

fn trust() -> Trust {
    // SAFETY: the library is this workspace's own, and its constructors are the standard library's.
    unsafe { Trust::assume() }
}

/// Every library stays mapped, as by default and as in the raw benchmark; here without an alarm.
fn backend() -> Native {
    let budget = Budget {
        generations: u64::MAX,
        bytes: u64::MAX,
        shared_memory: u64::MAX,
        when_spent: OverBudget::Alarm,
        ..Budget::default()
    };
    Native::named_interface("bench/1", trust()).budget(budget)
}

/// Builds benches/plugin; returns its path and its bytes.
fn plugin() -> (String, Vec<u8>) {
    let build = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "hotslot-bench-plugin", "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs this benchmark, so it is there");
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let messages = String::from_utf8(build.stdout).expect("cargo writes UTF-8");
    let path = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "hotslot_bench_plugin")
        .find_map(|message| message["filenames"][0].as_str().map(str::to_owned))
        .expect("cargo says where it put the library");
    let image = std::fs::read(&path).expect("cargo has just built it");
    (path, image)
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = read, call, swap, library
}
criterion_main!(benches);
