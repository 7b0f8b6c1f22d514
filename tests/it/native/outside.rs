//! Those who look from outside: debuggers, profilers, crash reporters, and backtraces from inside. FAULTS 60.
//!
//! Each test has a process of its own, which is what is looked at. gdb and perf are killed if they hang.

use std::ffi::CStr;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI32, Ordering};

use hotslot::native::{Native, RawNative};
use hotslot::{Digest, HotSlot, Lease};

use super::fixtures::{Fixture, TemporaryFolder, build};
use super::loading::without_folders;
use super::methods::{PANIC, START_STRAY};
use super::process::alone;
use super::{answering, c_library, destroyed, elsewhere, mapped};
use crate::support::Log;

type WaitInside = unsafe extern "C" fn(i32, i32) -> std::ffi::c_long;
type Burn = unsafe extern "C" fn(*const AtomicI32) -> std::ffi::c_ulong;

/// inside.c with debug information.
fn inside(generation: u32) -> Vec<u8> {
    c_library("inside.c", &["-g", &format!("-DV={generation}")])
}

fn inside_backend() -> RawNative<(WaitInside, Burn)> {
    // SAFETY: the library has no constructors, and the types are those in C.
    unsafe { Native::raw(|library| Ok((library.get("wait_inside")?, library.get("burn")?))) }
}

/// Runs a program to its end, or kills it when that takes too long, and gives what it wrote; `None` if it is not installed.
/// It writes into a file, because the process that waits for it here may be stopped by it.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let mut output = tempfile::tempfile().unwrap();
    if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: {program} is not installed");
        return None;
    }
    let status = Command::new("timeout")
        .args(["-s", "KILL", "60", program])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .status()
        .unwrap();
    let mut text = Vec::new();
    output.rewind().and_then(|()| output.read_to_end(&mut text)).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let killed = status.code() == Some(137) || status.signal() == Some(libc::SIGKILL);
    assert!(!killed, "{program} hangs: {text}");
    Some(text)
}

/// Has gdb look at this process while a thread is inside of each of two generations, of which one serves.
fn gdb_sees_both_generations(images: [Vec<u8>; 2]) {
    // The end of what threads wait for.
    let (mut started, starts) = io::pipe().unwrap();
    let (ends, mut end) = io::pipe().unwrap();
    let (write, read) = (starts.as_raw_fd(), ends.as_raw_fd());
    let [first, second] = images;
    let slot = HotSlot::builder(inside_backend()).name("pricer").keep_previous(0).open(first).unwrap();
    std::thread::scope(|scope| {
        let mut enter = || {
            let caller = std::thread::Builder::new().name("caller".to_owned());
            let call = || {
                let plugin = slot.load();
                // SAFETY: the lease keeps the library mapped; the descriptors are open for the whole test.
                unsafe { (plugin.0)(write, read) }
            };
            caller.spawn_scoped(scope, call).unwrap();
            started.read_exact(&mut [0]).unwrap();
        };
        enter();
        slot.reload(second).unwrap();
        enter();
        let process = std::process::id().to_string();
        let seen = output_of("gdb", &["-nx", "-batch", "-p", &process, "-ex", "bt", "-ex", "thread apply all bt"]);
        // Both are in `read`, and each takes one byte.
        end.write_all(&[0; 2]).unwrap();
        let Some(seen) = seen else { return };
        if seen.contains("Operation not permitted") {
            return println!("skipped: gdb must not attach here: {seen}");
        }
        for (function, lines) in [("waiting_in_the_first", 8..13), ("waiting_in_the_second", 16..21)] {
            let frame = seen.lines().find(|line| line.contains(function)).unwrap_or_else(|| panic!("{seen}"));
            let (_, line) = frame.split_once("inside.c:").unwrap_or_else(|| panic!("no file: {frame}"));
            assert!(lines.contains(&line.trim().parse::<u32>().unwrap()), "{frame}");
            println!("{}", frame.trim());
        }
    });
}

#[test]
fn gdb_shows_function_file_and_line_in_both_generations_after_a_swap() {
    alone(|| gdb_sees_both_generations([inside(1), inside(2)]));
}

