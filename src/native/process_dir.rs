//! The folder in which this process keeps the files that its libraries are mapped from.
//!
//! A file stays for as long as it is mapped, because debuggers, profilers and backtraces open it by the name that the memory
//! map and the loader's list show. The folder goes when the process exits. A process that is killed leaves it behind, and
//! the next one that makes a folder in the same place removes it. Whether its process is gone is told by a lock on the
//! folder: a process id means something else in each container, and comes back. Cleaners of temporary files that know
//! such locks, as systemd's does, leave the folder alone for as long.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lock::Mutex;
use crate::private_dir::{create_file, dir_builder, random};
use crate::process_id::ProcessId;

/// What the names of these folders begin with; nothing else of this library has such names.
const PREFIX: &str = "hotslot-native-";

/// A folder that only this user can enter, for the life of this process.
#[derive(Debug)]
pub(super) struct ProcessDir {
    path: PathBuf,
    in_memory: bool,
    /// The folder itself, locked for as long as this is open.
    #[cfg(unix)]
    lock: File,
    /// The process that made it. A forked one must not use it, or remove anything.
    process: ProcessId,
}

/// The folders of this process, one for each place that was asked for.
static DIRS: Mutex<Vec<Arc<ProcessDir>>> = Mutex::new(Vec::new());

impl ProcessDir {
    /// Returns this process's folder in `parent`, which is made if there is none.
    pub(super) fn inside(parent: &Path) -> io::Result<Arc<ProcessDir>> {
        let at_parent = |error: io::Error| {
            let text = format!("cannot make a private folder in {}: {error}", parent.display());
            io::Error::new(error.kind(), text)
        };
        // Whoever opens the files from outside has another working directory.
        let parent = &fs::canonicalize(parent).map_err(at_parent)?;
        // Each time: it may have been given to somebody else since.
        refuse_if_others_can_rename(parent).map_err(at_parent)?;
        let mut dirs = DIRS.lock();
        let known = dirs.iter().rfind(|dir| dir.path.parent() == Some(parent) && dir.is_usable());
        if let Some(known) = known {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(ProcessDir::make(parent).map_err(at_parent)?);
        remove_all_at_exit();
        dirs.push(Arc::clone(&made));
        // The log's subscriber may hang, or panic.
        drop(dirs);
        remove_leftovers(parent);
        Ok(made)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether its files are memory, as in a tmpfs.
    pub(super) fn in_memory(&self) -> bool {
        self.in_memory
    }

    fn make(parent: &Path) -> io::Result<ProcessDir> {
        let mut attempts = 0..16;
        loop {
            let path = parent.join(format!("{PREFIX}{}-{:016x}", std::process::id(), random()));
            // One that exists already is somebody else's.
            dir_builder().create(&path)?;
            #[cfg(unix)]
            let Some(lock) = claim(&path).inspect_err(|_| _ = fs::remove_dir(&path))? else {
                // Before it was locked, another process took it for a leftover.
                if attempts.next().is_none() {
                    return Err(io::Error::other("other processes keep removing it"));
                }
                continue;
            };
            #[cfg(not(unix))]
            let _ = &mut attempts;
            let dir = ProcessDir {
                in_memory: is_in_memory(&path),
                path,
                #[cfg(unix)]
                lock,
                process: ProcessId::current(),
            };
            return match dir.probe() {
                Ok(()) => Ok(dir),
                Err(error) => {
                    let _ = fs::remove_dir_all(&dir.path);
                    Err(error)
                }
            };
        }
    }

    /// Makes sure that code can be mapped from a file in it.
    ///
    /// This comes before `dlopen`, because one that failed may have run constructors, and is not to be repeated.
    fn probe(&self) -> io::Result<()> {
        let path = self.path.join("probe");
        let file = create_file(&path)?;
        #[cfg(target_os = "linux")]
        {
            io::Write::write_all(&mut &file, b"code")?;
            map_as_code(&file).map_err(|error| {
                let text = format!("code must not be mapped from files there (is it mounted noexec?): {error}");
                io::Error::new(error.kind(), text)
            })?;
        }
        drop(file);
        fs::remove_file(&path)
    }

    /// Whether it is still there, and this process's to use: somebody may have removed it, the process may have been
    /// forked, have another user by now, or another root.
    fn is_usable(&self) -> bool {
        if !self.process.is_current() {
            return false;
        }
        #[cfg(unix)]
        return self.lock.metadata().is_ok_and(|own| {
            std::os::unix::fs::MetadataExt::uid(&own) == effective_user() && leads_to(&self.path, &own)
        });
        #[cfg(not(unix))]
        self.path.is_dir()
    }
}

/// Writes `bytes` into a new file, for this user to read and execute.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = create_file(path).and_then(|file| {
        reserve(&file, bytes.len())?;
        io::Write::write_all(&mut &file, bytes)?;
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o500))?;
        Ok(())
    });
    written.inspect_err(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            let _ = fs::remove_file(path);
        }
    })
}

