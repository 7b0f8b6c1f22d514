//! Instances that start from a snapshot of one that has been set up.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hotslot::wasm::{
    Binder, Engine, EngineBuilder, Func, InstancePolicy, SnapshotStatus, WasmBackend, WasmCallError, WasmPlugin,
};
use hotslot::{Candidate, Digest, HotSlot, Stage, Stateful, transfer_state};
use hotslot_fixture_interface::v1_0::Fixture;
use hotslot_fixture_interface::{Ledger, Note};
use hotslot_plugin::CallError;

use super::{compile, engine, limits};
use crate::interface::built;
use crate::support::process::alone;
use crate::support::{Log, admit};

/// A module that has been set up by all that can: data, `start`, `_initialize`, which also grows its memory. `get` counts its
/// calls in memory and in a global.
const SET_UP: &str = r#"(module
  (@custom "version" "1.0.0")
  (import "test" "called" (func $called))
  (memory (export "memory") 1)
  (data (i32.const 0) "\01")
  (global $state (mut i64) (i64.const 0))
  (global $other (mut v128) (v128.const i64x2 0 0))
  (func $start
    (call $called)
    (i32.store (i32.const 4) (i32.const 20)))
  (start $start)
  (func (export "_initialize")
    (call $called)
    (drop (memory.grow (i32.const 2)))
    (i32.store (i32.const 131072) (i32.const 300))
    (global.set $state (i64.const 4000))
    (global.set $other (v128.const i64x2 0 50000)))
  (func (export "get") (result i64)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (global.set $state (i64.add (global.get $state) (i64.const 1000)))
    (i64.add (i64.add (global.get $state) (i64x2.extract_lane 1 (global.get $other)))
      (i64.extend_i32_u (i32.add (i32.load (i32.const 0))
        (i32.add (i32.load (i32.const 4)) (i32.load (i32.const 131072)))))))
  MORE)"#;

type Get = WasmPlugin<Func<(), u64>>;

fn get(plugin: &Get) -> u64 {
    plugin.call(|get, call| call.run(get, ())).unwrap()
}

/// A backend for it that takes snapshots, and how often the plugin has called the host.
fn backend(engine: &Engine) -> (WasmBackend<Get>, Arc<AtomicUsize>) {
    let (backend, calls) = plain(engine);
    (backend.preinitialize(), calls)
}

/// The same without snapshots.
fn plain(engine: &Engine) -> (WasmBackend<Get>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let backend = engine.bind(|binder: &mut Binder<'_>| binder.func("get")).call_limits(limits());
    let counted = Arc::clone(&calls);
    let link = |linker: &mut hotslot::wasm::wasmtime::Linker<_>| {
        let counted = Arc::clone(&counted);
        linker.func_wrap("test", "called", move || _ = counted.fetch_add(1, Ordering::Relaxed)).map(drop)
    };
    (backend.link(link).unwrap(), calls)
}

fn module(more: &str) -> Vec<u8> {
    compile(&SET_UP.replace("MORE", more))
}

/// What the engine says of its only generation.
#[track_caller]
fn status(engine: &Engine) -> SnapshotStatus {
    let statuses = engine.snapshots();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    statuses.into_iter().next().unwrap()
}

fn engines() -> [EngineBuilder; 2] {
    let builder = || Engine::builder().max_instances(24);
    [builder(), builder().on_demand()]
}

#[test]
fn instances_start_where_the_first_one_had_been_set_up_and_share_nothing_after_that() {
    for builder in engines() {
        let engine = builder.build().unwrap();
        let (backend, calls) = backend(&engine);
        let slot = HotSlot::builder(backend).name("rules").open(module("")).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 2, "`start` and `_initialize`, once each");
        for _ in 0..3 {
            assert_eq!(get(&slot.load()), 55_322, "each call is the first one of its instance");
        }
        assert_eq!(calls.load(Ordering::Relaxed), 2, "neither has run again");
        let status = status(&engine);
        assert_eq!((&*status.slot, status.generation), ("rules", 1));
        assert_eq!(status.module, Digest::of(&module("")));
        let snapshot = status.snapshot.expect("one was taken");
        assert_ne!(snapshot.digest, status.module);
        assert!(snapshot.size > 0);
    }
}

