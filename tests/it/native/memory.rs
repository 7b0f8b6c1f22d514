//! What libraries take: files on a disk by default, shared memory under a budget where there are none, and how that is seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use hotslot::native::{Budget, LibraryError, Native, Unload, resident, retained, usage};
use hotslot::{ErrorKind, Footprint, HotSlot, Release};

use super::fixtures::TemporaryFolder;
use super::loading::without_folders;
use super::process::alone;
use super::{answer, answering, builder, c_answering, destroyed, elsewhere, fixture, frees, mapped, native, reason};

fn bytes(footprint: Footprint) -> (u64, u64) {
    (footprint.disk, footprint.shared_memory)
}

/// Opens a slot, keeps a warm generation, stages one, and has another one destroyed: each is shown with what it takes.
fn every_generation_shows(expected: impl Fn(u64) -> (u64, u64)) {
    let shared_before = resident_shared_memory();
    let size = fixture().bytes().len() as u64;
    let slot = builder().keep_previous(1).open(answering(1)).unwrap();
    let events = slot.subscribe();
    for number in 2..=3 {
        slot.reload(answering(number)).unwrap();
    }
    let staged = slot.stage(answering(4)).unwrap();
    assert!(matches!(destroyed(&events, 1), Release::Retained { .. }));
    let status = slot.status();
    let shown = [status.serving.unwrap().footprint, status.retired[0].footprint, status.staged[0].footprint];
    assert_eq!(shown.map(|footprint| footprint.map(bytes)), [Some(expected(size)); 3]);
    assert_eq!((status.retired.len(), bytes(status.retained.footprint)), (1, expected(size)));
    assert_eq!((retained(), usage().retained), (status.retained, status.retained));
    assert_eq!((usage().libraries, bytes(usage().footprint)), (4, expected(4 * size)));
    // The system sees it in the same way, as far as it is resident.
    let is_shared = expected(1).1 > 0;
    assert_eq!(resident_shared_memory() > shared_before, is_shared);
    drop(staged);
    // What is in memory of them is more than nothing, and no more than there is of each page: a shared and an own one.
    let resident = resident().unwrap();
    assert!(resident.private > 0 && resident.private < resident.resident, "{resident:?}");
    assert!(resident.resident < 4 * 2 * size, "{resident:?} of {size} bytes each");
    println!("{:?} {resident:?}", usage());
}

/// How much shared memory of this process is resident, in KiB.
fn resident_shared_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn by_default_generations_take_a_file_on_a_disk_and_the_status_shows_it() {
    alone(|| {
        if [std::env::temp_dir(), "/var/tmp".into()].iter().all(|folder| is_in_memory(folder)) {
            return println!("skipped: all temporary folders are in memory here");
        }
        every_generation_shows(|size| (size, 0));
    });
}

#[test]
fn generations_that_are_loaded_from_memory_show_that() {
    alone(|| {
        without_folders();
        every_generation_shows(|size| (0, size));
    });
}

fn is_in_memory(folder: &Path) -> bool {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output().unwrap();
    output.stdout == b"tmpfs\n"
}

#[test]
fn what_is_unmapped_takes_nothing_any_more() {
    alone(|| {
        let backend = native().unload(Unload::WhenIdle);
        let slot = elsewhere(|| HotSlot::builder(backend).keep_previous(0).open(answering(1)).unwrap());
        let events = slot.subscribe();
        let (mut generation, mut kept) = (1, 0);
        frees(|| {
            elsewhere(|| slot.reload(answering(generation + 1)).unwrap());
            let release = destroyed(&events, u64::from(generation));
            generation += 1;
            kept += u64::from(release != Release::Freed);
            assert_eq!((usage().libraries, usage().retained.generations), (kept + 1, kept));
            release
        });
    });
}

#[test]
fn a_library_beyond_the_budget_of_shared_memory_is_refused_with_the_remedy() {
    alone(|| {
        without_folders();
        let size = fixture().bytes().len() as u64;
        let backend = native().budget(Budget { shared_memory: 2 * size + 100, ..Budget::default() });
        let slot = HotSlot::builder(backend).open(answering(1)).unwrap();
        slot.reload(answering(2)).unwrap();
        let error = slot.reload(answering(3)).unwrap_err();
        let LibraryError::SharedMemorySpent { needed, used, budget, reason: why } = reason(&error) else {
            panic!("{error}")
        };
        assert_eq!((*needed, *used, *budget), (size, 2 * size, 2 * size + 100));
        assert!(why.contains("private folder in "), "why it is not on a disk: {why}");
        for remedy in ["private_folder", "restart", "Budget::shared_memory"] {
            assert!(error.to_string().contains(remedy), "{error}");
        }
        assert_eq!(answer(&slot.load()), 2);
        // It counts what there is in the process, not in the slot.
        let other = HotSlot::builder(native().budget(Budget { shared_memory: size, ..Budget::default() }));
        assert!(matches!(reason(&other.open(answering(4)).unwrap_err()), LibraryError::SharedMemorySpent { .. }));
        assert_eq!(usage().libraries, 2, "what was refused takes nothing");
    });
}

