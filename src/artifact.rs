//! The bytes of one plugin, with their digest and their manifest; and what a caller hands in to become one.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use semver::Version;

use crate::Manifest;
use crate::text::panic_text;

/// The BLAKE3 hash of some bytes, the one that `b3sum` prints: of a plugin's, or of its configuration's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        // A subscriber that panics is no reason not to have a digest.
        let told = catch_unwind(AssertUnwindSafe(|| tracing::trace!(bytes = bytes.len(), "bytes hashed")));
        let _ = told.map_err(panic_text);
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// Returns the 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first 12 hexadecimal digits: enough for a person to tell two plugins apart.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What makes two plugins the same: the digest of their bytes and, if they were given one, of their configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ArtifactId {
    /// Of the bytes.
    pub digest: Digest,
    /// Of the [configuration](Candidate::config), if the candidate came with one.
    pub config_digest: Option<Digest>,
}

/// The short digest, and that of the configuration after a `+`.
impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest.short())?;
        match &self.config_digest {
            Some(config) => write!(f, "+{}", config.short()),
            None => Ok(()),
        }
    }
}

/// Bytes that a caller wants to become the serving plugin.
///
/// Whatever can be a byte vector converts into it, so `slot.reload(bytes)` is the usual call. The methods add what
/// the bytes cannot say.
///
/// ```
/// use hotslot::Candidate;
///
/// let bytes = vec![0u8; 16];
/// let candidate = Candidate::new(bytes)
///     .version("1.4.0".parse()?)
///     .config(r#"{"fee": 0.1}"#)
///     .requested_by("alice")
///     .reason("ticket 4711: the new fee");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Candidate {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) version: Option<Version>,
    pub(crate) config: Option<Arc<[u8]>>,
    pub(crate) request: Request,
    pub(crate) force: bool,
}

impl Candidate {
    /// Hashes bytes and configuration.
    pub(crate) fn payload(&self) -> Payload {
        let payload = Payload::new(Arc::clone(&self.bytes));
        match &self.config {
            Some(config) => payload.with_config(Arc::clone(config)),
            None => payload,
        }
    }
}

impl Request {
    /// This, and where it says nothing, `other`.
    pub(crate) fn or(self, other: Request) -> Request {
        let Request { requested_by, reason } = self;
        Request { requested_by: requested_by.or(other.requested_by), reason: reason.or(other.reason) }
    }
}

/// Who asked for a change, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) requested_by: Option<Arc<str>>,
    pub(crate) reason: Option<Arc<str>>,
}

impl Candidate {
    /// Takes the bytes alone.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Candidate {
        Candidate { bytes: bytes.into(), version: None, config: None, request: Request::default(), force: false }
    }

    /// Says the version of an artifact whose bytes do not. If they do, and say another one, it is refused.
    pub fn version(mut self, version: Version) -> Candidate {
        self.version = Some(version);
        self
    }

    /// Hands this configuration to the plugin's `create`, in the place of the backend's own.
    ///
    /// It is part of the plugin's [identity](ArtifactId): the same bytes with another configuration are another plugin,
    /// and a rollback goes back to bytes and configuration alike. A backend whose plugins take no configuration refuses
    /// the candidate.
    pub fn config(mut self, config: impl AsRef<[u8]>) -> Candidate {
        self.config = Some(config.as_ref().into());
        self
    }

    /// Says who or what asks for this: a user, a file watcher, a job. It goes into report, events and log.
    pub fn requested_by(mut self, who: impl Into<Arc<str>>) -> Candidate {
        self.request.requested_by = Some(who.into());
        self
    }

    /// Says why. It goes into report, events and log.
    pub fn reason(mut self, why: impl Into<Arc<str>>) -> Candidate {
        self.request.reason = Some(why.into());
        self
    }

    /// Loads it even if it serves already: a new instance of the same code.
    pub fn force(mut self) -> Candidate {
        self.force = true;
        self
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("bytes", &self.bytes.len())
            .field("version", &self.version)
            .field("config", &self.config.as_ref().map(|config| config.len()))
            .field("requested_by", &self.request.requested_by)
            .field("reason", &self.request.reason)
            .field("force", &self.force)
            .finish()
    }
}

