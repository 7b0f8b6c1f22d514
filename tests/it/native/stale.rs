//! The loader's caches: a reload runs the code that it was given, and not what the loader remembers.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};

use hotslot::native::{Budget, OverBudget, retained};
use hotslot::{Digest, HotSlot, Lease, Release};

use super::fixtures::TemporaryFolder;
use super::process::alone;
use super::{answer, answering, c_answering, destroyed, elsewhere, fixture, mapped, native};

/// Row 19. One generation is destroyed before the next one is loaded, so that the descriptor's number is free again.
#[test]
fn each_of_a_thousand_reloads_serves_its_own_code() {
    /// What a kept generation may cost beside its image in memory: what of it is mapped, and what the loader changed.
    const RSS_PER_GENERATION: u64 = 640 << 10;
    const MAPS_PER_GENERATION: usize = 6;
    const RELOADS: u32 = 1000;
    alone(|| {
        let budget = Budget { generations: 2000, bytes: 4 << 30, when_spent: OverBudget::Refuse, ..Budget::default() };
        let backend = native().budget(budget);
        let slot = HotSlot::builder(backend).name("thousand").keep_previous(0).open(answering(0)).unwrap();
        let events = slot.subscribe();
        let (descriptors, resident) = (open_descriptors(), resident());
        for number in 1..=RELOADS {
            let image = answering(number);
            let digest = Digest::of(image.bytes());
            let report = slot.reload(image).unwrap();
            assert_eq!((report.digest, Lease::digest(&slot.load())), (Some(digest), digest));
            assert_eq!(elsewhere(|| answer(&slot.load())), number);
            let release = destroyed(&events, u64::from(number));
            assert!(matches!(release, Release::Retained { alarm: None, .. }), "{release:?}");
        }
        assert_eq!(retained().generations, u64::from(RELOADS));
        assert_eq!(retained().bytes, u64::from(RELOADS) * fixture().bytes().len() as u64);
        assert_eq!(open_descriptors(), descriptors, "the numbers came back, again and again");
        let grown = self::resident() - resident;
        let each = grown / u64::from(RELOADS);
        assert!(each < RSS_PER_GENERATION, "{} KiB a generation", each >> 10);
        let maps = mapped("thousand").len();
        assert!(maps <= (RELOADS as usize + 1) * MAPS_PER_GENERATION, "{maps} maps");
    });
}

/// Row 19, the negative control: what the loader does with a descriptor's number that came back.
#[cfg(target_env = "gnu")]
#[test]
fn the_loader_alone_gives_the_old_code_for_a_number_that_came_back() {
    const NUMBER: i32 = 700;
    let plain = format!("/proc/self/fd/{NUMBER}");
    let mut libraries = Vec::new();
    let answers = [1, 2].map(|number| {
        // SAFETY: a new descriptor, which nobody else has.
        let mut memory = unsafe { fs::File::from_raw_fd(libc::memfd_create(c"plain".as_ptr(), libc::MFD_CLOEXEC)) };
        memory.write_all(&c_answering(number)).unwrap();
        // SAFETY: the number is this test's own.
        assert_eq!(unsafe { libc::dup2(memory.as_raw_fd(), NUMBER) }, NUMBER);
        let answer = ask(&plain, &mut libraries);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::close(NUMBER) }, 0);
        answer
    });
    assert_eq!(answers, [1, 1], "the loader has become better: is the path's spelling still needed?");
}

/// Row 19, the negative control for files: the worst complaint about reloading by path.
#[cfg(target_env = "gnu")]
#[test]
fn the_loader_alone_gives_the_old_code_for_a_path_that_has_a_new_file() {
    let folder = TemporaryFolder::new();
    let path = folder.path().join("plugin.so");
    let mut libraries = Vec::new();
    let answers = [1, 2].map(|number| {
        let fresh = folder.path().join("fresh.so");
        fs::write(&fresh, c_answering(number)).unwrap();
        fs::rename(&fresh, &path).unwrap();
        ask(path.to_str().unwrap(), &mut libraries)
    });
    assert_eq!(answers, [1, 1]);
}

/// Row 19: the same path, with a new file each time, through a slot.
#[test]
fn a_file_that_is_replaced_under_its_path_is_really_reloaded() {
    let folder = TemporaryFolder::new();
    let path = folder.path().join("plugin.so");
    fs::write(&path, answering(0).bytes()).unwrap();
    let slot = super::builder().keep_previous(0).open(fs::read(&path).unwrap()).unwrap();
    for number in 1..20 {
        if number % 2 == 0 {
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, answering(number).bytes()).unwrap();
        slot.reload(fs::read(&path).unwrap()).unwrap();
        assert_eq!(answer(&slot.load()), number);
    }
}

/// The same bytes twice are two libraries, each with its own statics.
#[test]
fn the_same_bytes_again_are_a_library_of_their_own() {
    let slot = super::builder().name("same-bytes").open(fixture()).unwrap();
    let first = slot.load();
    super::add(&first, 5);
    slot.reload(hotslot::Candidate::from(fixture()).force()).unwrap();
    assert_eq!(super::add(&slot.load(), 0), 0);
    assert_eq!(super::add(&first, 0), 5);
    let files: std::collections::HashSet<_> =
        mapped("same-bytes").into_iter().filter_map(|line| line.split('/').next_back().map(str::to_owned)).collect();
    assert_eq!(files.len(), 2, "{files:?}");
}

/// Loads answer.c from a path, as one would without this library, and asks it. It stays loaded.
fn ask(path: &str, libraries: &mut Vec<libloading::Library>) -> i32 {
    // SAFETY: answer.c has no constructors.
    let library = unsafe { libloading::Library::new(path) }.unwrap();
    // SAFETY: this is its type, and the library stays loaded.
    let answer = unsafe { library.get::<unsafe extern "C" fn() -> i32>("answer").unwrap()() };
    libraries.push(library);
    answer
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How much of this process is in memory, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