/// Each library that is loaded from memory keeps a descriptor open.
#[test]
fn descriptors_for_libraries_run_out_before_the_hosts_do() {
    alone(|| {
        const LIMIT: u64 = 128;
        without_folders();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: system calls on a value of this function.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
            limit.rlim_cur = LIMIT;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        }
        // SAFETY: the libraries have no constructors, and the type is that in C.
        let backend = unsafe { Native::raw(|library| Ok(library.get::<unsafe extern "C" fn() -> i32>("answer")?)) };
        let slot = HotSlot::builder(backend).keep_previous(0).open(c_answering(0)).unwrap();
        let events = slot.subscribe();
        let mut answers = 1..;
        let error = loop {
            let answer = answers.next().unwrap();
            match slot.reload(c_answering(answer)) {
                Ok(_) => {
                    // SAFETY: the lease keeps the library mapped.
                    assert_eq!(unsafe { slot.load()() }, answer.cast_signed());
                    destroyed(&events, u64::from(answer));
                }
                Err(error) => break error,
            }
        };
        let LibraryError::Source { reason } = reason(&error) else { panic!("{error}") };
        assert!(reason.contains("from memory: ") && reason.contains("os error 24"), "{reason}");
        assert_eq!(usage().libraries, LIMIT / 2);
        let own: Vec<_> = (0..LIMIT / 4).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert_eq!(own.len() as u64, LIMIT / 4);
    });
}

/// Loads `$LIBRARY` as the environment says, and prints what came of it.
#[test]
#[ignore = "runs inside of another test"]
fn a_host_on_its_own_mounts() {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    // SAFETY: the library has no constructors, and the type is that in C.
    let backend = unsafe { Native::raw(|library| Ok(library.get::<unsafe extern "C" fn() -> i32>("answer")?)) };
    let mut backend = backend.budget(Budget { shared_memory: 100_000, ..Budget::default() });
    if let Some(folder) = variable("FOLDER") {
        backend = backend.private_folder(folder);
    }
    let library = fs::read(variable("LIBRARY").expect("the outer test names it")).unwrap();
    match HotSlot::builder(backend).name("mounted").open(library) {
        Ok(slot) => {
            // SAFETY: the lease keeps the library mapped.
            assert_eq!(unsafe { slot.load()() }, 7);
            let footprint = slot.status().serving.unwrap().footprint.unwrap();
            println!("CAME {footprint:?} {}", mapped("mounted")[0]);
        }
        Err(error) => {
            let ErrorKind::Refused(reason) = error.kind() else { panic!("{error}") };
            println!("CAME {reason:?} {reason}");
        }
    }
}

/// Prepares a shell with mounts of its own, and none of the folders that the environment names.
fn on_own_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).env_remove("XDG_RUNTIME_DIR").env_remove("TMPDIR");
    command
}

