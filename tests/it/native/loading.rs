//! From admitted bytes to a live plugin: the loader, the place that it loads from, and the first call.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use hotslot::host::CallError;
use hotslot::native::{DescriptorError, LibraryError, Native, Unload};
use hotslot::{Candidate, Digest, ErrorKind, HotSlot, Lease, Stage};

use super::fixtures::TemporaryFolder;
use super::process::alone;
use super::{
    answer, answering, builder, c_answering, c_library, destroyed, elsewhere, fixture, frees, mapped, native, panicked,
    reason,
};

type Answer = unsafe extern "C" fn() -> i32;

/// A backend for answer.c and its like.
fn answers() -> hotslot::native::RawNative<Answer> {
    // SAFETY: the constructors of the libraries that are loaded with it are harmless, and the type is that in C.
    unsafe { Native::raw(|library| Ok(library.get("answer")?)) }
}

/// Row 4.
#[test]
fn an_undefined_symbol_is_refused_at_load_and_named() {
    let slot = HotSlot::builder(answers()).open(c_answering(7)).unwrap();
    let error = slot.reload(c_library("undefined.c", &[])).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    let LibraryError::Refused { reason, hint } = reason(&error) else { panic!("{error}") };
    assert!(reason.contains("nobody_has_this"), "{reason}");
    assert!(hint.contains("link"), "it says what to do: {hint}");
    // SAFETY: the function takes nothing and gives a number.
    assert_eq!(unsafe { slot.load()() }, 7, "the old one keeps serving");
}

/// Row 9.
#[test]
fn a_panic_in_create_is_refused_at_load() {
    let slot = builder().open(answering(1)).unwrap();
    let error = slot.reload(answering(2).script("create=panic")).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    assert_eq!(reason::<CallError>(&error), &panicked("create panics"));
    assert_eq!((answer(&slot.load()), Lease::generation(&slot.load())), (1, 1));
    assert_eq!(slot.status().counters.refused, 1);
}

#[test]
fn an_error_in_create_is_refused_at_load_with_its_text() {
    let error = builder().open(fixture().script("create=fail")).unwrap_err();
    assert_eq!((error.stage(), error.serving()), (Stage::Load, None));
    assert_eq!(reason::<CallError>(&error), &CallError::failed("create fails"));
}

#[test]
fn a_library_that_shows_another_descriptor_than_its_file_is_refused() {
    let error = builder().open(c_library("counter.c", &["-DTURNCOAT"])).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    let DescriptorError::NotWhatWasAdmitted { admitted, loaded } = reason(&error) else { panic!("{error}") };
    assert_eq!((&**admitted, &**loaded), ("counter 1.0.0", "counter 6.6.6"));
}

/// Row 18.
#[test]
fn a_plugin_does_not_notice_that_its_file_is_overwritten_and_truncated() {
    let folder = TemporaryFolder::new();
    for backend in [native(), native().private_folder(folder.path())] {
        let path = folder.path().join("plugin.so");
        fs::write(&path, answering(1).bytes()).unwrap();
        let slot = HotSlot::builder(backend).open(fs::read(&path).unwrap()).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let damage: [&dyn Fn(); 4] = [
            &|| file.write_all_at(&[0xcc; 4096], 0).unwrap(),
            &|| file.write_all_at(&vec![0; file.metadata().unwrap().len() as usize], 0).unwrap(),
            &|| file.set_len(100).unwrap(),
            &|| file.set_len(0).unwrap(),
        ];
        for wreak in damage {
            wreak();
            assert_eq!(answer(&slot.load()), 1);
            assert_eq!(slot.load().call(super::methods::ECHO, b"still here").unwrap(), b"still here");
        }
    }
}

