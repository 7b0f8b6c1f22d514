//! Memory that can be loaded as a file: Linux's memfd, sealed, so that what was admitted is what runs.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr;

use crate::memfd::create;

/// Makes a sealed memfd with `bytes`, and a path that no other load has, once it is certain that the loader can map it.
///
/// The check comes before `dlopen` because a failed `dlopen` may have run constructors, and is not to be repeated.
pub(super) fn loadable(name: &str, bytes: &[u8], serial: u64) -> io::Result<(File, PathBuf)> {
    let mut file = create(name)?;
    file.write_all(bytes)?;
    seal(&file)?;
    let path = PathBuf::from(spelled(serial, file.as_raw_fd()));
    // Where /proc is not mounted, or hidden, this fails.
    File::open(&path)?;
    map_as_code(&file)?;
    Ok((file, path))
}

/// Spells a path to descriptor `fd` differently for every `serial`: one step that goes nowhere for each bit, "./" for a
/// one and "/" for a zero.
fn spelled(serial: u64, fd: i32) -> String {
    let bits = u64::BITS - serial.leading_zeros();
    let steps = (0..bits).rev().map(|bit| if serial >> bit & 1 == 1 { "./" } else { "/" });
    format!("/proc/self/fd/{}{fd}", steps.collect::<String>())
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

/// Tries what the loader will do; a security policy may forbid code from a memfd.
fn map_as_code(file: &File) -> io::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    // SAFETY: the kernel chooses the place, so no existing mapping is touched; it is never accessed.
    let address = unsafe { libc::mmap(ptr::null_mut(), 1, protection, flags, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this is the mapping that was just made, and nothing refers to it.
    unsafe { libc::munmap(address, 1) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::os::unix::fs::FileExt;

    #[test]
    fn no_two_loads_spell_a_descriptor_the_same_way() {
        let paths: HashSet<_> = (0..5000).flat_map(|serial| [spelled(serial, 7), spelled(serial, 77)]).collect();
        assert_eq!(paths.len(), 10_000);
        assert_eq!(spelled(6, 9), "/proc/self/fd/././/9");
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
