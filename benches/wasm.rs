//! What the wasm backend costs, beside a pool written by hand on the same engine, in one run.
//!
//! `cargo bench -p hotslot-benches --bench wasm`. The plugin adds up the bytes of a request of 1 KiB.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hotslot::wasm::wasmtime::{
    self, Config, Enabled, InstanceAllocationStrategy, InstancePre, Linker, Memory, Module, ModuleExport,
    PoolingAllocationConfig, Store, StoreLimits, StoreLimitsBuilder, TypedFunc, UpdateDeadline,
};
use hotslot::wasm::{Engine, EngineStatus, Func, GuestBuffer, InstancePolicy, WasmBackend, WasmCallError, WasmPlugin};
use hotslot::{Backend, Candidate, HotSlot, Payload, VersionRule};
use waf_interface::{Verdict, Waf};
use wasm_encoder::{CodeSection, Encode, Instruction, RawSection};
use wasmparser::{FunctionBody, Parser};

/// A plugin of some size: besides what is called, 300 functions that the compiler has to look at.
fn module(number: u64) -> Vec<u8> {
    let ballast = "(func (param i64) (result i64) (loop $l (local.set 0 (i64.mul (local.get 0) (i64.const 31)))
        (br_if $l (i64.lt_u (local.get 0) (i64.const 1000000)))) (i64.rotl (local.get 0) (i64.const 7)))"
        .repeat(300);
    let text = format!(
        r#"(module
          (@custom "version" "1.0.{number}")
          (memory (export "memory") 17)
          (func (export "input") (result i64) (i64.const 0x1000_00001000))
          (func (export "sum") (param $at i32) (param $len i32) (result i64)
            (local $sum i64)
            (loop $next
              (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))
              (local.set $at (i32.add (local.get $at) (i32.const 1)))
              (br_if $next (local.tee $len (i32.sub (local.get $len) (i32.const 1)))))
            (local.get $sum))
          {ballast})"#
    );
    wat::parse_str(text).expect("the text is a module")
}

struct Sum {
    input: GuestBuffer,
    run: Func<(u32, u32), u64>,
}

fn backend(engine: &Engine, policy: InstancePolicy) -> WasmBackend<WasmPlugin<Sum>> {
    let bind = |plugin: &mut hotslot::wasm::Binder<'_>| -> Result<Sum, WasmCallError> {
        Ok(Sum { input: plugin.buffer("input")?, run: plugin.func("sum")? })
    };
    engine.bind(bind).instance_policy(policy)
}

fn slot(engine: &Engine, policy: InstancePolicy) -> HotSlot<WasmPlugin<Sum>> {
    HotSlot::builder(backend(engine, policy)).version_rule(VersionRule::Any).open(module(0)).expect("it is sound")
}

/// The same, by hand: an engine with the same settings, and as little as possible around it.
struct ByHand {
    engine: wasmtime::Engine,
    code: InstancePre<StoreLimits>,
    exports: [ModuleExport; 3],
    idle: Mutex<Vec<Instance>>,
}

struct Instance {
    store: Store<StoreLimits>,
    memory: Memory,
    input: usize,
    sum: TypedFunc<(u32, u32), u64>,
}

