//! A private folder with compiled modules: a known module loads without a compiler, also after a restart.
//!
//! Machine code runs with the rights of the process, so an entry counts only with a keyed MAC over itself and over what
//! it is for; the key lies beside it, for its owner to read. Someone who can read the key is that owner already. What
//! does not check out (cut short, flipped, renamed, brought from elsewhere) is removed and compiled again, and a disk
//! that is full only costs the next process a compilation.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use wasmtime::{Engine, Module};

use super::engine::compatibility;
use super::error::EngineError;
use crate::{Digest, private_dir};

const MAC: usize = blake3::OUT_LEN;
/// What entries are called, and those that are being written.
const ENTRY: &str = "module";
const BEGUN: &str = "new";
/// When nobody is writing it any more.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// The folder, and the key to it.
pub(super) struct Folder {
    path: PathBuf,
    key: [u8; blake3::KEY_LEN],
    /// What the entries of this engine have in common.
    compatibility: u64,
    /// How many bytes of entries are kept.
    limit: u64,
    skipped: AtomicU64,
}

impl Folder {
    /// Opens the folder, and makes it if it is not there.
    pub(super) fn open(path: &Path, engine: &Engine, limit: u64) -> Result<Folder, EngineError> {
        let refuse = |reason: String| EngineError::Folder { path: path.to_owned(), reason };
        private_dir::open_dir(path).map_err(|error| refuse(error.to_string()))?;
        let key = key(path).map_err(|error| refuse(error.to_string()))?;
        Ok(Folder {
            path: path.to_owned(),
            key,
            compatibility: compatibility(engine),
            limit,
            skipped: AtomicU64::new(0),
        })
    }

    /// How many entries were skipped because they did not check out.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// The compiled module, if it is there and is what this engine has written.
    pub(super) fn find(&self, engine: &Engine, digest: Digest) -> Option<Module> {
        let path = self.entry(digest);
        let bytes = fs::read(&path).ok()?;
        match self.verified(engine, digest, &bytes) {
            Ok(module) => {
                // Entries go in the order of their last use. If this one cannot be marked, it goes earlier.
                let _ = File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(module)
            }
            Err(reason) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(path = %path.display(), "a compiled module was skipped: {reason}");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    fn verified(&self, engine: &Engine, digest: Digest, bytes: &[u8]) -> Result<Module, String> {
        let Some((mac, code)) = bytes.split_first_chunk::<MAC>() else {
            return Err("it is cut short".to_owned());
        };
        // Compared in constant time, by `blake3::Hash`.
        if self.mac(digest, code) != *mac {
            return Err("it is not what was written".to_owned());
        }
        // SAFETY: the MAC says that whoever held the key wrote exactly these bytes for this digest and this engine. The
        // key is in a folder and a file that only the user of this process can read, and `keep`, the only one who uses
        // it, writes nothing but what `Module::serialize` gave. The bytes were read once, and are these.
        unsafe { Module::deserialize(engine, code) }.map_err(|error| format!("{error:#}"))
    }

    /// Writes a compiled module for later. If that fails, it will be compiled again.
    pub(super) fn keep(&self, digest: Digest, module: &Module) {
        let write = || -> Result<(), String> {
            let code = module.serialize().map_err(|error| format!("{error:#}"))?;
            let mac = self.mac(digest, &code);
            if code.len() as u64 > self.limit {
                return Err(format!("its {} bytes are more than the folder may have", code.len()));
            }
            let write = write_new(&self.path, &[mac.as_bytes(), &code], |file| fs::rename(file, self.entry(digest)));
            write.map_err(|error| error.to_string())?;
            self.prune().map_err(|error| error.to_string())
        };
        if let Err(reason) = write() {
            let path = self.path.display();
            tracing::warn!(%path, %digest, "a compiled module could not be kept: {reason}");
        }
    }

    fn entry(&self, digest: Digest) -> PathBuf {
        self.path.join(format!("{digest}-{:016x}.{ENTRY}", self.compatibility))
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(digest.as_bytes()).update(&self.compatibility.to_le_bytes()).update(code);
        mac.finalize()
    }

    /// Removes the entries that were not used for the longest time, until the rest is within the limit; and what a
    /// process that was killed had only begun.
    fn prune(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let used = metadata.modified()?;
            if path.extension().is_some_and(|extension| extension == ENTRY) {
                entries.push((used, metadata.len(), path));
            } else if path.extension().is_some_and(|extension| extension == BEGUN)
                && used.elapsed().is_ok_and(|age| age > ABANDONED)
            {
                fs::remove_file(path)?;
            }
        }
        entries.sort();
        let mut size: u64 = entries.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in entries {
            if size <= self.limit {
                break;
            }
            fs::remove_file(path)?;
            size -= len;
        }
        Ok(())
    }
}

/// Writes a new private file and hands it to `publish`, which moves or links it to where it belongs; so nobody ever
/// finds half of it there.
fn write_new(folder: &Path, parts: &[&[u8]], publish: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{}-{}.{BEGUN}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = folder.join(name);
    let written =
        private_dir::create_file(&path).and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part)));
    let published = written.and_then(|()| publish(&path));
    // Gone if it was moved.
    let _ = fs::remove_file(&path);
    published
}

/// The folder's key; a new one if there is none, or none that can be one.
fn key(folder: &Path) -> io::Result<[u8; blake3::KEY_LEN]> {
    let path = folder.join("key");
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let mut key = [0; blake3::KEY_LEN];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    write_new(folder, &[&key], |new| match fs::hard_link(new, &path) {
        // Another process was first: its key is as good. What is there and is no key is replaced.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && read_key(&path)?.is_some() => Ok(()),
        Err(_) => fs::rename(new, &path),
        Ok(()) => Ok(()),
    })?;
    read_key(&path)?.ok_or_else(|| io::Error::other("its key cannot be read back"))
}

fn read_key(path: &Path) -> io::Result<Option<[u8; blake3::KEY_LEN]>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    private_dir::require_private(&file.metadata()?, "the key in it")?;
    let mut bytes = Vec::new();
    file.take(blake3::KEY_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}
