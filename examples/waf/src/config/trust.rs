//! The section [waf.trust]: whose signatures count.

use std::path::PathBuf;

use serde::Deserialize;

/// Whose signatures count, and whether anything is taken without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// The document that says which keys count, as `cargo hotslot trust init` makes it.
    pub root: Option<PathBuf>,
    /// Whether nothing unsigned is taken. If it is not set: where there is a root, and in a fleet.
    pub required: Option<bool>,
}

impl Trust {
    /// Returns whether nothing unsigned is taken.
    pub fn is_required(&self, in_fleet: bool) -> bool {
        self.required.unwrap_or(in_fleet || self.root.is_some())
    }
}
