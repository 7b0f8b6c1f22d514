//! What becomes of a library when its plugin is gone. Each test has a process of its own: others map libraries too, and
//! a thread of theirs that runs without a pause would count as one that may be inside.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use hotslot::native::{Budget, LibraryError, Native, NativePlugin, OverBudget, Unload, retained};
use hotslot::{Builder, Event, HotSlot, Release, Stage};

use super::methods::{OWE_DESTRUCTOR, START_RELAY, START_SPINNER, START_STRAY, START_WORKER};
use super::process::{alone, in_a_process};
use super::{
    add, answer, answering, c_answering, c_library, destroyed, elsewhere, fixture, frees, is_freed, mapped, native,
    reason,
};
use crate::support::{eventually, wait_for};

fn when_idle() -> Builder<NativePlugin> {
    HotSlot::builder(native().unload(Unload::WhenIdle)).name("unload").keep_previous(0)
}

/// Why a library stays mapped.
#[track_caller]
fn why_kept(release: Release) -> String {
    match release {
        Release::Retained { reason, .. } => reason,
        other => panic!("it was not kept: {other:?}"),
    }
}

#[test]
fn idle_generations_are_unmapped_and_the_memory_map_proves_it() {
    alone(|| {
        let slot = elsewhere(|| when_idle().open(answering(0)).unwrap());
        let events = slot.subscribe();
        let mut doubts = 0;
        for number in 1..=100 {
            assert!(!mapped(&format!("unload-{number}.")).is_empty());
            elsewhere(|| slot.reload(answering(number)).unwrap());
            // A thread that starts meanwhile might get a stack on which the old one's addresses still lie.
            let freed = is_freed(&destroyed(&events, u64::from(number)));
            assert_eq!(mapped(&format!("unload-{number}.")).is_empty(), freed);
            assert_eq!(elsewhere(|| answer(&slot.load())), number);
            doubts += u64::from(!freed);
        }
        assert!(doubts < 10, "{doubts} of 100 were kept");
        assert_eq!((retained().generations, slot.status().retained.generations), (doubts, doubts));
    });
}

#[test]
fn by_default_nothing_is_unmapped_and_everything_is_counted() {
    alone(|| {
        let slot = super::builder().name("unload").keep_previous(0).open(answering(0)).unwrap();
        let events = slot.subscribe();
        for number in 1..=3 {
            slot.reload(answering(number)).unwrap();
            let reason = why_kept(destroyed(&events, u64::from(number)));
            assert!(reason.contains("every generation is kept"), "{reason}");
        }
        let size = fixture().bytes().len() as u64;
        assert_eq!((retained().generations, retained().bytes), (3, 3 * size));
        assert_eq!((slot.status().retained.generations, slot.status().retained.bytes), (3, 3 * size));
        let files: std::collections::HashSet<_> =
            mapped("hotslot-").into_iter().filter_map(|line| line.split('/').next_back().map(str::to_owned)).collect();
        assert_eq!(files.len(), 4, "three that are kept, and the one that serves");
    });
}

/// A thread that the plugin has left behind may call the host as long as its code is there.
#[test]
fn what_a_library_can_call_in_the_host_lives_as_long_as_its_mapping() {
    alone(|| {
        let begin_and_end = |unload| {
            let host = Arc::new(());
            let held = Arc::clone(&host);
            let backend = native().unload(unload).on_message(move |_, _| _ = &held);
            let slot = elsewhere(|| HotSlot::builder(backend).open(answering(1)).unwrap());
            let events = slot.subscribe();
            drop(slot);
            (host, destroyed(&events, 1))
        };
        let (kept, release) = begin_and_end(Unload::KeepMapped);
        assert!(why_kept(release).contains("every generation is kept"));
        // By the end of this, the other slot is long gone with its backend.
        let mut ends = std::iter::repeat_with(|| begin_and_end(Unload::WhenIdle)).take(5);
        let (unmapped, _) = ends.find(|(_, release)| is_freed(release)).expect("a doubt each time is none");
        eventually("nobody has what is called", || Arc::strong_count(&unmapped) == 1);
        assert_eq!(Arc::strong_count(&kept), 2);
    });
}

