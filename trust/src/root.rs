//! Which keys count, and for what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::manifest::FORMAT;
use crate::time::Time;
use crate::{Digest, KeyId, Manifest, PublicKey, Signed, Subject};

/// No manifest, root or signature is larger.
const MAX_DOCUMENT: usize = 64 * 1024;
/// More signatures than this are not looked at.
const MAX_SIGNATURES: usize = 64;

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The next root.
    Root,
    /// Plugins, and all that goes with them.
    Release,
    /// Rules only: the role of a key that is on a server.
    Rules,
}

/// States which keys count and for what. Signed by itself: the next root by those of this one and of the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    format: u32,
    version: u64,
    expires: Time,
    keys: Vec<RootKey>,
    /// How many different keys must have signed; 1 for a role that is not named.
    #[serde(default)]
    thresholds: BTreeMap<Role, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootKey {
    public: PublicKey,
    roles: BTreeSet<Role>,
}

/// Why a root was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The document cannot be read.
    #[error("not a root: {0}")]
    Malformed(String),
    /// It is in a format of a later version.
    #[error("the root is in format {0}, and this version reads format 1: update the host first")]
    Format(u32),
    /// A role has fewer keys than signatures are asked for.
    #[error("{keys} keys have the role {role:?}, and {threshold} of them must sign: add keys or lower the threshold")]
    TooFewKeys {
        /// The role.
        role: Role,
        /// How many keys have it.
        keys: usize,
        /// How many must sign.
        threshold: usize,
    },
    /// It does not follow the root that is trusted.
    #[error("root {found} does not follow root {trusted}: give every root in between, in order")]
    NotNext {
        /// The version that is trusted.
        trusted: u64,
        /// The version of the document.
        found: u64,
    },
    /// It has expired.
    #[error("root {version} expired at {expires}: get a newer one from those who sign")]
    Expired {
        /// Its version.
        version: u64,
        /// When, in RFC 3339.
        expires: String,
    },
    /// Too few keys have signed it.
    #[error("{signed} of {threshold} keys of root {version} have signed: have more key holders sign")]
    TooFewSignatures {
        /// The root whose keys are asked for.
        version: u64,
        /// How many different keys have signed.
        signed: usize,
        /// How many must.
        threshold: usize,
    },
}

/// Why an artifact is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTrusted {
    /// The manifest cannot be read.
    #[error("not a manifest: {0}")]
    Malformed(String),
    /// It is in a format of a later version.
    #[error("the manifest is in format {0}, and this version reads format 1: update the host first")]
    Format(u32),
    /// The root has expired, so nothing is known of its keys.
    #[error("root {version} expired at {expires}: get a newer one from those who sign")]
    RootExpired {
        /// Its version.
        version: u64,
        /// When, in RFC 3339.
        expires: String,
    },
    /// Too few keys that may have signed it.
    #[error(
        "{signed} of {threshold} keys that may sign this have: have it signed by keys with the role {role:?} of root {root}"
    )]
    TooFewSignatures {
        /// The role that is asked for.
        role: Role,
        /// How many different keys have signed.
        signed: usize,
        /// How many must.
        threshold: usize,
        /// The version of the root.
        root: u64,
    },
    /// The key that the manifest names as the owner of its counter is not among those that signed.
    #[error("the manifest counts with the key {0}, which has not signed it: sign with that key, or name another")]
    ForeignCounter(KeyId),
    /// The manifest revokes itself.
    #[error("the manifest has counter {counter} and revokes everything below {min_counter}, itself included")]
    RevokesItself {
        /// Its counter.
        counter: u64,
        /// What it revokes below.
        min_counter: u64,
    },
    /// It describes something else: rules are no plugin, whoever has signed them.
    #[error("signed as {signed:?}, but {expected:?} was expected")]
    WrongSubject {
        /// What the manifest says that it is.
        signed: Subject,
        /// What it was given as.
        expected: Subject,
    },
    /// It is for another slot.
    #[error("signed for the slot {signed:?}, but this is {expected:?}")]
    WrongSlot {
        /// The slot of the manifest.
        signed: String,
        /// The slot that it was given for.
        expected: String,
    },
    /// It serves another interface.
    #[error("signed for the interface {signed:?}, but the slot has {expected:?}")]
    WrongInterface {
        /// The interface of the manifest.
        signed: Option<String>,
        /// The interface of the slot.
        expected: String,
    },
    /// The artifact is not the one that was signed.
    #[error(
        "the {part} has the digest {found}, and {signed} was signed: it was changed, or this is another one's manifest"
    )]
    WrongDigest {
        /// Which part of the release.
        part: &'static str,
        /// The digest that was signed.
        signed: Digest,
        /// The digest of what was given; the digest of nothing if nothing was.
        found: Digest,
    },
    /// It does not hold yet.
    #[error("signed for use from {not_before}: wait, or set the clock")]
    TooEarly {
        /// When it begins, in RFC 3339.
        not_before: String,
    },
    /// It holds no longer.
    #[error("the signature expired at {expires}: sign anew")]
    Expired {
        /// When, in RFC 3339.
        expires: String,
    },
}

