//! Where the loader takes the bytes from: a file that nobody else can change, under a name that was never used before.
//!
//! On Linux that is a sealed memfd, opened through `/proc/self/fd`. Where the system refuses that, and on the other
//! platforms, it is a file in a private folder. The loader finds a library that it has already by the *string* of its
//! path before it looks at the file, and descriptor numbers come back once they are closed; so every path carries a
//! serial number that no other load in this process has.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where libraries are loaded from.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// From memory, on systems where that can be done.
    pub(super) memory: bool,
    /// Otherwise, from a private folder inside this one.
    pub(super) folder: PathBuf,
}

impl Default for Place {
    fn default() -> Place {
        Place { memory: true, folder: std::env::temp_dir() }
    }
}

/// The bytes of one library, where the loader can open them.
pub(super) struct Source {
    path: PathBuf,
    /// The last part of what the process's memory map shows.
    name: String,
    /// An open memfd keeps its path alive: debuggers and backtraces read it.
    _file: File,
    folder: Option<PrivateFolder>,
}

impl Source {
    /// Puts `bytes` where only this process and its loader read them. `label` tells people what it is.
    pub(super) fn new(bytes: &[u8], label: &str, place: &Place) -> io::Result<Source> {
        let serial = next_serial();
        let name = file_name(serial, label);
        #[cfg(target_os = "linux")]
        if place.memory {
            match super::memfd::loadable(&name, bytes, serial) {
                Ok((file, path)) => return Ok(Source { path, name, _file: file, folder: None }),
                Err(error) => tracing::debug!(%error, "no memfd to load from, using a private file"),
            }
        }
        let folder = PrivateFolder::new(&place.folder)?;
        let (path, file) = folder.file(&name, bytes)?;
        // Windows does not load a file that is open for writing.
        drop(file);
        Ok(Source { _file: File::open(&path)?, path, name, folder: Some(folder) })
    }

    /// What to hand to the loader.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How the mapping can be recognised in the process's memory map.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Says that the loader has it mapped. Where a mapping needs no name, the file is removed now, so that nothing is
    /// left behind however the process ends.
    pub(super) fn loaded(&mut self) {
        if cfg!(all(unix, not(target_vendor = "apple"))) {
            self.folder = None;
        }
    }
}

/// A file for data that passes between this process and a child, gone when both have closed it.
pub(super) struct Scratch {
    pub(super) file: File,
    _folder: Option<PrivateFolder>,
}

impl Scratch {
    /// A file with these bytes, to be read from the start.
    pub(super) fn new(parts: &[&[u8]]) -> io::Result<Scratch> {
        use io::Seek;
        let name = file_name(next_serial(), "scratch");
        #[cfg(target_os = "linux")]
        let anonymous = super::memfd::create(&name).map(|file| Scratch { file, _folder: None });
        #[cfg(not(target_os = "linux"))]
        let anonymous = Err(io::Error::from(io::ErrorKind::Unsupported));
        let mut scratch = anonymous.or_else(|_: io::Error| {
            let folder = PrivateFolder::new(&std::env::temp_dir())?;
            let (_, file) = folder.file(&name, &[])?;
            Ok::<_, io::Error>(Scratch { file, _folder: Some(folder) })
        })?;
        for part in parts {
            scratch.file.write_all(part)?;
        }
        scratch.file.rewind()?;
        Ok(scratch)
    }
}

/// A folder that only this user can enter, removed with all that is in it.
pub(super) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    pub(super) fn new(parent: &Path) -> io::Result<PrivateFolder> {
        let path = parent.join(format!("hotslot-{:016x}", random()));
        let mut builder = fs::DirBuilder::new();
        // One that exists already is somebody else's.
        builder.recursive(false);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(|error| {
            let place = parent.display();
            io::Error::new(error.kind(), format!("cannot make a private folder in {place}: {error}"))
        })?;
        Ok(PrivateFolder(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a file that did not exist before.
    fn file(&self, name: &str, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
        let path = self.0.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        file.write_all(bytes)?;
        Ok((path, file))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Windows keeps the file of a library that is still mapped; there is nobody to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A number that no other load in this process has.
fn next_serial() -> u64 {
    // Another copy of this library in the process counts too; it starts elsewhere.
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(random() >> 32));
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A number that another process cannot guess: each `RandomState` has keys of its own, seeded by the system.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// `hotslot-<serial>-<label>` with a suffix that every loader takes, in characters that every file system takes.
fn file_name(serial: u64, label: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    let label: String = label.chars().take(64).map(plain).collect();
    format!("hotslot-{serial:x}-{label}{}", std::env::consts::DLL_SUFFIX)
}

/// A path to descriptor `fd` that is spelled differently for every `serial`: one step that goes nowhere for each bit,
/// "./" for a one and "/" for a zero.
#[cfg(any(target_os = "linux", test))]
pub(super) fn spelled(serial: u64, fd: i32) -> String {
    let bits = u64::BITS - serial.leading_zeros();
    let steps = (0..bits).rev().map(|bit| if serial >> bit & 1 == 1 { "./" } else { "/" });
    format!("/proc/self/fd/{}{fd}", steps.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::io::Read;

    #[test]
    fn no_two_loads_spell_a_descriptor_the_same_way() {
        let paths: HashSet<_> = (0..5000).flat_map(|serial| [spelled(serial, 7), spelled(serial, 77)]).collect();
        assert_eq!(paths.len(), 10_000);
        assert_eq!(spelled(6, 9), "/proc/self/fd/././/9");
    }

    #[test]
    fn a_private_folder_is_gone_with_its_source() {
        let place = Place { memory: false, ..Place::default() };
        let parent = place.folder.clone();
        let mut source = Source::new(b"image", "a label/../with\0traps", &place).unwrap();
        let path = source.path().to_owned();
        assert_eq!(path.parent().and_then(Path::parent), Some(&*parent));
        assert_eq!(fs::read(&path).unwrap(), b"image");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        }
        source.loaded();
        drop(source);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }

    #[test]
    fn scratch_bytes_are_read_from_the_start() {
        let mut scratch = Scratch::new(&[b"one ", b"two"]).unwrap();
        let mut text = String::new();
        scratch.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }
}
