//! What can be learned of a plugin's file without loading it.

use crate::{Linkage, Manifest};

/// The metadata of a plugin's file: what [`inspect`](crate::inspect()) returns.
///
/// Every text in it is safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inspection {
    /// `ELF`, `Mach-O`, `PE` or `WebAssembly`.
    pub format: &'static str,
    /// The architecture that it was built for.
    pub architecture: String,
    /// Its manifest; `None` if it has none.
    pub manifest: Option<Manifest>,
    /// What an image asks of the loader; `None` for a module.
    pub linkage: Option<Linkage>,
    /// A module's imports, each with its type.
    pub imports: Vec<String>,
    /// A module's exports, each with its type.
    pub exports: Vec<String>,
}
