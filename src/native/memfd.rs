//! Memory that can be loaded as a file: Linux's memfd, sealed, so that what was admitted is what runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::process_dir::map_as_code;

use crate::memfd::create;

/// Makes a sealed memfd with `bytes`, and a path that no other load has, once it is certain that the loader can map it.
///
/// The check comes before `dlopen` because a failed `dlopen` may have run constructors, and is not to be repeated.
pub(super) fn loadable(name: &str, bytes: &[u8], serial: u64) -> io::Result<(File, PathBuf)> {
    let mut file = out_of_the_way(&create(name, true)?)?;
    file.write_all(bytes)?;
    seal(&file)?;
    // Debuggers open it, too, so it does not lead through their own /proc/self. This process has the number that the
    // mounted /proc shows, which may be that of an outer namespace.
    let process = fs::read_link("/proc/self")?;
    let path = PathBuf::from(spelled(serial, &process, file.as_raw_fd()));
    // Where /proc is not mounted, or hidden, this fails.
    let (found, own) = (File::open(&path)?.metadata()?, file.metadata()?);
    if (found.dev(), found.ino()) != (own.dev(), own.ino()) {
        return Err(io::Error::other(format!("{} leads to another file", path.display())));
    }
    map_as_code(&file)?;
    Ok((file, path))
}

/// Moves a descriptor to numbers that are not used otherwise: it stays open for as long as the library is mapped, and the
/// host needs the lower half of what it may open for itself.
fn out_of_the_way(file: &File) -> io::Result<File> {
    const ENOUGH: libc::rlim_t = 512;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a system call on a value of this function.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    let half = if known { (limit.rlim_cur / 2).min(ENOUGH) } else { 0 };
    let least = libc::c_int::try_from(half).unwrap_or_default();
    // SAFETY: a plain system call on a descriptor that is open.
    let moved = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    // SAFETY: the descriptor is new and open, and nobody else has it.
    if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(moved) }) }
}

/// Spells a path to descriptor `fd` of `process` differently for every `serial`: one step that goes nowhere for each bit, "./"
/// for a one and "/" for a zero.
fn spelled(serial: u64, process: &Path, fd: i32) -> String {
    let bits = u64::BITS - serial.leading_zeros();
    let steps = (0..bits).rev().map(|bit| if serial >> bit & 1 == 1 { "./" } else { "/" });
    format!("/proc/{}/fd/{}{fd}", process.display(), steps.collect::<String>())
}

/// Makes the content final, this very property included.
fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: a plain system call on a descriptor that is open.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::os::unix::fs::FileExt;

    #[test]
    fn no_two_loads_spell_a_descriptor_the_same_way() {
        let spelled = |serial, fd| spelled(serial, Path::new("42"), fd);
        let paths: HashSet<_> = (0..5000).flat_map(|serial| [spelled(serial, 7), spelled(serial, 77)]).collect();
        assert_eq!(paths.len(), 10_000);
        assert_eq!(spelled(6, 9), "/proc/42/fd/././/9");
    }

    #[test]
    fn a_loadable_memfd_cannot_be_changed() {
        let (file, path) = loadable("hotslot-test", b"image", 5).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"image");
        assert!(file.write_at(b"I", 0).is_err(), "written");
        assert!(file.set_len(0).is_err(), "shortened");
        assert!(file.set_len(100).is_err(), "grown");
    }
}
