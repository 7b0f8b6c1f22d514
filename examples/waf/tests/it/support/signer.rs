//! Those who sign: keys, the root that names them, and manifests for what tests make.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotslot::host::Interface;
use hotslot_trust::sign::KeyPair;
use hotslot_trust::{Manifest, Role, Root, Signed};
use hyper::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use waf_interface::Waf;

use super::http::Answer;

pub const HOUR: Duration = Duration::from_secs(3600);

/// Keys, and a root in a file of its own.
pub struct Signer {
    folder: TempDir,
    pub keys: Vec<KeyPair>,
    pub root: Root,
}

impl Signer {
    /// So many keys, of which `threshold` have to sign a release.
    pub fn new(keys: usize, threshold: usize) -> Signer {
        let keys: Vec<KeyPair> = (0..keys).map(|_| KeyPair::generate().expect("a key")).collect();
        let public: Vec<_> = keys.iter().map(KeyPair::public).collect();
        let root = Root::first(&public, SystemTime::now() + 1000 * 24 * HOUR).threshold(Role::Release, threshold);
        let signer = Signer { folder: tempfile::tempdir().expect("a folder"), keys, root };
        signer.publish();
        signer
    }

    /// The file with the root.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("root.json")
    }

    fn publish(&self) {
        super::node::replace(&self.path(), &self.root.to_bytes());
    }

    /// Makes the next root, without the first key.
    pub fn remove_first(&mut self) {
        let gone = self.keys.remove(0).public().id();
        self.root = self.root.successor(SystemTime::now() + 1000 * 24 * HOUR).without(&gone);
        self.publish();
    }

    /// What the configuration of a node says.
    pub fn config(&self) -> String {
        format!("[waf.trust]\nroot = {:?}\n", self.path())
    }

    /// A manifest that the first key owns.
    pub fn manifest(&self, module: &[u8], counter: u64) -> Manifest {
        let manifest = Manifest::new("universal-waf", module, self.keys[0].public().id());
        manifest.interface(<dyn Waf as Interface>::ID).counter(counter)
    }

    /// Signs with so many of the keys.
    pub fn sign_with(&self, manifest: &Manifest, keys: usize) -> Signed {
        let bytes = manifest.to_bytes();
        let signatures = self.keys[..keys].iter().map(|key| key.sign(&bytes).expect("a signature")).collect();
        Signed { manifest: bytes, signatures }
    }

    /// Signs with all that are needed.
    pub fn sign(&self, module: &[u8], counter: u64) -> Signed {
        self.sign_with(&self.manifest(module, counter), self.root.threshold_of(Role::Release))
    }
}

/// Puts a manifest and its signatures where a node looks for those of a file.
pub fn put_beside(file: &Path, signed: &Signed) {
    let with = |extension: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    super::node::replace(&with(".manifest"), &signed.manifest);
    super::node::replace(&with(".manifest.minisig"), signed.signatures.concat().as_bytes());
}

/// The statuses of what is not signed as it has to be, and of what is too old.
pub const BAD: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
pub const OLD: StatusCode = StatusCode::CONFLICT;

/// Checks that something was refused, for this reason and with this status.
pub fn refused(answer: &Answer, status: StatusCode, reason: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!((body["stage"].as_str(), body["reason"].as_str()), (Some("trust"), Some(reason)), "{body}");
    body
}
