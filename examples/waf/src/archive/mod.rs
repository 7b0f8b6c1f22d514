//! The archive: every version that served, and the list by which the node starts again on the last good one.
//!
//! Modules and rule files lie under their digests and never change. The list is one small object, replaced as a whole
//! when a version has begun to serve: whenever the node is killed, it starts again on the old version or on the new
//! one. What cannot be read or has another digest than its name is left out.

mod list;
mod s3;

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::TryStreamExt;
use hotslot::{BoxError, Digest};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::list::{Entry, List};
use crate::config::Config;
use crate::release::{Module, Release};
use crate::rule_file::RuleFile;

/// The archive of a module.
pub struct Archive {
    /// Whose it is, if that is to be remembered.
    module: Option<String>,
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    /// Held for a look or a note.
    list: Mutex<List>,
    /// Held over the store's work, by whoever changes the list.
    writing: Mutex<()>,
    /// What is known to lie in the store, whole.
    kept: Mutex<BTreeSet<String>>,
}

impl Archive {
    /// Opens the archive that `config` names. Its methods must not be called on a worker of the runtime.
    pub fn open(config: &Config, runtime: Handle) -> Result<Archive, BoxError> {
        let store: Arc<dyn ObjectStore> = match &config.archive.s3 {
            Some(s3) => Arc::new(PrefixStore::new(s3::open(s3.get_ref())?, s3.get_ref().prefix.as_str())),
            None => Arc::new(folder(&config.archive_folder())?),
        };
        Archive::read(None, store, runtime)
    }

    fn read(module: Option<String>, store: Arc<dyn ObjectStore>, runtime: Handle) -> Result<Archive, BoxError> {
        let (list, writing, kept) = (Mutex::default(), Mutex::default(), Mutex::default());
        let mut archive = Archive { module, store, runtime, list, writing, kept };
        let list = archive.read_list()?;
        *archive.list.get_mut() = list;
        Ok(archive)
    }

    /// Opens the archive of a module: this one, if it has that, or one below it. Whose this one is can be remembered in it.
    pub fn of_module(&self, name: &str, has_root: bool, is_remembered: bool) -> Result<Archive, BoxError> {
        let store = match has_root {
            true => Arc::clone(&self.store),
            false => Arc::new(PrefixStore::new(Arc::clone(&self.store), format!("named/{name}"))),
        };
        Archive::read(is_remembered.then(|| name.to_owned()), store, self.runtime.clone())
    }

    /// Returns whose archive it is, as far as that can be told.
    pub fn owner(&self) -> Owner {
        if let Some(name) = self.list.lock().module.clone() {
            return Owner::Named(name);
        }
        let manifest =
            self.releases().next().and_then(|release| hotslot::inspect(release.module.bytes()).ok()?.manifest);
        manifest.map_or(Owner::Nobody, |manifest| Owner::Likely(manifest.name))
    }