impl ByHand {
    fn new() -> wasmtime::Result<Arc<ByHand>> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(192).total_memories(192).total_tables(192);
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.linear_memory_keep_resident(1 << 20).table_keep_resident(64 << 10).pagemap_scan(Enabled::Yes);
        }
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(256 << 10)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = wasmtime::Engine::new(&config)?;
        let module = Module::from_binary(&engine, &module(0))?;
        let exports = ["memory", "input", "sum"].map(|name| module.get_export_index(name).expect("it is exported"));
        let code = Linker::new(&engine).instantiate_pre(&module)?;
        let by_hand = Arc::new(ByHand { engine, code, exports, idle: Mutex::default() });
        let ticking = Arc::downgrade(&by_hand);
        std::thread::spawn(move || {
            while let Some(by_hand) = ticking.upgrade() {
                by_hand.engine.increment_epoch();
                drop(by_hand);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Ok(by_hand)
    }

    fn instance(&self) -> wasmtime::Result<Instance> {
        let limits = StoreLimitsBuilder::new().memory_size(64 << 20).table_elements(10_000).build();
        let mut store = Store::new(&self.engine, limits);
        store.limiter(|limits| limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1)));
        let instance = self.code.instantiate(&mut store)?;
        let [memory, input, sum] =
            self.exports.each_ref().map(|export| instance.get_module_export(&mut store, export).expect("it is there"));
        let input = input.into_func().expect("a function").typed::<(), u64>(&store)?.call(&mut store, ())? >> 32;
        let sum = sum.into_func().expect("a function").typed(&store)?;
        Ok(Instance { memory: memory.into_memory().expect("a memory"), input: input as usize, sum, store })
    }

    fn fresh(&self, request: &[u8]) -> wasmtime::Result<u64> {
        self.instance()?.sum(request)
    }

    fn reused(&self, request: &[u8]) -> wasmtime::Result<u64> {
        let idle = self.idle.lock().expect("nobody panics").pop();
        let mut instance = idle.map_or_else(|| self.instance(), Ok)?;
        let sum = instance.sum(request)?;
        self.idle.lock().expect("nobody panics").push(instance);
        Ok(sum)
    }
}

impl Instance {
    fn sum(&mut self, request: &[u8]) -> wasmtime::Result<u64> {
        self.memory.data_mut(&mut self.store)[self.input..][..request.len()].copy_from_slice(request);
        self.sum.call(&mut self.store, (self.input as u32, request.len() as u32))
    }
}

fn call(c: &mut Criterion) {
    let request = [7; 1024];
    let mut group = c.benchmark_group("call with 1 KiB");
    let by_hand = ByHand::new().expect("this machine has an engine");
    group
        .bench_function("by hand, fresh instance", |b| b.iter(|| by_hand.fresh(black_box(&request)).expect("it sums")));
    group.bench_function("by hand, reused instance", |b| {
        b.iter(|| by_hand.reused(black_box(&request)).expect("it sums"));
    });
    let engine = Engine::new().expect("this machine has an engine");
    let reuse = InstancePolicy::Reuse { max_uses: NonZeroU32::MAX };
    for (name, policy) in [("fresh", InstancePolicy::Fresh), ("reused", reuse), ("single", InstancePolicy::Single)] {
        let slot = slot(&engine, policy);
        group.bench_function(format!("hotslot, {name} instance, a lease per call"), |b| {
            b.iter(|| {
                let sum = slot.load().call(|calls, call| {
                    let place = call.write(&calls.input, black_box(&request))?;
                    call.run(&calls.run, place)
                });
                sum.expect("it sums")
            });
        });
    }
}

/// A request of a browser, inspected by the rules of the WAF example. Without a snapshot, a fresh instance creates its plugin first.
fn inspection(c: &mut Criterion) {
    let request = request();
    let mut group = c.benchmark_group("inspection of a request");
    let engine = Engine::new().expect("this machine has an engine");
    let fresh = |engine: &Engine| waf(engine).instance_policy(InstancePolicy::Fresh);
    for (name, backend) in [
        ("reused instance", waf(&engine)),
        ("fresh instance", fresh(&engine)),
        ("fresh instance from a snapshot", fresh(&engine).preinitialize()),
    ] {
        let slot = HotSlot::builder(backend).version_rule(VersionRule::Any).open(WAF).expect("it is sound");
        group.bench_function(name, |b| {
            b.iter(|| slot.load().inspect_request(black_box(&request)).expect("it has a verdict").verdict);
        });
    }
    assert!(engine.snapshots().iter().all(|status| status.snapshot.is_ok()), "{:?}", engine.snapshots());
    // An engine that has never seen the module, nor a function of it.
    group.sample_size(10);
    for (name, preinitialized) in [("cold load", false), ("cold load with a snapshot", true)] {
        let load = |engine: Engine| {
            let backend = if preinitialized { fresh(&engine).preinitialize() } else { fresh(&engine) };
            HotSlot::builder(backend).version_rule(VersionRule::Any).open(WAF).expect("it is sound")
        };
        let engine = || Engine::new().expect("this machine has an engine");
        group.bench_function(name, |b| b.iter_batched(engine, load, BatchSize::PerIteration));
    }
}

