//! What a slot promises, whatever its backend: the same checks over each kind of plugin.
//!
//! A plugin here answers with a number and keeps a count, which it hands over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use hotslot::{
    Backend, Builder, Candidate, ErrorKind, Event, HotSlot, Lease, Outcome, Phase, Release, Stage, Stateful,
    transfer_state,
};

use crate::support::{Done, PATIENCE, Plugin, Values, eventually, wait_for};

/// A kind of plugin.
pub(crate) trait Kind: Sized + 'static {
    type Plugin: Stateful + Send + Sync + ?Sized + 'static;

    /// Whether plugins of this kind can be built here.
    fn is_here() -> bool {
        true
    }

    fn backend() -> impl Backend<Self::Plugin>;
    /// The artifact of a plugin called "fixture".
    fn artifact(version: &str, answer: u64) -> Vec<u8>;
    fn answer(plugin: &Self::Plugin) -> u64;
    /// Adds to the plugin's count, and gives the sum.
    fn add(plugin: &Self::Plugin, more: u64) -> u64;
}

/// A slot of this kind that hands state over and keeps one earlier generation.
fn builder<K: Kind>() -> Builder<K::Plugin> {
    HotSlot::builder(K::backend()).keep_previous(1).hand_over(transfer_state)
}

fn slot<K: Kind>() -> HotSlot<K::Plugin> {
    builder::<K>().open(K::artifact("1.0.0", 1)).expect("the fixture is sound")
}

fn answer<K: Kind>(slot: &HotSlot<K::Plugin>) -> u64 {
    K::answer(&slot.load())
}

fn a_plugin_is_known_by_its_digest_its_name_and_its_version<K: Kind>() {
    let slot = slot::<K>();
    let (lease, bytes) = (slot.load(), K::artifact("1.0.0", 1));
    assert_eq!((Lease::generation(&lease), Lease::digest(&lease)), (1, hotslot::Digest::of(&bytes)));
    assert_eq!(
        (Lease::manifest(&lease).name.as_str(), Lease::version(&lease).unwrap().to_string().as_str()),
        ("fixture", "1.0.0")
    );
    assert_eq!(K::answer(&lease), 1);
    let serving = slot.status().serving.unwrap();
    assert_eq!((serving.digest, serving.size), (Lease::digest(&lease), bytes.len()));
}

fn a_reload_swaps_and_old_leases_stay_good<K: Kind>() {
    let slot = slot::<K>();
    let old = slot.load();
    let report = slot.reload(K::artifact("1.1.0", 2)).unwrap();
    assert_eq!(report.outcome, Outcome::Swapped { generation: 2, previous: Some(1) });
    let stages: Vec<_> = report.stages.iter().map(|(stage, _)| *stage).collect();
    let before = [Stage::Copy, Stage::Queue, Stage::Hash, Stage::Gate, Stage::Admit, Stage::Load, Stage::Probe];
    assert_eq!(stages, [&before[..], &[Stage::HandOver, Stage::Commit]].concat());
    assert_eq!((K::answer(&old), answer::<K>(&slot)), (1, 2));
    assert!(Lease::is_retired(&old) && Lease::stop_signal(&old).is_raised());
}

fn the_same_bytes_are_unchanged_unless_they_are_forced<K: Kind>() {
    let slot = slot::<K>();
    let same = K::artifact("1.0.0", 1);
    assert!(matches!(slot.reload(&same).unwrap().outcome, Outcome::Unchanged { .. }));
    assert_eq!(Lease::generation(&slot.load()), 1);
    let report = slot.reload(Candidate::new(same).force()).unwrap();
    assert!(report.is_swap());
    assert_eq!((Lease::generation(&slot.load()), answer::<K>(&slot)), (2, 1));
}

fn garbage_is_refused_at_admission_and_changes_nothing<K: Kind>() {
    let slot = slot::<K>();
    K::add(&slot.load(), 7);
    let whole = K::artifact("2.0.0", 2);
    for spoilt in [&b""[..], b"\0", &whole[..whole.len().min(6)], &[0xff; 4096]] {
        let error = slot.reload(spoilt).unwrap_err();
        assert_eq!(error.stage(), Stage::Admit, "{error}");
        assert_eq!(error.serving().map(|serving| serving.generation), Some(1));
        assert_eq!((Lease::generation(&slot.load()), answer::<K>(&slot), K::add(&slot.load(), 0)), (1, 1, 7));
    }
    assert_eq!(slot.status().counters.refused, 4);
    slot.reload(whole).expect("the slot takes the next one");
}