/// Takes the space before it is written to. Some file systems notice only later that there is none, and mapped pages
/// that could not be written are gone then.
fn reserve(file: &File, size: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if let Ok(size @ 1..) = libc::off_t::try_from(size) {
        use std::os::fd::AsRawFd;
        // SAFETY: a plain system call on a descriptor that is open.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) } < 0 {
            let error = io::Error::last_os_error();
            // Where this is not known, writing finds out.
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Err(error);
            }
        }
    }
    let _ = (file, size);
    Ok(())
}

/// Tries what the loader will do; a mount option or a security policy may forbid it.
#[cfg(target_os = "linux")]
pub(super) fn map_as_code(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    // SAFETY: the kernel chooses the place, so no existing mapping is touched; it is never accessed.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), 1, protection, flags, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this is the mapping that was just made, and nothing refers to it.
    unsafe { libc::munmap(address, 1) };
    Ok(())
}

// From linux/magic.h.
const IN_MEMORY: [i64; 2] = [0x0102_1994 /* tmpfs */, 0x8584_58f6 /* ramfs */];
#[cfg(unix)]
const SHARED_BY_MACHINES: [i64; 9] = [
    0x6969,      // nfs
    0x6573_5546, // fuse, virtiofs
    0x0102_1997, // 9p
    0xff53_4d42, // cifs
    0xfe53_4d42, // smb2
    0x5346_414f, // afs
    0x00c3_6400, // ceph
    0x0bd0_0bd0, // lustre
    0x7461_636f, // ocfs2
];

/// Returns whether what lies at `path` is memory.
pub(super) fn is_in_memory(path: &Path) -> bool {
    file_system(path).is_some_and(|kind| IN_MEMORY.contains(&kind))
}

/// Returns whether other machines may have the file system mounted on which `path` lies.
#[cfg(unix)]
fn is_shared_by_machines(path: &Path) -> bool {
    file_system(path).is_some_and(|kind| SHARED_BY_MACHINES.contains(&kind))
}

/// Returns the number of the kind of file system on which `path` lies, where that has one.
#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> Option<i64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut answer = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is terminated, and the answer goes to a place of the right type, for which all-zero bytes are valid.
    let kind = unsafe {
        if libc::statfs(path.as_ptr(), answer.as_mut_ptr()) < 0 {
            return None;
        }
        answer.assume_init().f_type
    };
    #[allow(clippy::unnecessary_cast, reason = "it has another type on some targets")]
    Some(kind as i64 & 0xffff_ffff)
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> Option<i64> {
    None
}

/// Refuses a place where another user could put a folder of theirs in the place of this process's: one in a folder that
/// belongs to somebody else, or in which a group or everybody can rename what belongs to others.
#[cfg(unix)]
fn refuse_if_others_can_rename(parent: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    // By the group, too: its bits are also the mask of an access control list.
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let user = effective_user();
    for folder in parent.ancestors() {
        let found = fs::symlink_metadata(folder)?;
        let what = if found.uid() != 0 && found.uid() != user {
            "belongs to another user"
        } else if found.mode() & WRITABLE_BY_OTHERS != 0 && found.mode() & STICKY == 0 {
            "can be written by others, without the sticky bit"
        } else {
            continue;
        };
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} {what}: others could exchange what is in it", folder.display()),
        ));
    }
    Ok(())
}

/// Elsewhere a user's folders are private by what they inherit.
#[cfg(not(unix))]
fn refuse_if_others_can_rename(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn effective_user() -> u32 {
    // SAFETY: a system call that cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether `path` still leads to the folder with this metadata.
#[cfg(unix)]
fn leads_to(path: &Path, folder: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (folder.dev(), folder.ino()))
}

/// Locks a folder of this process; `None` if another process has taken it for a leftover.
#[cfg(unix)]
fn claim(path: &Path) -> io::Result<Option<File>> {
    // Shared, because some network file systems lock no folder otherwise.
    match lock(path, libc::LOCK_SH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

/// Opens and locks the folder at `path`; `None` if another process has it locked, or if it is no longer there.
#[cfg(unix)]
fn lock(path: &Path, how: i32) -> io::Result<Option<File>> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let folder = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // SAFETY: a plain system call on a descriptor that is open.
    if unsafe { libc::flock(folder.as_raw_fd(), how | libc::LOCK_NB) } < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    let own = folder.metadata()?;
    Ok(leads_to(path, &own).then_some(folder))
}

/// Removes the folders of processes that are gone. What cannot be looked at or removed stays; so does all on a file system
/// that other machines may have mounted, where a lock says nothing about them.
#[cfg(unix)]
fn remove_leftovers(parent: &Path) {
    use std::os::unix::fs::MetadataExt;
    if is_shared_by_machines(parent) {
        return;
    }
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == effective_user());
        // Whoever has it locked uses it.
        if ours && let Ok(Some(lock)) = lock(&entry.path(), libc::LOCK_EX) {
            let removed = fs::remove_dir_all(entry.path());
            tracing::debug!(folder = %entry.path().display(), ?removed, "the folder of a process that is gone");
            drop(lock);
        }
    }
}