/// A manifest that was verified, by whom it was signed, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub(crate) manifest: Manifest,
    pub(crate) id: Digest,
    pub(crate) signers: BTreeSet<KeyId>,
}

impl Verified {
    /// Returns what identifies the manifest: the digest of its bytes. Two manifests of the same artifact differ in it.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// Returns what the artifact is.
    pub fn subject(&self) -> Subject {
        self.manifest.subject
    }

    /// Returns the digest of the artifact.
    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }

    /// Returns the name of the slot.
    pub fn slot(&self) -> &str {
        &self.manifest.slot
    }

    /// Returns the counter.
    pub fn counter(&self) -> u64 {
        self.manifest.counter
    }

    /// Returns the version that it states, for people.
    pub fn version(&self) -> Option<&str> {
        self.manifest.version.as_deref()
    }

    /// Returns the keys that have signed it.
    pub fn signers(&self) -> impl Iterator<Item = &KeyId> {
        self.signers.iter()
    }

    /// Checks that this is the artifact that was signed.
    ///
    /// # Errors
    /// [`NotTrusted::WrongDigest`] if it is another.
    pub fn of_artifact(self, artifact: &[u8]) -> Result<Self, NotTrusted> {
        let (found, signed) = (Digest::of(artifact), self.manifest.digest);
        if found == signed && artifact.len() as u64 == self.manifest.size {
            return Ok(self);
        }
        let part = match self.manifest.subject {
            Subject::Plugin => "plugin",
            Subject::Rules => "rule file",
        };
        Err(NotTrusted::WrongDigest { part, signed, found })
    }

    /// Checks the interface of the slot.
    ///
    /// # Errors
    /// [`NotTrusted::WrongInterface`] if another was signed, or none.
    pub fn for_interface(self, expected: &str) -> Result<Self, NotTrusted> {
        if self.manifest.interface.as_deref() == Some(expected) {
            return Ok(self);
        }
        Err(NotTrusted::WrongInterface { signed: self.manifest.interface, expected: expected.to_owned() })
    }

    /// Checks what the plugin is to work with: rules and configuration that it was signed with must be these. One that was
    /// signed without them goes with any.
    ///
    /// # Errors
    /// [`NotTrusted::WrongDigest`] names the part that differs.
    pub fn with(self, rules: Option<&[u8]>, config: Option<&[u8]>) -> Result<Self, NotTrusted> {
        self.with_rules(rules)?.with_config(config)
    }

    /// Checks the rules alone: where the configuration is not known yet.
    ///
    /// # Errors
    /// [`NotTrusted::WrongDigest`] if it was signed with others.
    pub fn with_rules(self, rules: Option<&[u8]>) -> Result<Self, NotTrusted> {
        tied("rules", self.manifest.rules_digest, rules)?;
        Ok(self)
    }

    /// Checks the configuration alone.
    ///
    /// # Errors
    /// [`NotTrusted::WrongDigest`] if it was signed with another.
    pub fn with_config(self, config: Option<&[u8]>) -> Result<Self, NotTrusted> {
        tied("configuration", self.manifest.config_digest, config)?;
        Ok(self)
    }
}

/// Checks one part against what was signed, if anything was.
fn tied(part: &'static str, signed: Option<Digest>, given: Option<&[u8]>) -> Result<(), NotTrusted> {
    let found = Digest::of(given.unwrap_or_default());
    match signed.filter(|signed| *signed != found) {
        Some(signed) => Err(NotTrusted::WrongDigest { part, signed, found }),
        None => Ok(()),
    }
}

