//! What a plugin says of itself, read from its bytes before any of them runs.

use std::sync::Arc;

use semver::Version;

use crate::host::Contract;

/// Name, version, interface and state schema of a plugin.
///
/// A backend reads it from the artifact at [admission](crate::Backend::admit). An artifact that says nothing of
/// itself has an empty manifest; then the caller can [say the version](crate::Candidate::version).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Manifest {
    /// The plugin's name, empty if it has none.
    pub name: String,
    /// Its version: a label that people read. The identity of a plugin is its digest.
    pub version: Option<Version>,
    /// The interface that it implements, compared for equality with the host's.
    pub interface: Option<String>,
    /// The layout of the state that it saves, if it saves any.
    pub schema: Option<String>,
    /// The contract of the interface, if it was declared as a trait.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub contract: Option<Arc<Contract>>,
}

impl Manifest {
    /// Creates a manifest with a name, and nothing else.
    pub fn new(name: impl Into<String>) -> Manifest {
        Manifest { name: name.into(), ..Manifest::default() }
    }

    /// Sets the version.
    pub fn with_version(mut self, version: Version) -> Manifest {
        self.version = Some(version);
        self
    }

    /// Sets the interface.
    pub fn with_interface(mut self, interface: impl Into<String>) -> Manifest {
        self.interface = Some(interface.into());
        self
    }

    /// Sets the state schema.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Manifest {
        self.schema = Some(schema.into());
        self
    }
}
