//! Compiled modules in a private directory: a known module loads without a compiler, also after a restart. With them are
//! [packs of functions](super::function_packs), within the same limit.
//!
//! An entry counts only with its [MAC](super::seal). The key lies beside it, readable by its owner alone: whoever can read
//! the key is that owner already.
//! An entry that does not verify (cut short, changed, renamed, copied from elsewhere) is removed and compiled again, and
//! a full disk only costs the next process a compilation.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use wasmtime::Module;

use super::error::EngineError;
use super::seal::{CodeKey, random_key};
use crate::{Digest, private_dir};

/// The extension of entries.
const ENTRY: &str = "module";
/// The extension of [packs of functions](super::function_packs).
pub(super) const PACK: &str = "functions";
/// The extension of files that are still being written.
const PARTIAL: &str = "new";
/// The age from which on a partial file is nobody's.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// The directory, with its key.
pub(super) struct DiskCache {
    path: PathBuf,
    key: CodeKey,
    /// Bytes of all entries together.
    limit: u64,
    skipped: AtomicU64,
    /// Why the last entry could not be written.
    failed: Mutex<Option<io::ErrorKind>>,
    /// Why the last pack could not be written.
    failed_pack: Mutex<Option<io::ErrorKind>>,
}

impl DiskCache {
    /// Opens the directory, and creates it if it is missing. The inner error is the system's: nothing is wrong with the
    /// directory, but it cannot be used at the moment, and an engine can do without.
    pub(super) fn open(
        path: &Path,
        engine: &wasmtime::Engine,
        limit: u64,
    ) -> Result<Result<DiskCache, io::ErrorKind>, EngineError> {
        match private_dir::open_dir(path).and_then(|()| key(path)) {
            Ok(key) => Ok(Ok(DiskCache {
                path: path.to_owned(),
                key: CodeKey::new(key, engine),
                limit,
                skipped: AtomicU64::new(0),
                failed: Mutex::default(),
                failed_pack: Mutex::default(),
            })),
            // That it is not a directory, or not private, somebody has to look at.
            Err(error)
                if error.raw_os_error().is_none()
                    || matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) =>
            {
                Err(EngineError::CacheDir { path: path.to_owned(), reason: error.to_string() })
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, "compiled modules are not cached on disk: the directory cannot be used: {error}");
                Ok(Err(error.kind()))
            }
        }
    }

    /// Returns why the last entry or the last pack could not be written, if it could not.
    pub(super) fn failed(&self) -> Option<io::ErrorKind> {
        self.failed.lock().or(*self.failed_pack.lock())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many bytes all files may have.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn key(&self) -> &CodeKey {
        &self.key
    }

    /// Returns how many entries were skipped because they did not verify.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Returns the compiled module, if there is an entry and an engine like this one wrote it.
    pub(super) fn find(&self, engine: &wasmtime::Engine, digest: Digest) -> Option<Module> {
        let path = self.entry(digest);
        let bytes = fs::read(&path).ok()?;
        match self.key.open(engine, digest, &bytes) {
            Ok(module) => {
                self.mark_used(&path);
                Some(module)
            }
            Err(reason) => {
                self.skip(&path, &reason);
                None
            }
        }
    }

    /// Notes that a file was used: they are removed in the order of their last use. One that cannot be marked goes earlier.
    pub(super) fn mark_used(&self, path: &Path) {
        let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Removes a file that does not verify.
    pub(super) fn skip(&self, path: &Path, reason: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(path = %path.display(), "skipped an entry of the compile cache: {reason}");
        let _ = fs::remove_file(path);
    }

    /// Writes a compiled module for later. If that fails, it is compiled again then.
    pub(super) fn insert(&self, digest: Digest, code: io::Result<&[u8]>) {
        let write = || -> io::Result<()> {
            let code = code?;
            let mac = self.key.seal(digest, code);
            self.write(&[&mac, code], &self.entry(digest))?;
            self.prune()
        };
        self.note(&self.failed, write());
    }

    /// Writes functions for later. Returns whether it could.
    pub(super) fn write_functions(&self, path: &Path, parts: &[&[u8]]) -> bool {
        let written = self.write(parts, path);
        let could = written.is_ok();
        self.note(&self.failed_pack, written.and_then(|()| self.prune()));
        could
    }

    fn write(&self, parts: &[&[u8]], to: &Path) -> io::Result<()> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        if size as u64 > self.limit {
            let text = format!("its {size} bytes exceed the limit of the directory");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        write_new(&self.path, parts, |file| fs::rename(file, to))
    }

    /// Notes what became of the last one of its kind, and logs that it failed, once for both kinds.
    fn note(&self, failed: &Mutex<Option<io::ErrorKind>>, outcome: io::Result<()>) {
        let now = outcome.as_ref().err().map(io::Error::kind);
        let before = self.failed();
        *failed.lock() = now;
        if let Err(reason) = outcome {
            let path = self.path.display();
            match before == now {
                false => tracing::warn!(%path, "could not write to the compile cache: {reason}"),
                // It has been said.
                true => tracing::debug!(%path, "could not write to the compile cache: {reason}"),
            }
        }
    }

    fn entry(&self, digest: Digest) -> PathBuf {
        self.path.join(format!("{digest}-{:016x}.{ENTRY}", self.key.compatibility))
    }

    /// Removes the least recently used entries until the rest is within the limit, and partial files of processes that
    /// were killed. What cannot be removed does not keep the others.
    fn prune(&self) -> io::Result<()> {
        let has = |path: &Path, one_of: &[&str]| one_of.iter().any(|it| path.extension().is_some_and(|end| end == *it));
        let is_entry = |path: &Path| has(path, &[ENTRY, PACK]);
        let files = self.files()?;
        let mut size: u64 = files.iter().filter(|(_, _, path)| is_entry(path)).map(|(_, len, _)| len).sum();
        let mut outcome = Ok(());
        for (used, len, path) in files {
            let is_abandoned = has(&path, &[PARTIAL]) && used.elapsed().is_ok_and(|age| age > ABANDONED);
            let is_too_much = is_entry(&path) && size > self.limit;
            if is_abandoned || is_too_much {
                match remove(&path) {
                    Ok(()) if is_too_much => size -= len,
                    Ok(()) => {}
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        outcome
    }

    /// Returns when each file was used last, its size and its path: the least recently used first.
    pub(super) fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_file() {
                files.push((metadata.modified()?, metadata.len(), path));
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Writes a new private file and hands it to `publish`, which moves or links it to where it belongs, so that nobody
/// finds half of it there.
fn write_new(dir: &Path, parts: &[&[u8]], publish: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    // Not after the process: in containers, each of several can be number 1.
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(io::Error::other)?;
    let path = dir.join(format!("{:032x}.{PARTIAL}", u128::from_le_bytes(name)));
    // One that was there before is somebody else's, and stays.
    let mut file = private_dir::create_file(&path)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part));
    let published = written.and_then(|()| publish(&path));
    // Gone if it was moved.
    let _ = fs::remove_file(&path);
    published
}

/// Removes a file that another process may have removed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Reads the directory's key, or creates one if there is none or it is damaged.
fn key(dir: &Path) -> io::Result<[u8; blake3::KEY_LEN]> {
    let path = dir.join("key");
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let key = random_key()?;
    write_new(dir, &[&key], |new| match fs::hard_link(new, &path) {
        // Another process was first, and its key is as good. A damaged one is replaced.
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