    fn read_list(&self) -> Result<List, BoxError> {
        match self.get(&list_path()) {
            Ok(bytes) => Ok(List::read(&bytes).unwrap_or_else(|error| {
                tracing::error!(%error, "the archive's list cannot be read: starting without it");
                List::default()
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(List::default()),
            Err(error) => Err(format!("the archive cannot be read: {error}").into()),
        }
    }

    /// The versions to start on, the best one first. Those that are not whole are left out.
    pub fn releases(&self) -> impl Iterator<Item = Release> {
        let entries = self.list.lock().releases.clone();
        entries.into_iter().filter_map(|entry| {
            let release = self.release(&entry.module, &entry.rules);
            release.inspect_err(|error| tracing::error!(module = entry.module, %error, "skipped in the archive")).ok()
        })
    }

    /// Returns the release of these digests, if it is there and whole.
    pub fn release(&self, module: &str, rules: &str) -> Result<Release, BoxError> {
        let module = self.genuine(&module_path(module), module)?;
        let rules = self.genuine(&rules_path(rules), rules)?;
        Ok(Release::new(module, rules.to_vec()))
    }

    /// Returns the rule file with which a module last served.
    pub fn rules_of(&self, module: &str) -> Result<RuleFile, BoxError> {
        let entry = self.list.lock().releases.iter().find(|entry| entry.module == module).cloned();
        let entry = entry.ok_or("the archive does not say with which rules this module served")?;
        self.rules(&entry.rules)
    }

    /// Returns the module with this digest, if it is there and whole.
    pub fn module(&self, digest: &str) -> Result<Module, BoxError> {
        let bytes = check_digest(digest).and_then(|()| self.genuine(&module_path(digest), digest));
        bytes.map(Module::new).map_err(|error| format!("the archive does not have this version: {error}").into())
    }

    /// Returns the rule file with this digest, if it is there and whole.
    pub fn rules(&self, digest: &str) -> Result<RuleFile, BoxError> {
        let bytes = check_digest(digest).and_then(|()| self.genuine(&rules_path(digest), digest));
        let rules = bytes.map(|bytes| RuleFile::new(bytes.to_vec()));
        rules.map_err(|error| format!("the archive does not have these rules: {error}").into())
    }

    /// Returns the digest of the module that the one that serves took the place of, also of one that is not loaded any more.
    pub fn previous_module(&self) -> Option<String> {
        self.list.lock().modules.get(1).cloned()
    }

    /// Returns the digest of the rule file that the one that serves took the place of.
    pub fn previous_rules(&self) -> Option<String> {
        self.list.lock().rules.get(1).cloned()
    }

    /// Returns the modules and the rule files that are there, the latest one of each first.
    pub fn contents(&self) -> Result<Contents, BoxError> {
        let of = |folder: &str| -> Result<Vec<Archived>, BoxError> {
            let listed = self.store.list(Some(&Path::from(folder)));
            let mut objects: Vec<_> = self.runtime.block_on(listed.try_collect())?;
            objects.sort_by_key(|object| std::cmp::Reverse(object.last_modified));
            Ok(objects.into_iter().filter_map(Archived::of).collect())
        };
        Ok(Contents { modules: of("modules")?, rules: of("rules")? })
    }

    /// Whether the module file was like this when it was last read.
    pub fn has_seen_module_file(&self, digest: Digest) -> bool {
        self.list.lock().module_file == Some(digest.to_string())
    }

    /// Whether the rule file was like this when it was last read or written.
    pub fn has_seen_rule_file(&self, digest: Digest) -> bool {
        self.list.lock().rule_file == Some(digest.to_string())
    }

    /// Keeps a version that is about to serve.
    pub fn keep(&self, release: &Release) -> Result<(), BoxError> {
        let entry = Entry::of(release);
        self.keep_object(module_path(&entry.module), &entry.module, release.module.bytes().clone())?;
        self.keep_object(rules_path(&entry.rules), &entry.rules, Bytes::copy_from_slice(release.rules.bytes()))
    }

    fn keep_object(&self, path: Path, digest: &str, bytes: Bytes) -> Result<(), BoxError> {
        if self.kept.lock().contains(digest) || self.genuine(&path, digest).is_ok() {
            self.kept.lock().insert(digest.to_owned());
            return Ok(());
        }
        self.runtime
            .block_on(self.store.put(&path, bytes.into()))
            .map_err(|error| format!("the archive cannot keep this version: {error}"))?;
        self.kept.lock().insert(digest.to_owned());
        Ok(())
    }

    /// Puts a version that serves at the head of the list.
    pub fn serves(&self, release: &Release) -> Result<(), BoxError> {
        let entry = Entry::of(release);
        self.change(|list| list.serves(entry))
    }

    /// Puts the version that the node starts on at the head of the list. What was better and could not be loaded is no way back.
    pub fn starts_on(&self, release: &Release) -> Result<(), BoxError> {
        let entry = Entry::of(release);
        self.change(|list| list.starts_on(entry))
    }

    /// Takes out a version that turned out to be bad, and puts the one that serves instead at the head.
    pub fn rolled_back(&self, bad: &Release, good: &Release) -> Result<(), BoxError> {
        let (bad, good) = (Entry::of(bad), Entry::of(good));
        self.change(|list| list.rolled_back(&bad, good))
    }

    /// Remembers the module file as it was read.
    pub fn saw_module_file(&self, digest: Digest) -> Result<(), BoxError> {
        self.change(|list| list.module_file = Some(digest.to_string()))
    }

    /// Remembers the rule file as it was read or written.
    pub fn saw_rule_file(&self, digest: Digest) -> Result<(), BoxError> {
        self.change(|list| list.rule_file = Some(digest.to_string()))
    }

    fn change(&self, change: impl FnOnce(&mut List)) -> Result<(), BoxError> {
        let _writing = self.writing.lock();
        let list = self.list.lock().clone();
        let mut changed = list.clone();
        change(&mut changed);
        changed.module.clone_from(&self.module);
        if changed == list {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(&changed)?;
        self.runtime
            .block_on(self.store.put(&list_path(), bytes.into()))
            .map_err(|error| format!("the archive's list cannot be written: {error}"))?;
        *self.list.lock() = changed;
        Ok(())
    }

    /// An object with the digest that its name promises.
    fn genuine(&self, path: &Path, digest: &str) -> Result<Bytes, BoxError> {
        let bytes = self.get(path)?;
        if Digest::of(&bytes).to_string() == digest {
            Ok(bytes)
        } else {
            Err(format!("{path} is corrupt: its digest is another").into())
        }
    }

    fn get(&self, path: &Path) -> object_store::Result<Bytes> {
        self.runtime.block_on(async { self.store.get(path).await?.bytes().await })
    }
}

/// Whose archive it is.
pub enum Owner {
    /// It says so.
    Named(String),
    /// What lies in it is called so.
    Likely(String),
    Nobody,
}

/// What the archive has.
pub struct Contents {
    pub modules: Vec<Archived>,
    pub rules: Vec<Archived>,
}

/// A module or a rule file in the archive.
pub struct Archived {
    pub digest: String,
    pub size: u64,
    pub at: SystemTime,
}

impl Archived {
    fn of(object: object_store::ObjectMeta) -> Option<Archived> {
        let digest = object.location.filename()?.split('.').next()?.to_owned();
        check_digest(&digest).ok()?;
        Some(Archived { digest, size: object.size, at: object.last_modified.into() })
    }
}

/// A digest becomes a part of a path.
fn check_digest(digest: &str) -> Result<(), BoxError> {
    if digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err("a digest has 64 hexadecimal digits, in lower case".into())
    }
}

fn folder(path: &FilePath) -> Result<LocalFileSystem, BoxError> {
    std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(LocalFileSystem::new_with_prefix(path)?.with_fsync(true))
}

fn list_path() -> Path {
    Path::from("serving.json")
}

fn module_path(digest: &str) -> Path {
    Path::from(format!("modules/{digest}.wasm"))
}

fn rules_path(digest: &str) -> Path {
    Path::from(format!("rules/{digest}.json"))
}
