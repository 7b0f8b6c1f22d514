//! What was accepted, so that nothing older is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Digest, KeyId, Role, Root, Subject, Verified};

/// Remembers, on disk, the highest counter of each key and slot that was accepted, and what was revoked.
///
/// The file is replaced as a whole, and is on disk before [`accept`](Self::accept) returns: swap after that. So a process
/// that is killed at any moment has either not accepted a manifest, or remembers it. What was accepted and has never served
/// may be tried again; once it serves for good, [`settle`](Self::settle) it: only then does it revoke anything.
///
/// One process at a time may have the file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    root: u64,
    entries: Entries,
}

/// By what is counted and key. A key that the root no longer has is dropped with its counter: so a stolen key cannot lock a
/// slot for good with one near the end of the numbers.
type Entries = BTreeMap<String, BTreeMap<KeyId, Entry>>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The highest counter that was accepted.
    highest: u64,
    /// The largest `min_counter` of what was settled.
    floor: u64,
    /// The manifest with the highest counter, while it is accepted and not settled: it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    /// The highest version of a root that was followed.
    root: u64,
    slots: Entries,
}

const FORMAT: u32 = 1;

/// Returns under which name a slot's plugins, or its rules, are counted: they have counters of their own.
fn counted(slot: &str, subject: Subject) -> String {
    match subject {
        Subject::Plugin => format!("plugin {slot}"),
        Subject::Rules => format!("rules {slot}"),
    }
}

/// How far a manifest has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Accepted,
    /// It has served, as the archive knows; whether it was settled, the ledger knows.
    Served,
    Settled,
}