/// perf takes the names from the memory map.
#[test]
fn perf_shows_the_functions_of_a_plugin_after_a_swap() {
    alone(|| {
        let slot = HotSlot::builder(inside_backend()).name("pricer").open(inside(1)).unwrap();
        slot.reload(inside(2)).unwrap();
        let (plugin, end) = (slot.load(), AtomicI32::new(0));
        std::thread::scope(|scope| {
            let caller = std::thread::Builder::new().name("caller".to_owned());
            // SAFETY: the lease keeps the library mapped, and the flag lives for longer than the thread.
            caller.spawn_scoped(scope, || unsafe { (plugin.1)(&raw const end) }).unwrap();
            let folder = TemporaryFolder::new();
            let data = folder.path().join("perf.data");
            let data = data.to_str().unwrap();
            let process = std::process::id().to_string();
            let record = ["record", "-N", "-e", "cpu-clock", "-o", data, "-p", &process, "--", "sleep", "1"];
            // On a busy machine there may be no sample of it yet.
            let mut seen = None;
            for _ in 0..10 {
                let Some(recorded) = output_of("perf", &record) else { break };
                let profile = output_of("perf", &["report", "--stdio", "-i", data]).unwrap_or_default();
                seen = Some((recorded, profile));
                if fs::metadata(data).is_err() || seen.as_ref().is_some_and(|seen| seen.1.contains("burning_time")) {
                    break;
                }
            }
            end.store(1, Ordering::Relaxed);
            let Some((recorded, profile)) = seen else { return };
            if fs::metadata(data).is_err() {
                return println!("skipped: perf must not record here: {recorded}");
            }
            let line = profile.lines().find(|line| line.contains("burning_time"));
            let line = line.unwrap_or_else(|| panic!("{recorded}{profile}"));
            assert!(line.contains("hotslot-"), "{line}");
            println!("{}", line.trim());
        });
    });
}

/// The fixture with line numbers.
fn with_lines() -> Fixture {
    static BUILT: LazyLock<Fixture> = LazyLock::new(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixture-lines");
        let mut cargo = Command::new("cargo");
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only").env("CARGO_TARGET_DIR", target);
        Fixture::from_file(&build(&mut cargo))
    });
    BUILT.clone()
}

/// Has a plugin panic in each of two generations, of which one is retired, and looks for the backtraces in the log.
fn panics_have_backtraces(image: &Fixture) {
    // SAFETY: no other thread of this process looks at its environment now.
    unsafe { std::env::set_var("RUST_BACKTRACE", "1") };
    let log = Log::capture();
    let slot = super::builder().name("panicking").open(image.clone().answering(1)).unwrap();
    let old = slot.load();
    slot.reload(image.clone().answering(2)).unwrap();
    for (plugin, text) in [(&old, "in the first"), (&slot.load(), "in the second")] {
        assert!(plugin.call(PANIC, text.as_bytes()).is_err());
        let lines = log.lines();
        let at = lines.iter().position(|line| line.contains("panicked at") && line.contains(text));
        let backtrace = lines[at.expect("the panic is logged")..].join("\n");
        assert!(backtrace.contains("hotslot_fixture::Fixture"), "no function: {backtrace}");
        assert!(backtrace.contains("fixtures/plugin/src/lib.rs:"), "no file: {backtrace}");
        println!("{backtrace}");
    }
}

#[test]
fn a_panic_in_a_plugin_has_a_backtrace_with_names_and_lines() {
    alone(|| panics_have_backtraces(&with_lines()));
}

#[test]
fn a_panic_in_a_plugin_that_was_loaded_from_memory_has_one_too() {
    alone(|| {
        let image = with_lines();
        without_folders();
        panics_have_backtraces(&image);
        assert!(mapped("panicking").iter().all(|line| line.contains("memfd:")), "from elsewhere");
    });
}

/// Nobody has asked for one.
#[test]
fn a_panic_in_a_plugin_is_one_line_without_rust_backtrace() {
    alone(|| {
        // SAFETY: no other thread of this process looks at its environment now.
        unsafe { std::env::remove_var("RUST_BACKTRACE") };
        let log = Log::capture();
        let slot = super::builder().open(answering(1)).unwrap();
        let before = log.warnings().len();
        assert!(slot.load().call(PANIC, b"quietly").is_err());
        let lines = log.warnings().split_off(before);
        assert!(lines.len() == 1 && lines[0].contains("quietly"), "{lines:?}");
    });
}