#[test]
fn a_generation_that_a_lease_holds_stays_mapped_until_the_lease_is_gone() {
    alone(|| {
        frees(|| {
            let slot = elsewhere(|| when_idle().open(answering(1)).unwrap());
            let events = slot.subscribe();
            elsewhere(|| {
                let held = slot.load();
                slot.reload(answering(2)).unwrap();
                assert_eq!((answer(&held), add(&held, 3)), (1, 3));
            });
            destroyed(&events, 1)
        });
    });
}

/// Row 20.
#[test]
fn a_plugin_that_owes_a_living_thread_a_destructor_stays_mapped_and_is_counted() {
    alone(|| {
        let budget = Budget { generations: 0, bytes: u64::MAX, when_spent: OverBudget::Alarm, ..Budget::default() };
        let backend = native().unload(Unload::WhenIdle).budget(budget);
        let slot = OnceLock::new();
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let (call, called) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let to_call: &OnceLock<HotSlot<NativePlugin>> = &slot;
            // It starts before there is a plugin, because its stack may be that of a thread which has ended.
            scope.spawn(move || {
                begun.recv().unwrap_err();
                far_down(|| drop(to_call.get().unwrap().load().call(OWE_DESTRUCTOR, b"").unwrap()));
                call.send(()).unwrap();
                ended.recv().unwrap_err();
            });
            let open = || HotSlot::builder(backend).name("unload").keep_previous(0).open(answering(1)).unwrap();
            let slot = slot.get_or_init(|| elsewhere(open));
            let events = slot.subscribe();
            drop(begin);
            called.recv().unwrap();
            elsewhere(|| slot.reload(answering(2)).unwrap());
            let Release::Retained { reason, alarm } = destroyed(&events, 1) else { panic!("it was unmapped") };
            assert!(reason.contains("thread-local destructor"), "{reason}");
            assert!(alarm.is_some_and(|alarm| alarm.contains("restart")), "the budget is spent");
            wait_for(&events, |event| matches!(event, Event::Alarm { .. }).then_some(()));
            assert!(!mapped("unload-1.").is_empty(), "it is still there");
            assert_eq!((retained().generations, slot.status().retained.generations), (1, 1));
            assert_eq!(slot.status().counters.alarms, 1);
            drop(end);
        });
    });
}

/// Runs `body` so far down this thread's stack that nothing the caller waits in later reaches down there: a gap in the
/// frames of a wait would still have in it what `body` left.
#[inline(never)]
fn far_down(body: impl FnOnce()) {
    let room = std::hint::black_box([0u8; 64 * 1024]);
    body();
    std::hint::black_box(&room);
}

#[test]
fn a_plugin_whose_destructors_have_run_is_unmapped() {
    alone(|| {
        frees(|| {
            let slot = elsewhere(|| when_idle().open(answering(1)).unwrap());
            let events = slot.subscribe();
            elsewhere(|| drop(slot.load().call(OWE_DESTRUCTOR, b"").unwrap()));
            elsewhere(|| slot.reload(answering(2)).unwrap());
            destroyed(&events, 1)
        });
    });
}

/// Row 21.
#[test]
fn a_plugin_with_a_thread_that_never_ends_is_never_unmapped_and_the_thread_is_named() {
    alone(|| {
        for (strays, unload) in [(1, Unload::WhenIdle), (2, Unload::KeepMapped)] {
            let backend = native().unload(unload);
            let slot = HotSlot::builder(backend).name("unload").keep_previous(0).open(answering(1)).unwrap();
            let events = slot.subscribe();
            elsewhere(|| drop(slot.load().call(START_STRAY, b"").unwrap()));
            wait_for_sleepers("fixture-stray", strays);
            slot.reload(answering(2)).unwrap();
            let reason = why_kept(destroyed(&events, 1));
            assert!(reason.contains("inside") && reason.contains("fixture-stray"), "{reason}");
            assert_eq!(slot.status().retained.generations, 1);
            assert_eq!(answer(&slot.load()), 2);
        }
    });
}

/// Waits until so many threads of this name wait: while one runs, nobody can see where it is.
fn wait_for_sleepers(name: &str, wanted: usize) {
    let asleep = |thread: &std::path::Path| {
        let of = |file| std::fs::read_to_string(thread.join(file)).unwrap_or_default();
        of("comm").trim_end() == name && !of("syscall").starts_with("running")
    };
    eventually("the threads wait", || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        threads.filter(|thread| asleep(&thread.as_ref().unwrap().path())).count() == wanted
    });
}