/// What a manifest is accepted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve something new. Only what is newer than all before is accepted, or what serves already.
    Reload {
        /// The [id](Verified::id) of the manifest of what serves now.
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
    /// A newer root was followed before. The one given may name keys that were removed since.
    #[error("root {given} is older than root {followed}, which was followed before: give the newest")]
    OldRoot {
        /// The version of the root.
        given: u64,
        /// The version that was followed.
        followed: u64,
    },
    /// The ledger is in a format of a later version.
    #[error("{} is in format {format}, and this version reads format 1: update the host first", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
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
    /// Opens the ledger at `path`, and makes up for what it lacks from `archive`: the manifests of what the
    /// host has kept and has served, verified with `root`. Counters of keys that `root` no longer has are dropped.
    ///
    /// # Errors
    /// [`LedgerError::OldRoot`] if a newer root was followed before, [`LedgerError::Format`] for the ledger of a later version,
    /// [`LedgerError::Read`] if the file is there and cannot be read, and [`LedgerError::Write`] if the result cannot be
    /// written. A file with nonsense in it is replaced, see [`Recovery::Rebuilt`].
    pub fn open<'a>(
        path: impl Into<PathBuf>,
        root: &Root,
        archive: impl IntoIterator<Item = &'a Verified>,
    ) -> Result<(Self, Recovery), LedgerError> {
        let path = path.into();
        let (bytes, existed) = match fs::read(&path) {
            Ok(bytes) => (bytes, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
            Err(source) => return Err(LedgerError::Read { path, source }),
        };
        if let Ok(Format { format }) = serde_json::from_slice(&bytes)
            && format > FORMAT
        {
            return Err(LedgerError::Format { path, format });
        }
        let found = serde_json::from_slice::<Document>(&bytes).ok();
        let read = found.is_some();
        let (followed, entries) = found.map_or((0, Entries::new()), |document| (document.root, document.slots));
        if root.version() < followed {
            return Err(LedgerError::OldRoot { given: root.version(), followed });
        }
        let mut ledger = Self { path, root: root.version(), entries };
        let mut archived = false;
        for verified in archive {
            archived = true;
            ledger.entries = ledger.with(verified, if read { State::Served } else { State::Settled });
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
        let floor = self.floor(&manifest.slot, manifest.subject);
        if manifest.counter < floor {
            return Err(LedgerError::Revoked { counter: manifest.counter, floor });
        }
        let Purpose::Reload { serving } = purpose else { return Ok(()) };
        let entry =
            self.entries.get(&counted(&manifest.slot, manifest.subject)).and_then(|keys| keys.get(&manifest.key));
        let Some(entry) = entry.filter(|entry| manifest.counter <= entry.highest) else { return Ok(()) };
        let is_pending = manifest.counter == entry.highest && entry.pending == Some(verified.id);
        if is_pending || serving == Some(verified.id) {
            return Ok(());
        }
        Err(LedgerError::Replayed { counter: manifest.counter, highest: entry.highest, key: manifest.key.clone() })
    }

    /// Accepts a verified manifest, and remembers it on disk before it returns. Swap after that.
    ///
    /// # Errors
    /// [`LedgerError::Replayed`] and [`LedgerError::Revoked`] if it may not be used, and [`LedgerError::Write`] if it
    /// could not be remembered. Then it was not accepted.
    pub fn accept(&mut self, verified: &Verified, purpose: Purpose) -> Result<(), LedgerError> {
        self.check(verified, purpose)?;
        self.replace(self.with(verified, State::Accepted))
    }

    /// Remembers that what was accepted serves for good: it has passed its probation. From now on it revokes what it says,
    /// and is accepted no second time.
    ///
    /// # Errors
    /// [`LedgerError::Write`] if that could not be remembered.
    pub fn settle(&mut self, verified: &Verified) -> Result<(), LedgerError> {
        self.replace(self.with(verified, State::Settled))
    }

    fn replace(&mut self, entries: Entries) -> Result<(), LedgerError> {
        if entries != self.entries {
            self.write(&entries)?;
            self.entries = entries;
        }
        Ok(())
    }

    /// Follows a new root: drops what its missing keys have counted. What they have revoked stays revoked, as far as the
    /// remaining keys have counted.
    ///
    /// # Errors
    /// [`LedgerError::OldRoot`] if a newer one was followed before, and [`LedgerError::Write`] if it could not be remembered.
    pub fn follow(&mut self, root: &Root) -> Result<(), LedgerError> {
        if root.version() < self.root {
            return Err(LedgerError::OldRoot { given: root.version(), followed: self.root });
        }
        self.root = root.version();
        self.retain(root);
        self.write(&self.entries)
    }

    /// Returns the counter below which nothing is accepted for this slot.
    pub fn floor(&self, slot: &str, subject: Subject) -> u64 {
        let keys = self.entries.get(&counted(slot, subject)).into_iter().flat_map(BTreeMap::values);
        keys.map(|entry| entry.floor).max().unwrap_or(0)
    }

    fn with(&self, verified: &Verified, state: State) -> Entries {
        let mut entries = self.entries.clone();
        let manifest = &verified.manifest;
        let keys = entries.entry(counted(&manifest.slot, manifest.subject)).or_default();
        let is_new = keys.get(&manifest.key).is_none_or(|entry| manifest.counter > entry.highest);
        let entry = keys.entry(manifest.key.clone()).or_default();
        if is_new {
            entry.highest = manifest.counter;
            entry.pending = Some(verified.id).filter(|_| state == State::Accepted);
        } else if state != State::Accepted && entry.pending == Some(verified.id) {
            entry.pending = None;
        }
        if state == State::Settled {
            entry.floor = entry.floor.max(manifest.min_counter);
        }
        entries
    }

    fn retain(&mut self, root: &Root) {
        let known: Vec<KeyId> = root.keys(Role::Release).chain(root.keys(Role::Rules)).collect();
        for keys in self.entries.values_mut() {
            let gone =
                keys.iter().filter(|(key, _)| !known.contains(key)).map(|(_, entry)| entry.floor).max().unwrap_or(0);
            keys.retain(|key, _| known.contains(key));
            let counted = keys.values().map(|entry| entry.highest).max().unwrap_or(0);
            keys.values_mut().for_each(|entry| entry.floor = entry.floor.max(gone.min(counted)));
        }
        self.entries.retain(|_, keys| !keys.is_empty());
    }

    fn write(&self, entries: &Entries) -> Result<(), LedgerError> {
        let document = Document { format: FORMAT, root: self.root, slots: entries.clone() };
        let bytes = serde_json::to_vec_pretty(&document).expect("a ledger is JSON");
        replace(&self.path, &bytes).map_err(|source| LedgerError::Write { path: self.path.clone(), source })
    }
}

/// Reads the format alone.
#[derive(Deserialize)]
struct Format {
    format: u32,
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
