//! Where the loader takes the bytes from: a file that nobody else can change, under a name that was never used before.
//!
//! On Linux that is a sealed memfd, opened through `/proc/self/fd`. Where the system refuses that, and on the other
//! platforms, it is a file in a private folder. The loader finds a library that it has already by the *string* of its
//! path before it looks at the file, and descriptor numbers come back once they are closed; so every path carries a
//! serial number that no other load in this process has.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::private_dir::{PrivateDir, random};

/// Settings of where libraries are loaded from.
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
    folder: Option<PrivateDir>,
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
        let folder = PrivateDir::temporary(&place.folder)?;
        let (path, file) = folder.create_file(&name, bytes)?;
        // Windows does not load a file that is open for writing.
        drop(file);
        Ok(Source { _file: File::open(&path)?, path, name, folder: Some(folder) })
    }

    /// Returns what to hand to the loader.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the mapping in the process's memory map.
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

/// Returns a number that no other load in this process has.
fn next_serial() -> u64 {
    // Another copy of this library in the process counts too; it starts elsewhere.
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(random() >> 32));
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `hotslot-<serial>-<label>` with a suffix that every loader takes, in characters that every file system takes.
fn file_name(serial: u64, label: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    let label: String = label.chars().take(64).map(plain).collect();
    format!("hotslot-{serial:x}-{label}{}", std::env::consts::DLL_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
}