impl Root {
    /// Makes the first root, in which each of `keys` may sign everything, and one is enough.
    pub fn first(keys: &[PublicKey], expires: SystemTime) -> Self {
        let roles = BTreeSet::from([Role::Root, Role::Release, Role::Rules]);
        let keys = keys.iter().map(|public| RootKey { public: public.clone(), roles: roles.clone() }).collect();
        Self { format: FORMAT, version: 1, expires: Time(expires), keys, thresholds: BTreeMap::new() }
    }

    /// Makes the root that follows this one, with the same keys and thresholds; change those, and have it signed.
    pub fn successor(&self, expires: SystemTime) -> Self {
        Self { version: self.version + 1, expires: Time(expires), ..self.clone() }
    }

    /// Removes a key from all roles: what it has signed is refused from then on.
    pub fn without(mut self, key: &KeyId) -> Self {
        self.keys.retain(|it| it.public.id() != *key);
        self
    }

    /// Adds a key with the roles that it has.
    pub fn key(mut self, public: PublicKey, roles: impl IntoIterator<Item = Role>) -> Self {
        self.keys.push(RootKey { public, roles: roles.into_iter().collect() });
        self
    }

    /// Sets how many different keys of a role must sign.
    pub fn threshold(mut self, role: Role, keys: usize) -> Self {
        self.thresholds.insert(role, keys);
        self
    }

    /// Returns the version, which counts from 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns when it expires.
    pub fn expires(&self) -> SystemTime {
        self.expires.0
    }

    /// Returns every key with its roles.
    pub fn all_keys(&self) -> impl Iterator<Item = (&PublicKey, &BTreeSet<Role>)> {
        self.keys.iter().map(|key| (&key.public, &key.roles))
    }

    /// Returns how many different keys of a role must sign.
    pub fn threshold_of(&self, role: Role) -> usize {
        self.thresholds.get(&role).copied().unwrap_or(1)
    }

    /// Returns the names of the keys that have this role.
    pub fn keys(&self, role: Role) -> impl Iterator<Item = KeyId> {
        self.keys.iter().filter(move |key| key.roles.contains(&role)).map(|key| key.public.id())
    }

    /// Returns the document, to be signed or kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a root is JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a root that the host trusts already: from its own configuration, or as it kept it.
    ///
    /// # Errors
    /// [`RootError`] says what is wrong with the document. An expired root is read, so that it can be followed.
    pub fn trusted(bytes: &[u8]) -> Result<Self, RootError> {
        let format = format_of(bytes).map_err(RootError::Malformed)?;
        if format != FORMAT {
            return Err(RootError::Format(format));
        }
        let root: Self = serde_json::from_slice(bytes).map_err(|error| RootError::Malformed(error.to_string()))?;
        for role in [Role::Root, Role::Release, Role::Rules] {
            let (keys, threshold) = (root.keys(role).collect::<BTreeSet<_>>().len(), root.threshold_of(role));
            // Roles that nobody has are fine, but for the one that everything hangs on.
            if threshold == 0 || (keys < threshold && (role == Role::Root || keys > 0)) {
                return Err(RootError::TooFewKeys { role, keys, threshold });
            }
        }
        Ok(root)
    }

    /// Verifies the next root: signed by enough keys of this root and of its own.
    ///
    /// A host that was away follows the roots one by one; those in between may have expired meanwhile, the last may not
    /// (see [`check_expiry`](Self::check_expiry)).
    ///
    /// # Errors
    /// [`RootError`] says why it is not accepted.
    pub fn follow(&self, next: &[u8], signatures: &[String]) -> Result<Self, RootError> {
        let root = Self::trusted(next)?;
        if root.version != self.version.saturating_add(1) {
            return Err(RootError::NotNext { trusted: self.version, found: root.version });
        }
        for judge in [self, &root] {
            let (signed, threshold) =
                (judge.signers(Role::Root, next, signatures).len(), judge.threshold_of(Role::Root));
            if signed < threshold {
                return Err(RootError::TooFewSignatures { version: judge.version, signed, threshold });
            }
        }
        Ok(root)
    }

    /// Checks that the root has not expired at `now`.
    ///
    /// # Errors
    /// [`RootError::Expired`] if it has.
    pub fn check_expiry(&self, now: SystemTime) -> Result<(), RootError> {
        if now < self.expires.0 {
            return Ok(());
        }
        Err(RootError::Expired { version: self.version, expires: self.expires.to_string() })
    }

