//! Proves who made a plugin, and that it is not an old one replayed.
//!
//! Next to an artifact lies a [`Manifest`]: what the artifact is, by digest, and which slot it is for. The manifest is
//! signed, detached, in the format of [minisign](https://jedisct1.github.io/minisign/) (prehashed, Ed25519), so the tool
//! that operators already have makes and checks the same files. Which keys count is said by a [`Root`], which the host is
//! given once and which replaces itself by signatures after that.
//!
//! A signature says who made something; it does not say that it is what should run *now*. So each manifest has a counter,
//! and a [`Ledger`] on disk remembers the highest that was accepted: what is older is refused, also after a restart. Going
//! back is possible without a key, to anything that is not below the floor that a later manifest has set.
//!
//! ```
//! use hotslot_trust::{Ledger, Manifest, Purpose, Root, Signed, Subject, sign::KeyPair};
//! use std::time::SystemTime;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Who publishes: a key pair, a root that names it, and a signed manifest for each artifact.
//! let key = KeyPair::generate()?;
//! let root = Root::first(&[key.public()], SystemTime::now() + std::time::Duration::from_secs(86_400));
//! let artifact = b"the bytes of a plugin";
//! let manifest = Manifest::new("rules", artifact, key.public().id()).counter(1).to_bytes();
//! let signed = Signed { signatures: vec![key.sign(&manifest)?], manifest };
//!
//! // Who hosts: verify, then ask the ledger, then reload.
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("ledger.json");
//! let verified = root.verify(&signed, Subject::Plugin, "rules", artifact, SystemTime::now())?;
//! let (mut ledger, _) = Ledger::open(&path, &root, [])?;
//! ledger.accept(&verified, Purpose::Reload { serving: None })?;
//! // … reload, wait for the end of the probation, and then:
//! ledger.settle(&verified)?;
//!
//! // The same once more is a replay.
//! assert!(ledger.accept(&verified, Purpose::Reload { serving: None }).is_err());
//! # Ok(()) }
//! ```
//!
//! # What is checked when
//! At upload, before an artifact is stored; when it is loaded; and at start on what the archive holds: a key may have been
//! removed in between. [`Root::verify`] is all of it but the ledger, and reads no file and no clock.

mod digest;
mod key;
mod ledger;
mod manifest;
mod root;
#[cfg(feature = "sign")]
pub mod sign;
mod time;

pub use digest::Digest;
pub use key::{BadKey, KeyId, PublicKey};
pub use ledger::{Ledger, LedgerError, Purpose, Recovery};
pub use manifest::{Manifest, Signed, Subject, split_signatures};
pub use root::{NotTrusted, Role, Root, RootError, Verified};