/// Row 18: nobody can do it to the copy that is mapped, either.
#[test]
fn the_memory_that_a_plugin_is_loaded_from_cannot_be_changed() {
    alone(|| {
        without_folders();
        let slot = builder().name("sealed-memory").open(answering(1)).unwrap();
        let descriptor = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        let descriptor = descriptor
            .filter(|path| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("sealed-memory")))
            .collect::<Vec<_>>();
        let [descriptor] = &descriptor[..] else { panic!("one descriptor holds it: {descriptor:?}") };

        let open = || OpenOptions::new().read(true).write(true).open(descriptor);
        assert!(open().and_then(|file| file.write_all_at(b"x", 0)).is_err(), "it was written");
        assert!(open().and_then(|file| file.set_len(0)).is_err(), "it was shortened");
        assert!(open().and_then(|file| file.set_len(1 << 30)).is_err(), "it was grown");
        assert_eq!(fs::read(descriptor).unwrap(), answering(1).into_bytes());
        assert_eq!(answer(&slot.load()), 1);
    });
}

/// The private folders of this process in `folder`, and the files in them.
fn private_files(folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let folders = entries(folder);
    let files = folders.iter().flat_map(|folder| entries(folder)).collect();
    (folders, files)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_private_folder_holds_the_file_of_each_library_that_is_mapped() {
    let folder = TemporaryFolder::new();
    let slot = HotSlot::builder(native().private_folder(folder.path())).name("by-file").open(answering(1)).unwrap();
    for generation in 2..5 {
        slot.reload(answering(generation)).unwrap();
        assert_eq!(answer(&slot.load()), generation);
    }
    assert!(mapped("by-file").iter().all(|line| line.contains(folder.path().to_str().unwrap())), "from elsewhere");
    assert!(!mapped("by-file").is_empty());
    // It is mapped, too, and stays.
    assert!(slot.reload(fixture().script("create=panic")).is_err());
    let (folders, files) = private_files(folder.path());
    assert_eq!((folders.len(), files.len()), (1, 5));
    assert_eq!(mode(&folders[0]), 0o700);
    assert!(files.iter().all(|file| mode(file) == 0o500), "{files:?}");
}

#[test]
fn a_file_is_gone_once_its_library_is_unmapped() {
    alone(|| {
        let folder = TemporaryFolder::new();
        let backend = native().unload(Unload::WhenIdle).private_folder(folder.path());
        let slot = elsewhere(|| HotSlot::builder(backend).keep_previous(0).open(answering(1)).unwrap());
        let events = slot.subscribe();
        let (mut generation, mut kept) = (1, 1);
        frees(|| {
            elsewhere(|| slot.reload(answering(generation + 1)).unwrap());
            let release = destroyed(&events, u64::from(generation));
            generation += 1;
            kept += usize::from(release != hotslot::Release::Freed);
            assert_eq!(
                private_files(folder.path()).1.len(),
                kept,
                "the serving one's, and that of each one that is kept"
            );
            release
        });
    });
}

/// Runs [`a_host_in_a_folder`] and gives what is left in the folder when it has ended.
fn left_by(end: &str) -> (Option<i32>, Vec<PathBuf>, TemporaryFolder) {
    let folder = TemporaryFolder::new();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "native::loading::a_host_in_a_folder", "--ignored", "--nocapture"])
        .env("FOLDER", folder.path())
        .env("END", end)
        .output()
        .unwrap();
    (status.status.signal(), private_files(folder.path()).0, folder)
}

