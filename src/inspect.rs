//! Inspects plugin files for any platform: for tools, and for hosts that sort what they are given. Whether *this* process
//! accepts a file is for a backend's [admission](crate::Backend::admit) to decide.

use crate::{BoxError, Inspection};

/// Reads the metadata of a plugin's bytes, for any platform, without running any of them.
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
/// The bytes are neither a library nor a module, or are damaged, or their metadata is malformed.
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