fn request() -> Vec<u8> {
    let mut request = Vec::new();
    let headers = [(&b"host"[..], &b"example.com"[..])];
    waf_interface::encode(&mut request, b"GET", b"/products?id=42", headers, b"").expect("it is short");
    request
}

fn reload(c: &mut Criterion) {
    reload_of(c, "a module", &module(0), |engine| backend(engine, InstancePolicy::Fresh));
    reload_of(c, "the WAF module", WAF, waf);
}

/// Every way for a module to come in, or back.
fn reload_of<T: Send + Sync + ?Sized + 'static, B: Backend<T>>(
    c: &mut Criterion,
    name: &str,
    module: &[u8],
    backend: impl Fn(&Engine) -> B,
) {
    let mut group = c.benchmark_group(format!("reload of {name} of {} KiB", module.len() / 1024));
    group.sample_size(20);
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let new = || numbered(module, NUMBER.fetch_add(1, Ordering::Relaxed));
    let by_hand = ByHand::new().expect("this machine has an engine");
    group.bench_function("compilation alone", |b| {
        b.iter_batched(
            new,
            |bytes| Module::from_binary(&by_hand.engine, &bytes).expect("it compiles"),
            BatchSize::PerIteration,
        );
    });
    let engine = Engine::new().expect("this machine has an engine");
    let slot_on = |engine: &Engine| {
        let slot = HotSlot::builder(backend(engine)).version_rule(VersionRule::Any).open(module);
        slot.expect("it is sound")
    };
    let slot = slot_on(&engine);
    // One whose cache of functions has room for none: they are looked up, and all are compiled.
    let unknowing = Engine::builder().function_cache_limit(1).build().expect("this machine has an engine");
    let cold = slot_on(&unknowing);
    group.bench_function("cold", |b| {
        b.iter_batched(new, |bytes| cold.reload(bytes).expect("it is sound"), BatchSize::PerIteration);
    });
    assert_eq!(unknowing.status().functions_reused, 0, "it compiled all of them each time");
    let edit = || edited(module, NUMBER.fetch_add(1, Ordering::Relaxed));
    let (before, modules) = (engine.status(), NUMBER.load(Ordering::Relaxed));
    group.bench_function("an edit of one function", |b| {
        b.iter_batched(edit, |bytes| slot.reload(bytes).expect("it is sound"), BatchSize::PerIteration);
    });
    let (after, modules) = (engine.status(), NUMBER.load(Ordering::Relaxed) - modules);
    let compiled = after.functions_compiled - before.functions_compiled;
    assert!(compiled >= modules && compiled < after.functions_reused / 4, "it compiled few each time: {compiled}");
    let known: Arc<[u8]> = module.into();
    let again = || Candidate::new(Arc::clone(&known)).force();
    group.bench_function("known, in memory", |b| b.iter(|| slot.reload(again()).expect("it is sound")));
    group.bench_function("of it the admission", |b| {
        let (backend, payload) = (backend(&engine), Payload::new(known.clone()));
        b.iter(|| Backend::admit(&backend, black_box(&payload)).expect("it is sound"));
    });
    let folder = tempfile::TempDir::new().expect("there is room");
    let forgetful = Engine::builder().memory_cache_limit(0).cache_dir(folder.path().join("compiled"));
    let forgetful = forgetful.build().expect("the folder is private");
    let on_disk = slot_on(&forgetful);
    group.bench_function("known, in the folder", |b| b.iter(|| on_disk.reload(again()).expect("it is sound")));
    assert_eq!(forgetful.status().compiled, 1, "the rest came from the folder");
    group.bench_function("commit of a staged one", |b| {
        b.iter_batched(
            || slot.stage(again()).expect("it is sound"),
            |staged| staged.commit().expect("nothing comes between"),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("rollback", |b| {
        b.iter_batched(
            || slot.reload(again()).expect("it is sound"),
            |_| slot.rollback().expect("one is kept"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    println!("\nwhere a cold reload spends its time: {:?}", cold.reload(new()).expect("it is sound").stages);
    println!("one of a module with an edited function: {:?}", slot.reload(edit()).expect("it is sound").stages);
    let EngineStatus { functions_compiled, function_memory, .. } = engine.status();
    println!("{functions_compiled} functions were compiled, and take {} KiB", function_memory / 1024);
    println!("and one of a known module: {:?}\n", slot.reload(again()).expect("it is sound").stages);
}

/// The same module with a section more, so that it is another one.
fn numbered(module: &[u8], number: u64) -> Vec<u8> {
    let mut bytes = module.to_vec();
    bytes.extend([0, 10, 1, b'n']);
    bytes.extend(number.to_le_bytes());
    bytes
}

/// The same module with two instructions more in a function of average length: a number that nobody uses.
fn edited(module: &[u8], number: u64) -> Vec<u8> {
    let payloads = || Parser::new(0).parse_all(module).map(|payload| payload.expect("it is a module"));
    let bodies: Vec<FunctionBody<'_>> = payloads()
        .filter_map(|payload| match payload {
            wasmparser::Payload::CodeSectionEntry(body) => Some(body),
            _ => None,
        })
        .collect();
    let mut by_length: Vec<usize> = (0..bodies.len()).collect();
    by_length.sort_by_key(|body| bodies[*body].range().len());
    let chosen = by_length[by_length.len() / 2];
    let mut code = CodeSection::new();
    for (body, range) in bodies.iter().map(FunctionBody::range).enumerate() {
        let mut bytes = module[range.clone()].to_vec();
        if body == chosen {
            let start = bodies[body].get_operators_reader().expect("it has instructions").original_position();
            let mut edit = Vec::new();
            Instruction::I64Const(number.cast_signed()).encode(&mut edit);
            Instruction::Drop.encode(&mut edit);
            let at = start - range.start;
            bytes.splice(at..at, edit);
        }
        code.raw(&bytes);
    }
    let mut edited = wasm_encoder::Module::new();
    for (id, range) in payloads().filter_map(|payload| payload.as_section()) {
        match id {
            10 => edited.section(&code),
            _ => edited.section(&RawSection { id, data: &module[range] }),
        };
    }
    edited.finish()
}

/// The rules of the WAF example.
const WAF: &[u8] = include_bytes!("../examples/waf/rules/universal-waf.wasm");

fn waf(engine: &Engine) -> WasmBackend<dyn Waf> {
    engine.interface::<dyn Waf>().config("{}").instance_policy(InstancePolicy::Reuse { max_uses: NonZeroU32::MAX })
}

/// Reloads the WAF module ten thousand times while two threads call it, and says what that does to memory.
fn memory(_: &mut Criterion) {
    const RELOADS: usize = 10_000;
    let engine = Engine::new().expect("this machine has an engine");
    let slot = HotSlot::builder(waf(&engine)).version_rule(VersionRule::Any).open(WAF).expect("it is sound");
    let request = request();
    let versions: [Arc<[u8]>; 4] = std::array::from_fn(|number| numbered(WAF, number as u64).into());
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    println!("RSS over {RELOADS} reloads of the WAF module, under calls from two threads:");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let decision = slot.load().inspect_request(&request).expect("it has a verdict");
                    assert_eq!(decision.verdict, Verdict::Allow);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for reload in 1..=RELOADS {
            let version = Arc::clone(&versions[reload % versions.len()]);
            slot.reload(Candidate::new(version).force()).expect("it is sound");
            if [100, 1_000, 2_500, 5_000, RELOADS].contains(&reload) {
                println!("  after {reload:>6}: {} MiB", resident() >> 20);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("  {} calls, none failed; {} modules compiled\n", calls.into_inner(), engine.status().compiled);
}

/// The memory of this process that is in RAM, in bytes, as Linux says it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = call, inspection, reload, memory
}
criterion_main!(benches);
