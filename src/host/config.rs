//! The bytes that a plugin's `create` gets.

use std::fmt;
use std::sync::Arc;

use crate::{Artifact, Payload};

/// The bytes that a backend configures its plugins with, unless a candidate brings its own.
#[derive(Clone, Default)]
pub(crate) struct Config(pub(crate) Arc<[u8]>);

impl Config {
    /// Returns the configuration of `artifact`, which takes the place of the backend's.
    pub(crate) fn of(&self, artifact: &Artifact) -> Arc<[u8]> {
        Arc::clone(artifact.config().unwrap_or(&self.0))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A candidate came with a configuration, and the plugins of this backend take none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the candidate comes with a configuration, and the plugins of this slot take none, because nothing makes them: leave \
     out Candidate::config, or use a backend whose plugins have a `create`"
)]
#[non_exhaustive]
pub struct ConfigUnsupported;

impl ConfigUnsupported {
    /// Refuses a payload that has a configuration: for the [`admit`](crate::Backend::admit) of a backend whose plugins
    /// take none.
    ///
    /// # Errors
    /// It has one.
    pub fn check(payload: &Payload) -> Result<(), ConfigUnsupported> {
        payload.config().map_or(Ok(()), |_| Err(ConfigUnsupported))
    }
}