#[test]
fn policies_keep_what_they_promise() {
    let engine = engine();
    for (policy, answers) in [
        (InstancePolicy::Fresh, [55_322, 55_322, 55_322, 55_322]),
        (InstancePolicy::Reuse { max_uses: NonZeroU32::new(3).unwrap() }, [55_322, 56_323, 55_322, 56_323]),
        (InstancePolicy::Single, [55_322, 56_323, 57_324, 58_325]),
    ] {
        let (backend, calls) = backend(&engine);
        let slot = HotSlot::builder(backend.instance_policy(policy)).open(module("")).unwrap();
        assert_eq!([(); 4].map(|()| get(&slot.load())), answers, "{policy:?}");
        assert_eq!(calls.load(Ordering::Relaxed), 2, "{policy:?}");
        let has_snapshot = policy != InstancePolicy::Single;
        assert_eq!(engine.snapshots().len(), usize::from(has_snapshot), "{policy:?}: one instance needs none");
    }
}

#[test]
fn without_it_every_instance_is_set_up() {
    let engine = engine();
    let (backend, calls) = plain(&engine);
    let slot = HotSlot::builder(backend).open(module("")).unwrap();
    assert_eq!((get(&slot.load()), get(&slot.load())), (55_322, 55_322));
    assert_eq!(calls.load(Ordering::Relaxed), 6, "two for the load, and two for each call");
    assert_eq!(engine.snapshots(), []);
}

