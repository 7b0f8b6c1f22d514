//! The bytes that a plugin's `create` gets.

use std::fmt;
use std::sync::Arc;

use crate::{Artifact, Payload};

/// What a backend configures its plugins with, unless a candidate brings its own: the same bytes for all, or asked for
/// at each load.
#[derive(Clone)]
pub(crate) enum Config {
    Fixed(Arc<[u8]>),
    Asked(Arc<dyn Fn() -> Vec<u8> + Send + Sync>),
}

impl Config {
    /// Returns the configuration of `artifact`, which takes the place of the backend's.
    pub(crate) fn of(&self, artifact: &Artifact) -> Arc<[u8]> {
        match (artifact.config(), self) {
            (Some(own), _) => Arc::clone(own),
            (None, Config::Fixed(bytes)) => Arc::clone(bytes),
            (None, Config::Asked(ask)) => ask().into(),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::Fixed(Arc::default())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Config::Fixed(bytes) => write!(f, "{} bytes", bytes.len()),
            Config::Asked(_) => f.write_str("asked for at each load"),
        }
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
