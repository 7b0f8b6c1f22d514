//! Inspects a plugin's file, whoever may load it: for tools, and for hosts that sort what they are given. Whether *this* process takes it is for a backend's [admission](crate::Backend::admit) to say.

use crate::{BoxError, Manifest};

/// A plugin's file, looked at from outside.
///
/// Every text in it can be printed as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inspection {
    /// `ELF`, `Mach-O`, `PE` or `WebAssembly`.
    pub format: &'static str,
    /// The machine that it was built for.
    pub architecture: String,
    /// What it says of itself; `None` if it says nothing.
    pub manifest: Option<Manifest>,
    /// What a module asks of its host, each with its type.
    pub imports: Vec<String>,
    /// What a module offers its host, each with its type.
    pub exports: Vec<String>,
}

/// Looks at the bytes of a plugin, for any machine, without running any of it.
///
/// ```
/// # #[cfg(feature = "native")] {
/// let program = std::fs::read(std::env::current_exe()?)?;
/// let found = hotslot::inspect(&program)?;
/// println!("{} for {}", found.format, found.architecture);
/// assert_eq!(found.manifest, None); // not a plugin
/// # }
/// # Ok::<(), hotslot::BoxError>(())
/// ```
///
/// # Errors
/// It is neither a library nor a module, or damaged; or what it says of itself cannot be read.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, BoxError> {
    #[cfg(feature = "wasm")]
    if crate::Format::of(bytes).is_wasm() {
        return Ok(crate::wasm::inspect(bytes)?);
    }
    #[cfg(feature = "native")]
    return crate::native::inspect(bytes);
    #[cfg(not(feature = "native"))]
    Err("this is no WebAssembly module, and the feature `native` reads libraries".into())
}