#[test]
fn modules_of_which_no_snapshot_can_be_taken_serve_all_the_same_and_say_why() {
    for (more, reason) in [
        // What a snapshot does not hold.
        (r#"(table 2 funcref) (func (table.set (i32.const 0) (ref.null func)))"#, "table.set"),
        (r#"(table 2 funcref) (func (drop (table.grow (ref.null func) (i32.const 1))))"#, "table.grow"),
        (r#"(table 2 funcref) (func (table.fill (i32.const 0) (ref.null func) (i32.const 1)))"#, "table.fill"),
        (r#"(data $passive "x") (func (data.drop $passive))"#, "data.drop"),
        (r#"(table 2 funcref) (elem $passive func 0) (func (elem.drop $passive))"#, "elem.drop"),
        (r#"(global (mut funcref) (ref.null func))"#, "mutable global containing a reference"),
        // Names that are needed.
        (r#"(global (export "__wizer_global_0") i32 (i32.const 7))"#, "__wizer_"),
        (r#"(func (export "__wizer_memory_0"))"#, "__wizer_"),
    ] {
        let engine = engine();
        let (backend, calls) = backend(&engine);
        let slot = HotSlot::builder(backend).open(module(more)).unwrap();
        assert_eq!((get(&slot.load()), get(&slot.load())), (55_322, 55_322), "{reason}");
        assert_eq!(calls.load(Ordering::Relaxed), 6, "{reason}: each instance is set up");
        let why = status(&engine).snapshot.expect_err("there is none");
        assert!(why.contains(reason), "{why}");
    }
}

#[test]
fn what_became_of_a_snapshot_is_logged_with_both_digests() {
    alone(|| {
        let log = Log::capture();
        let engine = engine();
        let (taken, refused) = (module(""), module(r#"(func (export "__wizer_memory_0"))"#));
        for bytes in [&taken, &refused] {
            HotSlot::builder(backend(&engine).0).open(&bytes[..]).unwrap();
        }
        let (level, line) = log.with("hotslot::wasm::backend", "instances start from a snapshot");
        assert_eq!(level, tracing::Level::INFO);
        assert!(line.contains(&format!("module={}", Digest::of(&taken))) && line.contains("snapshot="), "{line}");
        let warnings = log.warnings();
        assert!(warnings.iter().any(|line| line.contains("__wizer_")), "{warnings:?}");
    });
}

#[test]
fn what_is_imported_besides_functions_has_no_snapshot() {
    let engine = engine();
    let backend = engine.bind(|binder: &mut Binder<'_>| binder.func("get")).call_limits(limits());
    let backend = backend.offer_memory("host", "memory", 1, None).unwrap().preinitialize();
    let text = r#"(module (import "host" "memory" (memory 1))
      (func (export "get") (result i64)
        (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
        (i64.load (i32.const 0))))"#;
    let slot: HotSlot<Get> = HotSlot::builder(backend).open(compile(text)).unwrap();
    assert_eq!((get(&slot.load()), get(&slot.load())), (1, 1));
    let why = status(&engine).snapshot.unwrap_err();
    assert!(why.contains("imported memories"), "{why}");
}

/// The rewriting lists every run of bytes that are not zero, which takes the host many times the memory.
#[test]
fn a_memory_that_is_made_to_be_dear_has_no_snapshot() {
    let engine = engine();
    let backend = engine.bind(|binder: &mut Binder<'_>| binder.func("get")).call_limits(limits()).preinitialize();
    let text = r#"(module (memory (export "memory") 320)
      (func $start (local $at i32)
        (loop $next
          (i64.store (local.get $at) (i64.const 0x0001000100010001))
          (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 20971520)))))
      (start $start)
      (func (export "get") (result i64) (i64.load (i32.const 20971512))))"#;
    let slot: HotSlot<Get> = HotSlot::builder(backend).open(compile(text)).unwrap();
    assert_eq!(get(&slot.load()), 0x0001_0001_0001_0001);
    let why = status(&engine).snapshot.unwrap_err();
    assert!(why.contains("10485760 runs of bytes"), "{why}");
}

#[test]
fn a_trap_while_it_is_set_up_refuses_the_load() {
    let engine = engine();
    let (backend, _) = backend(&engine);
    let slot = HotSlot::builder(backend).open(module("")).unwrap();
    let text = SET_UP.replace("MORE", "").replace("(global.set $state (i64.const 4000))", "unreachable");
    let error = slot.reload(compile(&text)).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    assert!(error.to_string().contains("unreachable"), "{error}");
    assert_eq!(get(&slot.load()), 55_322, "the one before serves");
}

#[test]
fn what_has_to_differ_between_instances_is_told_first_that_it_goes_on() {
    let engine = engine();
    let slot = |more: &str| {
        let (backend, _) = backend(&engine);
        HotSlot::builder(backend).open(module(more))
    };
    let resumes = r#"(func (export "hotslot_resume") (result i64)
      (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 600000))) (i64.const 0))"#;
    let resuming = slot(resumes).unwrap();
    assert_eq!((get(&resuming.load()), get(&resuming.load())), (655_322, 655_322), "once in each");
    // One that cannot go on would fail in every call.
    let refuses = r#"(data (i32.const 64) "no seed") (func (export "hotslot_resume") (result i64)
      (i64.const 0x4000000007))"#;
    let error = slot(refuses).expect_err("no instance can be made");
    assert_eq!(error.stage(), Stage::Load);
    assert!(error.to_string().contains("cannot be resumed: no seed"), "{error}");
    let (backend, _) = backend(&engine);
    let error = admit(&backend, module(r#"(func (export "hotslot_resume"))"#)).unwrap_err();
    assert!(error.to_string().contains("hotslot_resume"), "{error}");
}

#[test]
fn the_memory_that_a_plugin_grew_to_counts_for_every_instance() {
    let engine = Engine::builder().max_instances(24).memory_budget(5 << 16).build().unwrap();
    let (backend, _) = backend(&engine);
    let slot = HotSlot::builder(backend).open(module("")).unwrap();
    let lease = slot.load();
    let second = lease.call(|get, call| {
        call.run(get, ())?;
        // Three pages are in use, and two are left.
        Ok(lease.call(|get, call| call.run(get, ())))
    });
    let second = second.unwrap();
    assert!(matches!(second, Err(WasmCallError::OverBudget { .. })), "{second:?}");
    drop(slot);
}

#[test]
fn a_reload_takes_a_snapshot_of_its_own_and_a_known_module_is_not_compiled_again() {
    let engine = engine();
    let (backend, calls) = backend(&engine);
    let slot = HotSlot::builder(backend).keep_previous(1).open(module("")).unwrap();
    assert_eq!(engine.status().compiled, 2, "the copy, and the snapshot");
    let edited = compile(&SET_UP.replace("MORE", "").replace("(i64.const 4000)", "(i64.const 7000)"));
    slot.reload(Candidate::new(edited).force()).unwrap();
    assert_eq!(get(&slot.load()), 58_322);
    let compiled = engine.status().compiled;
    assert_eq!(compiled, 4);
    slot.rollback().unwrap();
    assert_eq!((get(&slot.load()), calls.load(Ordering::Relaxed)), (55_322, 4), "its snapshot is kept with it");
    slot.reload(Candidate::new(module("")).force()).unwrap();
    assert_eq!((get(&slot.load()), calls.load(Ordering::Relaxed)), (55_322, 6));
    assert_eq!(engine.status().compiled, compiled, "what came out the same is known");
}

#[test]
fn functions_of_the_snapshot_are_those_of_its_copy() {
    let engine = engine();
    let (backend, _) = backend(&engine);
    let _slot = HotSlot::builder(backend).open(module("")).unwrap();
    let status = engine.status();
    assert!(status.functions_reused > 0, "{status:?}");
}

fn fixture(engine: &Engine, config: &str) -> WasmBackend<dyn Fixture> {
    engine.interface::<dyn Fixture>().call_limits(limits()).config(config.as_bytes()).preinitialize()
}

#[test]
fn create_runs_once_and_resume_in_every_instance() {
    let Some(module) = built::module("") else { return };
    let engine = engine();
    let created = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&created);
    let backend = fixture(&engine, "resume").on_message(move |_, message| {
        assert_eq!(message, b"created");
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let slot = HotSlot::builder(backend).open(module.bytes()).unwrap();
    for _ in 0..3 {
        let plugin = slot.load();
        assert_eq!(plugin.add(1), 101);
        assert_eq!(plugin.config(), b"resume");
    }
    assert_eq!(created.load(Ordering::Relaxed), 1);
    assert!(status(&engine).snapshot.is_ok(), "{:?}", engine.snapshots());
}

#[test]
fn an_error_of_create_or_resume_refuses_the_load() {
    let Some(module) = built::module("") else { return };
    let engine = engine();
    for (config, reason) in [
        ("refuse", "the configuration says no"),
        ("panic", "the configuration says so"),
        ("resume not", "it does not go on"),
    ] {
        let error = HotSlot::builder(fixture(&engine, config)).open(module.clone().bytes()).expect_err("it is refused");
        assert_eq!(error.stage(), Stage::Load, "{config}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_panic_in_one_instance_is_not_seen_in_the_next() {
    let Some(module) = built::module("") else { return };
    let engine = engine();
    let slot = HotSlot::builder(fixture(&engine, "")).open(module.answering(7).bytes()).unwrap();
    for _ in 0..2 {
        let error = slot.load().fail("panic").unwrap_err();
        assert!(error.to_string().contains("as it was told"), "{error}");
        assert_eq!((slot.load().answer(), slot.load().add(5)), (7, 5));
    }
}

/// A ledger with one line.
struct OneLine;

impl Ledger for OneLine {
    fn note(&self, _: &str) -> u32 {
        1
    }

    fn first(&self) -> Result<Note, CallError> {
        Ok(Note { subject: String::new(), lines: vec!["the line".to_owned()], at: None })
    }

    fn panics(&self) -> Result<(), CallError> {
        Ok(())
    }
}

#[test]
fn services_that_create_asked_for_are_there_in_every_instance() {
    let Some(module) = built::module("") else { return };
    let engine = engine();
    let ledger: Arc<dyn Ledger> = Arc::new(OneLine);
    let slot = HotSlot::builder(fixture(&engine, "ledger").service(ledger)).open(module.bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(slot.load().fail("first").unwrap(), "the line");
    }
}

#[test]
fn a_state_that_is_handed_over_is_restored_over_the_snapshot() {
    let Some(module) = built::module("") else { return };
    let engine = engine();
    // The first one has a single instance, so that it has a state to hand over.
    let policy = InstancePolicy::Single;
    let first = HotSlot::builder(engine.interface::<dyn Fixture>().call_limits(limits()).instance_policy(policy));
    let first = first.open(module.clone().bytes()).unwrap();
    first.load().add(41);
    let state = Stateful::save(&*first.load()).unwrap().expect("it has one");
    let slot = HotSlot::builder(fixture(&engine, "resume")).hand_over(transfer_state);
    let slot = slot.open(module.clone().bytes()).unwrap();
    Stateful::restore(&*slot.load(), &state).unwrap();
    assert_eq!([slot.load().add(1), slot.load().add(1)], [42, 42], "each starts from the state");
    slot.reload(Candidate::new(module.version("1.1.0").bytes())).unwrap();
    assert_eq!([slot.load().add(1), slot.load().add(1)], [42, 42], "and so do those of the next version");
    assert!(engine.snapshots().iter().all(|status| status.snapshot.is_ok()), "{:?}", engine.snapshots());
}
