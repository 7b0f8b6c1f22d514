//! Constructors that take long, or do not end: they run under the dynamic linker's lock, which every new thread needs, and
//! every thread for its first thread-local with a destructor. FAULTS.md's rows 51 and 52.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use hotslot::native::{Native, RawNative, Unload};
#[cfg(feature = "backends")]
use hotslot::wasm::InstancePolicy;
use hotslot::{Backend, ErrorKind, Event, HotSlot, Lease, Probation, Runner, Stage};

use super::fixtures::TemporaryFolder;
use super::process::{alone, in_a_process};
use super::{c_answering, c_library};
use crate::support::{PATIENCE, Values, eventually, wait_for};
#[cfg(feature = "backends")]
use crate::wasm;

type Answer = unsafe extern "C" fn() -> i32;

fn raw() -> RawNative<Answer> {
    // SAFETY: the type is that of the fixtures, and what their constructors do is what is tested.
    unsafe { Native::raw(|library| Ok(library.get::<Answer>("answer")?)) }
}

/// Lets a constructor of fixtures/gated.c end.
struct Gate {
    folder: TemporaryFolder,
}

impl Gate {
    fn new() -> Gate {
        Gate { folder: TemporaryFolder::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("gate")
    }

    fn library(&self) -> Vec<u8> {
        c_library("gated.c", &[&format!("-DGATE=\"{}\"", self.path().display())])
    }

    /// Waits until a constructor has begun.
    fn wait(&self) {
        eventually("the constructor begins", || self.path().with_extension("begun").exists());
    }

    fn open(&self) {
        std::fs::write(self.path(), "").expect("the folder is there");
    }
}

/// Loads the gated library elsewhere, and waits until its constructor runs.
fn begin_to_load(gate: &Gate) -> thread::JoinHandle<HotSlot<Answer>> {
    let library = gate.library();
    let loading = thread::spawn(move || HotSlot::builder(raw()).open(library).expect("the constructor ends"));
    gate.wait();
    loading
}

#[test]
fn the_first_lease_of_a_thread_does_not_wait_for_a_constructor() {
    alone(|| {
        let slot = Arc::new(Values::new().builder().open(b"p 1.0.0 7").unwrap());
        let (go, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        // The thread has started, and has not had a lease.
        let reader = thread::spawn({
            let (slot, go, done) = (Arc::clone(&slot), Arc::clone(&go), Arc::clone(&done));
            move || {
                while !go.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                let answer = slot.load().answer();
                done.store(true, Ordering::Release);
                answer
            }
        });
        let gate = Gate::new();
        let loading = begin_to_load(&gate);
        go.store(true, Ordering::Release);
        eventually("the reader has its answer while the constructor runs", || done.load(Ordering::Acquire));
        gate.open();
        assert_eq!(reader.join().unwrap(), 7);
        // SAFETY: the type is the fixture's.
        assert_eq!(unsafe { loading.join().unwrap().load()() }, 42);
    });
}

/// A constructor that sleeps, for seconds and then for an hour.
#[test]
fn a_sleeping_constructor_holds_up_neither_a_first_lease_nor_a_deadline() {
    alone(|| {
        let slow = |version: &str, seconds: &str| c_library("slow.c", &[version, seconds]);
        let first = slow("-DV=1", "-DSECONDS=0");
        let (sleeping, endless) = (slow("-DV=2", "-DSECONDS=4"), slow("-DV=2", "-DSECONDS=3600"));
        let slot = impatient(&first);
        for library in [&sleeping, &endless] {
            let (go, asked) = channel();
            let (say, said) = channel();
            thread::scope(|scope| {
                let slot = &slot;
                scope.spawn(move || {
                    say.send(None).unwrap();
                    asked.recv().unwrap();
                    // SAFETY: the type is the fixture's.
                    say.send(Some(unsafe { slot.load()() })).unwrap();
                });
                // It has started, which waits for the constructor before, and has not had a lease.
                assert_eq!(said.recv_timeout(PATIENCE), Ok(None));
                for _ in 0..2 {
                    let error = slot.reload(library.clone()).unwrap_err();
                    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
                }
                go.send(()).unwrap();
                assert_eq!(said.recv_timeout(PATIENCE), Ok(Some(1000)));
            });
        }
    });
}

/// Opens a slot whose attempts end soon; on a busy machine not at the first attempt.
fn impatient(library: &[u8]) -> HotSlot<Answer> {
    let mut slot = None;
    eventually("a library is loaded in time", || {
        slot = HotSlot::builder(raw()).reload_timeout(Duration::from_millis(300)).open(library.to_vec()).ok();
        slot.is_some()
    });
    slot.unwrap()
}

/// Reloads until it is the constructor that the deadline ends.
fn reload_hangs(slot: &HotSlot<Answer>, gate: &Gate) {
    eventually("the deadline ends a load", || {
        let error = slot.reload(gate.library()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
        error.stage() == Stage::Load
    });
    gate.wait();
}

#[cfg(feature = "backends")]
#[test]
fn a_reload_whose_constructor_does_not_end_ends_at_its_deadline_and_others_go_on() {
    alone(|| {
        let gate = Gate::new();
        let slot = impatient(&c_answering(1));
        let values = Values::new();
        let host = values.builder().open(b"p 1.0.0 1").unwrap();
        // What is used again here is what a thread needs once: the first call of a thread into a module waits, too.
        let modules = wasm::slot();
        wasm::answer(&modules.load()).unwrap();

        // On a thread that has never waited for anything.
        thread::scope(|scope| scope.spawn(|| reload_hangs(&slot, &gate)).join().unwrap());
        // As often as somebody who does not give up; each attempt may be caught where the one before is.
        let before = slot.history().len();
        for _ in 0..6 {
            let again = slot.reload(c_answering(2)).unwrap_err();
            assert!(matches!(again.kind(), ErrorKind::TimedOut(_)), "the linker is still busy: {again}");
        }
        assert_eq!(slot.history().len(), before + 6);

        // Far more often than there are threads that wait for work.
        for answer in 2..30 {
            modules.reload(wasm::module(&format!("1.{answer}.0"), answer)).unwrap();
            assert_eq!(wasm::answer(&modules.load()).unwrap(), answer);
        }
        let status = modules.close(crate::support::PATIENCE);
        assert_eq!(status.counters.destroyed, 29, "nor does what was replaced stay: {status:?}");
        host.reload(b"p 2.0.0 2").expect("some threads have started already");
        // SAFETY: the type is the fixture's.
        assert_eq!(unsafe { slot.load()() }, 1);

        gate.open();
        eventually("the load that was abandoned comes back", || slot.status().hung == 0);
        eventually("a library is loaded in time", || slot.reload(c_answering(3)).is_ok());
        // SAFETY: as above.
        assert_eq!(unsafe { slot.load()() }, 3);
    });
}

#[cfg(feature = "backends")]
#[test]
fn modules_are_compiled_beside_each_other_while_a_constructor_does_not_end() {
    alone(|| {
        let (gate, slot) = (Gate::new(), impatient(&c_answering(1)));
        let engine = wasm::engine();
        let slow = HotSlot::builder(wasm::bombs::careless(&engine)).open(wasm::compile("(module)")).unwrap();
        let modules = HotSlot::builder(wasm::backend(&engine)).open(wasm::module("1.0.0", 1)).unwrap();
        reload_hangs(&slot, &gate);

        let attempt = slow.reload_soon(wasm::bombs::slow()).unwrap();
        let has_ended = || slow.history().iter().any(|report| report.attempt == attempt);
        let mut answer = 1;
        while !has_ended() {
            answer += 1;
            modules.reload(wasm::module(&format!("1.{answer}.0"), answer)).unwrap();
        }
        assert!(answer > 2, "they did not wait for the module that takes long");
        gate.open();
    });
}

/// What a thread needs once for that, it gets with its first call.
#[cfg(feature = "backends")]
#[test]
fn a_call_that_needs_another_instance_does_not_wait_for_a_constructor() {
    alone(|| {
        // The proof at load is the first use.
        let policy = InstancePolicy::Reuse { max_uses: 2.try_into().unwrap() };
        let builder = HotSlot::builder(wasm::backend(&wasm::engine()).instance_policy(policy));
        let slot = Arc::new(builder.open(wasm::module("1.0.0", 7)).unwrap());
        let flags: [Arc<AtomicBool>; 3] = Default::default();
        let [has_called, go, done] = &flags;
        let caller = thread::spawn({
            let (slot, [has_called, go, done]) = (Arc::clone(&slot), flags.clone());
            move || {
                let first = wasm::answer(&slot.load()).unwrap();
                has_called.store(true, Ordering::Release);
                while !go.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                let second = wasm::answer(&slot.load()).unwrap();
                done.store(true, Ordering::Release);
                (first, second)
            }
        });
        eventually("it has called once", || has_called.load(Ordering::Acquire));
        let gate = Gate::new();
        let loading = begin_to_load(&gate);
        go.store(true, Ordering::Release);
        eventually("it has its answer while the constructor runs", || done.load(Ordering::Acquire));
        gate.open();
        assert_eq!(caller.join().unwrap(), (7, 7));
        drop(loading.join().unwrap());
    });
}

/// More of them than there are threads, and each needs another one for what its backend does.
#[test]
fn reloads_that_were_put_off_are_made_while_a_constructor_does_not_end() {
    alone(|| {
        let (gate, slot) = (Gate::new(), impatient(&c_answering(1)));
        let open = |_| Values::new().builder().reload_timeout(PATIENCE).open(b"p 1.0.0 1").unwrap();
        let others: Vec<_> = (0..12).map(open).collect();
        reload_hangs(&slot, &gate);
        for other in &others {
            other.reload_soon(b"p 2.0.0 2").unwrap();
        }
        let serves = |other: &HotSlot<_>| other.status().serving.is_some_and(|serving| serving.generation == 2);
        eventually("all are reloaded", || others.iter().all(serves));
        gate.open();
    });
}

#[test]
fn a_runner_goes_on_while_a_constructor_does_not_end() {
    alone(|| {
        let (gate, slot) = (Gate::new(), impatient(&c_answering(1)));
        let values = Values::new();
        let running = values.builder().keep_previous(0).open(b"p 1.0.0 1 run=finish").unwrap();
        let events = running.subscribe();
        let lease = running.load();
        let other =
            Values::new().builder().probation(Probation::new(PATIENCE).max_failures(0)).open(b"p 1.0.0 1").unwrap();
        other.reload(b"p 2.0.0 2").unwrap();
        let runner = Runner::start(running).unwrap();
        wait_for(&events, |event| matches!(event, Event::RunEnded { generation: 1, .. }).then_some(()));
        reload_hangs(&slot, &gate);
        // It does not wait for the thread of the run.
        assert!(runner.reload(b"p 2.0.0 2").unwrap().is_swap());
        assert_eq!(values.census.running(), [0; 0]);
        // Nor does the reaper, who tends this slot now, and that one then.
        drop(lease);
        Lease::report_failure(&other.load(), "it fails");
        eventually("the reaper goes on", || other.status().serving.is_some_and(|serving| serving.generation == 1));
        gate.open();
        eventually("the run begins once it can", || values.census.running() == [2]);
        runner.stop();
    });
}

#[test]
fn the_process_can_end_while_a_destructor_does_not() {
    let end = in_a_process(|| {
        let gate = Gate::new();
        let library =
            c_library("endless.c", &[&format!("-DBEGUN=\"{}\"", gate.path().with_extension("begun").display())]);
        let slot = HotSlot::builder(raw().unload(Unload::WhenIdle)).keep_previous(0).open(library).unwrap();
        slot.reload(c_answering(2)).unwrap();
        gate.wait();
        std::process::exit(7);
    });
    if let Some(end) = end {
        assert_eq!(end.status.code(), Some(7), "{}", end.output);
    }
}

#[test]
fn the_process_can_end_while_a_constructor_does_not() {
    let end = in_a_process(|| {
        let gate = Gate::new();
        let slot = impatient(&c_answering(1));
        reload_hangs(&slot, &gate);
        std::process::exit(7);
    });
    if let Some(end) = end {
        assert_eq!(end.status.code(), Some(7), "{}", end.output);
    }
}

#[test]
fn a_backend_says_whether_its_plugins_taint_threads() {
    assert!(raw().taints_threads());
    #[cfg(feature = "backends")]
    assert!(!wasm::backend(&wasm::engine()).taints_threads());
}