#[test]
#[ignore = "runs inside of another test"]
fn a_host_in_a_folder() {
    let folder = std::env::var_os("FOLDER").expect("the outer test names it");
    let slot = HotSlot::builder(native().private_folder(folder)).open(answering(1)).unwrap();
    slot.reload(answering(2)).unwrap();
    // A library that is never unmapped does not outlive its process.
    let slot = std::mem::ManuallyDrop::new(slot);
    match std::env::var("END").as_deref() {
        // SAFETY: ends this process.
        Ok("killed") => _ = unsafe { libc::raise(libc::SIGKILL) },
        Ok("forked") => {
            // SAFETY: the child only ends, by the way that runs exit handlers; its parent waits for it.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::exit(0);
                }
                libc::waitpid(child, std::ptr::null_mut(), 0);
                libc::_exit(0);
            }
        }
        Ok("first") => {
            // SAFETY: a namespace for children of this thread; the child only asks the slot, and ends as above. If it waits for
            // something that is not there, the alarm ends it.
            let status = unsafe {
                assert_eq!((libc::getpid(), libc::unshare(libc::CLONE_NEWPID)), (1, 0));
                let child = libc::fork();
                if child == 0 {
                    libc::alarm(60);
                    let is_first = libc::getpid() == 1;
                    let refused =
                        slot.reload(answering(3)).is_err_and(|error| matches!(error.kind(), ErrorKind::Forked));
                    libc::exit(if is_first && refused { 3 } else { 4 });
                }
                let mut status = 0;
                libc::waitpid(child, &raw mut status, 0);
                status
            };
            println!("CHILD {}", if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 });
            // SAFETY: ends this process without its exit handlers.
            unsafe { libc::_exit(0) }
        }
        _ => {}
    }
}

/// The first process of each PID namespace has number 1: that it is the same does not make it the same process.
#[test]
fn a_forked_process_with_the_same_number_in_another_namespace_takes_nothing_away() {
    let folder = TemporaryFolder::new();
    let output = Command::new("unshare")
        .args(["-rpf".as_ref(), std::env::current_exe().unwrap().as_os_str()])
        .args(["--exact", "native::loading::a_host_in_a_folder", "--ignored", "--nocapture"])
        .env("FOLDER", folder.path())
        .env("END", "first")
        .output();
    let Ok(output) = output else { return println!("skipped: there is no program unshare") };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if text.contains("unshare failed") {
        return println!("skipped: no namespaces here: {text}");
    }
    assert!(text.contains("CHILD 3"), "it took the slot for its own: {text}");
    let (folders, files) = private_files(folder.path());
    assert_eq!((folders.len(), files.len()), (1, 2), "{text}");
}

#[test]
fn a_process_that_exits_leaves_nothing_behind() {
    let (signal, left, _folder) = left_by("exit");
    assert_eq!((signal, left.len()), (None, 0));
}

#[test]
fn a_forked_process_that_exits_takes_nothing_away() {
    let (signal, left, _folder) = left_by("forked");
    assert_eq!((signal, left.len()), (None, 1));
    assert_eq!(fs::read_dir(&left[0]).unwrap().count(), 2);
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next_one_and_what_a_living_one_uses_is_not() {
    let (signal, left, folder) = left_by("killed");
    assert_eq!((signal, left.len()), (Some(libc::SIGKILL), 1));
    let in_use = HotSlot::builder(native().private_folder(folder.path())).open(answering(1)).unwrap();
    let (folders, files) = private_files(folder.path());
    assert!(!left[0].exists() && folders.len() == 1 && files.len() == 1, "{folders:?}");
    // One more process comes and goes.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "native::loading::a_host_in_a_folder", "--ignored"])
        .env("FOLDER", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(private_files(folder.path()), (folders, files));
    assert_eq!(answer(&in_use.load()), 1);
}

#[test]
fn what_the_loader_refuses_leaves_nothing_in_the_private_folder() {
    let folder = TemporaryFolder::new();
    let backend = answers().private_folder(folder.path());
    let error = HotSlot::builder(backend).open(c_library("undefined.c", &[])).unwrap_err();
    assert!(!error.to_string().contains(folder.path().to_str().unwrap()), "a name that nobody knows: {error}");
    assert_eq!(private_files(folder.path()).1.len(), 0);
}

#[test]
fn a_private_folder_that_cannot_be_used_is_named() {
    let backend = native().private_folder("/proc/there/is/none");
    let error = HotSlot::builder(backend).open(fixture()).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    assert!(matches!(reason(&error), LibraryError::Source { .. }), "{error}");
    assert!(error.to_string().contains("/proc/there/is/none"), "{error}");
}

#[test]
fn by_default_a_private_file_is_loaded_from_also_where_there_is_no_memfd() {
    alone(|| {
        // Also for the threads that the slot starts from here.
        without(&[libc::SYS_memfd_create], libc::ENOSYS);
        let slot = builder().name("no-memfd").open(answering(1)).unwrap();
        slot.reload(answering(2)).unwrap();
        assert_eq!(answer(&slot.load()), 2);
        let lines = mapped("no-memfd");
        let temporary = std::env::temp_dir();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(temporary.to_str().unwrap())), "{lines:?}");
        for line in lines {
            let path = line.split_whitespace().find(|word| word.starts_with('/')).unwrap();
            assert_eq!((mode(Path::new(path)), mode(Path::new(path).parent().unwrap())), (0o500, 0o700));
        }
    });
}

