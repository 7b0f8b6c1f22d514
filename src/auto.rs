//! Chooses a backend by file format: a slot whose plugins are libraries and modules in turn.

use std::sync::Arc;

use crate::{Admission, Artifact, Backend, BoxError, Format, LoadContext, Loaded, Payload};

/// A [`Backend`] that looks at the first bytes, and lets the backend for their [`Format`] load them. So one
/// `HotSlot<dyn Trait>` goes from a module to a library of the same plugin, and back, while it serves.
///
/// Formats can be refused with a sentence of yours; those that are not named are refused with one of the library's.
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
/// use hotslot::{Auto, Format, HotSlot};
///
/// // The backends: engine.interface::<dyn Pricer>() and Native::interface::<dyn Pricer>(trust), for instance.
/// let backend = Auto::new()
///     .on(Format::WasmModule, modules)
///     .refuse(Format::LIBRARIES, "libraries could do whatever this program can: build the plugin for wasm32");
/// let slot: HotSlot<usize> = HotSlot::builder(backend).open(b"\0asm\x01\0\0\0")?;
///
/// let refused = slot.reload(b"\x7fELF").unwrap_err();
/// assert!(refused.to_string().contains("build the plugin for wasm32"), "{refused}");
/// let refused = slot.reload(b"!<arch>\n").unwrap_err();
/// assert!(refused.to_string().contains("a static library"), "{refused}");
/// # Ok::<(), hotslot::Error>(())
/// ```
pub struct Auto<T: ?Sized> {
    choices: Vec<(Format, Choice<T>)>,
}

enum Choice<T: ?Sized> {
    Load(Arc<dyn Backend<T>>),
    Refuse(Arc<str>),
}

impl<T: ?Sized> Clone for Choice<T> {
    fn clone(&self) -> Choice<T> {
        match self {
            Choice::Load(backend) => Choice::Load(Arc::clone(backend)),
            Choice::Refuse(reason) => Choice::Refuse(Arc::clone(reason)),
        }
    }
}

impl<T: ?Sized + 'static> Auto<T> {
    /// Begins with one that loads nothing.
    #[allow(clippy::new_without_default, reason = "one that loads nothing is the beginning of one, not a default")]
    pub fn new() -> Auto<T> {
        Auto { choices: Vec::new() }
    }

    /// Lets `backend` load files of this format, or of each of these formats. Of two calls that name the same one, the
    /// later one counts.
    pub fn on(self, formats: impl AsRef<[Format]>, backend: impl Backend<T>) -> Auto<T> {
        self.choose(formats.as_ref(), Choice::Load(Arc::new(backend)))
    }

    /// Refuses files of this format, or of each of these formats, at admission; `reason` is a sentence for whoever
    /// uploaded one.
    pub fn refuse(self, formats: impl AsRef<[Format]>, reason: impl Into<Arc<str>>) -> Auto<T> {
        self.choose(formats.as_ref(), Choice::Refuse(reason.into()))
    }

    fn choose(mut self, formats: &[Format], choice: Choice<T>) -> Auto<T> {
        self.choices.retain(|(known, _)| !formats.contains(known));
        self.choices.extend(formats.iter().map(|format| (*format, choice.clone())));
        self
    }

    fn backend_for(&self, bytes: &[u8]) -> Result<&Arc<dyn Backend<T>>, BoxError> {
        let format = Format::of(bytes);
        match self.choices.iter().find(|(known, _)| *known == format) {
            Some((_, Choice::Load(backend))) => Ok(backend),
            Some((_, Choice::Refuse(reason))) => Err((&**reason).into()),
            None if matches!(format, Format::Unknown | Format::Empty) => {
                Err("this is neither a library (ELF, Mach-O, PE) nor a WebAssembly module".into())
            }
            None => Err(format!("this is {format}, and this slot has no backend for those").into()),
        }
    }
}

impl<T: ?Sized + 'static> Backend<T> for Auto<T> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        self.backend_for(payload.bytes())?.admit(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError> {
        self.backend_for(artifact.bytes())?.load(artifact, context)
    }

    fn taints_threads(&self) -> bool {
        let loads = self.choices.iter().filter_map(|(_, choice)| match choice {
            Choice::Load(backend) => Some(backend),
            _ => None,
        });
        loads.into_iter().any(|backend| backend.taints_threads())
    }
}

impl<T: ?Sized> std::fmt::Debug for Auto<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let choices = self.choices.iter().map(|(format, choice)| (format, matches!(choice, Choice::Load(_))));
        f.write_str("Auto ")?;
        f.debug_map().entries(choices).finish()
    }
}