fn an_older_version_is_refused_and_a_rollback_is_not<K: Kind>() {
    let slot = slot::<K>();
    slot.reload(K::artifact("1.2.0", 2)).unwrap();
    let error = slot.reload(K::artifact("1.1.0", 3)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Version(_)), "{error}");
    assert_eq!(answer::<K>(&slot), 2);
    slot.rollback().unwrap();
    assert_eq!((Lease::generation(&slot.load()), answer::<K>(&slot)), (1, 1));
}

fn a_rollback_is_warm_and_goes_both_ways<K: Kind>() {
    let slot = slot::<K>();
    slot.reload(K::artifact("1.1.0", 2)).unwrap();
    assert_eq!(slot.status().retired[0].phase, Phase::Warm);
    let report = slot.rollback().unwrap();
    let stages: Vec<_> = report.stages.iter().map(|(stage, _)| *stage).collect();
    assert_eq!((stages.as_slice(), answer::<K>(&slot)), (&[Stage::Commit][..], 1), "nothing was loaded");
    assert!(!Lease::stop_signal(&slot.load()).is_raised());
    slot.rollback_to(2).unwrap();
    assert_eq!(answer::<K>(&slot), 2);
}

fn a_staged_plugin_serves_from_its_commit_on<K: Kind>() {
    let slot = slot::<K>();
    let staged = slot.stage(K::artifact("1.1.0", 2)).unwrap();
    assert_eq!((answer::<K>(&slot), K::answer(staged.plugin().expect("it was loaded"))), (1, 2));
    drop(slot.stage(K::artifact("1.2.0", 3)).unwrap());
    staged.commit().unwrap();
    assert_eq!(answer::<K>(&slot), 2);
}

fn a_probe_calls_the_plugin_before_anyone_else<K: Kind>() {
    let slot = builder::<K>()
        .probe(|plugin| if K::answer(plugin) == 13 { Err("thirteen") } else { Ok(()) })
        .open(K::artifact("1.0.0", 1))
        .unwrap();
    let error = slot.reload(K::artifact("1.1.0", 13)).unwrap_err();
    assert_eq!(error.stage(), Stage::Probe);
    assert_eq!(answer::<K>(&slot), 1);
}

fn state_goes_over_and_a_rollback_finds_its_own<K: Kind>() {
    let slot = slot::<K>();
    assert_eq!((K::add(&slot.load(), 40), K::add(&slot.load(), 1)), (40, 41));
    slot.reload(K::artifact("1.1.0", 2)).unwrap();
    assert_eq!(K::add(&slot.load(), 1), 42);
    slot.rollback().unwrap();
    assert_eq!(K::add(&slot.load(), 1), 42);
}

fn a_generation_goes_when_its_last_lease_does<K: Kind>() {
    let slot = builder::<K>().keep_previous(0).open(K::artifact("1.0.0", 1)).unwrap();
    let events = slot.subscribe();
    let lease = slot.load();
    slot.reload(K::artifact("1.1.0", 2)).unwrap();
    assert_eq!((K::answer(&lease), slot.status().retired[0].leases), (1, 1));
    drop(lease);
    let release = wait_for(&events, |event| match event {
        Event::Destroyed { generation: 1, release } => Some(release.clone()),
        _ => None,
    });
    assert!(matches!(release, Release::Freed | Release::Retained { .. }));
    assert!(slot.status().retired.is_empty());
}

fn calls_never_fail_while_plugins_come_and_go<K: Kind>() {
    let slot = slot::<K>();
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _done = Done(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let lease = slot.load();
                    assert_eq!(K::answer(&lease), Lease::generation(&lease), "each answers with its number");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for answer in 2..10 {
            slot.reload(K::artifact(&format!("1.{answer}.0"), answer)).unwrap();
        }
        eventually("somebody calls", || calls.load(Ordering::Relaxed) > 0);
    });
    let status = slot.close(PATIENCE);
    assert!(status.retired.is_empty() && status.hung == 0, "{status:?}");
    assert_eq!(status.counters.destroyed, 9);
}

