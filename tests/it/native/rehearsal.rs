//! Rehearsals: what would kill the host kills a child. The hosts are programs of their own, in src/bin.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use hotslot::native::{Native, Rehearsal, RehearsalError};
use hotslot::{ErrorKind, HotSlot, Stage};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use super::fixtures::TemporaryFolder;
use super::process::{End, alone, killed_by, program, sacrificial};
use super::{answering, c_answering, c_library, fixture, native, reason};

/// Opens a slot in a sacrificial host with one image and reloads the other one, both rehearsed.
#[track_caller]
pub(super) fn reload(kind: &str, good: &[u8], bad: &[u8], limits: &[&str]) -> End {
    let folder = TemporaryFolder::new();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (good, bad) = (file("good.so", good), file("bad.so", bad));
    let arguments = [kind.into(), good.into_os_string(), bad.into_os_string()];
    sacrificial(arguments.into_iter().chain(limits.iter().map(Into::into)))
}

/// The host lived, refused the second image at load for a reason that has all these words, and the first one serves.
#[track_caller]
pub(super) fn refused(end: &End, words: &[&str]) {
    assert!(end.status.success(), "the host died: {}: {}", end.status, end.output);
    let line = end.output.lines().find_map(|line| line.strip_prefix("refused: refused at load: "));
    let line = line.unwrap_or_else(|| panic!("it was not refused: {}", end.output));
    assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    assert!(end.output.contains("serving: 1\n"), "the old one should serve on: {}", end.output);
}