/// Has no folder made on this thread and those that it starts. What tests load usually is built before.
pub(super) fn without_folders() {
    drop((fixture(), c_answering(0)));
    without(
        &[
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir,
            libc::SYS_mkdirat,
        ],
        libc::EROFS,
    );
}

/// Makes the kernel answer these system calls with an error on this thread and those that it starts.
fn without(calls: &[libc::c_long], error: i32) {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut program = vec![step(LOAD_NUMBER, 0, 0)];
    for call in calls {
        // If it is not the one, jump over the refusal.
        program.push(libc::sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: *call as u32 });
        program.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO | error as u32));
    }
    program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: two system calls; the filter is valid for the second one, which copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter), 0);
    }
}

/// Row 28: the bytes that were checked are the bytes that run, whatever becomes of the file meanwhile.
#[test]
fn what_is_served_answers_as_its_digest_says_while_the_file_is_rewritten() {
    alone(|| {
        let folder = TemporaryFolder::new();
        let path = folder.path().join("plugin.so");
        fs::write(&path, answering(1).bytes()).unwrap();
        let (images, done) = ([answering(1), answering(2)], AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // In place, as a careless build does it.
                for image in images.iter().cycle() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    File::create(&path).unwrap().write_all(image.bytes()).unwrap();
                }
            });
            let backend = native().unload(Unload::KeepMapped);
            let slot = HotSlot::builder(backend).keep_previous(0).open(answering(1)).unwrap();
            for _ in 0..100 {
                let read = fs::read(&path).unwrap();
                let digest = Digest::of(&read);
                match slot.reload(Candidate::new(read.clone()).force()) {
                    Ok(report) => assert_eq!(report.digest, Some(digest)),
                    Err(error) => assert_eq!(error.stage(), Stage::Admit, "{error}"),
                }
                let serving = slot.load();
                let said = images.iter().position(|image| Digest::of(image.bytes()) == Lease::digest(&serving));
                assert_eq!(said.map(|index| index as u32 + 1), Some(answer(&serving)));
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_raw_binder_that_refuses_is_a_refusal_at_load() {
    // SAFETY: as in `answers`.
    let backend = unsafe { Native::raw::<Answer>(|library| Ok(library.get("question")?)) };
    let error = HotSlot::builder(backend).open(c_answering(1)).unwrap_err();
    assert_eq!(error.stage(), Stage::Load);
    assert!(matches!(reason(&error), LibraryError::MissingSymbol { name, .. } if name == "question"), "{error}");
}

#[test]
fn a_staged_plugin_that_is_dropped_is_unmapped() {
    alone(|| {
        frees(|| {
            let builder = HotSlot::builder(native().unload(Unload::WhenIdle));
            let slot = elsewhere(|| builder.open(answering(1)).unwrap());
            let events = slot.subscribe();
            elsewhere(|| {
                let staged = slot.stage(answering(2)).unwrap();
                assert_eq!(answer(staged.plugin().unwrap()), 2);
            });
            destroyed(&events, 2)
        });
    });
}
