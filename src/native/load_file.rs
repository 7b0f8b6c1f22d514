//! Where the loader takes the bytes from: a file that nobody else can change, under a name that was never used before.
//!
//! That is a file in a folder of this process, which stays for as long as the library is mapped: those who look from outside
//! (debuggers, profilers, crash reporters), and backtraces from inside, open it by its name. Where no folder can be had, Linux
//! loads from a sealed memfd instead. The loader finds a library that it has already by the *string* of its path before
//! it looks at the file, so every path carries a serial number that no other load in this process has; and two loads of
//! the same bytes are two files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};

use super::copies::{MemorySpent, Share};
use super::process_dir::{self, ProcessDir};
use crate::private_dir::{PrivateDir, random};
use crate::process_id::ProcessId;
use crate::{Artifact, Digest, Footprint};

/// Settings of where libraries are loaded from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// A folder of this process where the system has temporary files, and memory if there can be none.
    #[default]
    Anywhere,
    /// A folder of this process inside this one.
    Inside(PathBuf),
    /// This folder, which is private already, and memory if it is full.
    Exactly(PathBuf),
    /// Memory.
    Memory,
}

/// Set in a child of a rehearsal: the host cleans up there.
static CONFINED_TO: OnceLock<Place> = OnceLock::new();

/// Has all libraries of this process loaded from `place`, whatever their backends say.
pub(super) fn confine_to(place: Place) {
    let _ = CONFINED_TO.set(place);
}

/// Returns the folders that are tried by default, those on disk first: what lies in the others takes memory, too.
fn default_folders() -> Vec<PathBuf> {
    let mut folders = vec![std::env::temp_dir()];
    if cfg!(unix) {
        folders.push("/var/tmp".into());
        let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        folders.extend(of_user.filter(|folder| folder.is_absolute()));
    }
    folders.sort_by_key(|folder| process_dir::is_in_memory(folder));
    folders
}

/// What a library is, for people who read its name in a memory map.
pub(super) struct Label<'a> {
    pub(super) slot: &'a str,
    pub(super) generation: u64,
    pub(super) digest: Digest,
}

impl<'a> Label<'a> {
    /// Labels an artifact that becomes this generation of a slot.
    pub(super) fn new(slot: &'a str, generation: u64, artifact: &Artifact) -> Label<'a> {
        Label { slot, generation, digest: artifact.digest() }
    }

    /// Returns a name that no other load in this process has, with a suffix that every loader takes, in characters that
    /// every file system takes.
    fn file_name(&self, serial: u64) -> String {
        let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
        let slot: String = self.slot.chars().take(64).map(plain).collect();
        let digest: String = self.digest.to_string().chars().take(12).collect();
        let (generation, suffix) = (self.generation, std::env::consts::DLL_SUFFIX);
        format!("hotslot-{serial:x}-{digest}-{slot}-{generation}{suffix}")
    }
}

/// The bytes of one library, where the loader can open them; gone when this is dropped. Whoever cannot prove that the library
/// is unmapped has to forget it.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// The last part of what the process's memory map shows.
    name: String,
    share: Share,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    File(OwnFile),
    /// Open, so that its path leads to it.
    #[cfg(target_os = "linux")]
    Memory(#[expect(dead_code, reason = "it is only kept open")] fs::File),
}

/// A file that is removed by the process that made it, and not by one that was forked from that.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    process: ProcessId,
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.process.is_current() {
            // Windows keeps the file of a library that is still mapped; there is nobody to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Why there is no place to load a library from.
#[derive(Debug)]
pub(super) enum SourceError {
    /// The folder is full.
    NoSpace { folder: PathBuf, needed: u64 },
    /// No folder can be had, or only one in memory, and the budget for that is spent.
    MemorySpent { spent: MemorySpent, folders: String },
    /// Anything else.
    Unusable(String),
}

impl Source {
    /// Puts `bytes` where only this process and its loader read them. In memory, all libraries of this process may take
    /// `memory` bytes together.
    pub(super) fn new(bytes: &[u8], label: &Label<'_>, place: &Place, memory: u64) -> Result<Source, SourceError> {
        let serial = next_serial();
        let name = label.file_name(serial);
        let place = CONFINED_TO.get().unwrap_or(place);
        match place {
            Place::Inside(parent) => {
                let dir = ProcessDir::inside(parent).map_err(|error| in_folder(parent, bytes, &error))?;
                Source::in_process_dir(&dir, name, bytes, memory)
            }
            Place::Exactly(folder) => {
                let share = Share::on_disk(&name, bytes.len());
                match Source::in_folder(folder, name.clone(), bytes, share) {
                    Err(SourceError::NoSpace { .. }) => Source::in_memory(name, bytes, serial, memory, String::new),
                    other => other,
                }
            }
            Place::Memory => Source::in_memory(name, bytes, serial, memory, String::new),
            Place::Anywhere => {
                let mut tried = Vec::new();
                for parent in default_folders() {
                    let made = ProcessDir::inside(&parent).map_err(|error| in_folder(&parent, bytes, &error));
                    match made.and_then(|dir| Source::in_process_dir(&dir, name.clone(), bytes, memory)) {
                        Ok(source) => return Ok(source),
                        Err(error) => tried.push(error.to_string()),
                    }
                }
                let tried = || tried.join("; ");
                let source = Source::in_memory(name, bytes, serial, memory, tried)?;
                static TOLD: AtomicBool = AtomicBool::new(false);
                // Not in a `Once`: a subscriber that panics or hangs there would be every later load's.
                if !TOLD.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        reason = tried(),
                        "libraries are loaded from memory, which counts as shared memory, and which perf cannot read: give \
                         the backend a private_folder on a file system that is not mounted noexec"
                    );
                }
                Ok(source)
            }
        }
    }