/// Row 21: a thread whose stack cannot be read.
#[test]
fn a_plugin_with_a_thread_that_spins_is_never_unmapped() {
    alone(|| {
        let slot = when_idle().open(answering(1)).unwrap();
        let events = slot.subscribe();
        elsewhere(|| drop(slot.load().call(START_SPINNER, b"").unwrap()));
        slot.reload(answering(2)).unwrap();
        let reason = why_kept(destroyed(&events, 1));
        assert!(reason.contains("running"), "{reason}");
    });
}

/// Row 21: threads that come and go, so that no list of them is complete for long. Were the code gone before the last
/// of them, this process would die.
#[test]
fn a_plugin_whose_threads_pass_on_to_new_ones_is_not_unmapped_under_them() {
    alone(|| {
        let slot = when_idle().open(answering(0)).unwrap();
        let events = slot.subscribe();
        for number in 1..=20 {
            elsewhere(|| drop(slot.load().call(START_RELAY, b"").unwrap()));
            slot.reload(answering(number)).unwrap();
            destroyed(&events, u64::from(number));
        }
    });
}

#[test]
fn a_plugin_that_ends_its_threads_when_it_is_told_to_is_unmapped() {
    alone(|| {
        frees(|| {
            let slot = elsewhere(|| when_idle().open(answering(1)).unwrap());
            let events = slot.subscribe();
            elsewhere(|| drop(slot.load().call(START_WORKER, b"").unwrap()));
            elsewhere(|| slot.reload(answering(2)).unwrap());
            destroyed(&events, 1)
        });
    });
}

#[test]
fn a_plugin_whose_destructor_panics_harms_nobody() {
    alone(|| {
        let slot = when_idle().open(answering(1).script("drop=panic")).unwrap();
        let events = slot.subscribe();
        slot.reload(answering(2)).unwrap();
        destroyed(&events, 1);
        assert_eq!(answer(&slot.load()), 2);
    });
}

/// Row 22.
#[test]
fn exit_handlers_of_a_library_that_is_unmapped_run_then_and_not_later() {
    let end = in_a_process(|| {
        frees(|| {
            // SAFETY: exit.c has no constructors, and the type is its own.
            let backend = unsafe { Native::raw(|library| Ok(library.get::<Watch>("watch")?)) };
            let slot = HotSlot::builder(backend.unload(Unload::WhenIdle));
            let slot = elsewhere(|| slot.open(c_library("exit.c", &[])).unwrap());
            let events = slot.subscribe();
            let (mut reader, writer) = std::io::pipe().unwrap();
            // SAFETY: the descriptor stays open until the library is gone, or else the process.
            elsewhere(|| assert_eq!(unsafe { slot.load()(raw(&writer)) }, 0));
            drop(slot);
            let release = destroyed(&events, 1);
            if !is_freed(&release) {
                std::mem::forget(writer);
                return release;
            }
            drop(writer);
            let mut notes = String::new();
            reader.read_to_string(&mut notes).unwrap();
            let mut notes: Vec<_> = notes.split_whitespace().collect();
            notes.sort_unstable();
            assert_eq!(notes, ["[destructor]", "[handler]"]);
            release
        });
    });
    let Some(end) = end else { return };
    assert!(end.status.success(), "{}: {}", end.status, end.output);
}

/// Row 22.
#[test]
fn exit_handlers_of_a_library_that_is_kept_run_at_the_end_of_the_process() {
    let end = in_a_process(|| {
        // SAFETY: as above.
        let backend = unsafe { Native::raw(|library| Ok(library.get::<Watch>("watch")?)) };
        let slot = HotSlot::builder(backend).keep_previous(0).open(c_library("exit.c", &[])).unwrap();
        let events = slot.subscribe();
        // SAFETY: the standard error stays open.
        assert_eq!(unsafe { slot.load()(2) }, 0);
        drop(slot);
        why_kept(destroyed(&events, 1));
        eprintln!("[retired]");
    });
    let Some(end) = end else { return };
    assert!(end.status.success(), "{}: {}", end.status, end.output);
    let (_, after) = end.output.split_once("[retired]").expect("it came that far");
    assert_eq!(after.matches("[handler]").count(), 1, "{}", end.output);
    assert_eq!(after.matches("[destructor]").count(), 1, "{}", end.output);
}

