//! What was accepted, so that nothing older is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Digest, KeyId, Role, Root, Verified};

/// Remembers, on disk, the highest counter of each key and slot that was accepted, and what was revoked.
///
/// The file is replaced as a whole, and is on disk before [`accept`](Self::accept) returns: swap after that. So a process
/// that is killed at any moment has either not accepted a manifest, or remembers it.
///
/// One process at a time may have the file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    entries: Entries,
}

/// By slot and key. A key that the root no longer has is dropped with all that it counted: so a stolen key cannot lock a
/// slot for good with a counter near the end of the numbers.
type Entries = BTreeMap<String, BTreeMap<KeyId, Entry>>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The highest counter that was accepted.
    highest: u64,
    /// The largest `min_counter` that was accepted.
    floor: u64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    slots: Entries,
}

/// What a manifest is accepted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve something new. Only what is newer than all before is accepted, or what serves already.
    Reload {
        /// The digest of what serves now.
        serving: Option<Digest>,
    },
    /// To go back, or to start again with what served before. Whatever has not been revoked is accepted.
    Rollback,
}

/// Tells what was found when a ledger was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// There was none, and no archive: a first start.
    New,
    /// It was read.
    Read,
    /// It was missing or unreadable though the archive holds manifests, and was made from those. Manifests that were
    /// accepted and are no longer in the archive could be replayed: tell somebody.
    Rebuilt,
}

/// Why a manifest was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The same or a newer one was accepted before.
    #[error(
        "counter {counter} of key {key} is not above {highest}, which was accepted before: sign with a higher counter, or roll back"
    )]
    Replayed {
        /// The counter of the manifest.
        counter: u64,
        /// The highest that was accepted.
        highest: u64,
        /// Whose counter it is.
        key: KeyId,
    },
    /// A later manifest has revoked it.
    #[error("counter {counter} was revoked: nothing below {floor} is accepted any more")]
    Revoked {
        /// The counter of the manifest.
        counter: u64,
        /// What is revoked below.
        floor: u64,
    },
    /// The ledger could not be written; nothing was accepted.
    #[error("could not write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The ledger could not be read, and it is not that it is missing.
    #[error("could not read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Ledger {
    /// Opens the ledger at `path`, and makes up for what it lacks from `archive`: the manifests of what the host has
    /// kept, verified with `root`. Counters of keys that `root` no longer has are dropped.
    ///
    /// # Errors
    /// [`LedgerError::Read`] if the file is there and cannot be read, and [`LedgerError::Write`] if the result cannot be
    /// written. A file with nonsense in it is replaced, see [`Recovery::Rebuilt`].
    pub fn open<'a>(
        path: impl Into<PathBuf>,
        root: &Root,
        archive: impl IntoIterator<Item = &'a Verified>,
    ) -> Result<(Self, Recovery), LedgerError> {
        let path = path.into();
        let found = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Document>(&bytes).ok().filter(|document| document.format == 1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(LedgerError::Read { path, source }),
        };
        let existed = path.exists();
        let read = found.is_some();
        let mut ledger = Self { path, entries: found.map_or_else(Entries::new, |document| document.slots) };
        let mut archived = false;
        for verified in archive {
            archived = true;
            ledger.entries = ledger.with(verified);
        }
        ledger.retain(root);
        ledger.write(&ledger.entries)?;
        let recovery = match (read, archived || existed) {
            (true, _) => Recovery::Read,
            (false, true) => Recovery::Rebuilt,
            (false, false) => Recovery::New,
        };
        Ok((ledger, recovery))
    }

    /// Checks a verified manifest without accepting it: for an upload.
    ///
    /// # Errors
    /// [`LedgerError::Replayed`] and [`LedgerError::Revoked`] as for [`accept`](Self::accept).
    pub fn check(&self, verified: &Verified, purpose: Purpose) -> Result<(), LedgerError> {
        let manifest = &verified.manifest;
        let floor = self.floor(&manifest.slot);
        if manifest.counter < floor {
            return Err(LedgerError::Revoked { counter: manifest.counter, floor });
        }
        let Purpose::Reload { serving } = purpose else { return Ok(()) };
        let entry = self.entries.get(&manifest.slot).and_then(|keys| keys.get(&manifest.key));
        match entry {
            Some(entry) if manifest.counter <= entry.highest && serving != Some(manifest.digest) => {
                Err(LedgerError::Replayed {
                    counter: manifest.counter,
                    highest: entry.highest,
                    key: manifest.key.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Accepts a verified manifest, and remembers it on disk before it returns. Swap after that.
    ///
    /// # Errors
    /// [`LedgerError::Replayed`] and [`LedgerError::Revoked`] if it may not be used, and [`LedgerError::Write`] if it
    /// could not be remembered. Then it was not accepted.
    pub fn accept(&mut self, verified: &Verified, purpose: Purpose) -> Result<(), LedgerError> {
        self.check(verified, purpose)?;
        let entries = self.with(verified);
        if entries != self.entries {
            self.write(&entries)?;
            self.entries = entries;
        }
        Ok(())
    }

    /// Follows a new root: drops what its missing keys have counted.
    ///
    /// # Errors
    /// [`LedgerError::Write`] if that could not be remembered.
    pub fn follow(&mut self, root: &Root) -> Result<(), LedgerError> {
        self.retain(root);
        self.write(&self.entries)
    }

    /// Returns the counter below which nothing is accepted for this slot.
    pub fn floor(&self, slot: &str) -> u64 {
        let keys = self.entries.get(slot).into_iter().flat_map(BTreeMap::values);
        keys.map(|entry| entry.floor).max().unwrap_or(0)
    }

    fn with(&self, verified: &Verified) -> Entries {
        let mut entries = self.entries.clone();
        let manifest = &verified.manifest;
        let entry = entries.entry(manifest.slot.clone()).or_default().entry(manifest.key.clone()).or_default();
        entry.highest = entry.highest.max(manifest.counter);
        entry.floor = entry.floor.max(manifest.min_counter);
        entries
    }

    fn retain(&mut self, root: &Root) {
        let known: Vec<KeyId> = root.keys(Role::Release).chain(root.keys(Role::Rules)).collect();
        self.entries.values_mut().for_each(|keys| keys.retain(|key, _| known.contains(key)));
        self.entries.retain(|_, keys| !keys.is_empty());
    }

    fn write(&self, entries: &Entries) -> Result<(), LedgerError> {
        let document = Document { format: 1, slots: entries.clone() };
        let bytes = serde_json::to_vec_pretty(&document).expect("a ledger is JSON");
        replace(&self.path, &bytes).map_err(|source| LedgerError::Write { path: self.path.clone(), source })
    }
}

/// Replaces a file by one with these contents. Whoever reads it, after a crash too, sees the old one or the new one.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The name is on disk only once the folder is.
    File::open(folder)?.sync_all()
}