    /// Verifies a signed manifest, and that `artifact` is what it describes. What the caller takes it for decides which role
    /// must have signed. The [`Ledger`](crate::Ledger) says whether it
    /// may also be used now.
    ///
    /// # Errors
    /// [`NotTrusted`] says what is wrong. The signatures are checked before anything that the manifest says is believed.
    pub fn verify(
        &self,
        signed: &Signed,
        subject: Subject,
        slot: &str,
        artifact: &[u8],
        now: SystemTime,
    ) -> Result<Verified, NotTrusted> {
        self.verify_manifest(signed, subject, slot, now)?.of_artifact(artifact)
    }

    /// Verifies a signed manifest without the artifact: before it is fetched.
    ///
    /// # Errors
    /// [`NotTrusted`] says what is wrong.
    pub fn verify_manifest(
        &self,
        signed: &Signed,
        subject: Subject,
        slot: &str,
        now: SystemTime,
    ) -> Result<Verified, NotTrusted> {
        if let Err(RootError::Expired { version, expires }) = self.check_expiry(now) {
            return Err(NotTrusted::RootExpired { version, expires });
        }
        let verified = self.recall(signed, subject, slot)?;
        let manifest = &verified.manifest;
        if let Some(not_before) = manifest.not_before.filter(|time| now < time.0) {
            return Err(NotTrusted::TooEarly { not_before: not_before.to_string() });
        }
        if let Some(expires) = manifest.expires.filter(|time| now >= time.0) {
            return Err(NotTrusted::Expired { expires: expires.to_string() });
        }
        Ok(verified)
    }

    /// Verifies a manifest whatever the time is: one that was accepted when it held, so that a [`Ledger`](crate::Ledger) can
    /// count it, and look whether it was revoked since. Nothing is loaded on the strength of this alone.
    ///
    /// # Errors
    /// [`NotTrusted`] says what is wrong.
    pub fn recall(&self, signed: &Signed, subject: Subject, slot: &str) -> Result<Verified, NotTrusted> {
        let format = format_of(&signed.manifest).map_err(NotTrusted::Malformed)?;
        if format != FORMAT {
            return Err(NotTrusted::Format(format));
        }
        let manifest: Manifest =
            serde_json::from_slice(&signed.manifest).map_err(|error| NotTrusted::Malformed(error.to_string()))?;
        if manifest.subject != subject {
            return Err(NotTrusted::WrongSubject { signed: manifest.subject, expected: subject });
        }
        let role = match subject {
            Subject::Plugin => Role::Release,
            Subject::Rules => Role::Rules,
        };
        let signers = self.signers(role, &signed.manifest, &signed.signatures);
        let threshold = self.threshold_of(role);
        if signers.len() < threshold {
            return Err(NotTrusted::TooFewSignatures { role, signed: signers.len(), threshold, root: self.version });
        }
        if !signers.contains(&manifest.key) {
            return Err(NotTrusted::ForeignCounter(manifest.key));
        }
        if manifest.slot != slot {
            return Err(NotTrusted::WrongSlot { signed: manifest.slot, expected: slot.to_owned() });
        }
        if manifest.min_counter > manifest.counter {
            return Err(NotTrusted::RevokesItself { counter: manifest.counter, min_counter: manifest.min_counter });
        }
        Ok(Verified { manifest, id: Digest::of(&signed.manifest), signers })
    }

    /// Returns the different keys of this role that have signed `bytes`. A key counts once, however often it has signed
    /// and however often the root names it.
    fn signers(&self, role: Role, bytes: &[u8], signatures: &[String]) -> BTreeSet<KeyId> {
        let signatures = || signatures.iter().take(MAX_SIGNATURES).filter(|signature| signature.len() <= MAX_DOCUMENT);
        let keys = self.keys.iter().filter(|key| key.roles.contains(&role));
        let signed = keys.filter(|key| signatures().any(|signature| key.public.has_signed(bytes, signature)));
        signed.map(|key| key.public.id()).collect()
    }
}

/// Reads the format alone, so that a later one is told from nonsense.
fn format_of(bytes: &[u8]) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    if bytes.len() > MAX_DOCUMENT {
        return Err(format!("{} bytes, and {MAX_DOCUMENT} are allowed", bytes.len()));
    }
    serde_json::from_slice::<Format>(bytes).map(|document| document.format).map_err(|error| error.to_string())
}
