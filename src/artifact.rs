//! The bytes of one plugin, with their digest and their manifest; and what a caller hands in to become one.

use std::fmt;
use std::sync::Arc;

use semver::Version;

use crate::Manifest;

/// The identity of a plugin: the BLAKE3 hash of its bytes, the one that `b3sum` prints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits: enough for a person to tell two plugins apart.
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

/// Bytes that a caller wants to become the serving plugin.
///
/// Whatever can be a byte vector converts into it, so `slot.reload(bytes)` is the usual call. The methods add what
/// the bytes cannot say.
///
/// ```
/// use hotslot::Candidate;
///
/// let bytes = vec![0u8; 16];
/// let candidate = Candidate::new(bytes).version("1.4.0".parse()?).force();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Candidate {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) version: Option<Version>,
    pub(crate) force: bool,
}

impl Candidate {
    /// The bytes alone.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Candidate {
        Candidate { bytes: bytes.into(), version: None, force: false }
    }

    /// Says the version of an artifact whose bytes do not. If they do, and say another one, it is refused.
    pub fn version(mut self, version: Version) -> Candidate {
        self.version = Some(version);
        self
    }

    /// Loads it even if the same bytes serve already: a new instance of the same code.
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

/// An admitted plugin that has not been loaded: bytes, digest and manifest. Cloning shares the bytes.
#[derive(Clone)]
pub struct Artifact {
    bytes: Arc<[u8]>,
    digest: Digest,
    manifest: Arc<Manifest>,
}

impl Artifact {
    pub(crate) fn new(bytes: Arc<[u8]>, digest: Digest, manifest: Manifest) -> Artifact {
        Artifact { bytes, digest, manifest: Arc::new(manifest) }
    }

    /// The bytes that were admitted, and that run if it is loaded.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its identity.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("digest", &self.digest)
            .field("size", &self.bytes.len())
            .field("manifest", &self.manifest)
            .finish()
    }
}
