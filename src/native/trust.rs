//! What a host promises of the libraries that it loads.

/// The host's promise that the libraries which reach a backend may run in its process.
///
/// A library's constructors run when it is loaded, and what its descriptor says of its functions can only be believed: no
/// check can take the place of trust in whoever made it. So this is the one thing that a host of plugins in libraries has to
/// vouch for, once, in an `unsafe` block.
///
/// ```
/// use hotslot::native::{Native, Trust};
///
/// // SAFETY: this program only loads libraries that we built, and built for it.
/// let trust = unsafe { Trust::assume() };
/// let backend = Native::named_interface("pricer/1", trust);
/// # let _ = backend;
/// ```
///
/// Without the block it does not compile:
///
/// ```compile_fail,E0133
/// # use hotslot::native::{Native, Trust};
/// let backend = Native::named_interface("pricer/1", Trust::assume());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Trust(());

impl Trust {
    /// Trusts every library that passes the backend's admission and the slot's [hooks](crate::Builder::admit).
    ///
    /// # Safety
    /// Each of them must be sound to load and to unload in this process: its constructors, its destructors, and those of
    /// the libraries that it needs. Its descriptor must say the truth, and its functions must keep to the
    /// [ABI](hotslot_plugin::abi), as those of [`export!`](hotslot_plugin::export) do.
    ///
    /// What admission finds wrong is refused, and nothing of such a library runs. A hook that checks a signature is a way to
    /// know who made a library.
    pub const unsafe fn assume() -> Trust {
        Trust(())
    }
}