/// The names under which the loader has plugins, which is where debuggers look.
fn loaded_names() -> Vec<PathBuf> {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, names: *mut std::ffi::c_void) -> i32 {
        // SAFETY: the loader's record with its terminated name, and the list of the caller below.
        let (name, names) = unsafe { (CStr::from_ptr((*info).dlpi_name), &mut *names.cast::<Vec<PathBuf>>()) };
        let name = name.to_string_lossy();
        if name.contains("hotslot-") || name.starts_with("/proc/") {
            names.push(PathBuf::from(&*name));
        }
        0
    }
    let mut names: Vec<PathBuf> = Vec::new();
    // SAFETY: `note` gets the list, which lives for the call.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut names).cast()) };
    names
}

/// Reads a file as another process sees it.
fn read_from_outside(path: &Path) -> Vec<u8> {
    let output = Command::new("cat").arg(path).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Three generations, of which one serves, one is warm, and one is destroyed while a thread of it goes on.
fn every_generation_can_be_read_from_outside() {
    let slot = super::builder().name("readable").keep_previous(1).open(answering(1)).unwrap();
    let events = slot.subscribe();
    elsewhere(|| slot.load().call(START_STRAY, b"").unwrap());
    slot.reload(answering(2)).unwrap();
    slot.reload(answering(3)).unwrap();
    destroyed(&events, 1);
    // Descriptors that became free belong to others now.
    let _others: Vec<_> = (0..64).map(|_| io::pipe().unwrap()).collect();
    let mut found: Vec<_> = loaded_names().iter().map(|name| Digest::of(&read_from_outside(name))).collect();
    let mut expected: Vec<_> = (1..=3).map(|number| Digest::of(answering(number).bytes())).collect();
    found.sort_by_key(Digest::to_string);
    expected.sort_by_key(Digest::to_string);
    assert_eq!(found, expected);
    assert_eq!(Lease::digest(&slot.load()), Digest::of(answering(3).bytes()));
}

#[test]
fn what_is_mapped_can_be_opened_from_outside_by_the_name_that_the_loader_has() {
    alone(|| {
        every_generation_can_be_read_from_outside();
        assert!(mapped("readable").iter().all(|line| line.contains("/hotslot-native-")), "from elsewhere");
    });
}

#[test]
fn so_can_what_is_mapped_from_memory() {
    alone(|| {
        without_folders();
        every_generation_can_be_read_from_outside();
        assert!(mapped("readable").iter().all(|line| line.contains("memfd:")), "from elsewhere");
    });
}

/// The memory map, which profilers and crash reporters read, names a file for every mapping of a plugin.
#[test]
fn the_memory_map_names_slot_generation_and_digest_and_its_files_are_what_was_admitted() {
    alone(|| {
        let slot = super::builder().name("named").open(answering(1)).unwrap();
        slot.reload(answering(2)).unwrap();
        for number in [1, 2] {
            let image = answering(number);
            let digest = Digest::of(image.bytes()).to_string();
            let lines = mapped(&format!("-{}-named-{number}.so", &digest[..12]));
            assert!(!lines.is_empty());
            for line in lines {
                let path = &line[line.find('/').unwrap()..];
                assert_eq!(read_from_outside(Path::new(path)), image.bytes(), "{line}");
            }
        }
    });
}

/// The loader has the path of a memfd with this process's number in it: gdb opened a descriptor of its own instead, and hung.
#[test]
fn gdb_does_the_same_where_libraries_are_loaded_from_memory() {
    alone(|| {
        let images = [inside(1), inside(2)];
        without_folders();
        gdb_sees_both_generations(images);
        assert!(mapped("-pricer-").iter().all(|line| line.contains("memfd:")), "from elsewhere");
    });
}

#[test]
fn a_backtrace_takes_no_more_than_two_hundred_lines() {
    alone(|| {
        // SAFETY: no other thread of this process looks at its environment now.
        unsafe { std::env::set_var("RUST_BACKTRACE", "1") };
        let log = Log::capture();
        let slot = super::builder().open(answering(1)).unwrap();
        for (frames, expected) in [(20_u32, 20..200), (1000, 200..201)] {
            let before = log.lines().len();
            assert!(slot.load().call(super::methods::PANIC_DEEP, &frames.to_ne_bytes()).is_err());
            let lines = log.lines().split_off(before);
            let first = lines.iter().position(|line| line.contains("far down")).expect("the panic is logged");
            let count = lines.len() - first - 1;
            assert!(expected.contains(&count), "{count} lines for {frames} frames");
        }
    });
}
