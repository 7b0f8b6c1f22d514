//! Bytes for a plugin's `create`.

use std::fmt;
use std::sync::Arc;

/// What each plugin of a backend is configured with: the same for all, or asked for at each load.
#[derive(Clone)]
pub(crate) enum Config {
    Fixed(Arc<[u8]>),
    Asked(Arc<dyn Fn() -> Vec<u8> + Send + Sync>),
}

impl Config {
    /// For the plugin that is being loaded.
    pub(crate) fn bytes(&self) -> Arc<[u8]> {
        match self {
            Config::Fixed(bytes) => Arc::clone(bytes),
            Config::Asked(ask) => ask().into(),
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
        f.write_str(match self {
            Config::Fixed(_) => "fixed",
            Config::Asked(_) => "asked for at each load",
        })
    }
}