/// Runs it; `None` where nothing can be mounted, which its exit status 77 says.
fn ran(mut command: Command) -> Option<(ExitStatus, String)> {
    let Ok(output) = command.output() else {
        println!("skipped: there is no program unshare");
        return None;
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(77) || text.contains("unshare failed") {
        println!("skipped: nothing can be mounted here: {text}");
        return None;
    }
    Some((output.status, text))
}

/// Runs [`a_host_on_its_own_mounts`] after `mount`, with `$1` as its private folder if there is one; `None` where nothing can
/// be mounted.
fn after(mount: &str, private_folder: Option<&Path>) -> Option<String> {
    // Where no mount hides it.
    let library = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(&library, c_answering(7)).unwrap();
    let run = r#" || exit 77; exec "$0" --exact native::memory::a_host_on_its_own_mounts --ignored --nocapture"#;
    let mut command = on_own_mounts(&format!("{mount}{run}"));
    command.arg(std::env::current_exe().unwrap()).env("LIBRARY", library.path());
    if let Some(folder) = private_folder {
        command.arg(folder).env("FOLDER", folder);
    }
    let (status, text) = ran(command)?;
    assert!(status.success(), "{text}");
    text.lines().find_map(|line| Some(line.split_once("CAME ")?.1.to_owned()))
}

#[test]
fn a_private_folder_that_is_mounted_noexec_is_refused_before_the_loader_sees_it() {
    let folder = TemporaryFolder::new();
    let mount = r#"mount -t tmpfs -o noexec,mode=755 tmpfs "$1""#;
    let Some(came) = after(mount, Some(folder.path())) else { return };
    assert!(came.contains("Source") && came.contains("noexec") && came.contains("private_folder"), "{came}");
}

#[test]
fn a_private_folder_that_is_full_is_refused_with_the_remedy() {
    let folder = TemporaryFolder::new();
    for fill in ["8", "0"] {
        // Full when the library is written, and already when the folder is to be made.
        let mount = format!(
            r#"mount -t tmpfs -o size=64k,mode=755 tmpfs "$1" && {{ head -c 100000 /dev/zero >"$1/fill"; truncate -s -{fill}k "$1/fill"; }}"#
        );
        let Some(came) = after(&mount, Some(folder.path())) else { return };
        assert!(came.contains("NoSpace") && came.contains("make some there"), "{fill}: {came}");
    }
}

#[test]
fn a_private_folder_in_memory_counts_as_shared_memory() {
    let folder = TemporaryFolder::new();
    let mount = r#"mount -t tmpfs -o mode=755 tmpfs "$1""#;
    let Some(came) = after(mount, Some(folder.path())) else { return };
    assert!(came.contains("disk: 0") && !came.contains("shared_memory: 0"), "{came}");
    assert!(came.contains(folder.path().to_str().unwrap()), "{came}");
}

#[test]
fn where_the_temporary_folder_is_in_memory_one_on_a_disk_comes_first() {
    if is_in_memory(Path::new("/var/tmp")) {
        return println!("skipped: /var/tmp is in memory here");
    }
    let Some(came) = after("mount -t tmpfs -o mode=1777 tmpfs /tmp", None) else { return };
    assert!(came.contains("shared_memory: 0") && came.contains(" /var/tmp/hotslot-native-"), "{came}");
}

#[test]
fn where_no_folder_will_do_memory_is_loaded_from() {
    let noexec = "mount -t tmpfs -o noexec,mode=1777 tmpfs";
    let full = |folder: &str| {
        format!(
            "mount -t tmpfs -o size=64k,mode=1777 tmpfs {folder} && {{ head -c 100000 /dev/zero >{folder}/fill; true; }}"
        )
    };
    let open_to_all = |folder: &str| format!("mount -t tmpfs -o mode=777 tmpfs {folder}");
    for mounts in [
        format!("{noexec} /tmp && {noexec} /var/tmp"),
        format!("{} && {}", full("/tmp"), full("/var/tmp")),
        format!("{} && {}", open_to_all("/tmp"), open_to_all("/var/tmp")),
    ] {
        let Some(came) = after(&mounts, None) else { return };
        assert!(came.contains("disk: 0") && came.contains("memfd:"), "{mounts}: {came}");
    }
}

/// Runs src/bin/sacrificial.rs, which rehearses, after `mount`; `None` where nothing can be mounted.
fn rehearsed_after(mount: &str, settings: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("1.so"), answering(1).bytes()).unwrap();
    fs::write(path("2.so"), answering(2).bytes()).unwrap();
    let run = r#" || exit 77; exec "$0" plugin 1.so 2.so "$@""#;
    let mut command = on_own_mounts(&format!("{mount}{run}"));
    command.arg(env!("CARGO_BIN_EXE_sacrificial")).args(settings).current_dir(folder.path());
    Some(ran(command)?.1)
}

#[test]
fn a_rehearsal_works_where_no_folder_will_do() {
    let noexec = "mount -t tmpfs -o noexec,mode=1777 tmpfs";
    let Some(text) = rehearsed_after(&format!("{noexec} /tmp && {noexec} /var/tmp"), &[]) else { return };
    assert!(text.contains("serving: 2\n") && !text.contains("refused"), "{text}");
}

/// The host's own copy is what has to have room.
#[test]
fn a_rehearsal_works_where_there_is_no_room_for_a_copy_of_its_own() {
    let size = fixture().bytes().len().next_multiple_of(4096) / 1024;
    let folder = TemporaryFolder::new();
    let mount = format!(r#"mount -t tmpfs -o size={}k,mode=755 tmpfs "{}""#, 2 * size + 100, folder.path().display());
    let setting = format!("folder={}", folder.path().display());
    let Some(text) = rehearsed_after(&mount, &[&setting]) else { return };
    assert!(text.contains("serving: 2\n") && !text.contains("refused"), "{text}");
}
