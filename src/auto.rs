//! Whatever comes: a slot whose plugins are libraries and modules in turn.

use std::sync::Arc;

use crate::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Payload};

/// A [`Backend`] that looks at the bytes, and lets the backend for their format load them. So one `HotSlot<dyn Trait>`
/// goes from a module to a library of the same plugin, and back, while it serves.
///
/// ```
/// # use hotslot::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Manifest, Payload};
/// # struct Length;
/// # impl Backend<usize> for Length {
/// #     fn admit(&self, _: &Payload) -> Result<Admission, BoxError> { Ok(Manifest::new("length").into()) }
/// #     fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<usize>, BoxError> {
/// #         Ok(Loaded::new(artifact.bytes().len()))
/// #     }
/// # }
/// # let modules = Length;
/// use hotslot::{Auto, HotSlot};
///
/// // Native::interface::<dyn Pricer>() and engine.interface::<dyn Pricer>(), for instance
/// let slot: HotSlot<usize> = HotSlot::builder(Auto::new().modules(modules)).open(b"\0asm\x01\0\0\0")?;
/// let refused = slot.reload(b"\x7fELF").unwrap_err();
/// assert!(refused.to_string().contains("a library"), "{refused}");
/// # Ok::<(), hotslot::Error>(())
/// ```
pub struct Auto<T: ?Sized> {
    libraries: Option<Arc<dyn Backend<T>>>,
    modules: Option<Arc<dyn Backend<T>>>,
}

impl<T: ?Sized + 'static> Auto<T> {
    /// One that takes nothing yet.
    #[allow(clippy::new_without_default, reason = "one that takes nothing is the beginning of one, not a default")]
    pub fn new() -> Auto<T> {
        Auto { libraries: None, modules: None }
    }

    /// With this backend for dynamic libraries: ELF, Mach-O and PE images.
    pub fn libraries(mut self, backend: impl Backend<T>) -> Auto<T> {
        self.libraries = Some(Arc::new(backend));
        self
    }

    /// With this backend for WebAssembly modules.
    pub fn modules(mut self, backend: impl Backend<T>) -> Auto<T> {
        self.modules = Some(Arc::new(backend));
        self
    }

    fn backend_for(&self, bytes: &[u8]) -> Result<&Arc<dyn Backend<T>>, BoxError> {
        let (what, backend) = match bytes {
            [b'\0', b'a', b's', b'm', ..] => ("a WebAssembly module", &self.modules),
            [0x7f, b'E', b'L', b'F', ..] => ("a library (ELF)", &self.libraries),
            [b'M', b'Z', ..] => ("a library (PE)", &self.libraries),
            [0xca, 0xfe, 0xba, 0xbe, ..] | [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xcf, ..] => {
                ("a library (Mach-O)", &self.libraries)
            }
            _ => return Err("this is neither a library (ELF, Mach-O, PE) nor a WebAssembly module".into()),
        };
        backend.as_ref().ok_or_else(|| format!("this is {what}, and this slot has no backend for those").into())
    }
}

impl<T: ?Sized + 'static> Backend<T> for Auto<T> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        self.backend_for(payload.bytes())?.admit(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError> {
        self.backend_for(artifact.bytes())?.load(artifact, context)
    }
}

impl<T: ?Sized> std::fmt::Debug for Auto<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (libraries, modules) = (self.libraries.is_some(), self.modules.is_some());
        f.debug_struct("Auto").field("libraries", &libraries).field("modules", &modules).finish()
    }
}