type Watch = unsafe extern "C" fn(i32) -> i32;

fn raw(descriptor: &impl std::os::fd::AsRawFd) -> i32 {
    descriptor.as_raw_fd()
}

#[test]
fn a_library_that_handles_a_signal_stays_mapped() {
    alone(|| {
        // SAFETY: signal.c has no constructors, and the type is its own.
        let backend = unsafe { Native::raw(|library| Ok(library.get::<unsafe extern "C" fn() -> i32>("handle")?)) };
        let slot = HotSlot::builder(backend.unload(Unload::WhenIdle)).keep_previous(0);
        let slot = slot.open(c_library("signal.c", &[])).unwrap();
        let events = slot.subscribe();
        // SAFETY: it sets a handler that does nothing.
        elsewhere(|| assert_eq!(unsafe { slot.load()() }, 0));
        drop(slot);
        let reason = why_kept(destroyed(&events, 1));
        assert_eq!(reason, format!("it handles signal {}", libc::SIGUSR2));
        // SAFETY: the handler is still there.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
    });
}

#[test]
fn a_library_that_the_loader_does_not_let_go_is_found_in_the_memory_map() {
    alone(|| {
        // SAFETY: answer.c has no constructors.
        let backend = unsafe { Native::raw(|_| Ok(())) }.unload(Unload::WhenIdle);
        let slot = HotSlot::builder(backend).name("unload").keep_previous(0);
        let slot = elsewhere(|| slot.open(c_library("answer.c", &["-Wl,-z,nodelete"])).unwrap());
        let events = slot.subscribe();
        elsewhere(|| slot.reload(c_answering(2)).unwrap());
        let reason = why_kept(destroyed(&events, 1));
        assert!(reason.contains("nodelete"), "{reason}");
        assert_eq!(retained().generations, 1);
        drop(slot);
        assert_eq!(is_freed(&destroyed(&events, 2)), mapped("unload-2.").is_empty());
        assert!(!mapped("unload-1.").is_empty());
    });
}

#[test]
fn a_spent_budget_raises_an_alarm_and_loads_go_on() {
    alone(|| {
        let budget = Budget { generations: 2, bytes: u64::MAX, when_spent: OverBudget::Alarm, ..Budget::default() };
        let slot = HotSlot::builder(native().budget(budget)).keep_previous(0).open(answering(0)).unwrap();
        let events = slot.subscribe();
        for number in 1..=4 {
            slot.reload(answering(number)).unwrap();
            assert_eq!(answer(&slot.load()), number);
            let Release::Retained { alarm, .. } = destroyed(&events, u64::from(number)) else { panic!("unmapped") };
            assert_eq!(alarm.is_some(), number > 2, "{alarm:?}");
            if let Some(alarm) = alarm {
                let message = wait_for(&events, |event| match event {
                    Event::Alarm { message } => Some(message.clone()),
                    _ => None,
                });
                assert_eq!(message, alarm);
            }
        }
        assert_eq!(slot.status().counters.alarms, 2);
    });
}

#[test]
fn a_spent_budget_refuses_loads_if_that_is_wanted_and_what_serves_serves_on() {
    alone(|| {
        let budget = Budget { generations: 2, bytes: u64::MAX, when_spent: OverBudget::Refuse, ..Budget::default() };
        let slot = HotSlot::builder(native().budget(budget)).keep_previous(0).open(answering(0)).unwrap();
        let events = slot.subscribe();
        for number in 1..=2 {
            slot.reload(answering(number)).unwrap();
            destroyed(&events, u64::from(number));
        }
        let error = slot.reload(answering(3)).unwrap_err();
        assert_eq!(error.stage(), Stage::Load);
        assert!(matches!(reason(&error), LibraryError::BudgetSpent(_)), "{error}");
        assert_eq!(answer(&slot.load()), 2);

        // Bytes count like generations, and over all slots of the process.
        let budget = Budget { generations: u64::MAX, bytes: 2 * fixture().bytes().len() as u64, ..budget };
        let error = HotSlot::builder(native().budget(budget)).open(answering(0)).unwrap_err();
        assert!(matches!(reason(&error), LibraryError::BudgetSpent(_)), "{error}");
    });
}