impl From<Vec<u8>> for Candidate {
    fn from(bytes: Vec<u8>) -> Candidate {
        Candidate::new(bytes)
    }
}

impl From<&[u8]> for Candidate {
    fn from(bytes: &[u8]) -> Candidate {
        Candidate::new(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Candidate {
    fn from(bytes: &[u8; N]) -> Candidate {
        Candidate::new(&bytes[..])
    }
}

impl From<&Vec<u8>> for Candidate {
    fn from(bytes: &Vec<u8>) -> Candidate {
        Candidate::new(&bytes[..])
    }
}

impl From<Arc<[u8]>> for Candidate {
    fn from(bytes: Arc<[u8]>) -> Candidate {
        Candidate::new(bytes)
    }
}

/// A candidate on its way to admission: its bytes with their digest, and its configuration. Cloning shares the bytes.
///
/// The bytes are hashed once, here; whoever needs their identity takes it from here.
#[derive(Clone)]
pub struct Payload {
    bytes: Arc<[u8]>,
    config: Option<Arc<[u8]>>,
    id: ArtifactId,
}

impl Payload {
    /// Hashes the bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Payload {
        let bytes = bytes.into();
        let id = ArtifactId { digest: Digest::of(&bytes), config_digest: None };
        Payload { bytes, config: None, id }
    }

    /// Adds a configuration, and hashes that.
    pub fn with_config(mut self, config: impl Into<Arc<[u8]>>) -> Payload {
        let config = config.into();
        self.id.config_digest = Some(Digest::of(&config));
        self.config = Some(config);
        self
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.id.digest
    }

    /// Returns the configuration that the candidate came with.
    pub fn config(&self) -> Option<&Arc<[u8]>> {
        self.config.as_ref()
    }

    /// Returns what makes it the same as another one.
    pub fn id(&self) -> ArtifactId {
        self.id
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("id", &self.id).field("size", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// What a backend found in a payload that it [admits](crate::Backend::admit): the manifest, and whatever it wants to
/// have again when it [loads](crate::Backend::load) it, so that nothing is parsed or compared twice.
///
/// A backend without evidence writes `Ok(manifest.into())`.
#[derive(Clone, Debug)]
pub struct Admission {
    pub(crate) manifest: Manifest,
    pub(crate) evidence: Option<Evidence>,
}

type Evidence = Arc<dyn Any + Send + Sync>;

impl Admission {
    /// Admits what `manifest` describes.
    pub fn new(manifest: Manifest) -> Admission {
        Admission { manifest, evidence: None }
    }

    /// Keeps `evidence` for the load, where [`Artifact::evidence`] gives it back.
    pub fn with_evidence<E: Any + Send + Sync>(mut self, evidence: E) -> Admission {
        self.evidence = Some(Arc::new(evidence));
        self
    }

    /// Returns what the plugin says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl From<Manifest> for Admission {
    fn from(manifest: Manifest) -> Admission {
        Admission::new(manifest)
    }
}

/// An admitted plugin that has not been loaded: the payload, its manifest, and the backend's evidence. Cloning shares
/// them.
#[derive(Clone)]
pub struct Artifact {
    payload: Payload,
    manifest: Arc<Manifest>,
    evidence: Option<Evidence>,
}

impl Artifact {
    /// Puts together what was admitted: for a backend that wraps another one, and for tests of a backend.
    pub fn new(payload: Payload, admission: Admission) -> Artifact {
        let Admission { manifest, evidence } = admission;
        Artifact { payload, manifest: Arc::new(manifest), evidence }
    }

    #[cfg(feature = "native")]
    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Returns the bytes that were admitted, and that run if it is loaded.
    pub fn bytes(&self) -> &[u8] {
        self.payload.bytes()
    }

    /// Returns the digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.payload.digest()
    }

    /// Returns the configuration that the candidate came with.
    pub fn config(&self) -> Option<&Arc<[u8]>> {
        self.payload.config()
    }

    /// Returns what makes it the same as another one.
    pub fn id(&self) -> ArtifactId {
        self.payload.id()
    }

    /// Returns what it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns what the backend kept at admission; `None` if it kept nothing, or something of another type.
    pub fn evidence<E: Any + Send + Sync>(&self) -> Option<&E> {
        self.evidence.as_deref()?.downcast_ref()
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("payload", &self.payload)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}