/// A test for every check above, in a module for the kind.
macro_rules! conformance {
    ($module:ident, $kind:ty) => {
        mod $module {
            conformance!(@ $kind:
                a_plugin_is_known_by_its_digest_its_name_and_its_version
                a_reload_swaps_and_old_leases_stay_good
                the_same_bytes_are_unchanged_unless_they_are_forced
                garbage_is_refused_at_admission_and_changes_nothing
                an_older_version_is_refused_and_a_rollback_is_not
                a_rollback_is_warm_and_goes_both_ways
                a_staged_plugin_serves_from_its_commit_on
                a_probe_calls_the_plugin_before_anyone_else
                state_goes_over_and_a_rollback_finds_its_own
                a_generation_goes_when_its_last_lease_does
                calls_never_fail_while_plugins_come_and_go
            );
        }
    };
    (@ $kind:ty: $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                if <$kind as super::Kind>::is_here() {
                    super::$check::<$kind>();
                }
            }
        )*
    };
}

conformance!(in_process, super::InProcess);
#[cfg(all(feature = "native", target_os = "linux"))]
conformance!(native, crate::native::Libraries);
#[cfg(feature = "backends")]
conformance!(wasm, super::Wasm);
// A backend of a user's own.
conformance!(custom, crate::custom_backend::Custom);
// One plugin of a declared interface, three ways.
#[cfg(all(feature = "backends", target_os = "linux"))]
conformance!(interface_in_process, crate::interface::kinds::InProcess);
#[cfg(all(feature = "backends", target_os = "linux"))]
conformance!(interface_native, crate::interface::kinds::Library);
#[cfg(all(feature = "backends", target_os = "linux"))]
conformance!(interface_wasm, crate::interface::kinds::Module);

/// Plain Rust values.
struct InProcess;

impl Kind for InProcess {
    type Plugin = Plugin;

    fn backend() -> impl Backend<Plugin> {
        Values::new()
    }

    fn artifact(version: &str, answer: u64) -> Vec<u8> {
        format!("fixture {version} {answer}").into_bytes()
    }

    fn answer(plugin: &Plugin) -> u64 {
        plugin.answer()
    }

    fn add(plugin: &Plugin, more: u64) -> u64 {
        plugin.set_state(plugin.state() + more);
        plugin.state()
    }
}

/// WebAssembly modules.
#[cfg(feature = "backends")]
struct Wasm;

#[cfg(feature = "backends")]
struct Calls {
    answer: hotslot::wasm::Func<(), u64>,
    add: hotslot::wasm::Func<u64, u64>,
}

#[cfg(feature = "backends")]
impl Kind for Wasm {
    type Plugin = hotslot::wasm::WasmPlugin<Calls>;

    fn backend() -> impl Backend<Self::Plugin> {
        let engine = hotslot::wasm::Engine::builder().max_instances(12).build().expect("this machine has an engine");
        engine
            .bind(|plugin| Ok(Calls { answer: plugin.func("answer")?, add: plugin.func("add")? }))
            .instance_policy(hotslot::wasm::InstancePolicy::Single)
            .require_export("answer", "() -> i64")
    }

    fn artifact(version: &str, answer: u64) -> Vec<u8> {
        let text = format!(
            r#"(module
              (@custom "version" "{version}")
              (@custom "hotslot.manifest" "name=fixture\nschema=count/1")
              (memory (export "memory") 1)
              (func (export "answer") (result i64) (i64.const {answer}))
              (func (export "add") (param i64) (result i64)
                (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (local.get 0)))
                (i64.load (i32.const 0)))
              (func (export "hotslot_save") (result i64) (i64.const 8))
              (func (export "hotslot_alloc") (param i32) (result i32) (i32.const 64))
              (func (export "hotslot_restore") (param $at i32) (param $schema i32) (param i32) (result i64)
                (i64.store (i32.const 0) (i64.load (i32.add (local.get $at) (local.get $schema))))
                (i64.const 0)))"#
        );
        wat::parse_str(text).expect("the text is a module")
    }

    fn answer(plugin: &Self::Plugin) -> u64 {
        plugin.call(|calls, call| call.run(&calls.answer, ())).expect("it answers")
    }

    fn add(plugin: &Self::Plugin, more: u64) -> u64 {
        plugin.call(|calls, call| call.run(&calls.add, more)).expect("it counts")
    }
}
