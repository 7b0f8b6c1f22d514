//! Libraries without a descriptor: any C ABI, bound by the user.

use std::sync::Arc;

use super::image::{Facts, Image};
use super::library::Library;
use super::rehearsal::Part;
use super::{Native, Options, link};
use crate::host::ConfigUnsupported;
use crate::{Admission, Artifact, Backend, BoxError, Digest, LoadContext, Loaded, Manifest, Payload};

/// A [`Backend`] for any shared library: a binder of yours looks its functions up and makes a `T` of them.
///
/// Nothing is known of such a library but its bytes: its identity is their digest, and its version the one that the
/// [candidate](crate::Candidate::version) states.
///
/// ```no_run
/// use hotslot::native::Native;
/// use hotslot::{Candidate, HotSlot};
///
/// struct Gzip {
///     compress_bound: unsafe extern "C" fn(std::ffi::c_ulong) -> std::ffi::c_ulong,
/// }
///
/// // SAFETY: zlib's constructors are harmless, and the type is the one in zlib.h.
/// let backend = unsafe { Native::raw(|library| Ok(Gzip { compress_bound: library.get("compressBound")? })) };
/// let bytes = std::fs::read("/usr/lib/libz.so.1.3")?;
/// let first = Candidate::new(bytes).version("1.3.0".parse()?);
/// let slot = HotSlot::builder(backend.require(["compressBound"])).open(first)?;
/// // SAFETY: the function takes a number and gives one.
/// let most = unsafe { (slot.load().compress_bound)(1000) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RawNative<T> {
    bind: Binder<T>,
    required: Vec<String>,
    options: Options,
}

type Binder<T> = Box<dyn Fn(&Library) -> Result<T, BoxError> + Send + Sync>;

impl Native {
    /// Makes a backend for libraries that follow a C ABI of their own.
    ///
    /// # Safety
    /// Every library that comes into the slot must be sound to load, with its constructors, and the binder must look
    /// its symbols up with their true types. What it puts into `T` is used only as long as the lease that shows it.
    pub unsafe fn raw<T: Send + Sync + 'static>(
        bind: impl Fn(&Library) -> Result<T, BoxError> + Send + Sync + 'static,
    ) -> RawNative<T> {
        link::note_mapped();
        RawNative { bind: Box::new(bind), required: Vec::new(), options: Options::default() }
    }
}

impl<T> RawNative<T> {
    /// Names symbols without which a library is refused at admission, before its code runs.
    pub fn require<S: Into<String>>(mut self, symbols: impl IntoIterator<Item = S>) -> Self {
        self.required.extend(symbols.into_iter().map(Into::into));
        self
    }

    super::loading_options!();

    /// Opens the settings that give up a protection.
    pub fn dangerous(self) -> DangerousRaw<T> {
        DangerousRaw(self)
    }

    /// Reads and checks an image, without running any of it.
    fn examine(&self, bytes: &[u8], digest: Digest) -> Result<Evidence, BoxError> {
        let image = Image::read(bytes)?;
        self.required.iter().try_for_each(|symbol| image.require(symbol))?;
        self.options.check(&image)?;
        Ok(Evidence { digest, facts: image.facts().for_load() })
    }
}

/// The settings of a [`RawNative`] that give up a protection. See [`RawNative::dangerous`].
#[derive(Debug)]
pub struct DangerousRaw<T>(RawNative<T>);

impl<T> DangerousRaw<T> {
    super::linking_allowances!(RawNative<T>);
}

/// What admission found in an image, for the load of the same bytes.
struct Evidence {
    digest: Digest,
    facts: Facts,
}

impl<T: Send + Sync + 'static> Backend<T> for RawNative<T> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        ConfigUnsupported::check(payload)?;
        let evidence = self.examine(payload.bytes(), payload.digest())?;
        Ok(Admission::new(Manifest::default()).with_evidence(evidence))
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError> {
        let found;
        let evidence = match artifact.evidence::<Evidence>().filter(|it| it.digest == artifact.digest()) {
            Some(evidence) => evidence,
            None => {
                found = self.examine(artifact.bytes(), artifact.digest())?;
                &found
            }
        };
        let library = Arc::new(self.options.open(artifact, &evidence.facts, context, &Part::Load)?);
        let keep_alive = self.options.keep_alive(library.clone(), None);
        match (self.bind)(&library) {
            Ok(plugin) => Ok(Loaded::new(plugin).keep_alive(keep_alive)),
            Err(error) => {
                drop(library);
                self.options.give_up(keep_alive);
                Err(error)
            }
        }
    }
}

impl<T> std::fmt::Debug for RawNative<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawNative").field("required", &self.required).field("options", &self.options).finish()
    }
}