/// The warning that there are none is written once, and by the host's code.
#[test]
fn a_subscriber_that_panics_at_the_warning_does_so_once() {
    struct Fragile(AtomicBool);
    impl Subscriber for Fragile {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.is_event() && metadata.target().starts_with("hotslot::native::rehearsal")
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            assert!(self.0.swap(true, Ordering::SeqCst), "a subscriber panics on purpose");
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    alone(|| {
        tracing::subscriber::set_global_default(Fragile(AtomicBool::new(false))).unwrap();
        let open = || {
            // SAFETY: the type is that of the fixture.
            let backend = unsafe { Native::raw(|library| Ok(library.get::<unsafe extern "C" fn() -> i32>("answer")?)) };
            HotSlot::builder(backend).open(c_answering(1))
        };
        assert!(matches!(open().unwrap_err().kind(), ErrorKind::Panicked(_)));
        assert!(open().is_ok());
    });
}

#[test]
fn what_passes_its_rehearsal_serves() {
    for (kind, good, better) in
        [("plugin", answering(1).into_bytes(), answering(2).into_bytes()), ("raw", c_answering(1), c_answering(2))]
    {
        let end = reload(kind, &good, &better, &[]);
        assert!(end.status.success() && end.output.contains("serving: 2\n"), "{kind}: {}", end.output);
    }
}

/// Row 8.
#[test]
fn a_crash_in_a_constructor_kills_the_rehearsal_and_not_the_host() {
    let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DCRASH"]), &[]);
    refused(&end, &["SIGSEGV", "the plugin would have done that to the host"]);
    // Row 48: what it printed is part of the error.
    refused(&end, &["about to \\u{1b}[2Jcrash"]);
    assert!(!end.output.contains('\x1b'), "{}", end.output);
}

/// Row 51.
#[test]
fn a_constructor_that_takes_too_long_is_refused_by_its_time() {
    let slow = c_library("constructor.c", &["-DSLEEP=300000"]);
    let end = reload("raw", &c_answering(1), &slow, &["loading=250"]);
    refused(&end, &["loading the library took", "250ms are allowed", "to `create`"]);
    let end = reload("raw", &c_answering(1), &slow, &["loading=60000"]);
    assert!(end.output.contains("serving: 1\n") && end.status.success(), "it answers 1, too: {}", end.output);
    assert!(!end.output.contains("refused"), "{}", end.output);
}

/// Row 66.
#[test]
fn a_host_that_leaves_no_child_to_be_waited_for_can_rehearse() {
    for children in ["children=ignored", "children=reaped"] {
        let end = reload("raw", &c_answering(1), &c_answering(2), &[children]);
        assert!(end.status.success() && end.output.contains("serving: 2\n"), "{children}: {}", end.output);
        let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DCRASH"]), &[children]);
        refused(&end, &["the plugin would have done that to the host"]);
        let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DLOOP"]), &[children, "deadline=500"]);
        refused(&end, &["was not over after 500ms"]);
    }
}

/// Row 8: the danger is real.
#[test]
fn a_crash_in_a_constructor_kills_a_host_that_does_not_rehearse() {
    let signal = killed_by(|| {
        // SAFETY: it is not; that is the point.
        let backend = unsafe { Native::raw(|_| Ok(())) };
        let _ = HotSlot::builder(backend).open(c_library("constructor.c", &["-DCRASH"]));
    });
    assert!(signal.is_none_or(|signal| signal == libc::SIGSEGV), "{signal:?}");
}

/// Row 8, one step later.
#[test]
fn a_crash_in_create_kills_the_rehearsal_and_not_the_host() {
    let end = reload("plugin", answering(1).bytes(), answering(2).script("create=crash").bytes(), &[]);
    refused(&end, &["SIGSEGV"]);
}

#[test]
fn an_error_or_a_panic_in_create_is_refused_in_the_rehearsal_with_its_text() {
    for (script, text) in [("create=fail", "create fails"), ("create=panic", "create panics")] {
        let end = reload("plugin", answering(1).bytes(), answering(2).script(script).bytes(), &[]);
        refused(&end, &["the rehearsal refused the plugin", text]);
    }
}

/// Row 8: an endless loop.
#[test]
fn an_endless_loop_in_a_constructor_ends_at_the_rehearsals_deadline() {
    let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DLOOP"]), &["deadline=300"]);
    refused(&end, &["not over after 300ms"]);
    let end = reload("plugin", answering(1).bytes(), fixture().script("create=hang").bytes(), &["deadline=300"]);
    refused(&end, &["not over after 300ms"]);
}

#[test]
fn processor_time_is_limited() {
    let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DBURN"]), &["cpu=1"]);
    refused(&end, &["SIGXCPU"]);
}

#[test]
fn memory_is_limited() {
    let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DEAT"]), &["memory=536870912"]);
    refused(&end, &["SIGABRT"]);
}

#[test]
fn a_constructor_that_ends_the_process_is_refused() {
    let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DEXIT"]), &[]);
    refused(&end, &["exited with code 0 before its end"]);
}

#[test]
fn a_rehearsal_also_works_from_a_private_folder_and_leaves_nothing_there() {
    let folder = TemporaryFolder::new();
    let place = format!("folder={}", folder.path().display());
    let end = reload("plugin", answering(1).bytes(), answering(2).bytes(), &[&place]);
    assert!(end.status.success() && end.output.contains("serving: 2\n"), "{}", end.output);
    let end = reload("raw", &c_answering(1), &c_library("constructor.c", &["-DCRASH"]), &[&place]);
    refused(&end, &["SIGSEGV"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "left behind");
}

#[test]
fn the_configuration_is_rehearsed_too() {
    let end = reload("plugin", answering(1).bytes(), answering(2).bytes(), &["config=symbol=SOLUSDC"]);
    assert!(end.output.contains("serving: 2\n") && end.output.contains("config: symbol=SOLUSDC\n"), "{}", end.output);
}

#[test]
fn a_host_with_a_part_of_its_own_refuses_what_it_does_not_like() {
    let folder = TemporaryFolder::new();
    let path = folder.path().join("plugin.so");
    for (image, expected) in [
        (answering(1), "opened"),
        (answering(13), "refused at load: the rehearsal refused the plugin: 13 is no answer"),
    ] {
        std::fs::write(&path, image.bytes()).unwrap();
        let end = program(env!("CARGO_BIN_EXE_probing"), &path);
        assert!(end.status.success() && end.output.contains(expected), "{}", end.output);
    }
}

#[test]
fn a_program_that_does_not_come_to_its_rehearsal_point_in_time_is_told() {
    let folder = TemporaryFolder::new();
    let path = folder.path().join("plugin.so");
    std::fs::write(&path, fixture().bytes()).unwrap();
    let end = program(env!("CARGO_BIN_EXE_late"), &path);
    assert!(end.status.success(), "{}", end.output);
    assert!(end.output.contains("without coming to rehearsal_point()"), "{}", end.output);
    assert!(end.output.contains("usage: late PLUGIN"), "what it did instead is shown: {}", end.output);
}

#[test]
fn a_program_without_a_rehearsal_point_is_told_before_a_child_starts() {
    let error = HotSlot::builder(native().rehearse(Rehearsal::default())).open(fixture()).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    assert!(matches!(reason(&error), RehearsalError::NoRehearsalPoint), "{error}");
    assert!(error.to_string().contains("rehearsal_point() first thing in main"), "{error}");
}

#[test]
fn a_child_has_a_group_and_a_timer_of_its_own_and_nothing_of_its_hosts() {
    let looks = c_library("constructor.c", &["-DLOOK=\"a-file-of-the-host\""]);
    let folder = TemporaryFolder::new();
    let path = folder.path().join("a-file-of-the-host");
    std::fs::write(&path, "").unwrap();
    let end = reload("raw", &c_answering(1), &looks, &[&format!("open={}", path.display())]);
    refused(&end, &["leads=1 core=0 timer=1 ends-with-host=1 inherited=0"]);
    // It is seen where it is inherited.
    let end = reload("raw", &looks, &c_answering(1), &["unrehearsed=1", &format!("open={}", path.display())]);
    assert!(end.output.contains("inherited=1"), "{}", end.output);
}