    fn in_process_dir(dir: &ProcessDir, name: String, bytes: &[u8], memory: u64) -> Result<Source, SourceError> {
        let share = if dir.in_memory() {
            let spent = |spent| SourceError::MemorySpent { spent, folders: folder_in_memory(dir.path()) };
            Share::in_memory(&name, bytes.len(), memory).map_err(spent)?
        } else {
            Share::on_disk(&name, bytes.len())
        };
        Source::in_folder(dir.path(), name, bytes, share)
    }

    fn in_folder(folder: &Path, name: String, bytes: &[u8], share: Share) -> Result<Source, SourceError> {
        let path = folder.join(&name);
        process_dir::write_file(&path, bytes).map_err(|error| in_folder(folder, bytes, &error))?;
        let backing = Backing::File(OwnFile { path: path.clone(), process: ProcessId::current() });
        Ok(Source { path, name, share, backing })
    }

    /// `tried` says why it is not a folder.
    #[cfg(target_os = "linux")]
    fn in_memory(
        name: String,
        bytes: &[u8],
        serial: u64,
        limit: u64,
        tried: impl Fn() -> String,
    ) -> Result<Source, SourceError> {
        let spent = |spent| SourceError::MemorySpent { spent, folders: tried() };
        let share = Share::in_memory(&name, bytes.len(), limit).map_err(spent)?;
        let (file, path) = super::memfd::loadable(&name, bytes, serial).map_err(|error| {
            let separator = if tried().is_empty() { "" } else { "; " };
            SourceError::Unusable(format!("{}{separator}from memory: {error}", tried()))
        })?;
        Ok(Source { path, name, share, backing: Backing::Memory(file) })
    }

    #[cfg(not(target_os = "linux"))]
    fn in_memory(_: String, _: &[u8], _: u64, _: u64, tried: impl Fn() -> String) -> Result<Source, SourceError> {
        Err(SourceError::Unusable(tried()))
    }

    /// Returns what to hand to the loader.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the mapping in the process's memory map.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns what it takes.
    pub(super) fn footprint(&self) -> Footprint {
        self.share.footprint()
    }

    /// Makes a folder beside it, for the copies of a child process; `None` if those have to be in memory, as this one is, or
    /// because there is no room.
    pub(super) fn folder_for_child(&self) -> Option<PrivateDir> {
        match &self.backing {
            Backing::File(OwnFile { path, .. }) => PrivateDir::temporary(path.parent()?).ok(),
            #[cfg(target_os = "linux")]
            Backing::Memory(_) => None,
        }
    }
}

fn folder_in_memory(folder: &Path) -> String {
    format!("{} is a folder in memory", folder.display())
}

fn in_folder(folder: &Path, bytes: &[u8], error: &io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SourceError::NoSpace { folder: folder.to_owned(), needed: bytes.len() as u64 }
        }
        _ => SourceError::Unusable(error.to_string()),
    }
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SourceError::NoSpace { folder, needed } => write!(f, "{} has no room for {needed} bytes", folder.display()),
            SourceError::MemorySpent { folders, .. } => f.write_str(folders),
            SourceError::Unusable(reason) => f.write_str(reason),
        }
    }
}

/// Returns a number that no other load in this process has.
fn next_serial() -> u64 {
    // Another copy of this library in the process counts too; it starts elsewhere.
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(random() >> 32));
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_has_a_name_that_people_recognise_and_is_gone_with_its_source() {
        let parent = PrivateDir::temporary(&std::env::temp_dir()).unwrap();
        let label = Label { slot: "a label/../with\0traps", generation: 3, digest: Digest::of(b"image") };
        let place = Place::Inside(parent.path().to_owned());
        let source = Source::new(b"image", &label, &place, u64::MAX).unwrap();
        let path = source.path().to_owned();
        assert_eq!(path.ancestors().nth(2), Some(&*fs::canonicalize(parent.path()).unwrap()));
        assert_eq!(fs::read(&path).unwrap(), b"image");
        let digest = &label.digest.to_string()[..12];
        let expected = format!("-{digest}-a-label----with-traps-3{}", std::env::consts::DLL_SUFFIX);
        assert!(source.name().ends_with(&expected) && path.ends_with(source.name()), "{path:?}");
        drop(source);
        assert!(!path.exists() && path.parent().unwrap().exists());
    }
}
