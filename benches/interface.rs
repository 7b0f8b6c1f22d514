//! Measures calls through a declared interface beside the same calls by hand and through `abi_stable` and `stabby`, in one run.
//!
//! `cargo bench -p hotslot-benches --bench interface`. The plugin does as little as possible, and is called through
//! a held lease. A library is called directly; a module's instance is reused, by hand and by hotslot.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use hotslot::HotSlot;
use hotslot::native::{Native, Trust};
use hotslot::wasm::wasmtime::{self, Linker, Memory, Module, Store, TypedFunc};
use hotslot::wasm::{Engine, InstancePolicy};
use hotslot_bench_interface::{Bench, Point, Request};

#[allow(non_local_definitions, reason = "the peer's macro writes them")]
mod stable;

use stable::stable;

const PLUGIN: &str = "hotslot-bench-typed";
const BYTES: [u8; 1024] = [7; 1024];

/// Measures the four calls through one implementation of the interface.
fn through(c: &mut Criterion, name: &str, bench: &dyn Bench) {
    let request = Request::ordinary();
    c.bench_function(&format!("nothing/{name}"), |b| b.iter(|| black_box(bench).nothing()));
    c.bench_function(&format!("1 KiB of bytes/{name}"), |b| b.iter(|| black_box(bench).length(black_box(&BYTES))));
    let point = Point { x: 1.0, y: 2.0 };
    c.bench_function(&format!("a plain struct/{name}"), |b| b.iter(|| black_box(bench).mirrored(black_box(point))));
    c.bench_function(&format!("a serde type/{name}"), |b| b.iter(|| black_box(bench).headers(black_box(&request))));
}

fn library(c: &mut Criterion) {
    let path = hotslot_guests::library(PLUGIN, &["--release"], &[]);
    // SAFETY: the library is this workspace's own, and its constructors are the standard library's.
    let trust = unsafe { Trust::assume() };
    let slot = HotSlot::builder(Native::interface::<dyn Bench>(trust));
    let slot = slot.open(std::fs::read(&path).expect("it was built")).expect("it is sound");
    // SAFETY: the library is this workspace's own, and its constructors are the standard library's.
    let raw = unsafe { libloading::Library::new(&path) }.expect("it loads");
    // SAFETY: benches/typed declares both functions with these types, and `raw` is not dropped before the last call below.
    let (nothing, length) = unsafe {
        (
            *raw.get::<unsafe extern "C" fn()>(b"raw_nothing").expect("it is exported"),
            *raw.get::<unsafe extern "C" fn(*const u8, usize) -> u64>(b"raw_length").expect("it is exported"),
        )
    };
    // SAFETY: `nothing` takes no arguments and needs no state; `raw` is still loaded.
    c.bench_function("nothing/raw function pointer", |b| b.iter(|| unsafe { black_box(nothing)() }));
    c.bench_function("1 KiB of bytes/raw function pointer", |b| {
        let bytes = black_box(&BYTES);
        // SAFETY: `length` does not read the bytes, which are static in any case; `raw` is still loaded.
        b.iter(|| unsafe { black_box(length)(bytes.as_ptr(), bytes.len()) });
    });
    let request = Request::ordinary();
    c.bench_function("a serde type/postcard round trip and a raw function pointer", |b| {
        b.iter(|| {
            let bytes = postcard::to_allocvec(black_box(&request)).expect("it is written");
            // SAFETY: `length` does not read the bytes; `raw` is still loaded.
            let length = unsafe { black_box(length)(bytes.as_ptr(), bytes.len()) };
            let read: Request = postcard::from_bytes(&bytes).expect("it is read");
            (length, read.headers.len())
        });
    });
    through(c, "hotslot, library", &*slot.load());
}

fn module(c: &mut Criterion) {
    let Some(path) = hotslot_guests::module(PLUGIN, &[]) else { return };
    let bytes = std::fs::read(path).expect("it was built");
    let by_hand = &mut ByHand::new(&bytes);
    c.bench_function("nothing/raw TypedFunc", |b| {
        b.iter(|| by_hand.nothing.call(&mut by_hand.store, ()).expect("it does nothing"));
    });
    c.bench_function("1 KiB of bytes/raw TypedFunc", |b| {
        b.iter(|| {
            let at = by_hand.room;
            by_hand.memory.data_mut(&mut by_hand.store)[at as usize..][..1024].copy_from_slice(black_box(&BYTES));
            by_hand.length.call(&mut by_hand.store, (at, 1024)).expect("it has a length")
        });
    });
    let request = Request::ordinary();
    c.bench_function("a serde type/postcard there and a raw TypedFunc", |b| {
        b.iter(|| {
            let bytes = postcard::to_allocvec(black_box(&request)).expect("it is written");
            let at = by_hand.room;
            by_hand.memory.data_mut(&mut by_hand.store)[at as usize..][..bytes.len()].copy_from_slice(&bytes);
            by_hand.headers.call(&mut by_hand.store, (at, bytes.len() as u32)).expect("it is read")
        });
    });
    let engine = Engine::new().expect("this machine has an engine");
    let backend = |policy| engine.interface::<dyn Bench>().instance_policy(policy);
    for (name, backend) in [
        ("single instance", backend(InstancePolicy::Single)),
        ("fresh instances", backend(InstancePolicy::Fresh)),
        ("fresh instances from a snapshot", backend(InstancePolicy::Fresh).preinitialize()),
    ] {
        let slot = HotSlot::builder(backend).open(&bytes[..]).expect("it is sound");
        through(c, &format!("hotslot, module, {name}"), &*slot.load());
    }
}

/// The module without hotslot: one instance, no limits.
struct ByHand {
    store: Store<()>,
    memory: Memory,
    room: u32,
    nothing: TypedFunc<(), ()>,
    length: TypedFunc<(u32, u32), u64>,
    headers: TypedFunc<(u32, u32), u32>,
}

impl ByHand {
    fn new(bytes: &[u8]) -> ByHand {
        let engine = wasmtime::Engine::default();
        let module = Module::from_binary(&engine, bytes).expect("it compiles");
        let mut store = Store::new(&engine, ());
        let mut linker = Linker::new(&engine);
        // No plugin is created in it, so no host function is called.
        linker.define_unknown_imports_as_traps(&module).expect("nothing is defined yet");
        let instance = linker.instantiate(&mut store, &module).expect("it starts");
        let room = instance.get_typed_func::<u32, u32>(&mut store, "hotslot_room").expect("it is exported");
        ByHand {
            room: room.call(&mut store, 1024).expect("there is room"),
            memory: instance.get_memory(&mut store, "memory").expect("it is exported"),
            nothing: instance.get_typed_func(&mut store, "raw_nothing").expect("it is exported"),
            length: instance.get_typed_func(&mut store, "raw_length").expect("it is exported"),
            headers: instance.get_typed_func(&mut store, "raw_headers").expect("it is exported"),
            store,
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = library, module, stable
}
criterion_main!(benches);