/// There is no telling whose process is gone.
#[cfg(not(unix))]
fn remove_leftovers(_: &Path) {}

/// Has the folders of this process removed when it exits.
fn remove_all_at_exit() {
    #[cfg(unix)]
    {
        extern "C" fn remove() {
            // In a forked process, the lock may be held for ever; and what is there is not its own.
            let Some(dirs) = DIRS.try_lock() else { return };
            for dir in dirs.iter().filter(|dir| dir.process.is_current()) {
                let _ = fs::remove_dir_all(&dir.path);
            }
        }
        static REGISTERED: std::sync::Once = std::sync::Once::new();
        REGISTERED.call_once(|| {
            // It may end the process, so it has to come after this one: the last one registered is the first to run.
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            super::exit::guard();
            // SAFETY: `remove` is there as long as this library is, which `exit` needs anyway. Where this fails, for want of
            // memory, the folder is left for the next process.
            let _ = unsafe { libc::atexit(remove) };
        });
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use crate::private_dir::PrivateDir;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_process_has_one_folder_in_a_place_for_itself_alone() {
        let parent = PrivateDir::temporary(&std::env::temp_dir()).unwrap();
        let dir = ProcessDir::inside(parent.path()).unwrap();
        assert!(Arc::ptr_eq(&dir, &ProcessDir::inside(parent.path()).unwrap()));
        let file = dir.path().join("library.so");
        write_file(&file, b"image").unwrap();
        assert_eq!((mode(dir.path()), mode(&file)), (0o700, 0o500));
        assert!(write_file(&file, b"other").is_err() && fs::read(&file).unwrap() == b"image", "it was there before");
    }

    #[test]
    fn a_folder_that_somebody_removed_is_made_anew() {
        let parent = PrivateDir::temporary(&std::env::temp_dir()).unwrap();
        let first = ProcessDir::inside(parent.path()).unwrap();
        fs::remove_dir_all(first.path()).unwrap();
        let second = ProcessDir::inside(parent.path()).unwrap();
        assert!(first.path() != second.path() && second.path().is_dir());
    }

    #[test]
    fn only_what_nobody_has_locked_is_a_leftover() {
        let parent = PrivateDir::temporary(&std::env::temp_dir()).unwrap();
        let path = |name: &str| parent.path().join(name);
        let [dead, alive, other] = ["hotslot-native-1-dead", "hotslot-native-1-alive", "hotslot-others"].map(path);
        for folder in [&dead, &alive, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "").unwrap();
        }
        // What a link leads to is not ours to remove.
        std::os::unix::fs::symlink(&other, path("hotslot-native-1-link")).unwrap();
        // As another process has it: locks belong to what was opened.
        let held = claim(&alive).unwrap().unwrap();
        let own = ProcessDir::inside(parent.path()).unwrap();
        assert!(!dead.exists() && alive.join("file").exists() && other.join("file").exists());
        drop(held);
        remove_leftovers(parent.path());
        assert!(!alive.exists() && other.join("file").exists() && own.is_usable());
    }

    #[test]
    fn a_place_where_others_could_exchange_the_folder_is_refused() {
        let outer = PrivateDir::temporary(&std::env::temp_dir()).unwrap();
        let parent = outer.path().join("inner");
        fs::create_dir(&parent).unwrap();
        for mode in [0o777, 0o770, 0o2775] {
            fs::set_permissions(outer.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = ProcessDir::inside(&parent).unwrap_err();
            assert!(error.to_string().contains("without the sticky bit"), "{error}");
        }
        // Whoever may write there can rename only what is theirs.
        for mode in [0o1777, 0o1770] {
            fs::set_permissions(outer.path(), fs::Permissions::from_mode(mode)).unwrap();
            ProcessDir::inside(&parent).unwrap();
        }
        if effective_user() != 0 {
            return println!("skipped: only root can give a folder to another user");
        }
        std::os::unix::fs::chown(outer.path(), Some(65_534), None).unwrap();
        let error = ProcessDir::inside(&parent).unwrap_err();
        assert!(error.to_string().contains("belongs to another user"), "{error}");
    }
}
